import bz2
import gzip
import json
import re
import tracemalloc
from collections import Counter
from xml.sax.saxutils import escape

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb.dumps import DumpError, Site, find_dumps, language_of_dump, read_pages
from ultralink_nb.knowledge import page_gate, read_documents
from ultralink_nb.passages import is_heading, passages_of, split_passages
from ultralink_nb.records import DOCUMENTS, PASSAGES, REJECTED, read_table, write_table
from ultralink_nb.tokens import count_tokens
from ultralink_nb.workspace import SAMPLE

FIVE = ["en", "zh", "ru", "fr", "es"]
ENGLISH = "The old mill stands by the river, and its wheel has turned for two hundred years. Text {} is one of its own. "


def page(title, text, page_id=1, namespace=0, inner="", revisions=1):
    parts = "".join(
        f"<revision><id>{10 * page_id + n}</id><contributor><username>U</username><id>999</id></contributor>"
        f"<model>wikitext</model><text>{escape(text)}{'' if n == revisions - 1 else ' OLD'}</text></revision>"
        for n in range(revisions)
    )
    return f"<page><title>{escape(title)}</title><ns>{namespace}</ns><id>{page_id}</id>{inner}{parts}</page>"


def dump(*pages, base="https://en.wikipedia.org/wiki/Main_Page", version="0.11"):
    return (
        f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-{version}/"><siteinfo><sitename>W</sitename><base>{base}</base>'
        f'<namespaces><namespace key="0"/></namespaces></siteinfo>{"".join(pages)}</mediawiki>'
    ).encode()


def article(number, words=8):
    return page(f"Mill {number}", ENGLISH.format(number) * words, number)


# --- dumps ---

@pytest.mark.parametrize("suffix", [".xml", ".xml.bz2", ".xml.gz"])
def test_pages_are_read_from_every_kind_of_file(tmp_path, suffix):
    data = dump(
        page("A & B", "x < y", 7, revisions=3), page("Talk:A", "t", 8, namespace=1),
        page("R", "", 9, inner='<redirect title="A"/>'),
    )
    pack = {".xml": bytes, ".xml.bz2": bz2.compress, ".xml.gz": gzip.compress}[suffix]
    path = tmp_path / f"frwiki{suffix}"
    path.write_bytes(pack(data))
    first, talk, redirect = read_pages(path)
    assert (first.title, first.id, first.revision, first.text, first.redirect) == ("A & B", 7, "72", "x < y", False)
    assert (talk.namespace, redirect.redirect, redirect.id) == (1, True, 9)
    assert first.site == Site("fr", "W", "https://en.wikipedia.org/wiki/Main_Page") and first.key == "fr:7"


def test_a_bz2_of_several_streams_is_read_whole(tmp_path):
    data = dump(*(article(n) for n in range(1, 6)))
    path = tmp_path / "enwiki.xml.bz2"
    path.write_bytes(bz2.compress(data[:700]) + bz2.compress(data[700:]))
    assert [one.id for one in read_pages(path)] == [1, 2, 3, 4, 5]


def test_the_language_comes_from_the_name_or_the_parameter_never_from_the_header(tmp_path):
    unnamed = tmp_path / "export.xml"
    unnamed.write_bytes(dump(page("A", "x")))
    with pytest.raises(DumpError, match=r"export\.xml.*dump_language"):
        list(read_pages(unnamed))
    assert next(read_pages(unnamed, "ru")).site.language == "ru"
    assert language_of_dump(tmp_path / "dewiki-x.xml", otherwise="ru") == "de"


def test_a_dump_that_is_cut_off_says_where_after_the_pages_before(tmp_path):
    letters = np.random.default_rng(1).integers(97, 123, (299, 9000), dtype=np.uint8)
    whole = dump(*(page(f"P{n}", letters[n - 1].tobytes().decode(), n) for n in range(1, 300)))
    for pack, name in ((bz2.compress, "enwiki.xml.bz2"), (gzip.compress, "enwiki.xml.gz"), (bytes, "enwiki.xml")):
        data = pack(whole)
        path = tmp_path / name
        path.write_bytes(data[: int(len(data) * 0.8)])
        seen = []
        with pytest.raises(DumpError) as error:
            for one in read_pages(path):
                seen.append(one.id)
        assert 10 < len(seen) < 299 and seen == list(range(1, len(seen) + 1))
        said = rf"{name}: .* byte [\d,]+ of its XML.*after {len(seen):,} whole pages.*fetch the file again"
        assert re.search(said, str(error.value))


