"""Make runs of the notebooks, look at them, compare them.

A run is a folder in papermill_runs/ with its executed notebooks, its tables and one page, report.html. Commands start in the
root of the repository. Each command's --help has examples; these are the first steps:

ultralink-nb doctor

ultralink-nb run demo

ultralink-nb status demo

ultralink-nb run demo --run strict -p threshold=0.8

ultralink-nb compare demo strict

Exit codes: 0 done; 1 it failed; 2 a wrong parameter or usage; 3 another run is at work in the folder.
"""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ultralink_nb import costs, outcome, run_command, run_lists, runs
from ultralink_nb.ledger import Ledger, LedgerError, open_ledger
from ultralink_nb.parameters import BadParameter

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, help=__doc__)


def _run_names(incomplete: str) -> list[str]:
    """Runs whose names begin so, for the shell's completion."""
    return sorted(path.parent.name for path in runs.RUNS.glob(f"{incomplete}*/manifest.json"))


def _stop(message: str, code: int) -> None:
    print(f"ultralink-nb: {message}", file=sys.stderr)
    raise typer.Exit(code)


app.command()(run_command.run)
_JSON = typer.Option("--json", help="print JSON for a program instead of a table")


@app.command()
def pull(
    url: Annotated[str, typer.Argument(metavar="URL", help="the store, as given to run --store")],
    name: Annotated[str, typer.Argument(metavar="RUN", help="the run's name")],
) -> None:
    """Bring a run back from object storage; files that are the same stay.

    Credentials come from the environment, as AWS_ACCESS_KEY_ID. Afterwards
    `run --store` goes on with it; it also pulls by itself where the run is
    not on this machine yet.

    Example:

    ultralink-nb pull s3://bucket/prefix demo
    """
    from ultralink_nb import storage
    from ultralink_nb.running import locked

    if not name or Path(name).name != name or name.startswith("."):
        _stop(f"a run's name is a plain folder name, not {name!r}", 2)
    folder = runs.RUNS / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, print):
            came = storage.pull(url, folder, runs.FIGURES / name)
    except (storage.StorageError, runs.RunError) as error:
        _stop(str(error), getattr(error, "code", 1))
    print(f"{len(came)} files came; see ultralink-nb status {name}")


@app.command("list")
def list_all(json_output: Annotated[bool, _JSON] = False) -> None:
    """All runs: how they stand, when they started, how long they took, what they take on disk.

    The latest run comes last. `ok`, `failed` and `running` speak for themselves;
    `interrupted` was killed, and resumes when the same `run` command is given
    again. To be rid of a run, delete papermill_runs/RUN and figures/RUN.

    Examples:

    ultralink-nb list

    ultralink-nb list --json | jq '.[] | select(.status == "failed") | .run'
    """
    rows = run_lists.list_runs()
    if json_output:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        print(run_lists.list_text(rows) or "no runs yet: ultralink-nb run demo makes the first")


