"""What pruning writes, and that it can be undone from that alone."""

import itertools
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb import outcome, pruning, records
from ultralink_nb.outcome import BadOutcome


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(outcome, "_BATCH", 7)


def samples(number, seed=0):
    """A table with whatever a column can hold: nothing, an empty list, rare characters, columns of the user's own."""
    random = np.random.default_rng(seed)
    text = ["", "a\0b", "日本", "🙂", "\u2028x"]
    rows = [{
        "id": f"{code}{n}", "language": code, "kind": "math", "extra": random.choice([None, "{}"]),
        "messages": [{"role": "user", "content": text[random.integers(5)]}, {"role": None}][: random.integers(3)],
        "source": random.choice([None, {"dataset": "x"}]), "generator": {"seed": int(random.integers(9))},
    } for n, code in itertools.product(range(number), ("en", "zh"))]
    table = pa.Table.from_pylist(rows, records.SAMPLES)
    odd = [None, float("nan"), -0.0, 0.0, 1e-310]
    table = table.append_column("score", pa.array([odd[k] for k in random.integers(5, size=len(rows))], pa.float64()))
    table = table.append_column("tag", pa.array(random.choice(["a", "b"], len(rows))).dictionary_encode())
    file = pa.BufferOutputStream()  # through Parquet once, which has names of its own for the items of a list
    pq.write_table(table.take(random.permutation(len(rows))).replace_schema_metadata({"of": "the user"}), file)
    return pq.read_table(pa.BufferReader(file.getvalue()))


def pruned_from(table, keep):
    ids = table.column("id").to_pandas()
    gone = np.flatnonzero(~keep)
    dropped = pd.DataFrame({"id": ids[gone], "kept_by": ids.iloc[0] if len(ids) else "", "probability": 0.75,
                            "policy": "balanced", "reason": "says the same", "position": gone})
    return pruning.Pruned(ids, keep, dropped.reset_index(drop=True), pd.DataFrame())


def same(path, table):
    """Every column, byte for byte as Arrow holds it: validity, offsets and values; and schema with its metadata."""
    read = pq.read_table(path)
    assert read.schema.equals(table.schema, check_metadata=True)
    for name in table.column_names:
        column, expected = (t.column(name).combine_chunks() for t in (read, table))
        if pa.types.is_dictionary(expected.type):
            column, expected = column.cast(pa.string()), expected.cast(pa.string())
        if name == "score":
            column, expected = (x.fill_null(7.0).to_numpy(zero_copy_only=False).view("u8").tolist() for x in (column, expected))
            assert column == expected
        else:
            assert column.equals(expected), name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 25), st.integers(0, 1000), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.data())
def test_undo_restores_exactly(tmp_path_factory, number, seed, share, data):
    folder = tmp_path_factory.mktemp("outcome")
    table = samples(number, seed)
    keep = np.random.default_rng(seed).random(len(table)) < share
    pq.write_table(table, folder / "samples.parquet")
    outcome.write_outcome(folder, folder / "samples.parquet", pruned_from(table, keep))
    (folder / "samples.parquet").unlink()  # kept.parquet and dropped.parquet alone
    same(folder / "kept.parquet", table.filter(pa.array(keep)))
    gone = table.column("id").to_pandas()[~keep].tolist()
    some = data.draw(st.lists(st.sampled_from(gone), unique=True)) if gone else []
    assert outcome.undo(folder, target=folder / "all.parquet") == len(gone)
    same(folder / "all.parquet", table)
    assert outcome.undo(folder, some) == len(some)
    now = keep | table.column("id").to_pandas().isin(some).to_numpy()
    same(folder / "kept.parquet", table.filter(pa.array(now)))
    left = pq.read_table(folder / "dropped.parquet").column("id").to_pylist()
    assert left == table.filter(pa.array(~now)).column("id").to_pylist()
    assert outcome.undo(folder) == len(gone) - len(some)
    same(folder / "kept.parquet", table)
    assert pq.read_metadata(folder / "dropped.parquet").num_rows == 0 and outcome.undo(folder) == 0


@pytest.fixture
def written(tmp_path):
    table = samples(20)
    keep = np.arange(len(table)) % 3 == 0
    pq.write_table(table, tmp_path / "samples.parquet")
    outcome.write_outcome(tmp_path, tmp_path / "samples.parquet", pruned_from(table, keep))
    return tmp_path, table, keep