@pytest.mark.parametrize(("content", "message"), [
    (b"<html><body>no dump</body></html>", "holds no <page>"),
    (b"<mediawiki><page></title></page></mediawiki>", "not well-formed XML at line 1"),
    (b"", "before the first whole page"),
    (b"BZh9 this is not bzip2 at all", "bz2"),
    (b"\xfd7zXZ\x00xx", "recompress"),
])
def test_a_file_that_is_no_dump_is_named(tmp_path, content, message):
    path = tmp_path / "enwiki.xml"
    path.write_bytes(content)
    with pytest.raises(DumpError, match=message) as error:
        list(read_pages(path))
    assert "enwiki.xml" in str(error.value)


def test_memory_does_not_grow_with_the_dump(tmp_path):
    def peak(pages):
        path = tmp_path / f"enwiki{pages}.xml"
        path.write_bytes(dump(*(page(f"P{n}", "word " * 4000, n) for n in range(pages))))
        tracemalloc.start()
        assert sum(1 for _ in read_pages(path)) == pages
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(400) < 1.5 * peak(50) + 1e6


def test_addresses_and_licences():
    lying = Site("zh", "Wikipedia", "https://en.wikipedia.org/wiki/Main_Page")
    assert lying.url("都江堰 (a?)") == "https://zh.wikipedia.org/wiki/%E9%83%BD%E6%B1%9F%E5%A0%B0_(a%3F)"
    assert lying.license == Site("en").license == "CC-BY-SA-4.0"
    own = Site("fr", "Notre wiki", "https://wiki.example.org/w/Accueil")
    assert own.url("Le pain") == "https://wiki.example.org/w/Le_pain" and own.license == "unknown"


