import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb import card, records, release
from ultralink_nb.chat import ReplayModel
from ultralink_nb.tokens import count_tokens

NOWHERE = {"dataset": None, "parent_id": None, "document_id": None, "url": None, "license": None}
NOBODY = {"model": None, "prompt_version": None, "seed": None}


def sample(row_id, language="en", kind="math", texts=("What is 6 times 7?", "It is 42."), roles=None, source=None, model=None,
           extra=None):
    roles = roles or ("user", "assistant") * len(texts)
    return {"id": row_id, "language": language, "kind": kind,
            "messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)],
            "source": {**NOWHERE, **(source or {})}, "generator": {**NOBODY, "model": model}, "extra": extra}


WIKI = {"dataset": "wiki", "document_id": "zh:7", "url": "https://example.org/7", "license": "CC BY-SA 4.0"}
KEPT = [
    sample("m1"),
    sample("s1", "zh", "chat_specific", ("昆曲是什么？", "一种戏曲。", "起源于哪里？", "江苏昆山。"), source=WIKI,
           model=ReplayModel.label, extra='{"title": "昆曲"}'),
    sample("m2", "ru", "math", ("Сколько будет 2 + 2?",)),
    sample("s2", "zh", "chat_specific", ("Отвечай кратко | ясно", "昆曲有多古老？", "六百多年。"),
           ("system", "user", "assistant"), source=WIKI, model=ReplayModel.label),
    sample("c1", "fr", "code", ("Écris une boucle.", "```python\nfor i in range(3): pass\n```"),
           source={"dataset": "codes|x", "parent_id": "c0"}, model="some-model"),
]
GONE = [sample("m0", "zh", "math", ("六乘七等于几？", "42。"))]
DROPPED = [{"id": "m0", "kept_by": "m1", "probability": 0.9, "policy": "balanced", "reason": "says the same as m1"}]
DOCUMENT = {"id": "zh:7", "language": "zh", "title": "昆曲（戏曲）", "text": "…", "url": "https://example.org/7",
            "revision": "123", "license": "CC BY-SA 4.0", "source": "wiki", "n_tokens": 1}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    records.write_table(folder / "kept.parquet", KEPT, records.SAMPLES)
    records.write_table(folder / "dropped.parquet", DROPPED, records.DROPPED)
    records.write_table(folder / "samples.parquet", [*GONE, *KEPT], records.SAMPLES)
    records.write_table(folder / "documents.parquet", [DOCUMENT], records.DOCUMENTS)
    return folder


def write(folder, material, **changes):
    return release.write_release(folder, material, release.statistics(material.kept),
                                 **{"name": "a test", "license": "CC-BY-SA-4.0", **changes})


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def read_card(folder):
    _, front, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


@pytest.fixture
def written(data, tmp_path):
    return write(tmp_path / "out", release.read_material(data, ["en", "zh", "ru", "fr"]))


def test_ultralinks_own_layout_numbers_each_file_from_0_and_has_no_system_message(written):
    assert {path.name for path in (written.folder / "ultralink").iterdir()} == {
        "en_math.jsonl", "ru_math.jsonl", "zh_chat_specific.jsonl", "fr_code.jsonl"}
    assert lines(written.folder / "ultralink/zh_chat_specific.jsonl") == [
        {"id": "zh_chat_specific_0", "data": ["昆曲是什么？", "一种戏曲。", "起源于哪里？", "江苏昆山。"]},
        {"id": "zh_chat_specific_1", "data": ["昆曲有多古老？", "六百多年。"]},
    ]
    assert lines(written.folder / "ultralink/ru_math.jsonl") == [{"id": "ru_math_0", "data": ["Сколько будет 2 + 2?"]}]
    assert "昆曲" in (written.folder / "ultralink/zh_chat_specific.jsonl").read_text(encoding="utf-8")  # not escaped


def test_messages_layout_keeps_every_message_under_the_samples_own_id(written):
    rows = [row for path in (written.folder / "messages").iterdir() for row in lines(path)]
    expected = [{key: row[key] for key in ("id", "language", "kind", "messages")} for row in KEPT]
    assert sorted(rows, key=lambda row: row["id"]) == sorted(expected, key=lambda row: row["id"])


