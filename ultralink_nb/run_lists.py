"""What runs there are and how they stand, read from their manifests, executed notebooks and locks; nothing is changed."""

import json
import shlex
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ultralink_nb import runs
from ultralink_nb.parameters import BadParameter


def in_use(folder: Path) -> bool:
    """Whether a runner holds the run's lock now."""
    lock = folder / ".lock"
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder of somebody else's, where no lock can be taken
        return False


def size_on_disk(folder: Path) -> int:
    """Bytes of a run: its folder and its figures; links are counted as links."""
    places = (folder, runs.FIGURES / folder.name)
    return sum(path.lstat().st_size for place in places for path in place.rglob("*") if path.is_file() or path.is_symlink())


def state_of(folder: Path, manifest: Mapping[str, Any]) -> str:
    """`ok`, `failed`, `running`, or `interrupted`: the manifest says running, but nobody holds the lock."""
    if in_use(folder):
        return "running"
    status = manifest.get("status", "unknown")
    return "interrupted" if status == "running" else status


def list_runs(root: Path | None = None) -> list[dict[str, Any]]:
    """All runs, the latest last: run, status, profile, started (ISO 8601), ok and all notebooks begun, seconds, bytes on disk.

    A run whose manifest cannot be read is listed as `unreadable`.
    """
    found = []
    for path in (root or runs.RUNS).glob("*/manifest.json"):
        folder = path.parent
        try:
            manifest = runs.read_manifest(folder)
        except (runs.RunError, OSError):
            manifest = {"status": "unreadable"}
        books = manifest.get("notebooks", [])
        found.append({
            "run": folder.name, "status": state_of(folder, manifest), "profile": manifest.get("profile"),
            "started": manifest.get("started"), "notebooks_ok": sum(entry.get("status") == "ok" for entry in books),
            "notebooks": len(books), "seconds": round(sum(entry.get("seconds", 0) for entry in books), 1),
            "bytes": size_on_disk(folder),
        })
    return sorted(found, key=lambda row: (row["started"] or "", row["run"]))


def status_of(folder: Path) -> dict[str, Any]:
    """How a run stands: its status, each notebook with seconds, memory, outputs and error, and the next step.

    Raises RunError (code 2) for a folder that is no run.
    """
    manifest = runs.read_manifest(folder)
    if not manifest:
        names = ", ".join(row["run"] for row in list_runs(folder.parent)) or "none yet"
        raise runs.RunError(f"{folder} has no manifest.json: it is not a run; there are {names}", 2)
    status = state_of(folder, manifest)
    books = [_notebook(folder, entry, status) for entry in manifest.get("notebooks", [])]
    return {
        "run": folder.name, "status": status, "in_use": status == "running", "profile": manifest.get("profile"),
        "started": manifest.get("started"), "finished": manifest.get("finished"),
        "seconds": round(sum(entry["seconds"] or 0 for entry in books), 1), "bytes": size_on_disk(folder), "notebooks": books,
        "next": _next_step(folder, manifest, status, books),
    }


def _notebook(folder: Path, entry: Mapping[str, Any], run_status: str) -> dict[str, Any]:
    status, seconds = entry.get("status"), entry.get("seconds")
    running = status == "running"
    if running and run_status == "running":  # the manifest was last written when this notebook began
        seconds = round(time.time() - (folder / "manifest.json").stat().st_mtime, 1)
    return {
        "notebook": entry["notebook"], "status": run_status if running else status, "seconds": seconds,
        "peak_memory_mib": entry.get("peak_memory_mib"), "outputs": len(entry.get("outputs", {})),
        "bytes": sum(entry.get("outputs", {}).values()), "error": entry.get("error"),
        "cells": _cells(folder / entry["notebook"]) if running else None, "why": entry.get("why", []),
        "taken_from": entry.get("taken_from"),
    }