def test_folders_globs_and_lists_of_dumps(tmp_path):
    for name in ("enwiki-pages-articles1.xml-p1p41.bz2", "frwiki.xml", "frwiki-index.txt.bz2", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    names = [path.name for path in find_dumps(tmp_path)]
    assert names == ["enwiki-pages-articles1.xml-p1p41.bz2", "frwiki.xml"]
    assert [path.name for path in find_dumps([tmp_path / "fr*.xml", tmp_path])] == names
    with pytest.raises(FileNotFoundError, match="nothing"):
        find_dumps(tmp_path / "nothing*")


# --- gates ---

def test_every_gate_refuses_what_it_should_and_counts_it(tmp_path):
    good, unwanted, same = ENGLISH.format(1) * 8, ENGLISH.format(2) * 8 + "It was Forbidden.", ENGLISH.format(1) * 8
    german = "Die alte Mühle steht am Fluss, und ihr Rad dreht sich seit zweihundert Jahren im kalten Wasser. " * 10
    (tmp_path / "enwiki.xml").write_bytes(dump(
        page("Good", good, 1), page("Talk:Good", good, 2, namespace=1), page("R", "#REDIRECT [[Good]]", 3),
        page("R2", "x", 4, inner='<redirect title="Good"/>'), page("Mill (disambiguation)", good, 5),
        page("Mills", "{{Disambig}}\n" + good, 6), page("List of mills", good, 7), page("Stub", "A mill.", 8),
        page("Long", ENGLISH.format(9) * 100, 9), page("Unwanted", unwanted, 10), page("Copy", same, 11),
        page("Deutsch", german, 12), page("Good again", ENGLISH.format(13) * 8, 1),
    ))
    result = read_documents(
        tmp_path, ["en"], min_document_tokens=100, max_document_tokens=1000, filter_words={"en": ["forbidden"]}
    )
    assert Counter(row["gate"] for row in result.rejected) == {
        "namespace": 1, "redirect": 2, "disambiguation": 2, "list_page": 1, "too_short": 1, "too_long": 1, "filter_words": 1,
        "duplicate": 2, "language": 1,
    }
    assert [document["id"] for document in result.documents] == ["en:1"]
    assert result.funnel["en"].iloc[0] == 13 and result.funnel["en"].iloc[-1] == 1 and result.funnel["en"].is_monotonic_decreasing
    record = json.loads(result.rejected[0]["record"])
    assert set(record) == {"title", "url", "text"} and len(record["text"]) <= 200
    assert write_table(tmp_path / "documents.parquet", result.documents, DOCUMENTS) == 1
    assert write_table(tmp_path / "rejected.parquet", result.rejected, REJECTED) == 12
    assert read_table(tmp_path / "documents.parquet", DOCUMENTS)[0]["n_tokens"] == count_tokens([result.documents[0]["text"]])[0]


def test_filter_words_are_whole_words_except_in_chinese(tmp_path):
    (tmp_path / "enwiki.xml").write_bytes(dump(article(1)))
    kept = read_documents(tmp_path, ["en"], min_document_tokens=10, filter_words={"en": ["mil", "turn"], "zh": ["磨"]})
    assert len(kept.documents) == 1
    (tmp_path / "zhwiki.xml").write_bytes(dump(page("水磨", "河边的老水磨已经转动了两百多年，村里的人都很喜欢它。" * 10, 1)))
    refused = read_documents(tmp_path / "zhwiki.xml", ["zh"], min_document_tokens=10, filter_words={"zh": ["水磨"]})
    assert not refused.documents and refused.rejected[0]["gate"] == "filter_words"


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_order(tmp_path):
    pages = [article(number) for number in range(1, 61)]
    for name, order in (("a", pages), ("b", pages[::-1])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "enwiki-1.xml").write_bytes(dump(*order[:25]))
        (tmp_path / name / "enwiki-2.xml").write_bytes(dump(*order[25:]))

    def drawn(name, seed):
        return read_documents(tmp_path / name, ["en"], min_document_tokens=10, max_documents=9, seed=seed).documents

    assert drawn("a", 1) == [{**row, "source": one["source"]} for row, one in zip(drawn("b", 1), drawn("a", 1), strict=True)]
    assert len(drawn("a", 1)) == 9 and {row["id"] for row in drawn("a", 1)} != {row["id"] for row in drawn("a", 2)}
    funnel = read_documents(tmp_path / "a", ["en"], min_document_tokens=10, max_documents=9).funnel["en"]
    assert funnel.iloc[0] == 60 and funnel.iloc[-1] == 9


def test_a_broken_dump_is_used_only_when_asked_and_then_counted(tmp_path):
    path = tmp_path / "enwiki.xml"
    path.write_bytes(dump(*(article(n) for n in range(1, 11)))[:-900])
    with pytest.raises(DumpError, match="accept_broken_dump"):
        read_documents(path, ["en"], min_document_tokens=10)
    result = read_documents(path, ["en"], min_document_tokens=10, accept_broken_dump=True)
    assert 5 < len(result.documents) < 10
    assert [row["gate"] for row in result.rejected] == ["broken_dump"]


def test_a_dump_of_a_language_that_the_run_lacks_is_refused_as_a_whole(tmp_path):
    (tmp_path / "enwiki.xml").write_bytes(dump(article(1)))
    (tmp_path / "dewiki.xml").write_bytes(dump(article(2)))
    result = read_documents(tmp_path, ["en"], min_document_tokens=10)
    assert [(row["gate"], row["language"]) for row in result.rejected] == [("dump_language", "de")]


# --- the embedded sample ---

@pytest.fixture(scope="module")
def sample():
    return read_documents(SAMPLE / "wiki", FIVE, min_document_tokens=150)


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
    passages = passages_of(sample.documents, profile["max_passage_tokens"])
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
    passages = passages_of(sample.documents[:3], 300)
    assert write_table(tmp_path / "passages.parquet", passages, PASSAGES) == len(passages) > 6
    assert len({row["id"] for row in passages}) == len(passages)


def test_real_dumps_become_documents_in_the_language_of_their_name(shared_data):
    found = read_documents(
        shared_data / "wiki_xml" / "dbpedia_minidump_*.bz2", [*FIVE, "de"], min_document_tokens=1000, max_document_tokens=100_000
    )
    assert {row["language"] for row in found.documents} == {*FIVE, "de"}
    for row in found.documents:
        assert row["url"].startswith(f"https://{row['language']}.wikipedia.org/wiki/")
    for row in passages_of(found.documents, 2000):
        assert row["n_tokens"] <= 2000