def test_datasets_opens_a_configuration_for_each_kind_and_a_default_of_everything(written, tmp_path, monkeypatch):
    import datasets

    folder, cache = str(written.folder), str(tmp_path / "cache")
    assert sorted(datasets.get_dataset_config_names(folder)) == ["chat_specific", "code", "default", "math"]
    everything = datasets.load_dataset(folder, cache_dir=cache)
    assert list(everything) == ["train"] and everything["train"].column_names == records.SAMPLES.names
    by_id = {row["id"]: row for row in everything["train"]}
    assert by_id == {row["id"]: row for row in KEPT}  # not a field is lost on the way
    for kind in ("chat_specific", "code", "math"):
        part = datasets.load_dataset(folder, name=kind, split="train", cache_dir=cache)
        assert sorted(part["id"]) == sorted(row["id"] for row in KEPT if row["kind"] == kind)


def test_a_kind_in_another_script_opens_too(tmp_path):
    import datasets

    made = write(tmp_path / "out", release.Material([sample("a", kind="数学-1.x"), sample("b", kind="test")]))
    for kind, row in (("数学-1.x", "a"), ("test", "b")):
        part = datasets.load_dataset(str(made.folder), name=kind, split="train", cache_dir=str(tmp_path / "cache"))
        assert part["id"] == [row]


