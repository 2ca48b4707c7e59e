"""Sweeps: one run for each value of a parameter, or each combination of several, and a table that sets them side by side.

The runs are siblings of the one that is named, `<run>-threshold-0.3` and so on, each complete in itself. What one of them has
made, the others take over where it was made from the same (runs.py): notebooks before the first that knows a swept parameter run
once. A sweep is resumed by the same command.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from ultralink_nb import freshness
from ultralink_nb.parameters import BadParameter, check_value
from ultralink_nb.profiles import RUNS, RunError, parse_setting, parse_value, without_effect
from ultralink_nb.runs import Request, Step, plan, read_manifest, run


def read_sweeps(texts: Iterable[str]) -> dict[str, list[Any]]:
    """`threshold=0.3,0.5,0.7` as the values by parameter, each checked. Raises BadParameter."""
    sweeps: dict[str, list[Any]] = {}
    for text in texts:
        name, values = parse_setting(text, "--sweep")
        if name in sweeps:
            raise BadParameter(f"--sweep names {name} twice: put its values into one list, {name}=a,b,c")
        try:
            given = parse_value(f"[{values}]")
        except BadParameter:
            raise BadParameter(f"--sweep {text!r}: write {name}=a,b,c, a list among the values as [one, two]") from None
        if name == "run_dir":
            raise BadParameter("run_dir cannot be swept: each run has a folder of its own")
        sweeps[name] = [check_value(name, value) for value in given]
        if len(sweeps[name]) < 2 or any(value in sweeps[name][:at] for at, value in enumerate(sweeps[name])):
            raise BadParameter(f"--sweep {name} needs two or more values, all different, not {values or 'none'}")
    return sweeps


def _slug(value: Any) -> str:
    text = "none" if value is None else "+".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w.+]+", "-", text).strip("-.") or "x"


def siblings(request: Request, sweeps: Mapping[str, Sequence[Any]]) -> list[Request]:
    """One request for each combination of the values, the last parameter changing fastest; all checked before any work.

    Raises BadParameter for a parameter that is also set with -p, that none of the notebooks to run knows, or whose values do
    not hold together with the others, and RunError as a run does.
    """
    if both := sorted(set(sweeps) & set(request.changes)):
        raise BadParameter(f"{both[0]} is given by -p and by --sweep: leave one out")
    if request.start or request.only:
        raise BadParameter("a sweep runs what depends on its parameter and takes over the rest: leave out --from and --only")
    found = []
    for values in product(*sweeps.values()):
        given = dict(zip(sweeps, values, strict=True))
        name = "-".join([request.name, *(f"{key}-{_slug(value)}" for key, value in given.items())])
        if any(name == other.name for other in found):
            name += f"-{freshness.digest(repr(given).encode())[:6]}"
        found.append(Request(request.profile, name, {**request.changes, **given}, end=request.end, force=request.force))
    for one in found:
        _, _, chosen = one.check()
        if names := without_effect(sweeps, chosen):
            raise BadParameter(f"--sweep {names[0]} changes nothing: none of {', '.join(book.stem for book in chosen)} knows it")
    return found


def comparison_folder(request: Request, sweeps: Mapping[str, Sequence[Any]]) -> Path:
    """Where the comparison of a sweep's runs is written."""
    return RUNS / "-".join([request.name, "sweep", *sweeps])


def run_sweep(
    requests: Sequence[Request], base: str, say: Callable[[str], None], report: Callable[[Path], Any]
) -> list[RunError]:
    """Execute the runs of a sweep one after the other; returns what went wrong with those that failed, the others run on.

    base: the run they are siblings of, of which they take over what fits; report: called with the folder of each run that took
    place. Raises RunError when stopped.
    """
    errors = []
    for number, one in enumerate(requests, 1):
        say(f"sweep {number}/{len(requests)}: run {one.name}")
        try:
            run(one.profile, one.name, one.changes, one.force, say, end=one.end,
                donors=[base, *(other.name for other in requests[: number - 1])])
            report(RUNS / one.name)
        except RunError as error:
            if error.code > 128:
                raise RunError(f"{str(error).partition(';')[0]}; nothing that was finished is lost, and the same command "
                               "resumes the sweep", error.code) from None
            if error.code == 1:
                report(RUNS / one.name)
            errors.append(error)
            say(f"run {one.name}: {error}")
    return errors


def plan_sweep(requests: Sequence[Request], base: str) -> list[list[Step]]:
    """What each run of a sweep would do; a notebook that `base` or an earlier one makes from the same is marked as taken over."""
    plans = [plan(one) for one in requests]
    made = [(base, {entry["notebook"]: entry["basis"] for entry in read_manifest(RUNS / base).get("notebooks", [])
                    if entry.get("status") == "ok" and "basis" in entry})]
    for one, steps in zip(requests, plans, strict=True):
        for at, step in enumerate(steps):
            same = [name for name, bases in made if all(_alike(a.basis, bases.get(a.book.name)) for a in steps[: at + 1])]
            if (step.why or step.after) and same and not one.force:
                step.taken_from = same[0]
        made.append((one.name, {step.book.name: step.basis for step in steps}))
    return plans


def _alike(one: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    return other is not None and all(one[part] == other[part] for part in ("code", "parameters", "inputs", "package"))
