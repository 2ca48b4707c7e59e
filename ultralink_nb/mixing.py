"""A mix: rows of other sets added to the release before a model is trained on it, as UltraLink-LM's training did.

    mix = {"ultrachat.jsonl": 10000,                                          # so many rows, drawn at random
           "hub:meta-math/MetaMathQA/default": "all",                          # every row
           "sharegpt.json": {"rows": "all", "min_characters": 4000, "only_language": True},
           "own.jsonl": 0.1}                                                  # a tenth of the finished mix

The authors name for UltraLink-LM: UltraLink, 10,000 random samples of UltraChat, Magicoder Evol-Instruct and OSS-Instruct,
MetaMathQA, and the English part of ShareGPT with a sample length above 4k (README of OpenBMB/UltraLink; the unit of the length is
not stated). A draw depends on seed and ids alone, so that neither the order of rows nor that of the sets changes it.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from ultralink_nb.chance import place_in_draw
from ultralink_nb.errors import KitError
from ultralink_nb.languages import detect_language
from ultralink_nb.layout_rows import LAYOUTS
from ultralink_nb.layouts import iter_sft

ALL = "all"
RELEASE = "release"


class BadMix(KitError, ValueError):
    """A `mix` that says something impossible."""


@dataclass(frozen=True)
class Part:
    """A set to mix in. path: file, folder, glob or `hub:` name, read as notebook 03 reads `sft_path`.

    rows: how many, `all`, or a share (below 1) of the finished mix. layout, kind, language, license: as in `layouts.read_sft`.
    min_characters, max_characters: of all messages of a row together. only_language: rows that language identification finds in
    another language are left out.
    """

    path: str
    rows: int | float | str = ALL
    layout: str = "auto"
    kind: str | None = None
    language: str = "en"
    license: str | None = None
    min_characters: int = 0
    max_characters: int | None = None
    only_language: bool = False

    def __post_init__(self) -> None:
        number = isinstance(self.rows, (int, float)) and not isinstance(self.rows, bool)
        if not (self.rows == ALL or number and (0 < self.rows < 1 or self.rows >= 1 and self.rows == int(self.rows))):
            raise BadMix(f"mix, {self.path}: rows is a whole number, a share between 0 and 1, or all, not {self.rows!r}")
        if self.layout != "auto" and self.layout not in LAYOUTS:
            raise BadMix(f"mix, {self.path}: unknown layout {self.layout!r}; the kit reads {', '.join(LAYOUTS)}")
        for name in ("min_characters", "max_characters"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise BadMix(f"mix, {self.path}: {name} is a whole number of characters, not {value!r}")

    @property
    def is_share(self) -> bool:
        return self.rows != ALL and self.rows < 1


def read_mix(mix: Mapping[str, Any]) -> list[Part]:
    """The parts of a `mix` parameter: path to rows, or to a mapping of `Part`'s fields. Raises `BadMix` for what it cannot be."""
    parts, names = [], {field.name for field in fields(Part)} - {"path"}
    for path, value in mix.items():
        if isinstance(value, Mapping):
            if unknown := sorted(set(value) - names):
                raise BadMix(f"mix, {path}: unknown {unknown[0]}; it may hold {', '.join(sorted(names))}")
            parts.append(Part(path, **value))
        else:
            parts.append(Part(path, value))
    shares = sum(part.rows for part in parts if part.is_share)
    if shares >= 1:
        raise BadMix(f"mix: the shares add up to {shares:g}, which leaves nothing for the release; together they stay below 1")
    return parts


def _fitting(part: Part, counts: dict[str, int]) -> Iterator[dict]:
    """The rows of a set that its filters let through; counts what was read and what was left out, and why."""
    for what, row in iter_sft(part.path, part.layout, part.kind, language=part.language, license=part.license):
        counts["read"] += 1
        if what == "rejected":
            counts["not readable"] += 1
            continue
        texts = [message["content"] for message in row["messages"]]
        length = sum(map(len, texts))
        if length < part.min_characters or part.max_characters is not None and length > part.max_characters:
            counts["of another length"] += 1
        elif part.only_language and detect_language("\n".join(texts))[0] != part.language:
            counts["in another language"] += 1
        else:
            yield row


def _drawn(part: Part, wanted: int | None, seed: int, taken: Mapping[str, Any], counts: dict[str, int]) -> list[dict]:
    """`wanted` rows of a set (None: all) in the memory of those alone; rows that the mix holds already are left out."""
    best: list[tuple[int, str, dict]] = []  # the rows with the lowest places in the draw
    for row in _fitting(part, counts):
        if row["id"] in taken and taken[row["id"]] == row["messages"]:
            counts["in the mix already"] += 1
            continue
        entry = (-place_in_draw(row["id"], seed), row["id"], row)
        if wanted is None or len(best) < wanted:
            heapq.heappush(best, entry)
        else:
            heapq.heappushpop(best, entry)
    rows = [row for _, _, row in sorted(best, key=lambda entry: entry[:2], reverse=True)]
    for row in rows:
        if row["id"] in taken:  # another row's id: two sets name their rows alike
            row["id"] = f"{part.path}:{row['id']}"
    return rows


def mix_rows(release: Sequence[Mapping[str, Any]], mix: Mapping[str, Any], seed: int) -> tuple[list[dict], pd.DataFrame]:
    """(rows, table): the release and what `mix` adds to it, and what each part gave.

    The table has a row for each part: part, wanted, taken, share (of the finished mix), rows read and the reasons why others were
    left out. Counts and `all` are taken first; shares are of the whole that they make up together with the release. A set with
    fewer rows than asked gives what it has, which the table tells. Raises `BadMix`, and `BadRecord` as `read_sft` does.
    """
    parts = read_mix(mix)
    rows: list[dict] = [dict(row) for row in release]
    taken = {row["id"]: row["messages"] for row in rows}
    table = [{"part": RELEASE, "wanted": str(len(rows)), "taken": len(rows), "read": len(rows)}]
    shares = sum(part.rows for part in parts if part.is_share)
    whole = 0.0
    for part in sorted(parts, key=lambda part: part.is_share):  # a stable sort: shares last, else in the order given
        if part.is_share and not whole:
            whole = len(rows) / (1 - shares)
        wanted = round(part.rows * whole) if part.is_share else None if part.rows == ALL else int(part.rows)
        counts = dict.fromkeys(("read", "not readable", "of another length", "in another language", "in the mix already"), 0)
        found = _drawn(part, wanted, seed, taken, counts)
        rows += found
        taken |= {row["id"]: row["messages"] for row in found}
        table.append({"part": part.path, "wanted": f"{part.rows:.0%} = {wanted}" if part.is_share else str(part.rows),
                      "taken": len(found), **counts})
    frame = pd.DataFrame(table).fillna(0)
    frame.insert(3, "share", frame["taken"] / max(1, len(rows)))
    return rows, frame.astype({name: int for name in frame.columns if name not in ("part", "wanted", "share")})
