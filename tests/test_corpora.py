import bz2
import csv
import gc
import gzip
import io
import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb import corpora, corpus_rows
from ultralink_nb.corpora import Article, Bad, find_corpora, language_of_corpus, layout_of, plain_paragraphs, read_articles
from ultralink_nb.dumps import DumpError

PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}
WIKI = "https://fr.wikipedia.org/wiki/"
ROWS = [
    {"id": str(number), "url": f"{WIKI}Moulin_{number}", "title": f"Moulin {number}", "text": f"Le moulin n° {number} tourne."}
    for number in range(1, 8)
]


def articles(source, language="fr", start=0):
    return [one for _, one in read_articles(source, language, start)]


def write(path, data, pack=bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(data if isinstance(data, bytes) else data.encode()))
    return path


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def element(row):
    return f'<doc id="{row["id"]}" url="{row["url"]}" title="{row["title"]}">\n{row["title"]}\n\n{row["text"]}\n\n</doc>\n'


def table(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def csv_of(rows, delimiter=","):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


# --- layouts ---

@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize(("name", "content", "layout"), [
    ("wiki_00", json_lines({**row, "revid": "9"} for row in ROWS), "jsonl"),
    ("wiki_01", "".join(map(element, ROWS)), "doc"),
    ("own.jsonl", json_lines(ROWS), "jsonl"),
    ("own.csv", csv_of(ROWS), "csv"),
    ("own.csv", "\ufeff" + csv_of(ROWS, ";"), "csv"),
])
def test_every_layout_of_lines_gives_the_same_documents(tmp_path, packing, name, content, layout):
    path = write(tmp_path / f"{name}{packing}", content, PACK[packing])
    assert layout_of(path) == layout
    read = list(read_articles(path, "fr"))
    assert [number for number, _ in read] == list(range(7))
    assert read[2][1] == Article(
        id="3", title="Moulin 3", language="fr", text="Le moulin n° 3 tourne.", url=WIKI + "Moulin_3",
        revision="9" if "9" in content[:200] and name == "wiki_00" else "", license="CC-BY-SA-4.0", source=path.name,
    )
    assert read[2][1].key == "fr:3"
    for start in range(9):
        assert list(read_articles(path, "fr", start)) == read[start:]


def test_the_wikimedia_layout_in_parquet_resumes_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_rows, "BATCH", 2)
    path = table(tmp_path / "20231101.fr" / "train-00000-of-00001.parquet", ROWS, row_group_size=3)
    assert (layout_of(path), language_of_corpus(path)) == ("parquet", "fr")
    read = list(read_articles(path, "fr"))
    assert [one.id for _, one in read] == list("1234567") and {one.license for _, one in read} == {"CC-BY-SA-4.0"}
    for start in range(9):
        assert list(read_articles(path, "fr", start)) == read[start:]


def test_a_resumed_parquet_does_not_read_what_comes_before(tmp_path):
    path = table(tmp_path / "fr.parquet", [{"text": "x" * 50_000 + str(number)} for number in range(200)], row_group_size=100,
                 compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:2_000_000] = b"\xff" * (2_000_000 - 4)
    path.write_bytes(data)
    assert [number for number, _ in read_articles(path, "fr", 150)] == list(range(150, 200))
    with pytest.raises(DumpError, match=r"fr\.parquet, after row [\d,]+: not readable as Parquet"):
        articles(path)


