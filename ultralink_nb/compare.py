"""Runs side by side: what their parameters differ in, and what came of it."""

import ast
import base64
import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from ultralink_nb import plots, pruning, records, runs
from ultralink_nb.languages import LANGUAGES
from ultralink_nb.report import STYLE

_NOT_COMPARED = {"run_dir", "release_dir", "release_name"}  # they name the run; they do not decide what comes of it


def effective_parameters(folder: Path) -> dict[str, Any]:
    """A run's parameters, those left at a notebook's default included: of its executed notebooks, else of the kit's.

    A name that two notebooks have (`threshold`) takes the earlier one's default.
    """
    found: dict[str, Any] = {}
    for name in sorted({path.name for place in (folder, runs.NOTEBOOKS) for path in place.glob("[0-9][0-9]_*.ipynb")}):
        for parameter, value in (_defaults(folder / name) or _defaults(runs.NOTEBOOKS / name)).items():
            found.setdefault(parameter, value)
    return {**found, **runs.read_manifest(folder).get("parameters", {})}


def _defaults(notebook: Path) -> dict[str, Any]:
    try:
        cells = nbformat.read(notebook, as_version=4).cells
        source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
        assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
        return {node.targets[0].id: ast.literal_eval(node.value) for node in assigned}
    except (OSError, ValueError, SyntaxError, AttributeError, StopIteration, nbformat.reader.NotJSONError):
        return {}


def _differing(parameters: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for one in parameters for name in one if name not in _NOT_COMPARED)
    return [name for name in names if len({repr(one.get(name)) for one in parameters}) > 1]


def compare_runs(folders: Sequence[Path]) -> pd.DataFrame:
    """One row a run: its name, each parameter that differs, then what came of it, as far as its files are there.

    Columns after the parameters: samples, pairs (from the run's threshold on), groups, kept, dropped, `kept share` (0 to 1),
    `kept <language>` (rows), seconds; and, where the runs name a `truth_column`, precision and recall of the drops (0 to 1; see
    `pruning.drops_against_truth`). Raises RunError (code 2) for a folder that is no run, and for fewer than two.
    """
    folders = list(dict.fromkeys(map(Path, folders)))
    if len(folders) < 2:
        raise runs.RunError("a comparison takes two runs or more; ultralink-nb list says which there are", 2)
    for folder in folders:
        if not runs.read_manifest(folder):
            raise runs.RunError(f"{folder} has no manifest.json: it is not a run; ultralink-nb list says which there are", 2)
    parameters = [effective_parameters(folder) for folder in folders]
    differing = _differing(parameters)
    rows = []
    for folder, own in zip(folders, parameters, strict=True):
        shown = {name: own.get(name) for name in differing}
        shown = {name: value if isinstance(value, (int, float)) else _word(value) for name, value in shown.items()}
        rows.append({"run": folder.name, **shown, **_result(folder, own)})
    table = pd.DataFrame(rows)
    kept = [f"kept {code}" for code in LANGUAGES if f"kept {code}" in table] + sorted(
        name for name in table if str(name).startswith("kept ") and name != "kept share" and str(name)[5:] not in LANGUAGES)
    table[kept] = table[kept].fillna(0) if kept else table[kept]
    table.loc[table.get("kept", pd.Series(np.nan, table.index)).isna(), kept] = np.nan
    results = ["samples", "pairs", "groups", "kept", "dropped", "kept share", *kept, "precision", "recall", "seconds"]
    table = table[["run", *differing, *(name for name in results if name in table)]]
    whole = [name for name in results if name in table and name not in ("kept share", "precision", "recall", "seconds")]
    table = table.astype({name: "Int64" for name in whole})
    table.attrs["differing"] = differing
    return table


def _word(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value)