def test_the_dropped_table_is_the_ledger(written):
    folder, table, keep = written
    rows = records.read_table(folder / "dropped.parquet", records.DROPPED)
    assert len(rows) == (~keep).sum() and rows[0]["position"] == 1 and rows[0]["kept_by"] == table.column("id")[0].as_py()
    assert rows[0]["messages"] == table.column("messages")[1].as_py() and "score" in rows[0]


def test_rows_in_memory_are_written_in_the_shape_of_samples(tmp_path):
    rows = [{"id": str(n), "language": "en", "kind": "chat", "messages": [{"role": "user", "content": "?"}]} for n in range(9)]
    table = pa.Table.from_pylist(rows, records.SAMPLES)
    outcome.write_outcome(tmp_path, rows, pruned_from(table, np.arange(9) < 4))
    assert len(records.read_samples(tmp_path / "kept.parquet")) == 4
    outcome.undo(tmp_path)
    assert pq.read_table(tmp_path / "kept.parquet").equals(table)


@pytest.mark.parametrize("ids", [None, "some"])
def test_an_undo_that_was_killed_between_its_two_tables_loses_nothing(written, ids):
    folder, table, keep = written
    before = (folder / "dropped.parquet").read_bytes()
    gone = table.column("id").to_pandas()[~keep].tolist()
    back = gone if ids is None else gone[::2]
    outcome.undo(folder, back)
    (folder / "dropped.parquet").write_bytes(before)  # the kept table is in place, the dropped one not yet
    assert outcome.undo(folder, target=folder / "all.parquet") == len(gone) - len(back)
    same(folder / "all.parquet", table)
    assert outcome.undo(folder, back) == 0  # asked again, it is completed
    left = pq.read_table(folder / "dropped.parquet").column("id").to_pylist()
    assert left == [row for row in gone if row not in back]


def test_undo_puts_the_kept_table_into_place_first(written, monkeypatch):
    folder, table, keep = written
    replace, calls = os.replace, []
    monkeypatch.setattr(os, "replace", lambda source, target: (calls.append(target.name), replace(source, target)))
    outcome.undo(folder)
    assert calls == ["kept.parquet", "dropped.parquet"]


def test_a_killed_write_leaves_no_two_halves_of_two_prunings(written, monkeypatch):
    folder, table, keep = written
    replace, calls = os.replace, []

    def killed(source, target):
        if calls:
            raise KeyboardInterrupt
        calls.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        outcome.write_outcome(folder, folder / "samples.parquet", pruned_from(table, ~keep))
    assert calls[0].name == "kept.parquet"
    with pytest.raises(BadOutcome, match="dropped.parquet does not exist: run notebook 05"):
        outcome.undo(folder)


def test_a_write_that_fails_leaves_the_old_outcome(written):
    folder, table, keep = written
    other = samples(20, seed=1)
    with pytest.raises(BadOutcome, match="not those that were pruned"):
        outcome.write_outcome(folder, folder / "samples.parquet", pruned_from(other, keep))
    outcome.undo(folder)
    same(folder / "kept.parquet", table)


def test_what_does_not_fit_is_named(written):
    folder, table, keep = written
    with pytest.raises(BadOutcome, match="'nobody' is neither kept nor dropped"):
        outcome.undo(folder, ["nobody"])
    with pytest.raises(BadOutcome, match="would be overwritten"):
        outcome.write_outcome(folder, folder / "kept.parquet", pruned_from(table, keep))
    with pytest.raises(BadOutcome, match="not those that were pruned"):
        outcome.write_outcome(folder, folder / "samples.parquet", pruned_from(table.slice(0, 38), keep[:38]))
    pq.write_table(table.slice(0, 38), folder / "short.parquet")
    with pytest.raises(BadOutcome, match="have 38 rows, but 40 were pruned"):
        outcome.write_outcome(folder, folder / "short.parquet", pruned_from(table, keep))
    pq.write_table(table.append_column("reason", table.column("id")), folder / "clash.parquet")
    with pytest.raises(BadOutcome, match="have a column reason"):
        outcome.write_outcome(folder, folder / "clash.parquet", pruned_from(table, keep))
    outcome.undo(folder, target=folder / "all.parquet")
    pq.write_table(table.filter(pa.array(~keep)), folder / "kept.parquet")  # of another pruning of the same rows
    with pytest.raises(BadOutcome, match="are not of one pruning"):
        outcome.undo(folder)
    (folder / "kept.parquet").write_bytes(b"no table")
    with pytest.raises(BadOutcome, match="not a readable Parquet file"):
        outcome.undo(folder)