def test_a_dataset_of_the_hub_is_streamed_by_its_name(tmp_path):
    table(tmp_path / "wikipedia" / "20231101.fr" / "train-00000-of-00002.parquet", ROWS[:4])
    table(tmp_path / "wikipedia" / "20231101.fr" / "train-00001-of-00002.parquet", ROWS[4:])
    table(tmp_path / "wikipedia" / "20231101.de" / "train-00000-of-00001.parquet", ROWS[:1])
    configs = "".join(
        f'- config_name: 20231101.{code}\n  data_files:\n  - split: train\n    path: "20231101.{code}/*"\n'
        for code in ("fr", "de")
    )
    (tmp_path / "wikipedia" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    [name] = find_corpora(f"hub:{tmp_path}/wikipedia/20231101.fr")
    assert (name.dataset, name.config, language_of_corpus(name)) == (f"{tmp_path}/wikipedia", "20231101.fr", "fr")
    read = list(read_articles(name, "fr"))
    assert [(number, one.id) for number, one in read] == list(enumerate("1234567"))
    assert read[0][1].source == str(name)[4:]
    assert list(read_articles(name, "fr", 5)) == read[5:]
    with pytest.raises(DumpError, match=r"20231101\.xx, after row 0: .*look at the name"):
        articles(corpora.HubName(f"hub:{tmp_path}/wikipedia/20231101.xx"))
    with pytest.raises(DumpError, match="configuration"):
        find_corpora("hub:wikipedia")


def test_what_wikiextractor_escapes_is_read_as_it_was(tmp_path):
    row = {"id": "1", "url": WIKI + "?curid=1", "title": 'Le "q" &amp; d', "text": "a &lt;b&gt; &amp;amp; c"}
    for name, content in (("a", element(row)), ("wiki_00", json_lines([row])), ("c", json_lines([{**row, "revid": "2"}]))):
        [one] = articles(write(tmp_path / name, content))
        assert (one.title, one.text) == ('Le "q" & d', "a <b> &amp; c")
    [one] = articles(write(tmp_path / "own.jsonl", json_lines([row])))
    assert one.text == "a &lt;b&gt; &amp;amp; c"


def test_plain_text_is_one_document_a_file(tmp_path):
    path = write(tmp_path / "fr" / "Le pain de campagne.txt", "\ufeffUn pain.\r\nLong.\r\n\r\n\r\n\x00Fin.\r\n")
    assert language_of_corpus(path) == "fr"
    assert articles(path) == [Article(
        id="fr/Le pain de campagne.txt", title="Le pain de campagne", language="fr", text="Un pain.\nLong.\n\nFin.", url="",
        revision="", license="unknown", source="Le pain de campagne.txt",
    )]
    assert articles(path, start=1) == []


def test_a_users_columns_are_used_and_the_others_passed_over(tmp_path):
    row = {"text": "Ein Text.", "license": "CC0-1.0", "language": "de", "id": 7, "vector": [0.5], "url": "https://example.org/wikipedia.org"}
    for path in (write(tmp_path / "fr.jsonl", json_lines([row])), table(tmp_path / "fr.parquet", [row])):
        assert articles(path) == [Article("7", "", "de", "Ein Text.", row["url"], "", "CC0-1.0", path.name)]
    [one] = articles(write(tmp_path / "own" / "fr.csv", "title,text\nT,\"a\nb\"\n"))
    assert (one.id, one.license, one.text) == ("own/fr.csv:1", "unknown", "a\n\nb")


@pytest.mark.parametrize(("name", "content", "layout"), [
    ("x.bin", "  <mediawiki>", "mediawiki"), ("x", '<?xml version="1.0"?>\n<mediawiki>', "mediawiki"),
    ("frwiki-pages.xml-p1p9.bz2", "BZh9 cut", "mediawiki"), ("x.txt", '<doc id="1" url="" title="">', "doc"),
    ("x.txt", "{", "txt"),
    ("wiki_07", "", "jsonl"), ("x.dat", '\ufeff{"text": 1}', "jsonl"), ("x.CSV", "", "csv"), ("x.parquet", "no", "parquet"),
])
def test_a_layout_is_told_by_content_then_by_name(tmp_path, name, content, layout):
    assert layout_of(write(tmp_path / name, content)) == layout


# --- sources and their languages ---

def test_folders_are_searched_and_what_is_hidden_partial_or_an_index_is_left(tmp_path):
    wanted = ["a/AA/wiki_00", "a/AB/wiki_00.bz2", "b.jsonl.gz", "c.txt", "d.parquet", "frwiki-1.xml-p1p2.bz2"]
    others = [".hidden/x.txt", "x.jsonl.part", ".x.txt", "README.md", "frwiki-multistream-index.txt.bz2", "e.csv.tmp"]
    for name in wanted + others:
        write(tmp_path / "in" / name, "x")
    expected = [tmp_path / "in" / name for name in wanted]
    assert find_corpora(tmp_path / "in") == expected
    readme = tmp_path / "in" / "README.md"
    assert find_corpora([str(tmp_path / "in" / "*"), tmp_path / "in" / "c.txt"]) == sorted([*expected, readme])
    assert find_corpora(readme) == [readme]
    assert find_corpora(["hub:w/w/1.fr", tmp_path / "in" / "c.txt"]) == [tmp_path / "in" / "c.txt", "hub:w/w/1.fr"]
    for none in (tmp_path / "in" / ".hidden" / "*.csv", tmp_path / "no", str(tmp_path / "no*")):
        with pytest.raises(FileNotFoundError, match="no documents there"):
            find_corpora(none)


@pytest.mark.parametrize(("name", "language"), [
    ("20231101.ru/train-00000-of-00002.parquet", "ru"), ("es/AA/wiki_00", "es"), ("frwiki-20240101/DE/wiki_00", "fr"),
    ("de.jsonl", "de"), ("data/docs_zh.csv.gz", "zh"), ("Voyage.fr.txt", "fr"), ("fr/Notes de voyage.txt", "fr"),
    ("hub:wikimedia/wikipedia/20231101.zh", "zh"), ("es/further/folders/x.parquet", None), ("DE/wiki_00", None),
    ("Notes de.txt", None), ("hub:wikimedia/wikipedia/20231101.ja", None),
])
def test_the_language_comes_from_the_name_then_the_folders(tmp_path, name, language):
    source = name if name.startswith("hub:") else Path(name)
    assert language_of_corpus(source, "en") == (language or "en")


def test_a_file_that_tells_no_language_says_what_to_do_unless_its_rows_tell(tmp_path):
    with pytest.raises(DumpError, match=r"data\.jsonl: neither.*dump_language"):
        language_of_corpus(write(tmp_path / "data.jsonl", json_lines([{"text": "x"}])))
    path = write(tmp_path / "data.jsonl", json_lines([{"text": "x", "language": "ru"}, {"text": "y"}]))
    assert language_of_corpus(path) is None
    first, second = articles(path, None)
    assert first.language == "ru" and second == Bad(f"{path}, line 2, column language", "missing: or set dump_language")


# --- rows that do not fit, and damage ---

@pytest.mark.parametrize(("line", "place", "reason"), [
    (b'{"text": "x"', "line 2", "not valid JSON"), (b"[1]", "line 2", "not an object with named columns but list"),
    (b"[" * 100_000, "line 2", "not valid JSON"), (b"{}", "line 2, column text", "missing"),
    (b'{"text": " \\n&nbsp;", "revid": 1}', "line 2, column text", "empty"),
    (b'{"text": ["x"]}', "line 2, column text", "not a text but list"),
    (b'{"text": 3}', "line 2, column text", "not a text but int"),
    (b'{"text": "x", "id": 1.5}', "line 2, column id", "not a text but float"),
    (b'{"text": "caf\xe9"}', "line 2, column text", "not UTF-8"),
    (b'{"text": "\\ud83d"}', "line 2, column text", "half of a character"),
    (b'{"text": "x", "language": "xx"}', "line 2, column language", "unknown language 'xx'"),
])
def test_a_line_that_does_not_fit_is_told_by_its_place_and_the_rest_is_read(tmp_path, line, place, reason):
    path = write(tmp_path / "own.jsonl", b'{"text": "one"}\n' + line + b'\n\n{"text": "three"}\n')
    one, bad, three = articles(path)
    assert (one.text, three.text, three.id) == ("one", "three", f"{tmp_path.name}/own.jsonl:3")
    assert bad.place == f"{path}, {place}" and bad.reason.startswith(reason)
    assert articles(path, start=1) == [bad, three]


def test_rows_of_csv_that_do_not_fit_are_told_by_the_line_they_begin_on(tmp_path):
    path = write(tmp_path / "own.csv", b'id,text\n1,"a\n\nb"\n2,x,y\n3,"q"q\n4\n5,caf\xe9\n\n6,good\n7,"never closed\n8,x\n')
    read = articles(path)
    assert [one.id if isinstance(one, Article) else one.place.rpartition("line ")[2] for one in read] == [
        "1", "5", "6", "7", "8, column text", "6", "11"
    ]
    assert [one.reason.partition(" (")[0] for one in read if isinstance(one, Bad)] == [
        "3 fields, the header has 2", "not valid CSV", "1 fields, the header has 2", "not UTF-8", "not valid CSV"
    ]
    assert articles(path, start=3) == read[3:]


def test_elements_that_do_not_fit_are_told_and_the_rest_is_read(tmp_path):
    good = element(ROWS[0])
    path = write(tmp_path / "wiki_00", good + "<doc id=4>\nx\n</doc>\n" + good[:-8] + good + "stray\n" + good)
    read = articles(path)
    assert [isinstance(one, Bad) for one in read] == [False, True, True, False, True, False]
    assert [(one.place, one.reason.partition(" ")[0]) for one in read if isinstance(one, Bad)] == [
        (f"{path}, line 7", "does"), (f"{path}, line 10", "<doc>"), (f"{path}, line 20", "does")
    ]


def test_bytes_in_parquet_that_are_no_utf8_are_told_by_their_row(tmp_path):
    texts = pa.array([b"one", b"caf\xe9", None, b"four"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts, "title": pa.array(list("abca")).dictionary_encode()}), tmp_path / "x.parquet")
    one, bad, missing, four = articles(tmp_path / "x.parquet")
    assert (one.text, four.title) == ("one", "a")
    assert bad == Bad(f"{tmp_path}/x.parquet, row 2, column text", "not UTF-8")
    assert missing == Bad(f"{tmp_path}/x.parquet, row 3, column text", "missing")


