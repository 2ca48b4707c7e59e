"""Runs a Python program that a model wrote where it can do no harm, or not at all.

Each program gets a bubblewrap container of its own: no network, no environment, no file but the system's libraries and Python's
own (read-only) and a small empty /tmp in memory, no process but its own, and an unprivileged user. As root, limits on a process
do not hold, since the kernel exempts it: there each program runs under a user number that nobody else has, so that the limit on
processes counts its processes alone. Elsewhere it runs in a user namespace, where the kernel counts likewise (Linux 5.14).
Whether all of this holds on the machine is tried out before the first program; where it does not, `SandboxUnavailable` is raised
and no program runs: there is no unsafe way to go on.

Memory is limited for each process, and so all processes of a program together hold at most `processes` times `memory_mb`, and
`files_mb` in /tmp. What this guards against is a program that is careless or greedy; a program that attacks the kernel itself
needs a virtual machine around all of it.
"""

import functools
import itertools
import math
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ultralink_nb.errors import KitError

FIRST_USER = 1_500_000_000  # user numbers from here on, far above those that systems give out
_users = itertools.count(secrets.randbelow(500_000_000))  # so that two notebooks at once do not share a number

# What runs inside: the program comes by standard input, behind a secret line that is handed back only if it ran to its end.
# `exec` in an empty namespace is what OpenAI's HumanEval does: a block under `if __name__ == "__main__"` does not run.
_DRIVER = """
import os, sys
secret, _, program = sys.stdin.buffer.read().decode().partition("\\n")
exec(compile(program, "program.py", "exec"), {})
os.write(int(sys.argv[1]), secret.encode())
"""


class SandboxUnavailable(KitError):
    """This machine has no sandbox that holds; the message says what to install or allow."""


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    seconds: from start to end. memory_mb: address space of one process, in MiB; Python itself needs about 32. processes:
    processes and threads at once, the program included. files_mb: all of /tmp and one file, in MiB. output_kb: what it prints,
    in KiB.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    processes: int = 4
    files_mb: int = 16
    output_kb: int = 64


DEFAULT = Limits()


@dataclass(frozen=True)
class Outcome:
    """What became of a program. ending: `passed` (it ran to its end without an exception), `failed`, `timeout` or `output`
    (it printed too much). output: the end of what it printed, errors included. seconds: from start to end."""

    ending: str
    output: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.ending == "passed"

    @property
    def reason(self) -> str:
        """The last line printed, where the program failed: the exception, as a rule."""
        lines = self.output.strip().splitlines()
        return self.ending if self.ending != "failed" else lines[-1][:200] if lines else "ended before its last line"


def _command(limits: Limits, user: int | None, result: int, tag: str) -> list[str]:
    """The command line; user: the number to become, None for a user namespace. result: the pipe that takes the secret."""
    system = [word for name in ("bin", "lib", "lib64", "lib32") if os.path.islink(f"/{name}")
              for word in ("--symlink", f"usr/{name}", f"/{name}")]
    system += [word for name in ("bin", "lib", "lib64") if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")
               for word in ("--ro-bind", f"/{name}", f"/{name}")]
    python = f"/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs", "--inh-caps=-all",
              "--bounding-set=-all"]
    return [
        "bwrap", *([] if user else ["--unshare-user", "--uid", "65534", "--gid", "65534"]), "--unshare-ipc", "--unshare-pid",
        "--unshare-net", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv",
        "--setenv", "PATH", "/usr/bin", "--setenv", "LD_LIBRARY_PATH", "/python/lib", "--setenv", "PYTHONHASHSEED", "0",
        "--ro-bind", "/usr", "/usr", *system, "--ro-bind", sys.base_prefix, "/python", "--proc", "/proc", "--dev", "/dev",
        "--perms", "1777", "--size", str(limits.files_mb << 20), "--tmpfs", "/tmp", "--chdir", "/tmp", "--hostname", "sandbox",
        "--", *(become if user else []),
        "prlimit", f"--nproc={limits.processes}", f"--as={limits.memory_mb << 20}", f"--fsize={limits.files_mb << 20}",
        "--nofile=64", "--core=0", f"--cpu={math.ceil(limits.seconds) + 1}", "--memlock=0", "--msgqueue=0", "--",
        python, "-I", "-S", "-B", "-c", _DRIVER, str(result), tag,
    ]


