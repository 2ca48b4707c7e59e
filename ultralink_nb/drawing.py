"""Which of a language's documents are kept: each page and text once, near-duplicates put aside, the rest drawn by the seed.

The draw goes by a hash of the seed and a document's id, so the order of files and pages does not matter, and of two texts that
are nearly the same the one earlier in the draw stays.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ultralink_nb import minhash
from ultralink_nb.chance import places_in_draw
from ultralink_nb.refining import SKETCH


class Drawn(NamedTuple):
    """A language's draw, by file of a part: `kept`, (rows,) bool; `duplicates`, the row and the reason of each."""

    kept: dict[Path, np.ndarray]
    duplicates: dict[Path, list[tuple[int, str]]]
    not_drawn: int


def draw(files: Sequence[Path], language: str, limit: int | None, near_duplicate: float | None, seed: int) -> Drawn:
    """Draw from the documents of a language's parts, whose files `refining` has written.

    limit: how many documents, None for all. near_duplicate: least estimated Jaccard similarity of near-duplicates, in [0, 1];
    None: only equal texts are duplicates. seed: of the draw.
    """
    tables = [pq.read_table(file, columns=["id", "language", *SKETCH.names]) for file in files]
    sizes = [len(table) for table in tables]
    if not sum(sizes):
        return Drawn({file: np.zeros(0, bool) for file in files}, {}, 0)
    table = pa.concat_tables(tables).combine_chunks()
    ids = table["id"].to_pylist()
    reasons: dict[int, str] = {}
    seen: set[str] = set()
    for row, (one, code) in enumerate(zip(ids, table["language"].to_pylist(), strict=True)):
        if one in seen and code == language:
            reasons[row] = f"a page with the id {one.partition(':')[2]} was read before"
        seen.add(one)
    order = np.argsort(places_in_draw(ids, seed), kind="stable")
    order = order[np.array(table["language"].to_pylist())[order] == language]

    def left() -> np.ndarray:
        return order[[row not in reasons for row in order.tolist()]]

    rows = left()
    _, first, same = np.unique(table["digest"].to_numpy()[rows], return_index=True, return_inverse=True)
    for row, leader in zip(rows.tolist(), rows[first[same]].tolist(), strict=True):
        if row != leader:
            reasons[row] = f"the same text as {ids[leader]}"
    if near_duplicate is not None:
        for row, leader, similarity in _near_duplicates(table, left(), near_duplicate):
            reasons[row] = f"nearly the same text as {ids[leader]} (similarity about {similarity:.2f})"
    rows, chosen = left(), np.zeros(len(ids), bool)
    chosen[rows[:limit]] = True
    starts = np.cumsum([0, *sizes])
    duplicates: dict[Path, list[tuple[int, str]]] = {}
    for row in sorted(reasons):
        number = int(np.searchsorted(starts, row, side="right")) - 1
        duplicates.setdefault(files[number], []).append((row - int(starts[number]), reasons[row]))
    kept = {file: chosen[start : start + size] for file, start, size in zip(files, starts, sizes, strict=False)}
    return Drawn(kept, duplicates, len(rows) - int(chosen.sum()))


def _near_duplicates(table: pa.Table, rows: np.ndarray, threshold: float) -> Iterator[tuple[int, int, float]]:
    """Rows whose text is nearly that of an earlier one that stays: (row, the one that stays, estimated Jaccard similarity)."""
    n = len(table)
    sketches = minhash.Sketches.empty(n)  # digits are left alone: another number does not make another document
    sketches.keys[:] = np.frombuffer(b"".join(table["keys"].to_pylist()), np.uint64).reshape(n, -1)
    sketches.minima[:] = np.frombuffer(b"".join(table["minima"].to_pylist()), np.uint8).reshape(n, -1)
    pairs = minhash.candidate_pairs(sketches, rows, threshold)
    similarity = minhash.similarity(sketches, *pairs.T)
    rank = np.empty(n, np.int64)
    rank[rows] = np.arange(len(rows))
    gone: set[int] = set()
    for number in np.lexsort((rank[pairs[:, 0]], rank[pairs[:, 1]])):
        leader, row = pairs[number].tolist()
        if similarity[number] >= threshold and row not in gone and leader not in gone:
            gone.add(row)
            yield row, leader, float(similarity[number])