@pytest.mark.parametrize("packing", [".gz", ".bz2"])
@pytest.mark.parametrize("shape", [json_lines, csv_of, lambda rows: "".join(map(element, rows))])
def test_a_file_that_is_cut_off_gives_what_was_whole_and_says_where(tmp_path, packing, shape):
    letters = ["".join(chr(97 + n * k * k % 23) for k in range(4000)) for n in range(1, 400)]
    rows = [{**ROWS[0], "id": str(n), "text": text} for n, text in enumerate(letters, 1)]
    name = {json_lines: "x.jsonl", csv_of: "x.csv"}.get(shape, "wiki_00") + packing
    data = PACK[packing](shape(rows).encode())
    path = write(tmp_path / name, data[: int(len(data) * 0.7)])
    seen = []
    with pytest.raises(DumpError, match=rf"{name}, after line [\d,]+: (the file ends too early|damaged).*accept_broken_dump"):
        for number, one in read_articles(path, "fr"):
            assert one.id == str(number + 1)
            seen.append(number)
    assert 10 < len(seen) < 399


@pytest.mark.parametrize(("name", "content", "message"), [
    ("x.jsonl", b"", "holds no document"), ("x.csv", b"", "holds no document"), ("wiki_00", b"\n\n", "holds no document"),
    ("x.csv", b"id;title\n1;2\n", r"column text is missing \(found id, title\)"), ("x.csv", b'"a"b\n', "column text is missing"),
    ("x.parquet", b"PAR1 and no more", "after row 0: not readable as Parquet"), ("x.md", b"# notes", "unknown layout"),
    ("x.txt", b"\xff\xfeh\x00", "UTF-16"), ("x.jsonl", b"\x28\xb5\x2f\xfd....", "recompress"),
    ("x.xml", b"<mediawiki>", "MediaWiki XML"), ("x.jsonl.gz", gzip.compress(b"{}" * 999)[:15], "at its beginning"),
    ("wiki_00", b'<doc id="1" url="" title="">\nx\n', "after line 0: the file ends inside a document"),
])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, message):
    with pytest.raises(DumpError, match=message) as error:
        articles(write(tmp_path / name, content))
    assert name in str(error.value)