def _result(folder: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What lies in a run's data folder, counted; a table that is missing or unreadable is left out."""
    found: dict[str, Any] = {}
    data = folder / "data"
    samples, kept, dropped = (_column(data / f"{name}.parquet", "id") for name in ("samples", "kept", "dropped"))
    if samples is not None:
        found["samples"] = len(samples)
    if (probability := _column(data / "pairs.parquet", "probability")) is not None:
        threshold = parameters.get("threshold")
        found["pairs"] = int((probability >= (0.5 if threshold is None else threshold)).sum())
    if (group := _column(data / "groups.parquet", "group")) is not None:
        found["groups"] = group.nunique()
    if kept is not None and dropped is not None:
        found |= {"samples": len(kept) + len(dropped), "kept": len(kept), "dropped": len(dropped),
                  "kept share": len(kept) / max(1, len(kept) + len(dropped))}
        languages = _column(data / "kept.parquet", "language")
        found |= {f"kept {code}": int(count) for code, count in languages.value_counts().items()}
        found |= _against_truth(data, parameters.get("truth_column"))
    found["seconds"] = round(sum(entry.get("seconds", 0) for entry in runs.read_manifest(folder)["notebooks"]), 1)
    return found


def _column(path: Path, name: str) -> pd.Series | None:
    try:
        return pq.read_table(path, columns=[name]).column(name).to_pandas()
    except (OSError, ValueError, KeyError):
        return None


def _against_truth(data: Path, column: str | None) -> dict[str, float]:
    if not column:
        return {}
    try:
        samples = pq.read_table(data / "samples.parquet", columns=["id", "extra"]).to_pylist()
        truth = dict(zip((row["id"] for row in samples), records.column_of(samples, column), strict=True))
        dropped = pq.read_table(data / "dropped.parquet", columns=["id", "kept_by"]).to_pandas()
    except (OSError, ValueError, KeyError):
        return {}
    measured = pruning.drops_against_truth(dropped, truth)
    return {name: measured[name] for name in ("precision", "recall")}


def labels(table: pd.DataFrame) -> list[str]:
    """A short name for each run: the value of the one parameter that differs, else the run's name."""
    differing = table.attrs["differing"]
    values = table[differing[0]].map(str).tolist() if len(differing) == 1 else []
    if values and len(set(values)) == len(values) and max(map(len, values)) <= 24:
        return [value or "none" for value in values]
    return table["run"].tolist()


def draw(table: pd.DataFrame) -> Figure:
    """What each run keeps, by language; beside it precision and recall of the drops where the truth is known."""
    plots.use_theme()
    names, known = labels(table), "precision" in table
    axis = "run" if names == table["run"].tolist() else table.attrs["differing"][0]
    fig, axes = plots.side_by_side(2 if known else 1, width=max(6.5, 0.9 * len(table) + 2.5), height=4.6)
    kept = [name for name in table if str(name).startswith("kept ") and name != "kept share"]
    wide = table[kept].astype(float).fillna(0)
    wide.columns = [name.removeprefix("kept ") for name in kept]
    wide["dropped"] = table["dropped"].astype(float).fillna(0) if "dropped" in table else 0.0
    wide.index = pd.Index(names, name=axis)
    colors = plots.palette(list(wide.columns))
    wide.plot.bar(stacked=True, ax=axes[0], color=[colors[name] for name in wide.columns], width=0.7, rot=0)
    axes[0].grid(axis="x", visible=False)
    axes[0].yaxis.set_major_formatter("{x:,.0f}")
    for place, share in enumerate(table.get("kept share", [])):
        if not pd.isna(share):
            axes[0].annotate(f"{share:.1%} kept", (place, wide.iloc[place].sum()), xytext=(0, 3), textcoords="offset points",
                             ha="center", fontsize=9)
    axes[0].margins(y=0.1)
    axes[0].set(title=finding(table, names, axis), xlabel=axis.replace("_", " "), ylabel="rows")
    axes[0].legend(title="kept, by language", loc="upper left", bbox_to_anchor=(1.01, 1))
    if known:
        number = axis != "run" and pd.api.types.is_numeric_dtype(table[axis])
        long = pd.DataFrame({"run": table[axis] if number else names, "precision": table["precision"], "recall": table["recall"]})
        long = long.melt("run", var_name="of the drops", value_name="share").dropna()
        kind = plots.lines if number else plots.bars
        kind(long, "run", "share", "of the drops", title=_truth_finding(table, names, axis), xlabel=axis.replace("_", " "),
             ylabel="share", ax=axes[1])
        if number:
            axes[1].set_ylim(max(0.0, np.floor(10 * long["share"].min() - 0.5) / 10), 1.02)
    for ax in axes:
        if max(map(len, names)) * len(names) > 60:
            plt.setp(ax.get_xticklabels(), rotation=25, ha="right")
    return fig


def finding(table: pd.DataFrame, names: Sequence[str], axis: str) -> str:
    """What the comparison of kept rows says, in one line."""
    share = table.get("kept share", pd.Series(np.nan, table.index)).astype(float)
    if share.notna().sum() < 2:
        return "Fewer than two of the runs have pruned anything yet"
    low, high = int(share.idxmin()), int(share.idxmax())
    if share[low] == share[high]:
        return f"All keep the same share of the rows ({share[low]:.1%})"
    word = f"{axis.replace('_', ' ')} "
    parts = [f"{word}{names[low]} keeps least ({share[low]:.1%}),", f"{word}{names[high]} most ({share[high]:.1%})"]
    return (" " if sum(map(len, parts)) < 64 else "\n").join(parts)


def _truth_finding(table: pd.DataFrame, names: Sequence[str], axis: str) -> str:
    together = 2 * table["precision"] * table["recall"] / (table["precision"] + table["recall"])
    if together.isna().all():
        return "No drop was right"
    if together.nunique() == 1:
        return (f"Precision ({table['precision'].max():.2f}) and recall ({table['recall'].max():.2f})\n"
                "of the drops are the same in all")
    best, word = int(together.idxmax()), axis.replace("_", " ")
    return (f"{word} {names[best]} serves precision ({table['precision'][best]:.2f}) and\n"
            f"recall ({table['recall'][best]:.2f}) of the drops best together")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: shares to three places, counts with separators, nothing where nothing is known."""
    def text(value: Any) -> str:
        if value is None or value is pd.NA or isinstance(value, float) and np.isnan(value):
            return ""
        if isinstance(value, (bool, np.bool_)):
            return str(value)
        if isinstance(value, (int, np.integer)):
            return f"{value:,}"
        return f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

    return table.astype(object).map(text)


def write_comparison(folders: Sequence[Path], target: Path) -> list[Path]:
    """Write comparison.csv, .html (one self-contained page), .png and .svg of some runs into a folder; returns their paths."""
    folders = list(dict.fromkeys(map(Path, folders)))
    table, target = compare_runs(folders), Path(target)
    target.mkdir(parents=True, exist_ok=True)
    paths = {suffix: target / f"comparison.{suffix}" for suffix in ("csv", "html", "png", "svg")}
    with records.atomic_path(paths["csv"]) as temporary:
        table.to_csv(temporary, index=False)
    fig = draw(table)
    for suffix in ("png", "svg"):
        with records.atomic_path(paths[suffix]) as temporary:
            fig.savefig(temporary, format=suffix, bbox_inches="tight", metadata={"Date": None} if suffix == "svg" else None)
    plt.close(fig)
    with records.atomic_path(paths["html"]) as temporary:
        temporary.write_text(_page(table, folders, target, paths["png"].read_bytes()), encoding="utf-8")
    return list(paths.values())


def _page(table: pd.DataFrame, folders: Sequence[Path], target: Path, picture: bytes) -> str:
    shown = readable(table).map(html.escape)
    shown["run"] = [f'<a href="{html.escape(Path(os.path.relpath(folder / "report.html", target)).as_posix())}">'
                    f"{html.escape(folder.name)}</a>" if (folder / "report.html").is_file() else html.escape(folder.name)
                    for folder in folders]
    parameters = [effective_parameters(folder) for folder in folders]
    differing = set(_differing(parameters)) | _NOT_COMPARED
    same = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(_word(value))}</td></tr>"
                   for name, value in parameters[0].items() if name not in differing)
    measured = ("<p>Precision: of the rows dropped, the share whose stand-in has the same content, by the column that "
                "<code>truth_column</code> names. Recall: of the rows that repeat another, the share dropped rightly.</p>"
                if "precision" in table else "")
    names = ", ".join(html.escape(folder.name) for folder in folders)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><title>Comparison of {names}</title>\n<style>{STYLE}</style></head><body>\n'
        "<h1>Comparison of runs</h1>\n"
        f"{shown.to_html(index=False, escape=False, border=0)}\n{measured}\n"
        f'<img alt="rows kept by each run" src="data:image/png;base64,{base64.b64encode(picture).decode()}">\n'
        f"<details><summary>Parameters that all of them share</summary><table>{same}</table></details>\n</body></html>\n"
    )
