import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ultralink_nb import records


def row(**changes):
    return {"id": "a", "language": "en", "messages": [{"role": "user", "content": "Why?"}], **changes}


def test_a_question_alone_is_a_sample_and_unknown_columns_are_kept():
    sample = records.parse_sample(row(group="g7", score=3))
    assert sample.kind == "chat"
    assert json.loads(sample.extra) == {"group": "g7", "score": 3}


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"id": ""}, "id"), ({"id": 3}, "id"), ({"language": "xx"}, "language"), ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"), ({"messages": None}, "messages"),
    ],
)
def test_a_bad_row_names_place_and_column(change, column):
    with pytest.raises(records.BadRecord, match=rf"^file.jsonl, line 7, column {column}:"):
        records.parse_sample(row(**change), "file.jsonl, line 7")


def test_broken_json_names_the_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = "".join(json.dumps(row(id=str(n))) + "\n" for n in range(6))
    path.write_text(good + '{"id": "x",\n' + json.dumps(row(id="z")) + "\n")
    with pytest.raises(records.BadRecord, match="rows.jsonl, line 7: not valid JSON"):
        records.read_samples(path)


def test_an_id_given_twice_names_both_places(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row()) + "\n" + json.dumps(row()) + "\n")
    with pytest.raises(records.BadRecord, match=r"line 2, column id: 'a' stands already in .*line 1"):
        records.read_samples(path)


def test_a_language_that_the_run_does_not_have(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row(language="de")))
    with pytest.raises(records.BadRecord, match="column language: 'de' is not one of this run's languages"):
        records.read_samples(path, ["en", "zh"])


def test_not_utf8_and_not_a_list(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(records.BadRecord, match="line 1: not UTF-8"):
        records.read_samples(tmp_path / "a.jsonl")
    (tmp_path / "b.json").write_text('{"id": "a"}')
    with pytest.raises(records.BadRecord, match="a JSON file of samples is a list"):
        records.read_samples(tmp_path / "b.json")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet", "rows.jsonl.gz", "rows.jsonl.bz2"])
def test_every_file_type_reads_the_same(tmp_path, name):
    import bz2
    import gzip

    rows = [row(id=str(n), language=code) for n, code in enumerate(["en", "zh", "ru"])]
    lines = "".join(json.dumps(one) + "\n" for one in rows).encode()
    path = tmp_path / name
    if name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows))
    else:
        path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)(lines))
    assert [sample["id"] for sample in records.read_samples(path)] == ["0", "1", "2"]
    assert [sample["id"] for sample in records.read_samples(tmp_path)] == ["0", "1", "2"]  # a folder
    assert [sample["id"] for sample in records.read_samples(str(tmp_path / "rows*"))] == ["0", "1", "2"]  # a glob


def test_tables_come_back_as_they_were_written(tmp_path):
    samples = [records.parse_sample(row(id=str(n))).model_dump() for n in range(2500)]
    assert records.write_table(tmp_path / "data" / "s.parquet", iter(samples), records.SAMPLES) == 2500
    assert records.read_table(tmp_path / "data" / "s.parquet", records.SAMPLES) == samples
    assert records.read_samples(tmp_path / "data" / "s.parquet") == samples
    named = records.read_samples(tmp_path / "data" / "s.parquet", name_source=True)
    assert {sample["source"]["dataset"] for sample in named} == {"s.parquet"}


def test_a_users_columns_are_kept_and_found_again():
    samples = [records.parse_sample(row(id=n, group=group, extra="note")).model_dump() for n, group in (("a", 7), ("b", None))]
    assert json.loads(samples[0]["extra"]) == {"extra": "note", "group": 7}
    assert records.column_of(samples, "group") == ["7", "b"]
    with pytest.raises(records.BadRecord, match="no sample has a column gruop"):
        records.column_of(samples, "gruop")


def test_a_file_that_is_cut_off_is_named(tmp_path):
    import gzip

    whole = gzip.compress("".join(json.dumps(row(id=str(n))) + "\n" for n in range(3000)).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(records.BadRecord, match="cut.jsonl.gz, after line .* cut off or damaged"):
        records.read_samples(tmp_path / "cut.jsonl.gz")
    (tmp_path / "brackets [1].jsonl").write_text(json.dumps(row()))
    assert len(records.read_samples(tmp_path / "brackets [1].jsonl")) == 1


def test_a_value_of_the_wrong_type_names_the_column_and_leaves_no_file(tmp_path):
    path = tmp_path / "p.parquet"
    with pytest.raises(records.BadRecord, match="column n_tokens"):
        records.write_table(path, [{"id": "a", "n_tokens": "many"}], records.PASSAGES)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "p.parquet"
    records.write_table(path, [{"id": "old"}], records.PASSAGES)

    def rows():
        yield {"id": "new"}
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        records.write_table(path, rows(), records.PASSAGES)
    assert [found["id"] for found in records.read_table(path, records.PASSAGES)] == ["old"]
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]


def test_missing_files_and_columns_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the notebook that writes it first"):
        records.read_table(tmp_path / "none.parquet", records.PASSAGES)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        records.find_files(tmp_path / "none.jsonl", [".jsonl"])
    for nothing in (tmp_path, tmp_path / "*.jsonl"):
        with pytest.raises(FileNotFoundError, match="no file there with a name in .jsonl"):
            records.find_files(nothing, [".jsonl"])
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "thin.parquet")
    with pytest.raises(records.BadRecord, match="column document_id is missing"):
        records.read_table(tmp_path / "thin.parquet", records.PASSAGES)
    (tmp_path / "not.parquet").write_bytes(b"garbage")
    with pytest.raises(records.BadRecord, match="not a readable Parquet file"):
        records.read_table(tmp_path / "not.parquet", records.PASSAGES)


def test_a_row_that_lacks_a_column_is_told_which_it_has():
    with pytest.raises(records.BadRecord, match="column language: Field required, and the row has id, lang, messages$"):
        records.parse_sample({"id": "a", "lang": "fr", "messages": [{"role": "user", "content": "Pourquoi ?"}]})
    with pytest.raises(records.BadRecord, match=r"read by notebook 03 \(sft_path\)"):
        records.parse_sample({"id": "a", "language": "en", "instruction": "Add.", "output": "3"})
