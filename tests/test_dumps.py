"""Dumps in parts: whatever way a dump is packed and cut, its pages come out, and what is damaged costs no more than itself."""

import bz2
import gzip
import random
import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wiki_xml import dump, in_streams, letters, page
from ultralink_nb import dump_files
from ultralink_nb.dumps import (
    Damage,
    DumpError,
    Page,
    Site,
    cut,
    find_dumps,
    is_dump,
    language_of_dump,
    pages_of,
    read_pages,
    read_site,
)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(dump_files, "PART", 40_000)
    monkeypatch.setattr(dump_files, "PACKED_PART", 20_000)
    monkeypatch.setattr(dump_files, "CHUNK", 7_000)


def items(path):
    """Everything in every part, and how many parts there are."""
    site, parts = read_site(path, "en"), list(cut(path))
    assert [part.number for part in parts] == list(range(len(parts)))
    return [one for part in parts for one in pages_of(part, site)], len(parts)


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


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_wherever_a_dump_is_cut_every_page_comes_out_once(tmp_path_factory, data):
    lengths = data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=12))
    texts = ["".join(random.Random(n).choices("ab <>&é水", k=length)) for n, length in enumerate(lengths)]
    xml = dump(*(page(f"P{n}", text, n) for n, text in enumerate(texts)))
    edges = sorted(data.draw(st.sets(st.integers(1, len(xml) - 1), max_size=8)))
    kind = data.draw(st.sampled_from(["plain", "streams", "gz"]))
    path = tmp_path_factory.mktemp("cut") / "enwiki.xml"
    path.write_bytes({"plain": lambda: xml, "streams": lambda: in_streams(xml, *edges), "gz": lambda: gzip.compress(xml)}[kind]())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dump_files, "PART", data.draw(st.integers(1, 900)))
        patch.setattr(dump_files, "PACKED_PART", data.draw(st.integers(1, 300)))
        patch.setattr(dump_files, "CHUNK", data.draw(st.integers(1, 500)))
        found, _ = items(path)
    assert [(one.id, one.text) for one in found] == [(n, text) for n, text in enumerate(texts)]


def test_a_dump_is_read_in_parts_that_stand_alone(tmp_path, small_parts):
    xml = dump(*(page(f"P{n}", text, n) for n, text in enumerate(letters(60), 1)))
    edges = [match.start() for match in re.finditer(rb"<page>", xml)][::5]
    packings = {"enwiki.xml": xml, "enwiki-multistream.xml.bz2": in_streams(xml, *edges), "enwiki.xml.gz": gzip.compress(xml)}
    for name, packed in packings.items():
        path = tmp_path / name
        path.write_bytes(packed)
        site, parts = read_site(path, "en"), list(cut(path))
        assert len(parts) >= 6
        random.Random(1).shuffle(parts)
        found = {part.number: [one.id for one in pages_of(part, site)] for part in parts}
        assert [one for number in sorted(found) for one in found[number]] == list(range(1, 61))


def test_the_index_of_a_multistream_dump_says_where_its_streams_begin(tmp_path, small_parts):
    xml = dump(*(page(f"P{n}", text, n) for n, text in enumerate(letters(40), 1)))
    pages = [match.start() for match in re.finditer(rb"<page>", xml)]
    packed = in_streams(xml, *pages[::4])
    path = tmp_path / "enwiki-1-pages-articles-multistream.xml.bz2"
    path.write_bytes(packed)
    offsets = [match.start() for match in re.finditer(rb"BZh91AY&SY", packed)]
    lines = "".join(f"{offsets[1 + n // 4]}:{n + 1}:P{n + 1}: a title\n" for n in range(40))
    index = tmp_path / "enwiki-1-pages-articles-multistream-index.txt.bz2"
    index.write_bytes(bz2.compress(lines.encode()))
    assert dump_files.stream_offsets(path) == offsets
    assert [one.id for one in items(path)[0]] == list(range(1, 41))
    assert find_dumps(str(tmp_path / "*")) == [path]
    index.write_bytes(bz2.compress(lines.replace(f"{offsets[3]}:", f"{offsets[3] + 1}:").encode()))
    said = rf"index\.txt\.bz2, line 9: no stream of enwiki.* begins at byte {offsets[3] + 1}:.*remove it"
    with pytest.raises(DumpError, match=said):
        list(cut(path))


def test_the_language_comes_from_the_name_or_the_parameter_never_from_the_header(tmp_path):
    unnamed = tmp_path / "export.xml"
    unnamed.write_bytes(dump(page("A", "x")))
    with pytest.raises(DumpError, match=r"export\.xml.*dump_language"):
        list(read_pages(unnamed))
    assert next(read_pages(unnamed, "ru")).site.language == "ru"
    assert language_of_dump(tmp_path / "dewiki-x.xml", otherwise="ru") == "de"


def test_a_dump_that_is_cut_off_says_where_after_the_pages_before(tmp_path):
    whole = dump(*(page(f"P{n}", text, n) for n, text in enumerate(letters(299), 1)))
    streams = in_streams(whole, *range(100_000, len(whole), 100_000))
    for packed, name in ((bz2.compress(whole), "enwiki.xml.bz2"), (streams, "enwiki-multi.xml.bz2"),
                         (gzip.compress(whole), "enwiki.xml.gz"), (whole, "enwiki.xml")):
        path = tmp_path / name
        path.write_bytes(packed[: int(len(packed) * 0.8)])
        seen = []
        with pytest.raises(DumpError) as error:
            for one in read_pages(path):
                seen.append(one.id)
        assert 10 < len(seen) < 299 and seen == list(range(1, len(seen) + 1))
        said = rf"{name}, byte [\d,]+ of the .*: the file ends too early, after {len(seen):,} whole pages"
        assert re.search(said, str(error.value))


