"""Tables that a person reads: wrapped, clipped, captioned; plain text where there is no browser."""

import html
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from IPython.display import HTML, display

from ultralink_nb.languages import LANGUAGES


def _clipped(value: Any, clip: int) -> str:
    if isinstance(value, float) and (0 < value < 0.001 or 0.999 < value < 1):
        return "<0.001" if value < 0.5 else ">0.999"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".") if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    text = str(value)
    return text if len(text) <= clip else text[: clip - 1] + "…"


def show(rows: pd.DataFrame | Iterable[Mapping[str, Any]], caption: str = "", clip: int = 160, limit: int = 50) -> None:
    """Show rows as a table: cells cut after `clip` characters, at most `limit` rows, the rest counted below."""
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if table.empty:
        text = f"{caption}: none" if caption else "no rows"
        display({"text/html": f"<p><b>{html.escape(text)}</b></p>", "text/plain": text}, raw=True)
        return
    if pd.api.types.is_integer_dtype(table.index) and table.index.name is None:
        cut = table.head(limit)
    else:
        named = table.rename_axis(index=[name or "" for name in table.index.names])
        cut = named.head(limit).reset_index()
    numeric = [pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind) for kind in cut.dtypes]
    header = "".join(f"<th style='text-align:{'right' if number else 'left'}'>{html.escape(str(name))}</th>"
                     for name, number in zip(cut.columns, numeric, strict=True))
    body = ""
    for _, row in cut.iterrows():
        cells = ""
        for value in (item.item() if hasattr(item, "item") else item for item in row):
            text = "" if isinstance(value, float) and pd.isna(value) else _clipped(value, clip)
            side = "right" if isinstance(value, (int, float)) and not isinstance(value, bool) else "left"
            # A cell may become as narrow as its longest word, but an address as long as a line may not widen the table.
            wrap = "anywhere" if any(len(word) > 30 for word in text.split()) else "break-word"
            style = f"text-align:{side};vertical-align:top;white-space:pre-wrap;max-width:34em;overflow-wrap:{wrap}"
            cells += f"<td style='{style}'>{html.escape(text)}</td>"
        body += f"<tr>{cells}</tr>"
    more = f"<p>… and {len(table) - limit:,} more rows</p>" if len(table) > limit else ""
    style = "caption-side:top;text-align:left;font-weight:bold;white-space:nowrap"
    title = f"<caption style='{style}'>{html.escape(caption)}</caption>"
    markup = f"<table>{title if caption else ''}<thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>{more}"
    text = (caption + "\n" if caption else "") + cut.map(lambda value: _clipped(value, min(clip, 60))).to_string(index=False)
    display({"text/html": HTML(markup).data, "text/plain": text}, raw=True)


def in_run_order(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table whose index holds languages in the kit's order of languages; any other table as it is."""
    known = [code for code in LANGUAGES if code in table.index]
    return table.loc[known] if len(known) == len(table) else table


def counts(rows: Iterable[Mapping[str, Any]], *columns: str) -> pd.DataFrame:
    """How many rows there are for each combination of values of one or more columns; a second column becomes the header."""
    counter = Counter(tuple(row[column] for column in columns) for row in rows)
    table = pd.DataFrame([(*key, count) for key, count in counter.items()], columns=[*columns, "rows"])
    if len(columns) == 2:
        matrix = table.pivot(index=columns[0], columns=columns[1], values="rows").fillna(0).astype(int)
        return in_run_order(in_run_order(matrix).T).T
    return table.sort_values("rows", ascending=False, ignore_index=True)
