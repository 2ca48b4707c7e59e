import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultralink_nb.layouts import EMBEDDED, detect_layout, read_sft, to_messages, to_sharegpt
from ultralink_nb.records import SAMPLES, BadRecord, read_samples, write_table

SHAREGPT = {"id": "x", "category": "advice",
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
GSM8K = {"question": "6 and 2?", "answer": "6+2 = <<6+2=8>>8.\n#### 8"}
ALPACA = {"instruction": "Sort it.", "input": "[2, 1]", "output": "[1, 2]"}
MESSAGES = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                         {"role": "assistant", "content": "Hello"}]}


def write(path, rows):
    text = json.dumps(rows) if path.suffix == ".json" else "\n".join(json.dumps(row) for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("row, layout, kind, contents", [
    (SHAREGPT, "sharegpt", "chat_agnostic", ["Hi", "Hello"]),
    (GSM8K, "gsm8k", "math", ["6 and 2?", "6+2 = 8.\n#### 8"]),
    (ALPACA, "alpaca", "code", ["Sort it.\n\n[2, 1]", "[1, 2]"]),
    ({**ALPACA, "input": ""}, "alpaca", "code", ["Sort it.", "[1, 2]"]),
    (MESSAGES, "messages", "chat_agnostic", ["Be brief.", "Hi", "Hello"]),
])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_each_layout_is_recognised_and_read(tmp_path, row, layout, kind, contents, suffix):
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        write(path, [row])
    assert detect_layout(path) == layout
    (sample,), refused = read_sft(path)
    assert not refused
    assert (sample["id"], sample["kind"], sample["language"]) == ("rows-0", kind, "en")
    assert [message["content"] for message in sample["messages"]] == contents
    assert sample["source"]["dataset"] == path.name


def test_what_the_schema_has_no_name_for_is_kept(tmp_path):
    (math,), _ = read_sft(write(tmp_path / "m.jsonl", [GSM8K]))
    assert json.loads(math["extra"]) == {"answer": GSM8K["answer"]}
    (chat,), _ = read_sft(write(tmp_path / "c.jsonl", [SHAREGPT]))
    assert json.loads(chat["extra"]) == {"id": "x", "category": "advice"}


def turns(*pairs):
    return {"conversations": [{"from": role, "value": value} for role, value in pairs]}


@pytest.mark.parametrize("row, gate, said", [
    (turns(("human", "Hi")), "no_answer", "has no answer"),
    (turns(("gpt", "Hi"), ("human", "Hello"), ("gpt", "Yes")), "roles", "begins with assistant"),
    (turns(("human", "Hi"), ("robot", "Hello")), "roles", "robot"),
    (turns(("human", "Hi"), ("system", "Obey"), ("gpt", "Hello")), "roles", "middle"),
    (turns(("human", " "), ("gpt", "Hello")), "empty", "no text"),
    (turns(("human", 5), ("gpt", "Hello")), "layout", "column value is a int"),
    ({"conversations": "Hi"}, "layout", "not a list"),
    ({"conversations": []}, "roles", "nothing"),
    ({"text": "Hi"}, "layout", "column conversations"),
])
def test_a_row_that_does_not_fit_is_refused_with_its_place(tmp_path, row, gate, said):
    path = write(tmp_path / "chats.jsonl", [SHAREGPT, row, SHAREGPT])
    samples, (refused,) = read_sft(path)
    assert [sample["id"] for sample in samples] == ["chats-0", "chats-2"]
    assert (refused["id"], refused["stage"], refused["gate"]) == ("chats-1", "import", gate)
    assert said in refused["reason"] and "chats.jsonl, line 2" in refused["reason"]
    assert json.loads(refused["record"]) == row


def test_neighbours_of_one_role_are_one_message(tmp_path):
    path = write(tmp_path / "c.jsonl", [turns(("human", "Hi"), ("human", "there"), ("chatgpt", "Hello"))])
    (sample,), _ = read_sft(path)
    assert [message["content"] for message in sample["messages"]] == ["Hi\n\nthere", "Hello"]


def test_an_empty_answer_is_refused(tmp_path):
    path = write(tmp_path / "a.json", [{**ALPACA, "output": "\n"}, {**GSM8K, **ALPACA}])
    samples, (refused,) = read_sft(path)
    assert refused["gate"] == "empty" and [sample["id"] for sample in samples] == ["a-1"]


def test_kind_limit_and_license_are_parameters(tmp_path):
    write(tmp_path / "a.jsonl", [ALPACA] * 3)
    write(tmp_path / "b.jsonl", [GSM8K] * 3)
    samples, _ = read_sft(tmp_path, kind="mixed", limit=2, license="MIT")
    assert [sample["id"] for sample in samples] == ["a-0", "a-1", "b-0", "b-1"]
    assert {sample["kind"] for sample in samples} == {"mixed"} and samples[0]["source"]["license"] == "MIT"


def test_clear_errors(tmp_path):
    with pytest.raises(BadRecord, match=r"its columns prompt, reply fit no layout .*alpaca: instruction, output"):
        read_sft(write(tmp_path / "odd.jsonl", [{"prompt": "a", "reply": "b"}]))
    broken = tmp_path / "broken.jsonl"
    broken.write_text("\n".join([json.dumps(GSM8K)] * 6 + ['{"question": ']), encoding="utf-8")
    with pytest.raises(BadRecord, match=r"broken\.jsonl, line 7: not valid JSON"):
        read_sft(broken)
    with pytest.raises(BadRecord, match="no row in it"):
        read_sft(write(tmp_path / "empty.json", []))
    (tmp_path / "one").mkdir()
    write(tmp_path / "one" / "a.jsonl", [GSM8K])
    write(tmp_path / "one" / "a.json", [GSM8K])
    with pytest.raises(BadRecord, match="same ids"):
        read_sft(tmp_path / "one")


CONTENT = st.text(min_size=1, max_size=30).filter(str.strip)


@given(st.booleans(), st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3))
def test_export_and_import_lose_nothing(tmp_path_factory, system, pairs):
    messages = [{"role": "system", "content": "s"}] if system else []
    for question, answer in pairs:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    sample = {"id": "a", "language": "en", "kind": "poem", "messages": messages, "source": {}, "generator": {}, "extra": None}
    folder = tmp_path_factory.mktemp("export")
    for export, name in ((to_sharegpt, "s.jsonl"), (to_messages, "m.jsonl")):
        (again,), refused = read_sft(write(folder / name, [export(sample)]))
        assert not refused and again["messages"] == messages and again["kind"] == "poem"


def test_the_embedded_sample_reads_whole_and_fits_the_table(tmp_path):
    samples, refused = read_sft(EMBEDDED)
    assert not refused
    kinds = [sample["kind"] for sample in samples]
    assert kinds.count("chat_agnostic") >= 18 and kinds.count("math") >= 16 and kinds.count("code") >= 10
    assert not any("<<" in message["content"] for sample in samples for message in sample["messages"])
    write_table(tmp_path / "samples.parquet", samples, SAMPLES)
    assert read_samples(tmp_path / "samples.parquet") == samples
