"""Each program here tries to do harm. It must fail, and afterwards the machine must be as it was."""

import os
import shutil
import time
from pathlib import Path

import psutil
import pytest

from ultralink_nb import sandbox
from ultralink_nb.sandbox import Limits, SandboxUnavailable, run_program, run_programs

LIMITS = Limits(seconds=1.5, memory_mb=256, processes=4, files_mb=8, output_kb=32)


@pytest.fixture(scope="module", autouse=True)
def available():
    try:
        sandbox.sandbox_mode()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def left_over(tag):
    return [process.info for process in psutil.process_iter(["pid", "cmdline"]) if tag in (process.info["cmdline"] or [])]


HARM = {
    "fork bomb": ("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", {"timeout", "failed"}),
    "endless loop": ("while True: pass", {"timeout"}),
    "sleep": ("import time; time.sleep(100)", {"timeout"}),
    "10 GB": ("x = bytearray(10 << 30)", {"failed"}),
    "much memory in steps": ("x = []\nwhile True: x.append(bytearray(1 << 20))", {"failed"}),
    "much memory in children": (
        "import os, time\nfor _ in range(8): os.fork()\nx = bytearray(10 << 30)", {"failed", "timeout"}),
    "threads": ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()",
                {"failed", "timeout"}),
    "prints forever": ("while True: print('x' * 1000)", {"output"}),
    "prints forever to the raw file": ("import os\nwhile True: os.write(2, b'x' * 65536)", {"output"}),
    "fills /tmp": ("for n in range(100): open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))", {"failed"}),
    "one large file": ("f = open('/tmp/a', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()", {"failed"}),
    "socket": ("import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)", {"failed"}),
    "local server": ("import socket\nsocket.create_connection(('127.0.0.1', PORT), timeout=1)", {"failed"}),
    "writes outside": ("open('PLACE/stolen', 'w').write('x')", {"failed"}),
    "writes to the system": ("open('/usr/bin/stolen', 'w').write('x')", {"failed"}),
    "writes to Python": ("import os\nopen(os.__file__, 'a').write('x')", {"failed"}),
    "reads shadow": ("open('/etc/shadow').read()", {"failed"}),
    "reads home": ("import os\nos.listdir('HOME')", {"failed"}),
    "reads the run's folder": ("import os\nassert os.listdir('PLACE')", {"failed"}),
    "the key": ("import os\nassert 'PLANTED' in os.environ\nprint(os.environ['PLANTED'])", {"failed"}),
    "a parent's environment": ("print(open('/proc/1/environ').read())\nassert 'planted-secret' in open('/proc/1/environ').read()",
                               {"failed"}),
    "becomes root": ("import os\nos.setuid(0)", {"failed"}),
    "gives up early": ("import os\nos._exit(0)", {"failed"}),
    "exits early": ("raise SystemExit(0)", {"failed"}),
    "closes everything and goes on": (
        "import os, signal, time\nfor s in (15, 1, 2): signal.signal(s, signal.SIG_IGN)\nos.closerange(0, 64)\ntime.sleep(100)",
        {"timeout"}),
    "no Python": ("def f(:", {"failed"}),
    "nul": ("x = 1\0", {"failed"}),
    "half a surrogate pair": ("x = '\ud800", {"failed"}),
    "raises": ("raise ValueError('because')", {"failed"}),
}


@pytest.mark.parametrize("what", HARM)
def test_harm_is_contained_and_counts_as_a_failure(what, tmp_path, monkeypatch):
    import socket

    monkeypatch.setenv("PLANTED", "planted-secret")
    (tmp_path / "there").write_text("x")
    program, endings = HARM[what]
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = program.replace("PORT", str(server.getsockname()[1])).replace("PLACE", str(tmp_path))
        before = time.monotonic()
        outcome = run_program(program.replace("HOME", str(Path.home())), LIMITS, tag := f"harm-{os.getpid()}-{abs(hash(what))}")
    assert not outcome.passed and outcome.ending in endings, outcome
    assert time.monotonic() - before < LIMITS.seconds + 3
    assert "planted-secret" not in outcome.output and len(outcome.output) <= 2000
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and not Path("/usr/bin/stolen").exists()
    time.sleep(0.05)
    assert left_over(tag) == []


def test_a_child_of_a_child_does_not_outlive_the_program():
    tag = f"outlives-{os.getpid()}"
    outlives = (
        "import os, sys, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
        f"    os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60)', '{tag}'])\n  os._exit(0)\n"
        "time.sleep(0.3)"
    )
    assert run_program(outlives, LIMITS, tag).passed  # what it did until its end was in order; what it left behind is gone
    time.sleep(0.05)
    assert left_over(tag) == []


def test_the_reason_names_the_exception_and_what_passes_passes():
    assert run_program("raise ValueError('because')", LIMITS).reason == "ValueError: because"
    assert "MemoryError" in run_program("x = bytearray(10 << 30)", LIMITS).reason
    assert run_program("while True: pass", LIMITS).reason == "timeout"
    outcome = run_program("import math, json, collections, re, hashlib\nassert math.gcd(12, 18) == 6\nprint('é')", LIMITS)
    assert outcome.passed and outcome.output == "é\n"
    assert run_program("if __name__ == '__main__': raise ValueError", LIMITS).passed  # as in the reference
    assert run_program("x = 1\n" * 200_000, Limits(seconds=20)).passed  # more than a pipe holds


def test_many_at_once_keep_their_order():
    programs = [f"assert {n} % 3" for n in range(24)]
    assert [outcome.passed for outcome in run_programs(programs, LIMITS, 6)] == [bool(n % 3) for n in range(24)]


def test_one_programs_fork_bomb_does_not_touch_another():
    bomb = HARM["fork bomb"][0]
    forks = "import os\nfor _ in range(2):\n  if os.fork() == 0: os._exit(0)\n  os.wait()"
    endings = [outcome.ending for outcome in run_programs([bomb, forks, bomb, forks], LIMITS, 4)]
    assert endings[1] == endings[3] == "passed" and "passed" not in (endings[0], endings[2])


def test_without_a_sandbox_no_program_runs(monkeypatch, tmp_path):
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **more: None if name == "bwrap" else real(name, **more))
    sandbox._mode.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable, match="bwrap is missing here: install bubblewrap"):
            run_program(f"open('{tmp_path}/ran', 'w')")
        with pytest.raises(SandboxUnavailable):
            run_programs(["pass"])
    finally:
        sandbox._mode.cache_clear()
    assert not (tmp_path / "ran").exists()


def test_a_sandbox_that_does_not_hold_is_refused(monkeypatch):
    """Whatever the command claims: as root the kernel exempts a user namespace from the limit on processes."""
    real = sandbox._command

    def without_limit(limits, user, result, tag):
        return [word for word in real(limits, user, result, tag) if not word.startswith("--nproc")]

    monkeypatch.setattr(sandbox, "_command", without_limit)
    sandbox._mode.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable, match="the limit on processes let 32 start"):
            run_program("pass")
    finally:
        sandbox._mode.cache_clear()
