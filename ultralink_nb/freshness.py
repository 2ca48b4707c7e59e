"""Whether a notebook is up to date, and if not, why: what it was made from, then and now, side by side.

The basis of a notebook is what its results depend on: its code cells, its own parameters, the files that they name, the modules
of the package that it imports (with those that they import, and all data in the package), and the results of the notebooks
before it. All are hashes but the parameters, so that a reason can name what changed. Markdown is not part of it, and neither is
the run's name: what another run made from the same basis may be taken over.
"""

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from glob import glob
from pathlib import Path
from typing import Any

from ultralink_nb.profiles import RunError, known_parameters

PACKAGE = Path(__file__).parent
_MODELS = ("encoder", "model", "tokenizer")  # a parameter whose name ends so may name a model's folder or file
_NAMED_ELSEWHERE = ("hub:", "://")  # not a file of this machine
_ENDED = {
    "running": "it was killed half way", "interrupted": "it was interrupted", "failed": "it failed the last time",
    "planned": "the last run ended before it",
}


def digest(*parts: bytes) -> str:
    """16 hexadecimal digits of SHA-256 over the parts, each on its own."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


def hash_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces; by this process once, unless the file was written since."""
    state = path.stat()
    return _hash(path, state.st_ino, state.st_size, state.st_mtime_ns)


