"""Vectors on disk by the hash of their text: one SQLite file an encoder, which a killed run finds again as it was.

Vectors are appended, and a small index leads from a key to a vector's number. The same as a table clustered by the key rewrites
a page for nearly every vector, since hashes fall anywhere. Vectors are kept in float16: a cosine of two vectors of length one
changes by about 1e-5, far below what any encoder means, and the file is half as large. Who reads gets these rounded vectors
whether they are new or old, so that a second run gives the same numbers as the first.
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ultralink_nb.errors import KitError

KEY = np.dtype("S16")  # compares as bytes do: trailing zeros, which it drops when printed, are still in memory
_VERSION = 1
_MARKS = 900  # values in one statement; older builds of SQLite allow 999
_TABLES = """
CREATE TABLE IF NOT EXISTS about (identity TEXT NOT NULL, dimension INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, vector BLOB NOT NULL);
"""


class CacheError(KitError, RuntimeError):
    """A cache of embeddings that cannot be read or written; the message names the file and says what to do."""


def text_keys(texts: Iterable[str]) -> np.ndarray:
    """The 128-bit BLAKE2b hashes of the texts, shape (n,), dtype `KEY`."""
    digests = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype=KEY)


def _as_bytes(keys: np.ndarray) -> list[bytes]:
    held = keys.tobytes()
    return [held[start : start + KEY.itemsize] for start in range(0, len(held), KEY.itemsize)]


class VectorCache:
    """The vectors of one encoder. For one thread; several processes may share a file.

    Raises `CacheError` if the file is damaged, belongs to another encoder or dimension, is locked, or the disk is full.
    """

    def __init__(self, path: str | Path, identity: str, dimension: int) -> None:
        self.path, self.dimension = Path(path), dimension
        self._waiting: list[tuple[bytes, bytes]] = []
        self._written = time.monotonic()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"{path}: its folder cannot be made ({error.strerror}): set cache_dir to another") from None
        with self._explained():
            self._connection = sqlite3.connect(self.path, timeout=60)
        try:
            self._open(identity)
        except BaseException:
            self._connection.close()
            raise

    def _open(self, identity: str) -> None:
        run = self._connection.execute
        with self._explained():
            run("PRAGMA page_size=16384")  # about fifteen vectors of 512 dimensions; has no effect on a file that exists
            run("PRAGMA journal_mode=WAL")
            run("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_TABLES)
            version = run("PRAGMA user_version").fetchone()[0]
            held = run("SELECT identity, dimension FROM about").fetchone()
            if held is None:
                with self._connection:
                    run(f"PRAGMA user_version={_VERSION}")
                    run("INSERT INTO about VALUES (?, ?)", (identity, self.dimension))
        if held and (version, *held) != (_VERSION, identity, self.dimension):
            raise CacheError(
                f"{self.path} holds vectors of {held[1]} dimensions from {held[0]} (version {version} of the file), not of "
                f"{self.dimension} from {identity} (version {_VERSION}): delete the file, or set cache_dir to another folder"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            said = str(error)
            if "full" in said:
                advice = "the disk is full: free some space, or set cache_dir to another disk; what was written before is kept"
            elif "locked" in said or "busy" in said:
                advice = "another process is writing to it: wait until that has ended, or set cache_dir to another folder"
            elif isinstance(error, sqlite3.OperationalError):
                advice = "it cannot be opened or written: check the folder's permissions, or set cache_dir to another folder"
            else:
                advice = "it is damaged: delete it, and its texts are encoded again"
            raise CacheError(f"cache of embeddings {self.path}: {advice} (SQLite says: {said})") from error

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The numbers of the vectors of `keys` (n,), shape (n,), int64; -1 where there is none. Sorted keys are fastest."""
        self.flush()
        numbers = np.full(len(keys), -1, dtype=np.int64)
        wanted = _as_bytes(keys)
        for start in range(0, len(wanted), _MARKS):
            part = wanted[start : start + _MARKS]
            found = dict(self._select("SELECT key, number FROM vectors WHERE key IN", part))
            if found:
                numbers[start : start + len(part)] = [found.get(key, -1) for key in part]
        return numbers

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """The vectors with these numbers (n,), shape (n, dimension), float16."""
        distinct, back = np.unique(numbers, return_inverse=True)
        found: list[bytes] = []
        for start in range(0, len(distinct), _MARKS):
            part = distinct[start : start + _MARKS].tolist()
            found += [blob for _, blob in sorted(self._select("SELECT number, vector FROM vectors WHERE number IN", part))]
        if len(found) != len(distinct) or any(len(blob) != 2 * self.dimension for blob in found):
            raise CacheError(f"cache of embeddings {self.path}: it is damaged: delete it, and its texts are encoded again")
        return np.frombuffer(b"".join(found), dtype=np.float16).reshape(len(distinct), self.dimension)[back]

    def _select(self, statement: str, values: Sequence[bytes | int]) -> list[tuple]:
        with self._explained():
            return self._connection.execute(f"{statement} ({','.join('?' * len(values))})", values).fetchall()

    def put(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Keep the vectors (n, dimension) of `keys` (n,); they are written with the next `put` that comes a second later."""
        self._waiting += zip(_as_bytes(keys), (row.tobytes() for row in vectors.astype(np.float16)), strict=True)
        if len(self._waiting) >= 5000 or time.monotonic() - self._written > 1:
            self.flush()

    def flush(self) -> None:
        """Write what waits. A key that another process has written meanwhile keeps that vector."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            with self._explained(), self._connection:
                self._connection.executemany("INSERT OR IGNORE INTO vectors (key, vector) VALUES (?, ?)", waiting)
        self._written = time.monotonic()

    def __enter__(self) -> "VectorCache":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.flush()
        finally:
            self._connection.close()