def test_parquet_without_a_text_and_an_empty_text_file(tmp_path):
    with pytest.raises(DumpError, match=r"x\.parquet: column text is missing \(found body\): rename"):
        articles(table(tmp_path / "x.parquet", [{"body": "x"}]))
    assert articles(table(tmp_path / "y.parquet", [{"text": 1}])) == [
        Bad(f"{tmp_path}/y.parquet, row 1, column text", "not a text but int")
    ]
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "z.parquet")
    with pytest.raises(DumpError, match=r"z\.parquet holds no document"):
        articles(tmp_path / "z.parquet")
    assert articles(write(tmp_path / "e.txt", b" \n")) == [Bad(f"{tmp_path}/e.txt, column text", "empty")]
    with pytest.raises(FileNotFoundError, match=r"gone\.txt does not exist"):
        articles(tmp_path / "gone.txt")


# --- memory ---

@pytest.mark.parametrize("shape", ["jsonl.gz", "csv", "wiki"])
def test_memory_does_not_grow_with_the_file(tmp_path, shape):
    def peak(count):
        rows = [{**row, "text": "mot " * 5000} for row in ROWS[:1] * count]
        content = {"jsonl.gz": json_lines, "csv": csv_of}.get(shape, lambda rows: "".join(map(element, rows)))(rows)
        path = write(tmp_path / f"x{count}.{shape}", content, PACK[".gz"] if shape.endswith("gz") else bytes)
        tracemalloc.start()
        assert sum(1 for _ in read_articles(path, "fr")) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(400) < 1.2 * peak(40) + 2e5


