"""Grounding: which pages become documents, whatever their layout, however often the work is killed."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wiki_xml import dump, letters, page
from ultralink_nb import dump_files, refining
from ultralink_nb.dumps import DumpError, find_dumps, read_pages
from ultralink_nb.gates import Gates, page_gate
from ultralink_nb.knowledge import ground
from ultralink_nb.passages import is_heading, passages_of, split_passages
from ultralink_nb.records import DOCUMENTS, PASSAGES, REJECTED, read_table, write_table
from ultralink_nb.tokens import count_tokens
from ultralink_nb.workspace import SAMPLE

FIVE = ["en", "zh", "ru", "fr", "es"]
ENGLISH = "The old mill stands by the river, and its wheel has turned for two hundred years. Text {} is one of its own. "
WORDS = "river mill wheel stone miller flour grain water bridge village market winter road song harvest lantern orchard".split()


def article(number, words=8):
    return page(f"Mill {number}", ENGLISH.format(number) * words, number)


def prose(number, length=120):
    """English of its own for each number, so that no two are near-duplicates."""
    draw = random.Random(number)
    sentence = "The {} of the {} is near the {} {}."
    return " ".join(sentence.format(*draw.choices(WORDS, k=3), draw.randint(0, 10**6)) for _ in range(length // 10))


class Result:
    """Documents and refusals of a grounding, read back from its tables."""

    def __init__(self, paths, languages, folder, low=10, high=10_000, **settings):
        gates = Gates(low, high, filter_words=settings.pop("filter_words", {}))
        settings.setdefault("cache_dir", folder / "cache")
        self.grounding = ground(paths, languages, folder, gates, **settings)
        self.documents = read_table(folder / "documents.parquet", DOCUMENTS)
        self.rejected = read_table(folder / "rejected_01.parquet", REJECTED)
        self.gates = Counter(row["gate"] for row in self.rejected)
        self.funnel = self.grounding.funnel
        assert (len(self.documents), len(self.rejected)) == self.grounding[:2]


# --- gates ---

def test_every_gate_refuses_what_it_should_and_counts_it(tmp_path):
    good, unwanted, same = prose(1), prose(2) + " It was Forbidden.", prose(1).upper()
    german = "Die alte Mühle steht am Fluss, und ihr Rad dreht sich seit zweihundert Jahren im kalten Wasser. " * 10
    (tmp_path / "enwiki.xml").write_bytes(dump(
        page("Good", good, 1), page("Talk:Good", good, 2, namespace=1), page("R", "#REDIRECT [[Good]]", 3),
        page("R2", "x", 4, inner='<redirect title="Good"/>'), page("Mill (disambiguation)", good, 5),
        page("Mills", "{{Disambig}}\n" + good, 6), page("List of mills", good, 7), page("Stub", "A mill.", 8),
        page("Long", prose(9, 2000), 9), page("Unwanted", unwanted, 10), page("Copy", same, 11),
        page("Deutsch", german, 12), page("Good again", prose(13), 1), page("Nearly", good + " A new last sentence.", 14),
        page("Huge", "[[a]] " * 600_000, 15),
    ))
    result = Result(tmp_path, ["en"], tmp_path / "out", 100, 1000, filter_words={"en": ["forbidden"]})
    assert result.gates == {
        "namespace": 1, "redirect": 2, "disambiguation": 2, "list_page": 1, "oversized": 1, "too_short": 1, "too_long": 1,
        "filter_words": 1, "duplicate": 3, "language": 1,
    }
    assert len(result.documents) == 1 and result.documents[0]["n_tokens"] == count_tokens([result.documents[0]["text"]])[0]
    reasons = sorted(row["reason"].split(" as")[0] for row in result.rejected if row["gate"] == "duplicate")
    assert reasons == ["a page with the id 1 was read before", "nearly the same text", "the same text"]
    assert result.funnel["en"].iloc[0] == 15 and result.funnel["en"].iloc[-1] == 1 and result.funnel["en"].is_monotonic_decreasing
    record = json.loads(result.rejected[0]["record"])
    assert set(record) == {"title", "url", "text"} and len(record["text"]) <= 200


def test_near_duplicates_are_a_parameter(tmp_path):
    (tmp_path / "enwiki.xml").write_bytes(dump(page("A", prose(1), 1), page("B", prose(1) + " A new last sentence.", 2)))
    assert len(Result(tmp_path, ["en"], tmp_path / "a").documents) == 1
    assert len(Result(tmp_path / "enwiki.xml", ["en"], tmp_path / "b", near_duplicate=None).documents) == 2


def test_filter_words_are_whole_words_except_in_chinese(tmp_path):
    (tmp_path / "enwiki.xml").write_bytes(dump(article(1)))
    kept = Result(tmp_path, ["en"], tmp_path / "out", filter_words={"en": ["mil", "turn"], "zh": ["磨"]})
    assert len(kept.documents) == 1
    (tmp_path / "zhwiki.xml").write_bytes(dump(page("水磨", "河边的老水磨已经转动了两百多年，村里的人都很喜欢它。" * 10, 1)))
    refused = Result(tmp_path / "zhwiki.xml", ["zh"], tmp_path / "out", filter_words={"zh": ["水磨"]})
    assert not refused.documents and refused.gates == {"filter_words": 1}


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_order(tmp_path):
    pages = [page(f"Mill {number}", prose(number), number) for number in range(1, 61)]
    for name, order in (("a", pages), ("b", pages[::-1])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "enwiki-1.xml").write_bytes(dump(*order[:25]))
        (tmp_path / name / "enwiki-2.xml").write_bytes(dump(*order[25:]))

    def drawn(name, seed):
        rows = Result(tmp_path / name, ["en"], tmp_path / "out", max_documents=9, seed=seed).documents
        return {row["id"]: row["text"] for row in rows}

    assert drawn("a", 1) == drawn("b", 1) and len(drawn("a", 1)) == 9 and drawn("a", 1) != drawn("a", 2)
    funnel = Result(tmp_path / "a", ["en"], tmp_path / "out", max_documents=9).funnel["en"]
    assert funnel.iloc[0] == 60 and funnel.iloc[-1] == 9


def test_pages_that_the_draw_cannot_reach_are_not_cleaned(tmp_path, monkeypatch):
    monkeypatch.setattr(dump_files, "PART", 5_000)
    monkeypatch.setattr(refining, "LAG", 2)
    (tmp_path / "enwiki.xml").write_bytes(dump(*(page(f"Mill {number}", prose(number), number) for number in range(1, 101))))
    bounded = Result(tmp_path / "enwiki.xml", ["en"], tmp_path / "a", max_documents=5)
    monkeypatch.setattr(refining, "LAG", 1000)
    unbounded = Result(tmp_path / "enwiki.xml", ["en"], tmp_path / "b", max_documents=5, cache_dir=tmp_path / "other")
    assert bounded.documents == unbounded.documents and len(bounded.documents) == 5
    assert "after not_drawn_early" in bounded.funnel.index and "after not_drawn_early" not in unbounded.funnel.index
    assert bounded.funnel["en"].iloc[-1] == unbounded.funnel["en"].iloc[-1] == 5


# --- sources ---

def test_a_broken_dump_keeps_what_was_whole_and_is_used_only_when_asked(tmp_path):
    path = tmp_path / "enwiki.xml"
    path.write_bytes(dump(*(page(f"Mill {n}", prose(n), n) for n in range(1, 11)))[:-900])
    with pytest.raises(DumpError, match=r"enwiki\.xml, byte [\d,]+ of the XML: the file ends too early.*accept_broken_dump"):
        Result(path, ["en"], tmp_path / "out")
    assert 5 < len(read_table(tmp_path / "out" / "documents.parquet", DOCUMENTS)) < 10
    result = Result(path, ["en"], tmp_path / "out", accept_broken_dump=True)
    assert 5 < len(result.documents) < 10 and result.gates == {"broken_dump": 1}


def test_a_dump_without_a_page_is_an_error_even_when_broken_ones_are_accepted(tmp_path):
    for content in (b"", b"<mediawiki></mediawiki>", b"BZh9 this is not bzip2 at all"):
        (tmp_path / "enwiki.xml").write_bytes(content)
        with pytest.raises(DumpError, match=r"enwiki\.xml"):
            Result(tmp_path / "enwiki.xml", ["en"], tmp_path / "out", accept_broken_dump=True)


def test_a_source_of_a_language_that_the_run_lacks_is_refused_as_a_whole(tmp_path):
    (tmp_path / "enwiki.xml").write_bytes(dump(article(1)))
    (tmp_path / "dewiki.xml").write_bytes(dump(article(2)))
    result = Result([tmp_path / "enwiki.xml", tmp_path / "dewiki.xml"], ["en"], tmp_path / "out")
    assert [(row["gate"], row["language"]) for row in result.rejected] == [("source_language", "de")]


def test_every_layout_goes_the_same_way(tmp_path):
    texts = {number: prose(number) for number in range(1, 6)}
    (tmp_path / "enwiki.xml").write_bytes(dump(*(page(f"Mill {n}", text, n) for n, text in texts.items())))
    rows = [{"id": str(n), "title": f"Mill {n}", "url": f"https://en.wikipedia.org/wiki/Mill_{n}", "text": text}
            for n, text in texts.items()]
    (tmp_path / "en.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nno json\n", "utf-8")
    mixed = [{**row, "language": "en" if n % 2 else "fr"} for n, row in enumerate(rows)]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, mixed)), "utf-8")
    from_dump = Result(tmp_path / "enwiki.xml", ["en"], tmp_path / "a").documents
    from_rows = Result(tmp_path / "en.jsonl", ["en"], tmp_path / "b")
    names = ("id", "title", "url", "text", "license", "n_tokens")
    assert [[row[name] for name in names] for row in from_dump] == [[row[name] for name in names] for row in from_rows.documents]
    assert from_rows.gates == {"bad_row": 1} and "line 6" in from_rows.rejected[0]["reason"] + from_rows.rejected[0]["id"]
    own = Result(tmp_path / "all.jsonl", ["en", "de"], tmp_path / "c")
    assert {row["id"] for row in own.documents} == {"en:2", "en:4"} and own.gates == {"row_language": 3}
    assert list(own.funnel.columns) == ["en", "de"] and own.funnel["en"].tolist()[0] == 2


# --- processes and kills ---

def big_dump(path, pages=400):
    xml = dump(*(page(f"P{n}", prose(n, 300) + noise, n) for n, noise in enumerate(letters(pages, 40), 1)))
    path.write_bytes(xml)
    return path


def tables(folder):
    return [(folder / name).read_bytes() for name in ("documents.parquet", "rejected_01.parquet")]


def test_any_number_of_processes_gives_the_same_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(dump_files, "PART", 100_000)
    monkeypatch.setattr(refining, "SMALL", 0)
    path = big_dump(tmp_path / "enwiki.xml")
    for workers in (1, 2):
        Result(path, ["en"], tmp_path / str(workers), workers=workers, max_documents=50)
    assert tables(tmp_path / "1") == tables(tmp_path / "2")


KILLED = """
import sys
from pathlib import Path
from ultralink_nb import dump_files, knowledge, refining
from ultralink_nb.gates import Gates
dump_files.PART, refining.SMALL = 60_000, 0
if __name__ == "__main__":
    knowledge.ground(sys.argv[1], ["en"], sys.argv[2], Gates(10), cache_dir=sys.argv[3], workers=int(sys.argv[4]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_at_any_instant_loses_no_more_than_a_part(tmp_path, workers):
    path = big_dump(tmp_path / "enwiki.xml")
    script = tmp_path / "run.py"
    script.write_text(KILLED, "utf-8")

    def begin(name):
        command = [sys.executable, str(script), str(path), str(tmp_path / name), str(tmp_path / f"{name}-cache"), str(workers)]
        return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)

    started = time.monotonic()
    assert begin("whole").wait(120) == 0
    whole = time.monotonic() - started
    draw, done = random.Random(workers), []
    for _ in range(4):
        process = begin("killed")
        time.sleep(whole * draw.uniform(0.4, 0.95))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done.append(len(list((tmp_path / "killed-cache").rglob("[0-9]*[0-9].parquet"))))
    assert done == sorted(done) and done[-1] > 0
    assert begin("killed").wait(120) == 0
    assert tables(tmp_path / "whole") == tables(tmp_path / "killed")


# --- the embedded sample ---

@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return Result(SAMPLE / "wiki", FIVE, tmp_path_factory.mktemp("sample"), 150)


def test_the_sample_gives_its_articles_and_refuses_the_rest(sample):
    assert all(6 <= count <= 20 for count in Counter(row["language"] for row in sample.documents).values())
    assert {row["language"] for row in sample.documents} == set(FIVE)
    for code in FIVE:
        gates = Counter(row["gate"] for row in sample.rejected if row["language"] == code)
        assert set(gates) == {"namespace", "redirect", "disambiguation", "list_page", "too_short", "language"}
    assert {(row["license"], row["source"]) for row in sample.documents} == {("MIT", "UltraLink sample encyclopedia")}


def test_the_demo_profile_gives_every_recorded_dialogue_one_passage_and_every_passage_a_dialogue(sample, root):
    profile = yaml.safe_load((root / "notebooks" / "profiles" / "demo.yaml").read_text("utf-8"))
    assert profile["min_document_tokens"] == 150
    passages = list(passages_of(sample.documents, profile["max_passage_tokens"]))
    for code in FIVE:
        texts = [row["text"] for row in passages if row["language"] == code]
        lines = (SAMPLE / "dialogues" / f"{code}.jsonl").read_text("utf-8").splitlines()
        anchors = [json.loads(line)["anchor"] for line in lines]
        assert [anchor for anchor in anchors if sum(anchor in text for text in texts) != 1] == []
        assert [text[:60] for text in texts if not any(anchor in text for anchor in anchors)] == []


def test_a_page_gate_needs_no_cleaning(sample):
    refused = {row["id"] for row in sample.rejected if row["gate"] in ("namespace", "redirect", "disambiguation", "list_page")}
    for path in find_dumps(SAMPLE / "wiki"):
        for one in read_pages(path):
            assert (page_gate(one) is not None) == (one.key in refused)


# --- passages ---

def document(text):
    return {"id": "en:1", "language": "en", "title": "T", "text": text}


def check_whole(text, passages, limit):
    position = 0
    for number, passage in enumerate(passages):
        found = text.index(passage["text"], position)
        assert not text[position:found].strip(), "a character of prose was lost"
        position = found + len(passage["text"])
        assert passage["text"].strip() == passage["text"] != "" and passage["id"] == f"en:1:{number}"
        assert passage["n_tokens"] <= limit and passage["n_tokens"] == count_tokens([passage["text"]])[0]
    assert not text[position:].strip()


PIECE = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="abcдё́и词句。！.?! \n-", max_size=120),
    st.sampled_from([
        "History", "- item one\n- item two", "x" * 300, "A sentence. " * 40, "这是一个很长的句子，没有空格。" * 20,
        "а\u0301" * 100,
    ]),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(PIECE, max_size=8), st.integers(16, 80))
