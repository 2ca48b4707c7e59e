"""Profiles and notebooks: which parameters a run has, which notebooks it takes, and all that is checked before any work.

A profile is one flat YAML of parameters for all notebooks. The notebooks depend on one another in the order of their numbers:
01 to 06 make the dataset and are what a run does unless told otherwise, those after them are run when asked for, and 00, which
only explains, is never part of a run.
"""

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ultralink_nb.parameters import PARAMETERS, BadParameter, check_profile

NOTEBOOKS, PROFILES, RUNS, FIGURES = Path("notebooks"), Path("notebooks/profiles"), Path("papermill_runs"), Path("figures")
DATASET = "06"  # the notebook that finishes the dataset: a run ends there unless --to or --from says otherwise
OWN_SAMPLES = "04"  # with samples_path, the stages that make samples are not part of a run


class RunError(Exception):
    """A run that cannot start or did not finish; the message is one sentence, `code` the exit code for a scheduler."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def notebooks() -> list[Path]:
    """The numbered notebooks in order, without 00; RunError if the command was not started in the repository's root."""
    found = sorted(book for book in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb") if not book.name.startswith("00"))
    if not found:
        raise RunError("no notebooks/ here: start the command in the root of the repository", 2)
    return found


def defaults(notebook: Path) -> dict[str, Any]:
    """The parameters of a notebook with their defaults: the plain literals of its `parameters` cell."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = next(("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])), "")
    given = [statement for statement in ast.parse(source).body if isinstance(statement, ast.Assign)]
    return {target.id: ast.literal_eval(statement.value) for statement in given for target in statement.targets
            if isinstance(target, ast.Name)}


def known_parameters(notebook: Path) -> list[str]:
    """Names in a notebook's `parameters` cell."""
    return list(defaults(notebook))


def find_notebook(name: str, books: Sequence[Path]) -> Path:
    """A notebook by its number (4, 04) or name (04_redundancy_analysis); BadParameter with a suggestion for neither."""
    wanted = Path(name).name.removesuffix(".ipynb")
    for book in books:
        if wanted == book.stem or wanted.isdecimal() and wanted.zfill(2) == book.stem[:2]:
            return book
    stems = [book.stem for book in books]
    close = get_close_matches(wanted, [*stems, *(stem[3:] for stem in stems)], n=1, cutoff=0.5)
    meant = next((stem for stem in stems if close and stem.endswith(close[0])), "")
    raise BadParameter(f"no notebook {name}{f'; did you mean {meant}?' if meant else ''} (there are {', '.join(stems)})")


def scope(parameters: Mapping[str, Any]) -> list[Path]:
    """The notebooks that a run with these parameters rests on: samples of one's own need none of those that make samples."""
    books = notebooks()
    return [book for book in books if book.name >= OWN_SAMPLES or not parameters.get("samples_path")] or books


def choose(books: Sequence[Path], start: str | None = None, end: str | None = None, only: Iterable[str] = ()) -> list[Path]:
    """The notebooks from `start` to `end`, or only those named. Raises BadParameter for an unknown name or an empty choice."""
    only = list(only)
    if only and (start or end):
        raise BadParameter("--only names the notebooks by itself: leave out --from and --to")
    if only:
        return sorted({find_notebook(name, books) for name in only})
    first = find_notebook(start, books) if start else books[0]
    dataset = [book for book in books if book.name[:2] <= DATASET]
    last = find_notebook(end, books) if end else dataset[-1] if first in dataset else books[-1]
    chosen = [book for book in books if first <= book <= last]
    if not chosen:
        raise BadParameter(f"nothing to run: {first.stem} comes after {last.stem}")
    return chosen


def read_profile(profile: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parameters of a profile, a name in notebooks/profiles/ or a YAML file, with `changes` over them, all checked.

    Raises BadParameter with one sentence for an unknown profile, a file that is not a flat mapping, or a wrong name or value.
    """
    path = Path(profile) if profile.endswith((".yaml", ".yml")) else PROFILES / f"{profile}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in PROFILES.glob("*.yaml"))
        if not known:
            raise BadParameter(f"no {PROFILES}/ here: start the command in the root of the repository")
        close = get_close_matches(Path(profile).stem, known, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise BadParameter(f"no profile {profile}: there is no file {path}; the kit has {', '.join(known)}{meant}")
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


def parse_setting(text: str, option: str = "-p") -> tuple[str, str]:
    """`name=value` of a command line as name and text of the value. Raises BadParameter."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise BadParameter(f"{option} takes name=value, not {text!r}")
    return name.strip(), value


def check_together(parameters: Mapping[str, Any], books: Iterable[Path]) -> None:
    """What single values do not show: parameters that contradict one another in the notebooks to be run. Raises BadParameter."""
    known = [defaults(book) for book in books]
    value = {name: default for one in known for name, default in one.items()}
    value.update({name: given for name, given in parameters.items() if name in value})
    least, most = value.get("min_document_tokens"), value.get("max_document_tokens")
    if least is not None and most is not None and least > most:
        raise BadParameter(f"min_document_tokens is {least:,} and max_document_tokens {most:,}: no document has both")
    model = value.get("chat_model")
    if model and value.get("base_url") and (model == "replay" or model.startswith(("transformers:", "llama:"))):
        raise BadParameter(f"chat_model is {model}, which asks no server: leave base_url empty, or name the model that it serves")
    if (value.get("price_prompt") is None) != (value.get("price_completion") is None):
        raise BadParameter("price_prompt and price_completion belong together: give both, or neither")
    languages = value.get("languages")
    if languages and (extra := sorted(set(value.get("language_order") or []) - set(languages))):
        raise BadParameter(f"language_order names {', '.join(extra)}, but the run's languages are {', '.join(languages)}")
    if languages and value.get("policy") == "paper" and value.get("source_language") not in languages:
        raise BadParameter(f"policy paper keeps source_language {value.get('source_language')} in full, but it is not among the "
                           f"run's languages {', '.join(languages)}")


def without_effect(names: Iterable[str], books: Iterable[Path]) -> list[str]:
    """Those of the parameters that none of the notebooks knows."""
    known = {name for book in books for name in known_parameters(book)}
    return sorted(name for name in names if name in PARAMETERS and name not in known)
