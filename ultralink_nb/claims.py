"""Who is asking what: a claim on a key that holds among all processes of a machine and ends with its process.

A claim is the lock of one byte of a file, at an offset drawn from the key. The kernel keeps the locks, so there is nothing to
write, nothing to wait for on disk, and nothing left behind by a process that was killed.
"""

import asyncio
import errno
import fcntl
import os
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_POLL = 0.05  # seconds between two tries for a key that is held elsewhere


class Claims:
    """Claims by way of one lock file, made where it is missing. A file system without locks keeps no processes apart."""

    def __init__(self, path: str | Path):
        self._file = open(path, "ab")  # noqa: SIM115 (closing it would give up every claim)
        self._mine: set[str] = set()  # the kernel does not keep apart what asks through one open file
        self._lock = threading.Lock()

    @asynccontextmanager
    async def held(self, key: str) -> AsyncIterator[None]:
        """Alone with `key`, a hexadecimal digest; waits while another process, thread or task holds it."""
        while not self._take(key):
            await asyncio.sleep(_POLL)
        try:
            yield
        finally:
            self._give_back(key)

    def _take(self, key: str) -> bool:
        with self._lock:
            if key in self._mine or not self._set(key, fcntl.F_WRLCK):
                return False
            self._mine.add(key)
            return True

    def _give_back(self, key: str) -> None:
        with self._lock:
            self._mine.discard(key)
            if not self._file.closed:
                self._set(key, fcntl.F_UNLCK)

    def _set(self, key: str, kind: int) -> bool:
        offset = int(key[:15], 16)  # 60 bits: two keys at one byte only ever wait for each other
        try:
            if hasattr(fcntl, "F_OFD_SETLK"):  # Linux: the lock belongs to this open file, not to the whole process
                fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, offset, 1, 0))
            else:
                operation = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
                fcntl.lockf(self._file, operation, 1, offset)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def close(self) -> None:
        """Give up every claim."""
        self._file.close()