def test_a_dump_without_its_last_stream_is_cut_off_too(tmp_path):
    xml = dump(*(page(f"P{n}", text, n) for n, text in enumerate(letters(30), 1)))
    edges = [match.start() for match in re.finditer(rb"<page>", xml)][::5]
    path = tmp_path / "enwiki.xml.bz2"
    path.write_bytes(in_streams(xml[: edges[-1]], *edges[:-1]))
    found, _ = items(path)
    assert [one.id for one in found[:-1]] == list(range(1, 26)) and found[-1].what == "the file ends too early"


@pytest.mark.parametrize("kind", ["plain", "gz", "bz2", "streams"])
def test_damage_in_the_middle_costs_the_pages_it_touches(tmp_path, small_parts, kind):
    xml = bytearray(dump(*(page(f"P{n}", text, n) for n, text in enumerate(letters(60), 1))))
    edges = [match.start() for match in re.finditer(rb"<page>", bytes(xml))]
    if kind == "streams":
        packed = bytearray(in_streams(bytes(xml), *edges[::5]))
        broken = re.compile(rb"BZh91AY&SY").search(packed, len(packed) // 2).start() + 3000
        packed[broken : broken + 50] = b"\x00" * 50
    else:
        xml[edges[30] + 200 : edges[30] + 206] = b"</oo>\xff"
        packed = {"plain": bytes, "gz": gzip.compress, "bz2": bz2.compress}[kind](bytes(xml))
    path = tmp_path / "enwiki.xml"
    path.write_bytes(packed)
    found, _ = items(path)
    pages, damages = [one.id for one in found if isinstance(one, Page)], [one for one in found if isinstance(one, Damage)]
    lost = sorted(set(range(1, 61)) - set(pages))
    assert pages == sorted(pages) and damages and re.search(r"byte [\d,]+ of the", damages[0].place)
    if kind == "streams":
        assert 1 <= len(lost) <= 6 and lost == list(range(lost[0], lost[-1] + 1)) and "bz2" in damages[-1].what
    else:
        assert lost == [31] and [one.what for one in damages] == [
            "not well-formed XML (not well-formed (invalid token)) in the page that begins there"
        ] or "mismatched tag" in damages[0].what


def test_bytes_that_are_no_page_are_damage(tmp_path):
    xml = dump(page("A", "x", 1), page("B", "y", 2)).replace(b"</page><page>", b"</page>garbage<page>")
    path = tmp_path / "enwiki.xml"
    path.write_bytes(xml)
    one, damage, two = items(path)[0]
    assert (one.id, two.id) == (1, 2) and damage.what.startswith("bytes that are no XML")


@pytest.mark.parametrize(("content", "message"), [
    (b"<html><body>no dump</body></html>", "holds no <page>"),
    (b"<mediawiki><page></title></page></mediawiki>", "byte 11 of the XML: not well-formed XML"),
    (b"", "holds no <page>.*or an empty one"),
    (b"BZh9 this is not bzip2 at all", "bz2"),
    (b"\xfd7zXZ\x00xx", "recompress"),
])
def test_a_file_that_is_no_dump_is_named(tmp_path, content, message):
    path = tmp_path / "enwiki.xml"
    path.write_bytes(content)
    with pytest.raises(DumpError, match=message) as error:
        list(read_pages(path))
    assert "enwiki.xml" in str(error.value)


def test_memory_does_not_grow_with_the_dump(tmp_path, small_parts):
    def peak(pages):
        path = tmp_path / f"enwiki{pages}.xml"
        path.write_bytes(dump(*(page(f"P{n}", "word " * 4000, n) for n in range(pages))))
        tracemalloc.start()
        assert sum(1 for _ in read_pages(path)) == pages
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(400) < 1.5 * peak(50) + 1e6


def test_a_page_longer_than_any_costs_itself(tmp_path, small_parts, monkeypatch):
    monkeypatch.setattr(dump_files, "LONGEST_PAGE", 500_000)
    xml = dump(page("A", "x", 1), page("Huge", "word " * 300_000, 2), page("C", "z", 3))
    for name, packed in (("enwiki.xml", xml), ("enwiki.xml.gz", gzip.compress(xml))):
        (tmp_path / name).write_bytes(packed)
        found = items(tmp_path / name)[0]
        assert [one.id for one in found if isinstance(one, Page)] == [1, 3] and any(isinstance(one, Damage) for one in found)


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


def test_a_dump_is_known_by_its_name_or_its_beginning(tmp_path):
    for name, content, expected in (
        ("enwiki.xml", b"", True), ("fr.bz2", bz2.compress(dump(page("A", "x"))), True),
        ("fr2.bz2", bz2.compress(b'{"text": "x"}'), False),
        ("de.jsonl", b'{"text": "<mediawiki"}', False), ("enwiki-pages-articles1.xml-p1p41.bz2", b"BZh9", True),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_dump(tmp_path / name) is expected