def test_memory_does_not_grow_with_a_row_group(tmp_path):
    path = tmp_path / "x.parquet"
    rows = pa.table({"text": [f"{number} " + "mot " * 5000 for number in range(4000)]})
    pq.write_table(rows, path, row_group_size=4000, compression="none", use_dictionary=False, write_batch_size=64)
    del rows
    gc.collect()
    most, before = 0, pa.total_allocated_bytes()
    for _ in read_articles(path, "fr"):
        most = max(most, pa.total_allocated_bytes() - before)
    assert path.stat().st_size > 80e6 and most < 10e6


# --- paragraphs ---

@pytest.mark.parametrize(("text", "plain"), [
    ("One.\nHistory.\nTwo.", "One.\n\nHistory.\n\nTwo."),
    ("Lead.\n\nHistory \nIt began.\r\n\r\n\r\nEnd.", "Lead.\n\nHistory\n\nIt began.\n\nEnd."),
    ("Mills:\n- one\n- two\nEnd.", "Mills:\n\n- one\n- two\n\nEnd."),
    ("Mills:\n* one\n  * two\n• three", "Mills:\n\n- one\n- two\n- three"),
    ("Works \n\n April 1 – one\n April 2 – two\n\nEnd", "Works\n\n- April 1 – one\n- April 2 – two\n\nEnd"),
    ("A.\n Stray space.\nB.", "A.\n\nStray space.\n\nB."),
    ("　　第一段。\n　　第二段。", "第一段。\n\n第二段。"),
    (" \n\n", ""),
])
def test_lines_become_paragraphs_and_lists_stay_together(text, plain):
    assert plain_paragraphs(text) == plain


def test_wrapped_lines_stay_where_blank_lines_tell_the_paragraphs():
    assert plain_paragraphs("a long\nsentence.\n \n\nAnother\none.", wrapped=True) == "a long\nsentence.\n\nAnother\none."
    assert plain_paragraphs("One.\nTwo.", wrapped=True) == "One.\n\nTwo."


@settings(max_examples=300)
@given(st.text(alphabet="ab -*•\n\r\t\u3000\u00a0\u2028.é", max_size=60), st.booleans())
def test_the_form_is_reached_in_one_step_and_loses_nothing(text, wrapped):
    once = plain_paragraphs(text, wrapped)
    assert plain_paragraphs(once, wrapped) == once
    assert not re.search(r"\n{3}|\r|[ \t]+$", once, re.M) and once == once.strip()
    assert "".join(re.findall(r"[ab.é]", once)) == "".join(re.findall(r"[ab.é]", text))


# --- round trips ---

WORD = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=12)
LINE = st.lists(WORD | st.sampled_from(['"', ",", ";", "</doc>", "&amp;", "\t"]), min_size=1, max_size=6).map(" ".join)
TEXT = st.lists(LINE, min_size=1, max_size=4).map("\n\n".join).map(lambda text: plain_paragraphs(text)).filter(bool)
RECORD = st.builds(
    Article, id=WORD, title=LINE.map(str.strip) | st.just(""), language=st.sampled_from(["en", "zh", "ru", "fr"]), text=TEXT,
    url=WORD | st.just(""), revision=st.just("") | st.from_regex(r"[0-9]{1,9}", fullmatch=True), license=WORD,
    source=st.just(""),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORD, min_size=1, max_size=5), st.sampled_from([".jsonl", ".csv", ".parquet"]), st.integers(0, 5))
def test_what_is_written_comes_back_equal(tmp_path_factory, records, ending, start):
    path = tmp_path_factory.mktemp("trip") / f"x{ending}"
    rows = [{name: value for name, value in vars(record).items() if name != "source"} for record in records]
    if ending == ".parquet":
        table(path, rows, row_group_size=2)
    else:
        write(path, json_lines(rows) if ending == ".jsonl" else csv_of(rows))
    assert [replace(one, source="") for one in articles(path, None, start)] == records[start:]