@app.command()
def status(
    name: Annotated[str, typer.Argument(metavar="RUN", help="the run's name", autocompletion=_run_names)],
    json_output: Annotated[bool, _JSON] = False,
) -> None:
    """How one run stands, notebook by notebook, and what to do next.

    Of each notebook: seconds, peak memory, files written, its error; of the one
    that is executed right now, the cell it has come to. Exit code 0 whatever the
    run's status, 2 if there is no such run.

    Examples:

    ultralink-nb status demo

    watch -n 5 ultralink-nb status demo

    ultralink-nb status demo --json | jq -r .status
    """
    try:
        found = run_lists.status_of(runs.RUNS / name)
    except runs.RunError as error:
        _stop(str(error), error.code)
    print(json.dumps(found, indent=1, ensure_ascii=False) if json_output else run_lists.status_text(found))


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="two runs or more", autocompletion=_run_names)],
    target: Annotated[Path | None, typer.Option("--to", help="folder of the comparison; by default in papermill_runs/compared/")]
    = None,
) -> None:
    """Runs side by side: the parameters in which they differ, and what came of it.

    Prints a table with one row a run: rows, pairs from the threshold on, groups,
    kept and dropped rows, kept rows of each language, seconds; and, for runs with
    the parameter truth_column, how many drops were right (precision) and how many
    repetitions were found (recall). The same goes to comparison.csv and to
    comparison.html with a figure, which is there as PNG and SVG, too.

    Examples:

    ultralink-nb run demo --run strict -p threshold=0.8

    ultralink-nb compare demo strict

    ultralink-nb compare demo strict --to papermill_runs/compared/thresholds
    """
    from ultralink_nb import compare as comparing

    folders = [runs.RUNS / name for name in names]
    target = target or runs.RUNS / "compared" / "_".join(names)[:120]
    try:
        table = comparing.compare_runs(folders)
        paths = comparing.write_comparison(folders, target)
    except runs.RunError as error:
        _stop(str(error), error.code)
    except OSError as error:
        _stop(f"{target} cannot be written: {error.strerror}", 1)
    print(run_lists.columns(comparing.readable(table).to_dict("records")))
    print(f"in {target}: {', '.join(path.name for path in paths)}")


@app.command()
def report(name: Annotated[str, typer.Argument(metavar="RUN", help="the run's name", autocompletion=_run_names)]) -> None:
    """Write a run's page again: report.html, one file with everything that it shows.

    Every table and figure of its notebooks, with contents, parameters, inputs and
    versions; pictures are inside the file, so that it can be sent alone. `run`
    writes it, too; after plain papermill or a crash it is written here. A run
    that failed or is in progress gets a page of what there is.

    Example: ultralink-nb report demo
    """
    from ultralink_nb import report as reports  # takes seconds to import, too long for a shell's completion

    try:
        print(reports.write_report(runs.RUNS / name))
    except runs.RunError as error:
        _stop(str(error), error.code)


@app.command()
def doctor(
    profile: Annotated[str, typer.Argument(help="the profile whose models and inputs are looked for")] = "demo",
    json_output: Annotated[bool, _JSON] = False,
) -> None:
    """Is this machine ready? Python, packages, GPU, models, sandbox, disk, fonts, rights.

    Each finding is `ok`, a `note` (the kit does without it) or a `problem`, with
    advice. No key is ever shown, only whether its variable is set. Exit code 0
    without a problem, 1 with one, 2 for a profile that does not hold.

    Examples:

    ultralink-nb doctor

    ultralink-nb doctor wiki

    ultralink-nb doctor --json | jq '.[] | select(.level != "ok")'
    """
    from ultralink_nb import doctor as doctors

    try:
        findings = doctors.examine(profile)
    except BadParameter as error:
        _stop(str(error), 2)
    print(doctors.as_json(findings) if json_output else doctors.as_text(findings))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


@app.command()
def undo(
    name: Annotated[str, typer.Argument(metavar="RUN", help="the run's name", autocompletion=_run_names)],
    ids: Annotated[list[str] | None, typer.Argument(help="ids to take back; none: every dropped row")] = None,
) -> None:
    """Take dropped rows back into a run's kept.parquet, at their old places.

    What pruning dropped lies whole in dropped.parquet, so that nothing is lost.
    Notebook 06 makes the release anew from what is kept then; notebook 05, run
    again, prunes again.

    Examples:

    ultralink-nb undo demo

    ultralink-nb undo demo zh-0012 fr-0007
    """
    try:
        back = outcome.undo(runs.RUNS / name / "data", ids or None)
        print(f"{back:,} {'row' if back == 1 else 'rows'} taken back; ultralink-nb run PROFILE --run {name} --only 06 makes the "
              "release anew")
    except outcome.BadOutcome as error:
        _stop(str(error), 1)


