"""kept.parquet and dropped.parquet, and the way back.

A row of dropped.parquet is the whole sample with its ledger columns and its position, the row number in the input; a kept row
stands at the positions that are left, in order. The two files alone so give back the input, every column byte for byte.
dropped.parquet also carries a hash of all ids in order, by which files of different prunings are told apart. Tables are
streamed: of the samples never more than `_BATCH` rows are in memory, of the ids all.

Both files are written in full before either takes its place. A new outcome first removes the old dropped.parquet, so that files
of two prunings never stand side by side; `undo` puts the kept table into place first, so that a row is in both tables if it
is killed in between and counts as kept.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ultralink_nb.errors import KitError
from ultralink_nb.pruning import Pruned
from ultralink_nb.records import DROPPED, SAMPLES, atomic_path

LEDGER = [name for name in DROPPED.names if name not in SAMPLES.names]
_BATCH = 10_000
_KEY = b"ultralink_nb.input"


class BadOutcome(KitError, ValueError):
    """Tables of kept and dropped rows that do not fit together; the message says what to do."""


def _fingerprint(ids: pd.Series) -> bytes:
    hashes = pd.util.hash_array(ids.to_numpy(dtype=object), categorize=False)
    return f"{len(ids)} {hashlib.blake2b(hashes.tobytes(), digest_size=16).hexdigest()}".encode()


def _opened(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise BadOutcome(f"{path} does not exist: run notebook 05 (pruning) again")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadOutcome(f"{path} is not a readable Parquet file: {error}") from None


def _tables(samples: str | Path | Sequence[Mapping[str, Any]]) -> tuple[pa.Schema, Iterator[pa.Table]]:
    if isinstance(samples, (str, Path)):
        file = _opened(Path(samples))
        return file.schema_arrow, (pa.Table.from_batches([batch]) for batch in file.iter_batches(_BATCH))
    return SAMPLES, (pa.Table.from_pylist([dict(row) for row in samples[start : start + _BATCH]], SAMPLES)
                     for start in range(0, len(samples), _BATCH))


def write_outcome(folder: str | Path, samples: str | Path | Sequence[Mapping[str, Any]], pruned: Pruned) -> None:
    """Write kept.parquet, in the schema of the samples, and dropped.parquet, the same with the ledger's columns.

    samples: the table that was pruned, a Parquet file or rows in the shape of `SAMPLES`, in the order of `pruned.ids`.
    Raises `BadOutcome` if it holds other ids, or has columns with names of the ledger's.
    """
    kept_path, dropped_path = Path(folder) / "kept.parquet", Path(folder) / "dropped.parquet"
    if isinstance(samples, (str, Path)) and Path(samples).resolve() in (kept_path.resolve(), dropped_path.resolve()):
        raise BadOutcome(f"{samples} would be overwritten by what is kept of it: write the outcome to another folder")
    schema, tables = _tables(samples)
    if clash := [name for name in schema.names if name in LEDGER]:
        raise BadOutcome(f"the samples have a column {clash[0]}, which the table of dropped rows needs: rename it")
    note = {**(schema.metadata or {}), _KEY: _fingerprint(pruned.ids)}
    with_ledger = pa.schema([*schema, *(DROPPED.field(name) for name in LEDGER)], note)
    ledger_schema = pa.schema(DROPPED.field(name) for name in LEDGER)
    ledger = pa.Table.from_pandas(pruned.dropped[LEDGER], ledger_schema, preserve_index=False)
    start = gone = 0
    with (atomic_path(dropped_path) as for_dropped, atomic_path(kept_path) as for_kept,
          pq.ParquetWriter(for_dropped, with_ledger, compression="zstd") as dropped,
          pq.ParquetWriter(for_kept, schema, compression="zstd") as kept):
        for table in tables:
            part = slice(start, start + len(table))
            if table.column("id").to_pylist() != pruned.ids.iloc[part].tolist():
                raise BadOutcome(f"the samples from row {start} on are not those that were pruned: prune this table again")
            keep = pruned.keep[part]
            kept.write_table(table.filter(pa.array(keep)))
            lost = table.filter(pa.array(~keep))
            columns = [*lost.columns, *ledger.slice(gone, len(lost)).columns]
            dropped.write_table(pa.Table.from_arrays(columns, schema=with_ledger))
            start, gone = start + len(table), gone + len(lost)
        if start != len(pruned.ids):
            raise BadOutcome(f"the samples have {start:,} rows, but {len(pruned.ids):,} were pruned: prune this table again")
        kept.close()
        dropped.close()
        dropped_path.unlink(missing_ok=True)


class _Rows:
    """The rows of a Parquet file that a mask chooses, to be taken in order, a few at a time."""

    def __init__(self, file: pq.ParquetFile, columns: list[str], chosen: np.ndarray) -> None:
        self._batches, self._columns, self._chosen = file.iter_batches(_BATCH), columns, chosen
        self._start, self._held = 0, file.schema_arrow.empty_table().select(columns)

    def take(self, count: int) -> pa.Table:
        parts = [self._held]
        while sum(map(len, parts)) < count:
            table = pa.Table.from_batches([next(self._batches)])
            chosen = self._chosen[self._start : self._start + len(table)]
            self._start += len(table)
            parts.append(table.select(self._columns).filter(pa.array(chosen)))
        held = pa.concat_tables(parts)
        self._held = held.slice(count)
        return held.slice(0, count)


def undo(folder: str | Path, ids: Sequence[str] | None = None, target: str | Path | None = None) -> int:
    """Take dropped rows back, all or those named, and return how many; needs nothing but kept.parquet and dropped.parquet.

    Afterwards kept.parquet holds them at their old places, so that with all of them back it is the input again, and
    dropped.parquet no longer does. target: write that table there instead and leave the outcome as it is. An id that is kept
    is passed over. An `undo` that was killed half way is completed by the next one, with any ids.
    Raises `BadOutcome` for an id that is in neither table, or if the tables are not of one pruning.
    """
    kept_path, dropped_path = Path(folder) / "kept.parquet", Path(folder) / "dropped.parquet"
    kept, dropped = _opened(kept_path), _opened(dropped_path)
    kept_ids = kept.read(["id"]).column("id").to_pandas()
    gone = dropped.read(["id", "position"]).to_pandas()
    still = ~gone["id"].isin(kept_ids).to_numpy()
    positions = gone["position"].to_numpy()
    is_kept = np.ones(len(kept_ids) + int(still.sum()), dtype=bool)
    whole = np.empty(len(is_kept), dtype=object)
    fits = bool((positions[still] < len(is_kept)).all())
    if fits:
        is_kept[positions[still]] = False
        fits = int(is_kept.sum()) == len(kept_ids)
    if fits:
        whole[is_kept], whole[~is_kept] = kept_ids, gone["id"][still]
        fits = (dropped.schema_arrow.metadata or {}).get(_KEY) == _fingerprint(pd.Series(whole, dtype=object))
    if not fits:
        raise BadOutcome(f"kept.parquet and dropped.parquet in {folder} are not of one pruning: run notebook 05 again")
    back = still if ids is None else still & gone["id"].isin(list(ids)).to_numpy()
    if ids is not None and (unknown := set(ids) - set(gone["id"]) - set(kept_ids)):
        raise BadOutcome(f"{min(unknown)!r} is neither kept nor dropped in {folder}: look at the column id of dropped.parquet")
    kept_at = np.flatnonzero(is_kept)
    if target is not None:
        with atomic_path(target) as temporary:
            _merge(temporary, kept, dropped, kept_at, positions, back)
    else:
        with atomic_path(dropped_path) as for_dropped, atomic_path(kept_path) as for_kept:
            _merge(for_kept, kept, dropped, kept_at, positions, back)
            _select(for_dropped, dropped, still & ~back)
    return int(back.sum())


def _merge(
    path: Path, kept: pq.ParquetFile, dropped: pq.ParquetFile, kept_at: np.ndarray, dropped_at: np.ndarray, back: np.ndarray
) -> None:
    schema = kept.schema_arrow
    stays = _Rows(kept, schema.names, np.ones(len(kept_at), dtype=bool))
    returns = _Rows(dropped, schema.names, back)
    place = np.concatenate([kept_at, dropped_at[back]])
    order = np.argsort(place, kind="stable")
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            old = int((part < len(kept_at)).sum())
            tables = [stays.take(old), returns.take(len(part) - old)]
            rank = np.argsort(np.argsort(part, kind="stable"), kind="stable")  # kept rows come first in `part`'s numbers
            both = pa.concat_tables(table.replace_schema_metadata(schema.metadata) for table in tables)
            writer.write_table(both.take(pa.array(rank)))


def _select(path: Path, file: pq.ParquetFile, chosen: np.ndarray) -> None:
    with pq.ParquetWriter(path, file.schema_arrow, compression="zstd") as writer:
        rows = _Rows(file, file.schema_arrow.names, chosen)
        left = int(chosen.sum())
        while left > 0:
            writer.write_table(rows.take(min(left, _BATCH)))
            left -= _BATCH