def test_passages_hold_every_character_of_prose(pieces, limit):
    text = "\n\n".join(pieces)
    check_whole(text, split_passages(document(text), limit), limit)


def test_cuts_fall_between_paragraphs_and_the_parts_are_equal():
    paragraphs = [f"Paragraph {number} says a thing about the mill by the river in {1700 + number}." for number in range(24)]
    text = "\n\n".join(paragraphs)
    whole = count_tokens([text])[0]
    passages = split_passages(document(text), int(whole / 1.2))
    assert len(passages) == 2 and "\n\n".join(row["text"] for row in passages) == text
    assert abs(passages[0]["n_tokens"] - passages[1]["n_tokens"]) < 0.1 * whole
    assert split_passages(document(text), whole)[0]["text"] == text


def test_a_heading_stays_with_what_it_heads():
    paragraph = "The wheel of the mill turns in the water of the river all day long. " * 6
    text = "\n\n".join(["Lead. " + paragraph, "History", "Early days", paragraph, "Use", paragraph])
    for limit in range(100, 220, 20):
        passages = split_passages(document(text), limit)
        check_whole(text, passages, limit)
        assert not any(is_heading(row["text"].split("\n\n")[-1]) for row in passages)


def test_a_long_paragraph_is_cut_at_the_end_of_a_sentence():
    english = "One sentence of the story ends here. Does it? \"It does!\" she said. " * 20
    for text in (english, "水磨转了两百年。“还会转吗？”他问。会的！" * 30):
        passages = split_passages(document(text), 60)
        check_whole(text, passages, 60)
        assert all(re.search(r"[.!?。！？][\"”]?$", row["text"]) for row in passages)