def test_the_same_input_gives_the_same_bytes_and_the_checksums_are_right(data, tmp_path, written):
    again = write(tmp_path / "elsewhere", release.read_material(data))
    assert again.files == written.files
    bytes_of = {path.relative_to(folder).as_posix(): path.read_bytes() for folder in (written.folder, again.folder)
                for path in folder.rglob("*") if path.is_file()}
    assert set(bytes_of) == {row["file"] for row in written.files} | {release.CHECKSUMS}
    for line in (written.folder / release.CHECKSUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(bytes_of[name]).hexdigest() == digest
    assert release.check_release(written.folder) == []


def test_an_older_release_is_replaced_and_nothing_else_is_left(data, tmp_path, written):
    write(written.folder, release.Material(KEPT[:1]), name="second")
    assert {path.name for path in (written.folder / "messages").iterdir()} == {"en_math.jsonl"}
    assert read_card(written.folder)[0]["pretty_name"] == "second"
    assert release.check_release(written.folder) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_a_failure_leaves_the_older_release_as_it_was(data, tmp_path, written, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in written.folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(release, "dataset_card", full_disk)
    with pytest.raises(OSError, match="No space"):
        write(written.folder, release.Material(KEPT[:1]))
    assert {path: path.read_bytes() for path in written.folder.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_a_failed_swap_puts_the_older_release_back(data, tmp_path, written, monkeypatch):
    replace = release.os.replace

    def refuse(source, target):
        if str(source).endswith(".part") and Path(target).name == "out":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(release.os, "replace", refuse)
    with pytest.raises(OSError, match="Input/output"):
        write(written.folder, release.Material(KEPT[:1]))
    assert release.check_release(written.folder) == [] and len(lines(written.folder / "messages/zh_chat_specific.jsonl")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


@pytest.mark.parametrize("content", ["", '{"made_by": "somebody"}', "[1]"])
def test_a_folder_that_is_no_release_is_left_alone(tmp_path, content):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.txt").write_text("years of work")
    if content:
        (folder / release.MARKER).write_text(content)
    with pytest.raises(release.NotARelease, match="thesis is not a release of this kit and is left alone: name another"):
        write(folder, release.Material(KEPT))
    assert (folder / "chapter1.txt").read_text() == "years of work"


def test_a_file_in_the_place_of_the_folder_is_left_alone(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(release.NotARelease):
        write(tmp_path / "out", release.Material(KEPT))
    assert (tmp_path / "out").read_text() == "mine"


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    assert release.check_release(write(tmp_path / "out", release.Material(KEPT)).folder) == []


@pytest.mark.parametrize(("name", "problem"), [
    ("README.md", "changed: README.md"), ("notes.txt", "not of the release: notes.txt"),
    (".git/HEAD", "not of the release: .git/HEAD"),
])
def test_what_somebody_put_into_a_release_is_not_deleted(written, name, problem):
    (written.folder / name).parent.mkdir(exist_ok=True)
    (written.folder / name).write_text("my own words")
    assert release.check_release(written.folder) == [problem]
    with pytest.raises(release.NotARelease, match=re.escape(problem)):
        write(written.folder, release.Material(KEPT))
    assert (written.folder / name).read_text() == "my own words"


def test_a_missing_file_is_noticed_and_does_not_block_a_new_release(written):
    (written.folder / "data/math/en.parquet").unlink()
    assert release.check_release(written.folder) == ["missing: data/math/en.parquet"]
    assert release.check_release(write(written.folder, release.Material(KEPT)).folder) == []


@pytest.mark.parametrize("name", ["kept.parquet", "dropped.parquet"])
def test_a_missing_table_says_which_notebook_writes_it(data, name):
    (data / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} does not exist: run notebook 05 \(pruning\) first"):
        release.read_material(data)


def test_kept_and_dropped_must_be_the_samples(data):
    records.write_table(data / "dropped.parquet", [], records.DROPPED)
    with pytest.raises(ValueError, match="run notebook 05 again"):
        release.read_material(data)


def test_nothing_kept_is_an_error(data):
    records.write_table(data / "kept.parquet", [], records.SAMPLES)
    with pytest.raises(ValueError, match="nothing to release"):
        release.read_material(data)


def test_a_language_that_the_run_does_not_have_is_an_error(data):
    with pytest.raises(records.BadRecord, match="column language: 'fr'"):
        release.read_material(data, ["en", "zh", "ru"])


@pytest.mark.parametrize("kind", ["a/b", "../x", ".hidden", "default", "two words", "__x", "*"])
def test_a_kind_that_cannot_name_a_file_is_refused_before_anything_is_written(tmp_path, kind):
    with pytest.raises(ValueError, match="cannot name a file"):
        write(tmp_path / "out", release.Material([sample("a", kind=kind)]))
    assert list(tmp_path.iterdir()) == []


def test_kinds_that_differ_in_case_only_are_refused():
    with pytest.raises(ValueError, match="rename one of math, MATH"):
        release.by_file([sample("a", kind="math"), sample("b", kind="MATH")])


def test_statistics_by_hand():
    samples = [sample("a", texts=("one", "two three", "four", "five")), sample("b", "zh", "code", ("six seven eight",)),
               sample("c", texts=("not counted", "nine", "ten"), roles=("system", "user", "assistant"))]
    one, two, four, five, six, nine, ten = count_tokens(["one", "two three", "four", "five", "six seven eight", "nine", "ten"])
    rows = {(row["part"], row["name"]): row for row in release.statistics(samples)}
    assert list(rows) == [("all", "all"), ("language", "en"), ("language", "zh"), ("kind", "math"), ("kind", "code")]
    questions, answers = [one, four, six, nine], [two, five, ten]
    assert rows["all", "all"] == {
        "part": "all", "name": "all", "dialogues": 3, "turns": 4, "question": round(sum(questions) / 4, 2),
        "answer": round(sum(answers) / 3, 2), "turn": round((sum(questions) + sum(answers)) / 4, 2)}
    assert rows["language", "zh"]["answer"] is None and rows["language", "zh"]["turn"] == six
    assert rows["language", "en"] == {**rows["kind", "math"], "part": "language", "name": "en"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["en", "zh", "ru"]), st.sampled_from(["math", "code", "my kind"]), st.integers(1, 4)),
                min_size=1, max_size=12))
def test_statistics_add_up(shapes):
    samples = [sample(str(n), code, kind, ("question words",) * (2 * turns)) for n, (code, kind, turns) in enumerate(shapes)]
    rows = release.statistics(samples)
    for part in ("all", "language", "kind"):
        of_part = [row for row in rows if row["part"] == part]
        assert sum(row["dialogues"] for row in of_part) == len(samples)
        assert sum(row["turns"] for row in of_part) == sum(turns for *_, turns in shapes)
        assert all(row["turn"] == pytest.approx(row["question"] + row["answer"], abs=0.02) for row in of_part)


def test_the_published_rows_are_consistent():
    assert [row["name"] for row in card.PUBLISHED] == ["Okapi", "Guanaco", "Multialpaca", "Phoenix SFT data", "UltraLink"]
    for row in card.PUBLISHED:
        assert row["turn"] == pytest.approx(row["question"] + row["answer"], abs=0.011)
    assert sum(card.PUBLISHED_KINDS.values()) == card.PUBLISHED[-1]["dialogues"]


roles = st.lists(st.sampled_from(["user", "assistant", "system"]), min_size=1, max_size=7)


@given(roles)
def test_ultralinks_layout_holds_exactly_the_alternating_samples(order):
    texts = [f"{role} {position}" for position, role in enumerate(order)]
    row = release.ultralink_row(sample("x", "zh", "chat_specific", texts, order), 12)
    spoken = [role for role in order if role != "system"]
    alternating = spoken == ["user", "assistant"] * (len(spoken) // 2) + ["user"] * (len(spoken) % 2)
    if alternating:
        assert row == {"id": "zh_chat_specific_12", "data": [text for text in texts if not text.startswith("system")]}
    else:
        assert row is None


def test_a_sample_that_ultralinks_layout_cannot_hold_is_named_and_keeps_its_number(tmp_path):
    odd = sample("odd", texts=("Hello!", "Hi."), roles=("assistant", "user"))
    made = write(tmp_path / "out", release.Material([sample("a"), odd, sample("b")]))
    assert made.unpaired == ["odd"]
    assert [row["id"] for row in lines(made.folder / "ultralink/en_math.jsonl")] == ["en_math_0", "en_math_2"]
    assert [row["id"] for row in lines(made.folder / "messages/en_math.jsonl")] == ["a", "odd", "b"]
    assert [row["id"] for row in lines(made.folder / "ultralink/left_out.jsonl")] == ["odd"]
    assert "`ultralink/left_out.jsonl` names them" in read_card(made.folder)[1]
    assert json.loads((made.folder / release.MARKER).read_text())["left_out_of_ultralink_layout"] == 1


def test_attribution_names_document_revision_and_samples(written):
    assert lines(written.folder / "attribution.jsonl") == [{
        "document_id": "zh:7", "language": "zh", "title": "昆曲（戏曲）", "url": "https://example.org/7", "revision": "123",
        "license": "CC BY-SA 4.0", "dataset": "wiki", "samples": ["s1", "s2"]}]


def test_a_document_of_another_run_with_the_same_id_is_not_believed():
    other = {**DOCUMENT, "url": "https://example.org/other", "title": "something else"}
    row = release.attribution(KEPT, {"zh:7": other})[0]
    assert row["title"] == "昆曲" and row["revision"] is None
    strange = [sample("x", source=WIKI, extra="not JSON"), sample("y", source={**WIKI, "url": "u"}, extra="[1]")]
    assert [row["title"] for row in release.attribution(strange, {})] == [None, None]


def test_the_cards_front_matter(written):
    front, _ = read_card(written.folder)
    assert front["language"] == ["en", "zh", "ru", "fr"] and front["license"] == "cc-by-sa-4.0"
    assert front["pretty_name"] == "a test" and front["task_categories"] == ["text-generation"]
    assert front["size_categories"] == ["n<1K"]
    assert [config["config_name"] for config in front["configs"]] == ["default", "chat_specific", "math", "code"]


def test_a_license_without_an_identifier_is_other():
    front = card.front_matter("x", "for our course only", KEPT)
    assert (front["license"], front["license_name"]) == ("other", "for our course only")


def test_the_card_tells_what_a_stranger_must_know(written):
    _, body = read_card(written.folder)
    assert "2 of the samples are replayed recordings" in body and "not a model's output" in body
    assert "| chat_specific | 0 | 2 | 0 | 0 | 2 |" in body and "| all | 1 | 2 | 1 | 1 | 5 |" in body
    assert "5 samples were kept and 1 dropped by policy `balanced`" in body and "| math | 2 | 1 | 0.67 |" in body
    assert "| not stated | not stated | 2 |" in body and "| wiki | CC BY-SA 4.0 | 2 |" in body
    assert "codes\\|x" in body  # a bar in a name does not break the table
    assert "under the same licence" in body and "commercially" not in body  # BY and SA are there, NC is not
    assert "lists the 1 documents" in body and "| UltraLink | 1,032,000 | 1,623,000 | 87.86 | 290.35 | 378.21 |" in body
    assert "wang-etal-2024-ultralink" in body
    for row in release.statistics(KEPT):
        assert f"| {row['part']} | {row['name']} | {row['dialogues']} | {row['turns']} | {row['question']:.2f} |" in body


def test_the_card_claims_nothing_that_did_not_happen(tmp_path):
    _, body = read_card(write(tmp_path / "out", release.Material([sample("a")])).folder)
    for absent in ("replay", "Knowledge grounding", "Translation", "attribution.jsonl` lists", "left_out", "terms that bind"):
        assert absent not in body
    assert "Nothing was dropped: all 1 samples were kept." in body and "**Existing data.**" in body


def test_the_random_controls_losses_are_said(tmp_path):
    lost = [{**DROPPED[0], "kept_by": None, "policy": "random"}]
    _, body = read_card(write(tmp_path / "out", release.Material(KEPT, lost, GONE)).folder)
    assert "1 of the dropped samples have no kept sample that stands for them" in body
