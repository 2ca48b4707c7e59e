"""The command `ultralink-nb`. Exit codes: 0 done, 1 a notebook failed, 2 wrong parameters or usage, 3 the run is in use."""

import sys
from typing import Annotated

import typer

from ultralink_nb import outcome, runs
from ultralink_nb import report as reports
from ultralink_nb.parameters import BadParameter

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, help=__doc__)


def _stop(message: str, code: int) -> None:
    print(f"ultralink-nb: {message}", file=sys.stderr)
    raise typer.Exit(code)


@app.command()
def run(
    profile: Annotated[str, typer.Argument(help="a name in notebooks/profiles/, or a YAML file of parameters")] = "demo",
    name: Annotated[str | None, typer.Option("--run", help="the run's name; by default the profile's")] = None,
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value, over the profile; may be given often")] = None,
    force: Annotated[bool, typer.Option(help="run every notebook, also those that are up to date")] = False,
) -> None:
    """Run all notebooks in order, resume where an earlier run stopped, and write the manifest and the report."""
    changes = {}
    try:
        for item in parameter or []:
            key, separator, value = item.partition("=")
            if not separator:
                _stop(f"-p takes name=value, not {item!r}", 2)
            changes[key.strip()] = runs.parse_value(value)
        name = name or runs.Path(profile).stem
        manifest = runs.run(profile, name, changes, force, say=lambda text: print(text, flush=True))
        path = reports.write_report(runs.RUNS / name)
    except BadParameter as error:
        _stop(str(error), 2)
    except runs.RunError as error:
        if error.code == 1:
            reports.write_report(runs.RUNS / name)
        _stop(str(error), error.code)
    seconds = sum(entry["seconds"] for entry in manifest["notebooks"])
    peak = max(entry["peak_memory_mib"] for entry in manifest["notebooks"])
    print(f"run {name}: {len(manifest['notebooks'])} notebooks ok, {seconds:.0f} s, at most {peak:,.0f} MiB; open {path}")


@app.command()
def report(name: Annotated[str, typer.Argument(help="the run's name")]) -> None:
    """Write a run's report.html again."""
    try:
        print(reports.write_report(runs.RUNS / name))
    except runs.RunError as error:
        _stop(str(error), error.code)


@app.command()
def undo(
    name: Annotated[str, typer.Argument(help="the run's name")],
    ids: Annotated[list[str] | None, typer.Argument(help="ids to take back; none: every dropped row")] = None,
) -> None:
    """Take dropped rows back into a run's kept.parquet, at their old places."""
    try:
        print(f"{outcome.undo(runs.RUNS / name / 'data', ids or None):,} rows taken back")
    except outcome.BadOutcome as error:
        _stop(str(error), 1)


if __name__ == "__main__":
    app()