@cache
def _hash(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(basis: Mapping[str, Any]) -> str:
    """One hash of a basis."""
    return digest(json.dumps(basis, sort_keys=True, ensure_ascii=False).encode())


def code_of(notebook: Path) -> list[str]:
    """The sources of a notebook's code cells."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@cache  # by content, not by path: a file that is edited during a long sweep is read again
def _imported(source: str) -> frozenset[str] | None:
    """Modules of the package that a source imports anywhere in it; None if it is not plain Python (a magic command)."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return None
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return frozenset(parts[1] for name in names if (parts := name.split("."))[0] == PACKAGE.name and len(parts) > 1)


def package_of(sources: Sequence[str]) -> dict[str, str]:
    """Hashes of what some code uses of the package, by file or folder of data: modules imported directly or by another."""
    found = {"__init__.py": digest((PACKAGE / "__init__.py").read_bytes())}
    everything = {path.stem for path in PACKAGE.glob("*.py")}
    waiting, seen = list(sources), set()
    while waiting:
        for module in everything if (names := _imported(waiting.pop())) is None else names:
            path = PACKAGE / f"{module}.py"
            if module not in seen and path.is_file():
                text = path.read_bytes()
                found[path.name] = digest(text)
                waiting.append(text.decode())
            seen.add(module)
    for folder in sorted(path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"):
        files = sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        found[f"{folder.name}/"] = digest(*(part for file in files for part in (str(file.relative_to(folder)).encode(),
                                                                               file.read_bytes())))
    return found


def named_files(parameters: Mapping[str, Any]) -> list[Path]:
    """Every file that parameters name: those ending in `_path`, and models in files or folders; RunError where one names none.

    What lies elsewhere (on the hub, or behind a URL) is known by its name alone.
    """
    found: list[Path] = []
    for name, value in parameters.items():
        for one in (value if isinstance(value, list) else [value]) if name.endswith("_path") and value else []:
            if any(mark in one for mark in _NAMED_ELSEWHERE):
                continue
            path = Path(one)
            named = path.rglob("*") if path.is_dir() else [path] if path.is_file() else map(Path, glob(one, recursive=True))
            files = sorted(file for file in named if file.is_file())
            if not files:
                raise RunError(f"parameter {name}: {one} names no file", 2)
            found += files
        if name.endswith(_MODELS) and isinstance(value, str) and value:  # a model of one's own
            path = Path(value.removeprefix("transformers:").removeprefix("llama:"))
            found += sorted(file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    return found


def own_parameters(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's parameters that a notebook knows."""
    known = known_parameters(notebook)
    return {name: value for name, value in parameters.items() if name in known}


def basis_of(notebook: Path, folder: Path, own: Mapping[str, Any], before: Mapping[str, str]) -> dict[str, Any]:
    """What a notebook's results in a run's folder depend on.

    own: its parameters without run_dir; before: the results of the notebooks before it, by name. Raises RunError for an input
    that is not there.
    """
    known, sources = known_parameters(notebook), code_of(notebook)
    inputs = {str(file): hash_file(file) for file in named_files(own)}
    labels = folder / "data" / "labels.jsonl"
    if "labels_path" in known and not own.get("labels_path") and labels.is_file():  # written by the form in notebook 04
        inputs["data/labels.jsonl"] = hash_file(labels)
    own = dict(own)
    if "release_name" in known and not own.get("release_name"):
        own["release_name"] = folder.name  # a release that is not named is named after its run
    return {"code": digest(*(source.encode() for source in sources)), "parameters": own, "inputs": inputs,
            "package": package_of(sources), "before": dict(before)}


def results_of(hashes: Mapping[str, str], folder: Path) -> str:
    """One hash of the tables and other files that a notebook wrote into a run's data folder."""
    data = folder / "data"
    inside = {Path(path).relative_to(data).as_posix(): value for path, value in hashes.items() if Path(path).is_relative_to(data)}
    return digest(json.dumps(inside, sort_keys=True).encode())


def results_on_disk(entry: Mapping[str, Any], folder: Path) -> str:
    """The same hash of what a notebook wrote as it lies there now, should `undo` or a person have changed it since."""
    now = {path: ((hash_file(Path(path)) if Path(path).is_file() else "gone") if path in entry["outputs"] else value)
           for path, value in entry["hashes"].items()}
    return results_of(now, folder)


def _shown(value: Any) -> str:
    text = "empty" if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 60 else f"{text[:57]}…"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name) or (name in then) != (name in now)]


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two bases, each as a reason that a person can read."""
    found = []
    if then["code"] != now["code"]:
        found.append("the notebook's code changed")
    for name in _differing(then["parameters"], now["parameters"]):
        old, new = (_shown(side[name]) if name in side else "its default" for side in (then["parameters"], now["parameters"]))
        found.append(f"{name} changed {old} -> {new}")
    for name in _differing(then["inputs"], now["inputs"]):
        gone, new = name not in now["inputs"], name not in then["inputs"]
        found.append(f"{name} {'is read no more' if gone else 'is a new input' if new else 'changed'}")
    if names := _differing(then["package"], now["package"]):
        found.append(f"the package's code changed ({_listed(names)})")
    if names := [name for name in _differing(then["before"], now["before"]) if now["before"].get(name, "none") != ""]:
        found.append(f"{_listed(names)} ran before it, with other results")  # "": it has yet to run
    return found


def missing(folder: Path, entry: Mapping[str, Any]) -> list[str]:
    """What a notebook wrote and what is no longer there as it wrote it, as reasons: its executed copy, tables, figures."""
    found = [] if (folder / entry["notebook"]).is_file() else [f"{folder / entry['notebook']} is gone"]
    for name, size in entry["outputs"].items():
        path = Path(name)
        inside = path.relative_to(folder) if path.is_relative_to(folder) else path
        if not path.is_file():
            found.append(f"{inside} is gone")
        elif path.stat().st_size != size or hash_file(path) != entry["hashes"][name]:
            found.append(f"{inside} changed")
    return found if len(found) <= 3 else [*found[:3], f"{len(found) - 3} more files are gone or changed"]


def reasons(folder: Path, entry: Mapping[str, Any] | None, basis: Mapping[str, Any]) -> list[str]:
    """Why a notebook must run, given its entry in the manifest and what it would be made from now; empty if up to date."""
    if not entry:
        return ["it has not run yet"]
    if entry.get("status") != "ok":
        return [_ENDED.get(entry.get("status", ""), "it did not finish")]
    if "basis" not in entry:
        return ["it was run by an earlier version of the kit"]
    return [*changes(entry["basis"], basis), *missing(folder, entry)]