def _watch(process: subprocess.Popen, result: int, source: bytes, deadline: float, most: int) -> tuple[str, bytes, bytes]:
    """(why it must be ended or an empty text, what it printed, what came through the pipe `result`), with bounded memory."""
    printed, returned = bytearray(), bytearray()
    assert process.stdin and process.stdout
    with selectors.DefaultSelector() as pipes:
        os.set_blocking(process.stdin.fileno(), False)
        pipes.register(process.stdin, selectors.EVENT_WRITE)
        pipes.register(process.stdout, selectors.EVENT_READ, printed)
        pipes.register(result, selectors.EVENT_READ, returned)
        # A program may close its pipes and go on: the loop ends with the process, and with nothing else.
        while pipes.get_map() or process.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return "timeout", printed, returned
            if not pipes.get_map():
                time.sleep(min(left, 0.02))
                continue
            for key, _ in pipes.select(left):
                if key.fileobj is process.stdin:
                    try:
                        source = source[os.write(key.fd, source[:65536]):]
                    except BrokenPipeError:
                        source = b""
                    if not source:
                        pipes.unregister(process.stdin)
                        process.stdin.close()
                elif chunk := os.read(key.fd, 65536):
                    key.data.extend(chunk)
                    if len(printed) > most or len(returned) > 1024:
                        return "output", printed, returned
                else:
                    pipes.unregister(key.fileobj)
    return "", printed, returned


def _run(program: str, limits: Limits, user: int | None, tag: str) -> Outcome:
    start, secret = time.monotonic(), secrets.token_hex(16)
    source = f"{secret}\n{program}".encode("utf-8", "replace")  # half a surrogate pair is no program
    result, write = os.pipe()
    try:
        process = subprocess.Popen(
            _command(limits, user, write, tag), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=(write,), env={"PATH": os.environ.get("PATH", "/usr/bin")}, cwd="/", start_new_session=True)
    finally:
        os.close(write)
    try:
        ending, printed, returned = _watch(process, result, source, start + limits.seconds, limits.output_kb << 10)
    finally:
        # The end of bubblewrap's first process is the end of every process in its namespace, whatever they ignore.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            pipe.close()
        os.close(result)
    ending = ending or ("passed" if status == 0 and returned == secret.encode() else "failed")
    return Outcome(ending, printed[-2000:].decode("utf-8", "replace"), time.monotonic() - start)


# Forks until it is refused, as a program might: a sandbox in which it is not refused is none. Then whether the rest holds.
_PROBE = """
import os, socket, time
children = 0
try:
    while children < 32:
        if os.fork() == 0:
            time.sleep(9)
        children += 1
except BlockingIOError:
    pass
assert 1 <= children < 8, f"the limit on processes let {children} start"
assert os.getuid() != 0, "it runs as root"
assert not os.path.exists("/etc/passwd") and not os.path.exists("/home"), "files of the machine are to be seen"
assert len(os.environ) < 8, "the environment is to be seen"
try:
    bytearray(1 << 30)
except MemoryError:
    pass
else:
    raise AssertionError("the limit on memory does not hold")
try:
    socket.create_connection(("192.0.2.1", 80), timeout=0.5)
except TimeoutError:
    raise AssertionError("there is a network")
except OSError:
    pass
"""


@functools.cache
def _mode() -> str:
    """`user` (become another user, as root) or `namespace`, whichever holds here; raises `SandboxUnavailable`."""
    tried = []
    missing = [name for name in ("bwrap", "prlimit", "setpriv") if not shutil.which(name)]
    if missing or sys.platform != "linux":
        raise SandboxUnavailable(
            f"generated code runs in a sandbox only, and {', '.join(missing) or 'Linux'} is missing here: install bubblewrap and "
            "util-linux (Debian: apt-get install bubblewrap util-linux), or leave out the evaluations that run code")
    for mode in ("user", "namespace") if os.getuid() == 0 else ("namespace",):
        outcome = _run(_PROBE, Limits(seconds=20), _user(mode), "probe")
        if outcome.passed:
            return mode
        tried.append(f"{mode}: {outcome.reason}")
    raise SandboxUnavailable(
        f"generated code runs in a sandbox only, and none holds on this machine ({'; '.join(tried)}): allow user namespaces "
        "(sysctl user.max_user_namespaces), in a container start it with --security-opt seccomp=unconfined or as root with "
        "CAP_SYS_ADMIN, or leave out the evaluations that run code")


def _user(mode: str) -> int | None:
    return FIRST_USER + next(_users) % 500_000_000 if mode == "user" else None


def sandbox_mode() -> str:
    """How programs are confined here, in words; raises `SandboxUnavailable` where they cannot be."""
    return {"user": "bubblewrap, each program under a user number of its own",
            "namespace": "bubblewrap in a user namespace"}[_mode()]


def run_program(program: str, limits: Limits = DEFAULT, tag: str = "ultralink-sandbox") -> Outcome:
    """Run a Python program (standard library only) to its end or its limits.

    tag: a word in the processes' command lines, to find them by. Raises `SandboxUnavailable`, never runs outside a sandbox.
    """
    return _run(program, limits, _user(_mode()), tag)


def run_programs(programs: Iterable[str], limits: Limits = DEFAULT, concurrency: int | None = None) -> list[Outcome]:
    """The outcomes of programs in their order, `concurrency` of them at once (None: one for each core)."""
    _mode()
    with ThreadPoolExecutor(concurrency or os.cpu_count() or 1) as pool:
        return list(pool.map(lambda program: run_program(program, limits), programs))
