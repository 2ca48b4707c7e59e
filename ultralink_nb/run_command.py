"""The command `ultralink-nb run`: what it takes, what it says, and what a shell completes."""

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ultralink_nb import profiles, runs, sweeps
from ultralink_nb.parameters import PARAMETERS, BadParameter


def stop(message: str, code: int) -> None:
    """End the command with one sentence on stderr and an exit code."""
    print(f"ultralink-nb: {message}", file=sys.stderr, flush=True)
    raise typer.Exit(code)


def sayer() -> Callable[[str], None]:
    """Prints a line at once: as it is on a terminal, with date and time where a log is written."""
    if sys.stdout.isatty():
        return lambda text: print(text, flush=True)
    return lambda text: print(f"{datetime.now().isoformat(' ', 'seconds')} {text}", flush=True)


def complete_profiles(incomplete: str) -> list[str]:
    """Profiles of the kit whose names begin so."""
    return sorted(path.stem for path in profiles.PROFILES.glob(f"{incomplete}*.yaml"))


def complete_runs(incomplete: str) -> list[str]:
    """Runs whose names begin so."""
    return sorted(path.parent.name for path in profiles.RUNS.glob(f"{incomplete}*/manifest.json"))


def complete_parameters(incomplete: str) -> list[tuple[str, str]]:
    """Parameters whose names begin so, each with what it is; after the equals sign its choices, where it has some."""
    name, separator, value = incomplete.partition("=")
    if separator:
        return [(f"{name}={choice}", "") for choice in PARAMETERS[name].choices if choice.startswith(value)] \
            if name in PARAMETERS else []
    return [(f"{known}=", parameter.help) for known, parameter in PARAMETERS.items()
            if known.startswith(incomplete) and known != "run_dir"]


def complete_notebooks(incomplete: str) -> list[str]:
    """Notebooks whose names begin so."""
    return sorted(path.stem for path in profiles.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")
                  if path.stem.startswith(incomplete) and not path.stem.startswith("00"))