def test_a_stress_mark_is_never_cut_from_its_letter():
    passages = split_passages(document("а\u0301" * 400), 50)
    assert len(passages) > 4 and not any(row["text"].startswith("\u0301") for row in passages)


def test_passages_fit_their_table(tmp_path, sample):
    passages = list(passages_of(sample.documents[:3], 300))
    assert write_table(tmp_path / "passages.parquet", passages, PASSAGES) == len(passages) > 6
    assert len({row["id"] for row in passages}) == len(passages)


def test_passages_by_two_processes_are_the_same(sample, monkeypatch):
    monkeypatch.setattr("ultralink_nb.passages.BATCH", 4)
    assert list(passages_of(sample.documents, 300, workers=2)) == list(passages_of(sample.documents, 300))


def test_real_dumps_become_documents_in_the_language_of_their_name(shared_data, tmp_path):
    found = Result(shared_data / "wiki_xml" / "dbpedia_minidump_*.bz2", [*FIVE, "de"], tmp_path, 1000, 100_000)
    assert {row["language"] for row in found.documents} == {*FIVE, "de"}
    for row in found.documents:
        assert row["url"].startswith(f"https://{row['language']}.wikipedia.org/wiki/")
    for row in passages_of(found.documents, 2000):
        assert row["n_tokens"] <= 2000