def _cells(path: Path) -> str | None:
    """How far papermill is in a notebook that it is executing or was, `12 of 34`; it saves the notebook after each cell."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return None
    code = [cell for cell in cells if cell.get("cell_type") == "code"]
    return f"{sum(cell.get('execution_count') is not None for cell in code)} of {len(code)}"


def command_of(folder: Path, manifest: Mapping[str, Any]) -> str:
    """The command that repeats or resumes a run: its profile, its name, and what differs from the profile."""
    profile, words = str(manifest.get("profile", "demo")), ["ultralink-nb", "run"]
    try:
        given = runs.read_profile(profile)
    except BadParameter:
        return shlex.join([*words, profile, "--run", folder.name])
    changed = {name: value for name, value in manifest.get("parameters", {}).items() if given.get(name, ...) != value}
    options = [word for name, value in changed.items() for word in ("-p", f"{name}={_as_value(value)}")]
    return shlex.join([*words, profile, "--run", folder.name, *options])


def _as_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _next_step(folder: Path, manifest: Mapping[str, Any], status: str, books: list[dict[str, Any]]) -> str:
    if status == "ok":
        report = folder / "report.html"
        return f"open {report}" if report.is_file() else f"ultralink-nb report {folder.name} writes its page"
    if status == "running":
        return "it is in progress: wait for it, or stop it with Ctrl-C where it was started; it resumes where it stopped"
    command = command_of(folder, manifest)
    bad = next((entry["notebook"] for entry in books if entry["status"] in ("failed", "interrupted")), None)
    if status == "failed" and bad:
        return f"look at the last output in {folder / bad}, mend what it says, and resume: {command}"
    return f"resume where it stopped: {command}"


def readable_size(count: float) -> str:
    """Bytes for a person: 1.4 MB, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def readable_time(moment: str | None) -> str:
    """An ISO 8601 moment in the local time zone, to the minute."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M") if moment else ""


def columns(rows: list[dict[str, Any]]) -> str:
    """Rows as a plain text table: numbers to the right, words to the left, columns two blanks apart."""
    if not rows:
        return ""
    cells = [list(rows[0]), *([("" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"
                                if isinstance(value, float) else str(value)) for value in row.values()] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
    right = [all(isinstance(value, (int, float, type(None))) for value in column)
             for column in zip(*(row.values() for row in rows), strict=True)]
    return "\n".join("  ".join(text.rjust(width) if numeric else text.ljust(width)
                               for text, width, numeric in zip(line, widths, right, strict=True)).rstrip() for line in cells)


def _note(entry: Mapping[str, Any]) -> str:
    if entry["status"] == "planned":
        return f"to run: {'; '.join(entry['why'])}"
    if entry["taken_from"]:
        return f"taken over from run {entry['taken_from']}"
    return entry["error"] or (f"{entry['cells']} cells" if entry["cells"] else "")


def list_text(rows: list[dict[str, Any]]) -> str:
    """The list of runs for a terminal."""
    return columns([{
        "run": row["run"], "status": row["status"], "profile": row["profile"], "started": readable_time(row["started"]),
        "notebooks": f"{row['notebooks_ok']} of {row['notebooks']} ok", "seconds": round(row["seconds"]),
        "size": readable_size(row["bytes"]).rjust(7),
    } for row in rows])


def status_text(status: Mapping[str, Any]) -> str:
    """The status of one run for a terminal."""
    head = (f"run {status['run']}: {status['status']}; profile {status['profile']}, started {readable_time(status['started'])}"
            f", {status['seconds']:,.0f} s, {readable_size(status['bytes'])} on disk")
    table = columns([{
        "notebook": entry["notebook"].removesuffix(".ipynb"), "status": entry["status"],
        "seconds": None if entry["seconds"] is None else round(entry["seconds"]),
        "MiB": None if entry["peak_memory_mib"] is None else round(entry["peak_memory_mib"]),
        "files": entry["outputs"], "size": readable_size(entry["bytes"]).rjust(7),
        "note": _note(entry),
    } for entry in status["notebooks"]])
    return "\n".join(part for part in (head, table, f"next: {status['next']}") if part)