def run(
    profile: Annotated[str, typer.Argument(
        help="a name in notebooks/profiles/, or a YAML file of parameters", autocompletion=complete_profiles)] = "demo",
    name: Annotated[str | None, typer.Option(
        "--run", help="the run's name; by default the profile's", autocompletion=complete_runs)] = None,
    parameter: Annotated[list[str] | None, typer.Option(
        "-p", metavar="NAME=VALUE", help="a parameter over the profile; may be given often",
        autocompletion=complete_parameters)] = None,
    sweep: Annotated[list[str] | None, typer.Option(
        metavar="NAME=A,B,C", help="a run for each value, and a comparison; given twice: for each combination",
        autocompletion=complete_parameters)] = None,
    start: Annotated[str | None, typer.Option(
        "--from", metavar="NN", help="run this notebook and those after it, also if up to date",
        autocompletion=complete_notebooks)] = None,
    end: Annotated[str | None, typer.Option(
        "--to", metavar="NN", help="stop after this notebook; by default after 06", autocompletion=complete_notebooks)] = None,
    only: Annotated[list[str] | None, typer.Option(
        metavar="NN", help="run just this notebook; may be given often", autocompletion=complete_notebooks)] = None,
    force: Annotated[bool, typer.Option("--force", help="run every notebook, also those that are up to date")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would run, why and with what; touch nothing")] = False,
    store: Annotated[str | None, typer.Option(
        metavar="URL", help="mirror the run to object storage, s3://bucket/prefix; pulled from there first if it is not here",
        envvar="ULTRALINK_STORE")] = None,
) -> None:
    """Run the notebooks in order, skip what is up to date, report.

    A notebook runs again if its code, its parameters, the files that they
    name, the package's code or the tables before it changed, or if
    something that it wrote is gone; the reason is said. Text between the
    cells may change freely. What was stopped or killed goes on with the
    same command. What can be wrong with a profile is said before any work.

    Notebooks 01 to 06 make the dataset and are what runs. Those after them
    are named with --to, --from or --only: 7, 07 or 07_fine_tuning.

    Exit codes: 0 done; 1 a notebook failed; 2 a wrong parameter or usage;
    3 another run is at work in the folder; 130 stopped by Ctrl-C, 143 by
    SIGTERM, 129 by the loss of its terminal.

    Examples: the embedded sample; a profile with one parameter changed;
    what would run, and why; prune again and nothing else; fine-tune and
    evaluate after the dataset; three runs side by side, compared.

    ultralink-nb run

    ultralink-nb run wiki --run mine -p max_documents=500

    ultralink-nb run demo -p policy=coverage --dry-run

    ultralink-nb run demo --only 05 -p budget=0.6

    ultralink-nb run demo --from 07 --to 08

    ultralink-nb run demo --sweep threshold=0.3,0.5,0.7
    """
    say = sayer()
    try:
        changes = {}
        for item in parameter or []:
            key, value = profiles.parse_setting(item)
            changes[key] = runs.parse_value(value)
        request = runs.Request(profile, name or Path(profile).stem, changes, start, end, tuple(only or ()), force)
        if sweep:
            if store and not dry_run:
                raise BadParameter("--store mirrors one run: leave it out of a sweep, or name each run on its own")
            _sweep(request, sweeps.read_sweeps(sweep), dry_run, say)
        elif dry_run:
            for note in runs.notes(request):
                print(note)
            _print_plan(request.name, runs.plan(request))
        else:
            _run_one(request, say, store)
    except (BadParameter, runs.RunError) as error:
        stop(str(error), getattr(error, "code", 2))
    except OSError as error:  # a full disk, a folder that may not be written
        stop(f"{error}; what was finished is kept, and the same command goes on", 1)
    except KeyboardInterrupt as stopped:  # before or after the notebooks
        stop("stopped; the same command goes on", getattr(stopped, "code", 130))


def _report(folder: Path) -> Path:
    from ultralink_nb import report  # what it is made with takes seconds to import, too long for a shell's completion

    return report.write_report(folder)


def _mirror(request: runs.Request, store: str, say: runs.Say) -> Callable[[], bool]:
    """Bring a run that is not here from a store, and return what sends it there; a store that is away does not stop a run."""
    from ultralink_nb import storage

    folders = runs.RUNS / request.name, runs.FIGURES / request.name
    if not (folders[0] / "manifest.json").is_file():
        try:
            say(f"pulled {len(storage.pull(store, *folders))} files of run {request.name} from its store")
        except storage.NoSuchRun:
            pass

    def send() -> bool:
        try:
            storage.push(*folders, store)
            return True
        except storage.StorageError as error:
            say(f"note: {error} The run is whole in {folders[0]}; the same command sends it again")
            return False

    return send


def _run_one(request: runs.Request, say: runs.Say, store: str | None = None) -> None:
    folder = runs.RUNS / request.name
    request.check()
    send = _mirror(request, store, say) if store else lambda: True
    try:
        _run_and_report(request, folder, send, say)
    except runs.RunError as error:
        if error.code != 3:  # else it is the other run's to send
            send()
        raise
    if not send():
        raise runs.RunError(f"run {request.name} is done, but not all of it is in its store", 1)


def _run_and_report(request: runs.Request, folder: Path, send: Callable[[], object], say: runs.Say) -> None:
    try:
        manifest = runs.run(request.profile, request.name, request.changes, request.force, say, start=request.start,
                            end=request.end, only=request.only, after=send)
    except runs.RunError as error:
        if error.code == 1:
            _report(folder)
        raise
    path = _report(folder)
    entries = [entry for entry in manifest["notebooks"] if entry["status"] == "ok"]
    seconds, peak = sum(entry["seconds"] for entry in entries), max(entry["peak_memory_mib"] for entry in entries)
    say(f"run {request.name}: {len(entries)} notebooks ok, {seconds:.0f} s, at most {peak:,.0f} MiB; open {path}")


def _print_plan(name: str, steps: list[runs.Step]) -> None:
    for step in steps:
        what = ", ".join(f"{key}={value!r}" for key, value in step.basis["parameters"].items()) or "its defaults"
        if step.taken_from:
            print(f"{step.book.stem}: would be taken over from run {step.taken_from}, which makes it from the same")
        elif step.why:
            print(f"{step.book.stem}: would run, since {'; '.join(step.why)}\n    with {what}")
        elif step.after:
            print(f"{step.book.stem}: would run if {step.after} writes other tables than before\n    with {what}")
        else:
            print(f"{step.book.stem}: up to date")
    count = sum(bool(step.why and not step.taken_from) for step in steps)
    print(f"run {name}: {count} of {len(steps)} notebooks would run; nothing was touched")


def _sweep(request: runs.Request, values: dict, dry_run: bool, say: runs.Say) -> None:
    requests = sweeps.siblings(request, values)
    if dry_run:
        for one, steps in zip(requests, sweeps.plan_sweep(requests, request.name), strict=True):
            _print_plan(one.name, steps)
        return
    errors = sweeps.run_sweep(requests, request.name, say, _report)
    folders = [runs.RUNS / one.name for one in requests if (runs.RUNS / one.name / "manifest.json").is_file()]
    if len(folders) > 1:
        from ultralink_nb import compare  # draws, which a run need not wait for

        paths = compare.write_comparison(folders, sweeps.comparison_folder(request, values))
        print(compare.readable(compare.compare_runs(folders)).to_string(index=False), flush=True)
        say(f"sweep: {len(requests) - len(errors)} of {len(requests)} runs ok; open "
            f"{next(path for path in paths if path.suffix == '.html')}")
    if errors:
        raise runs.RunError(f"{len(errors)} of {len(requests)} runs did not finish; the same command goes on with them",
                            min(error.code for error in errors))
