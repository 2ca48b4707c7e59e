"""The command `ultralink-nb`. Exit codes: 0 done, 1 it failed, 2 wrong parameters or usage, 3 the run is in use."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ultralink_nb import costs, outcome, runs
from ultralink_nb import report as reports
from ultralink_nb.ledger import Ledger, LedgerError, open_ledger
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