@app.command()
def ledger(
    cache_dir: Annotated[Path, typer.Option(help="the folder that holds the ledger: a notebook's parameter of this name")]
    = Path(".cache"),
    since: Annotated[str | None, typer.Option(help="count from then on: 2026-03-01, 2026-03-01T12:30, 90m, 36h or 7d")] = None,
    failures: Annotated[int, typer.Option(help="list this many of the latest failures with their reasons", min=0)] = 0,
    export: Annotated[Path | None, typer.Option(help="write every row to this file, JSONL: answers, tokens, causes")] = None,
    prices: Annotated[Path | None, typer.Option(
        help="a YAML file of prices, one line a model: a-model: {prompt: 0.15, completion: 0.60}")] = None,
    price_prompt: Annotated[float | None, typer.Option(help="US dollars for a million prompt tokens, whatever model")] = None,
    price_completion: Annotated[float | None, typer.Option(help="the same for completion tokens")] = None,
) -> None:
    """What was asked of chat models, and what it cost, by model and task.

    Tasks are question and answer (notebook 02), sift and translate (03).
    `cached` counts answers taken from the ledger instead of paid for again,
    `saved` is what they would have cost. A price that you do not state is
    unknown, not zero. The ledger holds neither prompts nor keys.

    Exit code 1: there is no ledger. Examples:

    ultralink-nb ledger --since 7d --prices prices.yaml

    ultralink-nb ledger --failures 20

    ultralink-nb ledger --export completions.jsonl
    """
    if not (cache_dir / "ledger.sqlite").is_file():
        _stop(f"there is no ledger of completions in {cache_dir}: notebooks 02 and 03 make one when they ask a server; name "
              "another folder with --cache-dir", 1)
    try:
        start = costs.read_since(since) if since else 0.0
        stated = {"prices_path": prices, "price_prompt": price_prompt, "price_completion": price_completion}
        costs.price_of("", **stated)  # what cannot be right is said before anything is counted
    except ValueError as error:
        _stop(str(error), 2)
    try:
        opened = open_ledger(cache_dir)
        if export:
            print(f"{_export(opened, export, start):,} rows in {export}")
        else:
            _print_ledger(opened, stated, start, failures)
        opened.close()
    except (LedgerError, OSError) as error:
        _stop(str(error), 1)


def _export(opened: Ledger, path: Path, since: float) -> int:
    count, part = 0, path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        for row in opened.rows(since):
            count += 1
            row["recorded_at"] = datetime.fromtimestamp(row["recorded_at"], UTC).isoformat()
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(part, path)
    return count


def _print_ledger(opened: Ledger, stated: dict, since: float, failures: int) -> None:
    span = opened.span(since)
    if span is None:
        print(f"{opened.path}: no request{' since then' if since else ' yet'}")
        return
    first, last = (datetime.fromtimestamp(second).strftime("%Y-%m-%d %H:%M") for second in span)
    known = {row["model"]: costs.price_of(row["model"], **stated) for row in opened.summary()}
    bill = costs.bill(opened, {model: price for model, price in known.items() if price}, since)
    print(f"{opened.path}: {bill['answered'].sum():,} answers and {bill['failed'].sum():,} failures, {first} to {last}\n")
    amounts = {name: "{:,.4f}".format for name in ("cost", "saved")}
    counts = {name: "{:,}".format for name in ("answered", "failed", "prompt_tokens", "completion_tokens", "cached")}
    print(bill.to_string(index=False, formatters=amounts | counts, na_rep="unknown"))
    if bill["cost"].notna().any():
        unpriced = ", ".join(sorted(set(bill.loc[bill["cost"].isna(), "model"])))
        print(f"\ntogether {bill['cost'].sum():,.4f} US dollars" + (f" without {unpriced}" if unpriced else ""))
    for row in opened.causes(since):
        print(f"\nfailed: {row['requests']:,} × {row['cause']} ({row['model']}, {row['task']})", end="")
    print()
    for row in opened.failures(failures, since) if failures else []:
        when = datetime.fromtimestamp(row["recorded_at"]).strftime("%Y-%m-%d %H:%M:%S")
        print(f"{when} {row['model']} {row['task']} {row['subject']} turn {row['turn']}: {row['cause']}: {row['reason']}")


if __name__ == "__main__":
    app()
