"""A run killed with SIGKILL at random instants and resumed each time, compared with a run that nobody disturbed.

    python benchmarks/kill_run.py [--profile demo] [--kills 10] [--seed 1] [--to 06] [--scratch FOLDER] [-p NAME=VALUE ...]

Both runs have the same name, each in a workspace of its own with a copy of the notebooks and the package, so that an edit during
the benchmark reruns nothing, and with an empty cache. The instants are drawn evenly over the seconds of the undisturbed run's
notebooks and taken in order: an instant is a notebook and a number of seconds after it began. Each kill is a SIGKILL to the
runner alone; its kernel is left to the kit. The next command starts at once. The last one is left to its end.

Printed for each: the notebook and the second, which notebooks it ran and whether it found a kernel still at work. Then every
table of both runs is compared, row for row and column for column, in order; nothing is left out. Exit code
1 if anything differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent


def make_workspace(folder: Path) -> Path:
    """A copy of the notebooks and of the package, which Python finds before the installed one."""
    for name in ("notebooks", "ultralink_nb"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    return folder


def start(folder: Path, options: argparse.Namespace) -> subprocess.Popen:
    """The runner in a workspace, its lines in run.log."""
    command = [sys.executable, "-m", "ultralink_nb.cli", "run", options.profile, "--run", "run", "--to", options.to]
    command += [word for setting in options.p for word in ("-p", setting)]
    with (folder / "run.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def manifest_of(folder: Path) -> dict:
    """The manifest of the run in a workspace; empty before there is one."""
    path = folder / "papermill_runs" / "run" / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def begun(folder: Path, notebook: str) -> bool:
    """Whether the command at work has come to a notebook, by its log."""
    return f"] {Path(notebook).stem}: " in (folder / "run.log").read_text(encoding="utf-8")


def said(folder: Path) -> str:
    """Which notebooks the last command ran, from its log."""
    lines = (folder / "run.log").read_text(encoding="utf-8").splitlines()
    ran = [line.split("] ")[1][:2] for line in lines if ": running, since" in line]
    return (f"ran {', '.join(ran) or 'none'}, skipped {sum('up to date, skipped' in line for line in lines)}"
            + ("; a kernel was still at work" if any("its kernel" in line for line in lines) else ""))


def differences(one: Path, other: Path) -> list[str]:
    """What differs between the tables of two runs, by file."""
    names = sorted({path.relative_to(root).as_posix() for root in (one, other) for path in root.rglob("*.parquet")})
    found = []
    for name in names:
        if not all((root / name).is_file() for root in (one, other)):
            found.append(f"{name} is in one of them only")
            continue
        left, right = (pq.read_table(root / name) for root in (one, other))
        if left.schema != right.schema:
            found.append(f"{name}: the columns differ")
            continue
        unequal = [column for column in left.column_names if not _same(left[column], right[column])]
        if unequal:
            found.append(f"{name} ({len(left):,} and {len(right):,} rows): {', '.join(unequal)}")
    print(f"{len(names)} tables compared")
    return found


def _same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> bool:
    return left.combine_chunks().equals(right.combine_chunks()) or left.to_pylist() == right.to_pylist()


def undisturbed(folder: Path, options: argparse.Namespace) -> None:
    """The run that nobody kills, in a workspace of its own."""
    began = time.monotonic()
    if start(make_workspace(folder), options).wait():
        sys.exit(f"the run that nobody disturbs failed:\n{(folder / 'run.log').read_text(encoding='utf-8')}")
    print(f"undisturbed: {time.monotonic() - began:.0f} s, {said(folder)}", flush=True)


def killed_and_resumed(folder: Path, options: argparse.Namespace, books: list[dict]) -> int:
    """The run that is killed at random instants, resumed each time and at last left to its end; returns the number of kills."""
    make_workspace(folder)
    draw, kills = random.Random(options.seed), 0
    for instant in sorted(draw.uniform(0, sum(book["seconds"] for book in books)) for _ in range(options.kills)):
        at = 0
        while instant > books[at]["seconds"]:
            instant -= books[at]["seconds"]
            at += 1
        name, process = books[at]["notebook"], start(folder, options)
        while process.poll() is None and not begun(folder, name):
            time.sleep(0.02)
        try:
            process.wait(instant)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        kills += process.returncode == -signal.SIGKILL
        what = "killed" if process.returncode == -signal.SIGKILL else "ended before"
        print(f"{what} {instant:.1f} s into {name[:2]}: {said(folder)}", flush=True)
    if start(folder, options).wait():
        sys.exit((folder / "run.log").read_text(encoding="utf-8"))
    print(f"left to its end: {said(folder)}", flush=True)
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the instants")
    parser.add_argument("--to", default="06", help="the last notebook")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch, ignore_cleanup_errors=True) as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        undisturbed(whole, options)
        kills = killed_and_resumed(killed, options, manifest_of(whole)["notebooks"])
        manifest = manifest_of(killed)
        states = {entry["status"] for entry in manifest["notebooks"]}
        found = differences(*(folder / "papermill_runs" / "run" for folder in (whole, killed)))
        print("\n".join(found) or f"identical; {kills} kills; every notebook {', '.join(states)}")
    sys.exit(bool(found) or states != {"ok"} or manifest["status"] != "ok")


if __name__ == "__main__":
    main()
