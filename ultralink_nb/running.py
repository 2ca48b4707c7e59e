"""One notebook executed by papermill: its kernel, its memory, what it wrote, and how it is stopped.

The lock on a run's folder belongs to who writes there. The kernel inherits it, so that where a run was killed and its kernel
outlives it by a moment, the folder is in use until the kernel is gone, too. A kernel left behind is ended by the next run.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

import psutil
from filelock import FileLock, Timeout
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager
from traitlets import DottedObjectName, Int, Type, Unicode
from traitlets.config import Config

from ultralink_nb.freshness import hash_file
from ultralink_nb.profiles import FIGURES, RunError

_MARK = "ULTRALINK_NB_RUN"  # in the environment of a kernel: the process that started it, and the run's folder


class Stopped(KeyboardInterrupt):
    """The run was asked to stop; `code` is what a shell reports for the signal: 130 Ctrl-C, 143 SIGTERM, 129 terminal lost."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class _WakefulChannel(AsyncZMQSocketChannel):
    """Looks at its socket once a second, too: asyncio misses a reply at times that comes while a widget's message is sent, and
    a run would wait for it for ever."""

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """See AsyncZMQSocketChannel; timeout in seconds, None for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))
            try:
                return await super().get_msg(left)
            except Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    raise


class RunKernelClient(AsyncKernelClient):
    """A client of the kernel that loses no reply."""

    shell_channel_class = Type(_WakefulChannel)
    iopub_channel_class = Type(_WakefulChannel)


class RunKernelManager(AsyncKernelManager):
    """Starts the kernel with the lock's file open and a mark by which it is found again if it is left behind."""

    client_class = DottedObjectName(f"{__name__}.RunKernelClient")
    client_factory = Type(RunKernelClient)
    lock_fd = Int(-1).tag(config=True)
    mark = Unicode("").tag(config=True)

    async def start_kernel(self, **kwargs: Any) -> None:
        """Start the kernel; see AsyncKernelManager."""
        kwargs["env"] = {**os.environ, **(kwargs.get("env") or {}), _MARK: self.mark}
        if os.name == "posix":
            kwargs["pass_fds"] = (self.lock_fd,)
        await super().start_kernel(**kwargs)


@contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[int]:
    """The lock on a run's folder, as the number of its open file. Raises RunError with code 3 while another run has it.

    Kernels that a killed run left behind are ended first.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        left = _left_behind(folder)
        for process in left:
            process.kill()
        if left:
            say(f"{folder}: the last run was killed; its kernel, which was still at work, was ended")
        try:
            lock.acquire(timeout=30 if left else 1)
        except Timeout:
            raise RunError(f"{folder} is in use by another run: wait for it, or give this one another --run name", 3) from None
    try:
        yield lock._context.lock_file_fd or -1
    finally:
        lock.release()


def _left_behind(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            runner, _, marked = process.environ().get(_MARK, "").partition(" ")
            if marked == str(folder.resolve()) and not psutil.pid_exists(int(runner)):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a lost terminal raise Stopped, once: while the kernel is being ended, a second one changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return

    def stop(number: int, frame: Any) -> None:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # that a kernel which is being ended has died is no news
        raise Stopped(number)

    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        signals.append(signal.SIGHUP)
    before = [signal.signal(one, stop) for one in signals]
    try:
        yield
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)


@contextmanager
def _peak_memory() -> Iterator[dict[str, float]]:
    """Highest memory of this process's children together (the kernel and what it starts), in MiB, seen every 0.2 s."""
    peak, stop = {"mib": 0.0}, threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not stop.wait(0.2):
            total = 0
            for child in me.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.Error:
                    continue
            peak["mib"] = max(peak["mib"], total / 2**20)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _files(folder: Path, release: str | None) -> dict[str, tuple[int, int, int]]:
    """Files of a run but its notebooks, with what tells whether one was written since."""
    places = (folder / "data", Path(release or folder / "release"), FIGURES / folder.name)
    states = {path.as_posix(): path.stat() for place in places for path in place.rglob("*") if path.is_file()}
    return {name: (state.st_ino, state.st_size, state.st_mtime_ns) for name, state in sorted(states.items())
            if not name.endswith(".part")}


def execute(book: Path, folder: Path, parameters: Mapping[str, Any], lock_fd: int, title: str, entry: dict[str, Any]) -> None:
    """Run one notebook in a run's folder and fill its entry in the manifest: status, error, seconds, memory, what it wrote.

    With a terminal, a bar shows the cells done. Raises Stopped after the kernel was ended and the entry filled.
    """
    import papermill  # here, since it takes a second that a dry run or a completion does not need

    # Kernels talk over Unix sockets where there are any: no port that another user of the machine could listen on. What they
    # log about themselves, such as the interrupt that ends them, is not shown; what a cell prints or raises is in its notebook.
    config = Config({
        "KernelManager": {"transport": "ipc" if os.name == "posix" else "tcp"},
        "RunKernelManager": {"lock_fd": lock_fd, "mark": f"{os.getpid()} {folder.resolve()}"},
        "NotebookClient": {"extra_arguments": ["--log-level=50"], "kernel_manager_class": RunKernelManager},
    })
    bar = {"desc": title, "leave": False, "dynamic_ncols": True} if sys.stderr.isatty() else False
    release = parameters.get("release_dir")
    before, clock, error, stopped = _files(folder, release), time.monotonic(), None, None
    with _peak_memory() as peak:
        try:
            papermill.execute_notebook(str(book), str(folder / book.name), parameters=dict(parameters), kernel_name="python3",
                                       progress_bar=bar, log_output=False, config=config)
        except papermill.PapermillExecutionError as failure:
            error = f"{failure.ename}: {failure.evalue}"
        except Stopped as signalled:
            error, stopped = f"stopped by {signalled}", signalled
        except Exception as failure:  # a kernel that died, a full disk
            error = f"{type(failure).__name__}: {failure}"
    written = [name for name, state in _files(folder, release).items() if before.get(name) != state]
    entry.update(
        status="interrupted" if stopped else "failed" if error else "ok", seconds=round(time.monotonic() - clock, 2),
        peak_memory_mib=round(peak["mib"], 1), outputs={name: Path(name).stat().st_size for name in written},
        hashes={name: hash_file(Path(name)) for name in written},
    )
    if error:
        entry["error"] = error
    if stopped:
        raise stopped
