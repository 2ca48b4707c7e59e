import gzip
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultralink_nb.layouts import EMBEDDED, detect_layout, read_sft, to_messages, to_sharegpt
from ultralink_nb.records import SAMPLES, BadRecord, Sample, Source, read_rows, read_samples, write_table

SHAREGPT = {"id": "x", "category": "advice",
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
GSM8K = {"question": "6 and 2?", "answer": "6+2 = <<6+2=8>>8.\n#### 8"}
ALPACA = {"instruction": "Sort it.", "input": "[2, 1]", "output": "[1, 2]"}
MESSAGES = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                         {"role": "assistant", "content": "Hello"}]}

OASST = {"message_tree_id": "t", "tree_state": "ready", "prompt": {
    "message_id": "q", "text": "Which tea?", "role": "prompter", "lang": "en", "replies": [
        {"message_id": "b", "text": "Black tea.", "role": "assistant", "rank": 1, "replies": []},
        {"message_id": "a", "text": "Green tea.", "role": "assistant", "rank": 0, "replies": [
            {"message_id": "a1", "text": "Why?", "role": "prompter", "rank": None, "replies": []},
            {"message_id": "a2", "text": "How hot?", "role": "prompter", "rank": None, "replies": [
                {"message_id": "a3", "text": "Boiling.", "role": "assistant", "rank": 0, "deleted": True, "replies": []},
                {"message_id": "a4", "text": "80 degrees.", "role": "assistant", "rank": 2, "replies": []}]}]}]}}
ULTRACHAT = {"id": "7", "data": ["Hi", "Hello", "Who is it?", "Me."]}
METAMATH = {"query": "What is 6 + 2?", "response": "It is 8. The answer is: 8", "original_question": "6 and 2?", "type": "R"}
MAGICODER = {"lang": "python", "problem": "Add one to x.", "solution": "x += 1"}
EVOL = {"instruction": "Add one to x.", "response": "x += 1"}
HUMANEVAL = {"task_id": "T/0", "prompt": "def f(x):\n    \"\"\"Add one.\"\"\"\n", "entry_point": "f",
             "canonical_solution": "    return x + 1\n", "test": "assert f(1) == 2"}


def write(path, rows):
    text = json.dumps(rows) if ".json" in path.suffixes else "\n".join(json.dumps(row) for row in rows)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


@pytest.mark.parametrize("row, layout, kind, contents", [
    (SHAREGPT, "sharegpt", "chat_agnostic", ["Hi", "Hello"]),
    (GSM8K, "gsm8k", "math", ["6 and 2?", "6+2 = 8.\n#### 8"]),
    (ALPACA, "alpaca", "code", ["Sort it.\n\n[2, 1]", "[1, 2]"]),
    ({**ALPACA, "input": ""}, "alpaca", "code", ["Sort it.", "[1, 2]"]),
    (MESSAGES, "messages", "chat_agnostic", ["Be brief.", "Hi", "Hello"]),
    (OASST, "oasst", "chat_agnostic", ["Which tea?", "Green tea."]),
    (ULTRACHAT, "ultrachat", "chat_agnostic", ULTRACHAT["data"]),
    (METAMATH, "metamath", "math", [METAMATH["query"], METAMATH["response"]]),
    (MAGICODER, "magicoder", "code", ["Add one to x.", "x += 1"]),
    (EVOL, "magicoder_evol", "code", ["Add one to x.", "x += 1"]),
    (HUMANEVAL, "humaneval", "code", [HUMANEVAL["prompt"], HUMANEVAL["canonical_solution"]]),
])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".jsonl.gz", ".json.gz", ".parquet"])
def test_each_layout_is_recognised_and_read(tmp_path, row, layout, kind, contents, suffix):
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        write(path, [row])
    assert detect_layout(path) == layout
    (sample,), refused = read_sft(path)
    assert not refused and read_sft(path, layout)[0] == [sample]
    assert (sample["id"], sample["kind"], sample["language"]) == ("rows-0", kind, "en")
    assert [message["content"] for message in sample["messages"]] == contents
    assert sample["source"]["dataset"] == path.name


def test_what_the_schema_has_no_name_for_is_kept(tmp_path):
    (math,), _ = read_sft(write(tmp_path / "m.jsonl", [GSM8K]))
    assert json.loads(math["extra"]) == {"answer": GSM8K["answer"]}
    (chat,), _ = read_sft(write(tmp_path / "c.jsonl", [SHAREGPT]))
    assert json.loads(chat["extra"]) == {"id": "x", "category": "advice"}
    (task,), _ = read_sft(write(tmp_path / "h.jsonl", [HUMANEVAL]))
    assert json.loads(task["extra"]) == {key: HUMANEVAL[key] for key in ("task_id", "entry_point", "test")}


def test_of_a_tree_the_best_ranked_path_or_every_one(tmp_path):
    path = write(tmp_path / "t.jsonl", [OASST])
    every, refused = read_sft(path, paths="all")
    assert not refused and [sample["id"] for sample in every] == ["t-0-0", "t-0-1"]
    assert [[message["content"] for message in sample["messages"]] for sample in every] == [
        ["Which tea?", "Green tea.", "How hot?", "80 degrees."], ["Which tea?", "Black tea."],
    ]
    assert json.loads(every[0]["extra"])["path"] == ["q", "a", "a2", "a4"]
    _, (foreign,) = read_sft(path, language="fr")
    _, (alone,) = read_sft(write(tmp_path / "a.jsonl", [{**OASST, "prompt": {**OASST["prompt"], "replies": []}}]))
    assert foreign["gate"] == "language" and alone["gate"] == "no_answer" and "line 1" in alone["reason"]


def test_an_alpaca_file_without_code_is_chat(tmp_path):
    rows = [{"instruction": "Name a colour.", "input": "", "output": "Blue is a colour."}] * 9
    (chat, *_), _ = read_sft(write(tmp_path / "a.jsonl", [*rows, ALPACA]))
    (code, *_), _ = read_sft(write(tmp_path / "b.jsonl", [*rows, *[ALPACA] * 4]))
    assert (chat["kind"], code["kind"]) == ("chat_agnostic", "code")


def test_a_data_set_of_the_hub_by_its_name(tmp_path):
    write(tmp_path / "train.jsonl", [GSM8K] * 3)
    card = "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: train.jsonl\n---\n"
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    samples, refused = read_sft(f"hub:{tmp_path}/main", limit=2)
    assert not refused and [sample["id"] for sample in samples] == [f"{tmp_path.name}-main-{row}" for row in (0, 1)]
    assert samples[0]["kind"] == "math" and samples[0]["source"]["dataset"] == f"{tmp_path}/main".removeprefix("hub:")
    with pytest.raises(BadRecord, match="look at the name and the network"):
        read_sft(f"hub:{tmp_path}/none")
    with pytest.raises(BadRecord, match="ends in a configuration"):
        read_sft("hub:gsm8k")


def turns(*pairs):  # of a ShareGPT row
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
    assert [turn["from"] for turn in json.loads(sample["extra"])["conversations"]] == ["human", "human", "chatgpt"]


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
    with pytest.raises(BadRecord, match="unknown layout 'gpt': the kit reads sharegpt"):
        read_sft(broken, "gpt")
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
    sample = Sample(id="a", language="fr", kind="poem", messages=messages, source=Source(license="MIT"), extra='{"b": 1}')
    round_trip([sample.model_dump()], tmp_path_factory.mktemp("export"))


def round_trip(samples, folder):
    for export, name in ((to_sharegpt, "s.jsonl"), (to_messages, "m.jsonl")):
        assert read_sft(write(folder / name, map(export, samples))) == (samples, [])


def test_an_export_that_was_spoilt_is_refused(tmp_path):
    row = to_sharegpt(read_sft(write(tmp_path / "a.jsonl", [SHAREGPT]))[0][0])
    rows = [row, {**row, "language": "xx"}, {**row, "conversations": [{"from": "robot", "value": "Hi"}]}]
    samples, refused = read_sft(write(tmp_path / "b.jsonl", rows))
    assert len(samples) == 1 and ["line 2", "line 3"] == [word for word in ("line 2", "line 3") for row in refused
                                                         if word in row["reason"]]


def test_the_embedded_sample_reads_whole_and_fits_the_table(tmp_path):
    samples, refused = read_sft(EMBEDDED)
    assert not refused
    kinds = [sample["kind"] for sample in samples]
    assert kinds.count("chat_agnostic") >= 18 and kinds.count("math") >= 16 and kinds.count("code") >= 10
    assert not any("<<" in message["content"] for sample in samples for message in sample["messages"])
    write_table(tmp_path / "samples.parquet", samples, SAMPLES)
    assert read_samples(tmp_path / "samples.parquet") == samples


def said(row):
    """The texts of a row of the public files."""
    if "conversations" in row:
        return [turn["value"] for turn in row["conversations"]]
    if "question" in row:
        return [row["question"], row["answer"]]
    return [row["instruction"] + (f"\n\n{row['input']}" if row["input"] else ""), row["output"]] if "output" in row else None


def told(sample):
    """The same texts, from what was imported alone."""
    extra, contents = json.loads(sample["extra"] or "{}"), [message["content"] for message in sample["messages"]]
    if "conversations" in extra:
        return [turn["value"] for turn in extra["conversations"]]
    return [contents[0], extra.get("answer", contents[1])] if sample["kind"] == "math" else contents


def test_public_files_are_read_whole_and_come_back_exactly(shared_data, tmp_path):
    """Every file of sft_en_raw: rows read and refused, what each row said, and the round trip through both exports."""
    counts = {}
    for file in sorted((shared_data / "sft_en_raw").iterdir()):
        samples, refused = read_sft(file)
        counts[file.name] = (len(samples), dict(Counter(row["gate"] for row in refused)))
        rows = [row for _, row in read_rows(file)]
        for sample in samples:
            row = rows[int(sample["id"].rpartition("-")[2])]
            assert said(row) in (None, told(sample))
        round_trip(samples, tmp_path)
    assert counts == {
        "code_alpaca_2k.json": (2015, {"empty": 2}), "en_oasst_100_tree.jsonl": (100, {}), "gsm8k_train.jsonl": (7473, {}),
        "moss_en_sharegpt_layout.jsonl": (239, {}),
    }
    every, refused = read_sft(shared_data / "sft_en_raw" / "en_oasst_100_tree.jsonl", paths="all")
    round_trip(every, tmp_path)
    assert len(every) == 546 and not refused
