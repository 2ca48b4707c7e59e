import re
import signal
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb import wikitext
from ultralink_nb.dumps import find_dumps, language_of_dump, read_pages
from ultralink_nb.languages import UnknownLanguage
from ultralink_nb.wikibrackets import resolve
from ultralink_nb.wikitext import clean

LEFT_OVER = re.compile(r"\{\{|\}\}|\[\[|\]\]|<ref|</?(?:div|span|small|br)\b|thumb\||^=|==$|&nbsp;|^\{\||^\|", re.M)


@pytest.mark.parametrize(("markup", "language", "text"), [
    # links
    ("the [[mole (unit)|mole]]s and [[bread]]s", "en", "the moles and breads"),
    ("[[Paris (Texas)|]] is [[:fr:Paris|not]] [[fr:Paris]]it", "en", "Paris is not it"),
    ("see [https://a.org the page] or [https://b.org] now", "en", "see the page or now"),
    ("a[[File:X.jpg|thumb|A [[link]] in a {{lang|fr|mot}}]]b [[Image:y.png]]", "en", "ab"),
    ("a[[Файл:X.jpg|мини|Подпись [[ссылка]]]]б[[Категория:Реки]]", "ru", "aб"),
    ("[[Fichier:X.jpg|vignette|a]]mot[[Catégorie:Vin|*]]", "fr", "mot"),
    ("[[Archivo:X.jpg|miniatura]]pan [[:Categoría:Pan|panes]][[Categoría:Pan]]", "es", "pan panes"),
    ("[[文件:X.jpg|thumb|说明]]茶[[分类:茶]][[檔案:Y.jpg]][[en:Tea]]", "zh", "茶"),
    # templates
    ("{{Infobox|a={{b|{{c}}}}|d=[[e]]}}\nThe {{lang|fr|mot}} is {{convert|5|to|10|km2|sqmi}} wide.", "en",
     "The mot is 5 to 10 km² wide."),
    ("{{convert|5|ft|10|in|m}}, {{cvt|-4|C}}, {{convert|3|x|4|m}}, {{frac|2|1|3}}", "en", "5 ft 10 in, -4 °C, 3 × 4 m, 2 1/3"),
    ("au {{s-|XIX}} et {{1er|octobre}} à {{unité|240|km}} ({{incise|dit-on}})", "fr",
     "au XIXe siècle et 1er octobre à 240 km (– dit-on –)"),
    ("{{нп5|Баварский квартал||de|X}} и {{nobr|5 км}}{{нет АИ|1|2|2020}}", "ru", "Баварский квартал и 5 км"),
    ("{{link-de|邊境總督|Markgraf}}與{{tsl|en|Foo|富}}占地{{convert|5.2|公顷|英亩}}", "zh", "边境总督与富占地5.2公顷"),
    ("{{\"|Wort|Autor=X}} auf {{Höhe|115|DE-NHN}}", "de", "„Wort“ auf 115 m"),
    ("unos 45{{esd}}km en el {{siglo|XIX||s}}", "es", "unos 45\u00a0km en el siglo XIX"),
    ("'''Berlin''' ({{IPA-de|x}}; {{audio|a.ogg}}) is ({{lang-de|y}}; {{IPA|z}}) here{{cn}}.", "en", "Berlin is (y) here."),
    ("le {{XXe siècle}}, {{en langue|de|Wien}} et {{Nobr romain|Louis|XIV}}", "fr", "le XXe siècle, Wien et Louis\u00a0XIV"),
    ("{{ship|HMS|Beagle}} sailed, 5{{e|6}} kg{{e}} {{=}} x{{\\}}y, {{zh|c=茶|p=chá}}, {{chem|H|2|O}}", "en",
     "HMS Beagle sailed, 5×10^6 kg = x / y, 茶, H2O"),
    ("{{lang-en2|a=b|c}} {{lang|fr|{{!}}é {{=}} e}} {{nowrap|[[a|b]] {{nowrap|c|d}}}}", "en", "c |é = e b c"),
    ("the year,{{dropped}}. A list, {{dropped}}, and ({{dropped}}) end ({{dropped}}, {{dropped}}; one; {{dropped}})", "en",
     "the year. A list, and end (one)"),
    # elements, comments, entities
    ("A<ref name=a/> b<ref>c [[d]] {{cite|x}}</ref> c<ref name=\"b\">x</ref>.", "en", "A b c."),
    ("A<!-- x\ny -->b<math>x^2</math>c<gallery>\nFile:a.jpg|b\n</gallery>d", "en", "Abcd"),
    ("one\n<!-- a comment on its own line -->\ntwo", "en", "one\ntwo"),
    ("a&nbsp;b &lt;c&gt; &amp;lt; AT&T &copy; &#8212;&notanentity;", "en", "a\u00a0b <c> &lt; AT&T © —&notanentity;"),
    ("<nowiki>[[a]] '''b''' &amp;</nowiki>", "en", "[[a]] '''b''' &amp;"),
    ("H<sub>2</sub>O <small>x</small><div style=\"display: none\">hidden</div> __NOTOC__ __ОГЛ__", "en", "H2O x"),
    ("<ref>never closed and prose goes on. <ref>x</ref> End.", "en", "never closed and prose goes on. End."),
    # emphasis
    ("l'''''Odyssée''''' et ''a'' '''b'''", "fr", "lOdyssée et a b"),
    ("dans l'''Odyssée'' et l''''Arc'''", "fr", "dans l'Odyssée et l'Arc"),
    ("'''Самова́р'''&nbsp;— сосуд", "ru", "Самова́р\u00a0— сосуд"),
    ("Qui\u00a0? «\u202fmoi\u202f»", "fr", "Qui\u00a0? «\u202fmoi\u202f»"),
    ("a ''{{dropped}}'' b '''{{dropped}}''' c ''{{lang|fr|d}}''", "en", "a b c d"),
    # Chinese variants
    ("-{zh-hans:软件; zh-hant:軟體}-與-{zh-cn:打印机;zh-tw:印表機;}-和-{原樣}-", "zh", "软件与打印机和原样"),
    ("-{H|zh-cn:甲;zh-tw:乙}--{T|题}-显-{A|zh-hans:丙;zh-hant:丁}-", "zh", "显丙"),
    ("-{zh-hans:甲&nbsp;[[乙|丙]];zh-hant:丁}-", "zh", "甲\u00a0丙"),
    ("皮影戲的藝人與學習", "zh", "皮影戏的艺人与学习"),
])
def test_a_piece_of_markup_becomes_what_a_reader_sees(markup, language, text):
    assert clean(markup, language) == text


def test_tables_go_and_templates_and_tables_within_them_too():
    page = """before
{| class="wikitable"
! a !! b
|-
| {{x|
y
|}}
{| inner
| c
|}
| d
|}
between {{Infobox
| t = {| a
| b
|}
| last =
|}}
after"""
    assert clean(page, "en") == "before\n\nbetween\nafter"


def test_a_table_that_never_closes_takes_only_its_own_lines():
    assert clean("text\n{| class=x\n! a !! b\n|-\n| cell\n\nprose goes on", "en") == "text\n\nprose goes on"


def test_a_link_that_never_closes_takes_no_prose():
    assert clean("see [[bread and\n\nmore [[food|to eat]] and so ]] on", "en") == "see bread and\n\nmore to eat and so on"
    assert clean("see [[File:a.jpg|thumb|a caption [[x]]\n\nthe end", "en") == "see\n\nthe end"


def test_headings_lists_and_sections():
    page = """Lead.
== History ==
Text:
* one
** two
# three
; term
: definition

=== Empty ===
{{Main|x}}
=== Kept ===
More.
== References ==
{{reflist}}
* a book
=== Notes ===
a note
== ''See also'' ==
* [[x]]
== Legacy ==
End."""
    assert clean(page, "en") == (
        "Lead.\n\nHistory\n\nText:\n- one\n- two\n- three\nterm\ndefinition\n\nKept\n\nMore.\n\nLegacy\n\nEnd."
    )


def test_apparatus_is_known_in_each_language():
    titles = {"fr": "Voir aussi", "ru": "Примечания", "es": "Enlaces externos", "zh": "參考資料", "de": "Weblinks"}
    for language, title in titles.items():
        assert clean(f"x\n== {title} ==\n* y", language) == "x"


LEAVES = st.text(alphabet="ab |=\n}{[]:", max_size=6).filter(lambda text: not re.search(r"[{}\[\]]", text))


def bracketed(made):
    """Markup around pieces of (markup, what it shows), in which links show as <…>, templates as (…) and tables not at all."""
    kind, pieces = made
    markup, shown = ("".join(column) for column in zip(*pieces, strict=True)) if pieces else ("", "")
    if kind == "link":
        return f"[[x{markup}x]]", f"<x{shown}x>"
    if kind == "template":
        return "{{x" + markup + "x}}", f"(x{shown}x)"
    return "\n{|" + markup + "\n|}", "\n"


NESTED = st.recursive(
    LEAVES.map(lambda text: (text, text)),
    lambda inner: st.tuples(st.sampled_from(["link", "template", "table"]), st.lists(inner, max_size=4)).map(bracketed),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(NESTED, max_size=4))
def test_brackets_are_resolved_however_they_nest(pieces):
    markup, expected = "".join(one for one, _ in pieces), "".join(one for _, one in pieces)
    shown = resolve(markup, lambda content: f"({content})", lambda content: f"<{content}>")
    assert unescape(shown) == "\n" + expected


@pytest.mark.parametrize(("markup", "text"), [
    ("a {{x {{y}} b [[c]]", "\na {{x (y) b <c>"),
    ("a [[x {{y ]] z}} b}}", "\na <x {{y > z}} b}}"),
    ("{{a [[b }} c]]", "\n(a [[b ) c]]"),
    ("{{{x|y}}} {{{{a}}|b}} {{{{{c}}}}}", "\n ((a)|b) ()"),
    ("{{a|{{b|c=d}}|e}}", "\n(a|(b&#124;c&#61;d)|e)"),
    ("p\n{| q\n|}}\n| [[r\n|}\ns]]", "\np\n\ns]]"),
])
def test_a_bracket_without_a_partner_stays_and_harms_nothing_else(markup, text):
    assert resolve(markup, lambda content: f"({content})", lambda content: f"<{content}>") == text


def test_templates_nested_deeper_than_mediawiki_goes_show_nothing():
    assert clean("a" + "{{nowrap|" * 90 + "b" + "}}" * 90, "en") == "ab"
    assert clean("a" + "{{nowrap|" * 200 + "b" + "}}" * 200, "en") == "a"


MARKUP = st.lists(st.sampled_from([
    "{{", "}}", "[[", "]]", "{|", "|}", "\n|-\n", "\n", "|", "''", "'''", "== h ==\n", "-{", "}-", "zh-hans:", ";", "<!--", "-->",
    "<ref>", "</ref>", "<ref name=a/>", "<nowiki>", "</nowiki>", "File:", "<div>", "</div>", "{{{", "}}}", "&nbsp;", "&lt;",
    "word", "слово", "词", "[http://x.y z]", "*", "#", ":", "<gallery>", "convert|5|km", "lang|fr|mot", "frac", ":en:", "|", "H|",
    "\x00",
]), max_size=60).map("".join)
BRACKETS = re.compile(r"\{\{|\}\}|\[\[|\]\]|<ref|<div|&nbsp;|^\{\|", re.M)


@settings(max_examples=150, deadline=None)
@given(MARKUP, st.sampled_from(["en", "zh", "fr"]))
def test_no_page_is_too_broken_and_no_markup_is_left(markup, language):
    text = clean(markup, language)
    if "nowiki" not in markup and "&lt;" not in markup:
        assert not BRACKETS.search(text), text
    assert text == text.strip() and "\n\n\n" not in text


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet="abcдеж词句 ,.é", min_size=1, max_size=30), max_size=6))
def test_prose_without_markup_keeps_every_word(paragraphs):
    text = clean("\n\n".join(paragraphs), "en")
    assert re.findall(r"\w+", text) == re.findall(r"\w+", "\n\n".join(paragraphs))


@pytest.fixture
def soon():
    """Linear work is done in a second; work that grows with the square of the page would take many minutes."""
    signal.alarm(30)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("unit", [
    "{{a|", "[[a|", "[http://x ", "<ref>x", "<b>", "\n{|\n", "-{zh-hans:", "(;", "''a", "<div ", "'", "<!--", "{{lang|x|",
    "}}", "[{", "{{{{x", "{{nowrap|", "\n{|\n|}}}", "== h ==\n", "[[a]] {{b", "|}", "[[File:x|", "a'''", "<span display:none ",
    "=",
])
def test_pathological_pages_come_to_an_end(soon, unit):
    for start in ("", "''a", "{{lang|en|"):
        clean(start + unit * (200_000 // len(unit)) + start, "zh")


@pytest.mark.parametrize("start", ["[http://", "[[", "-{;", "{{convert|", "<ref ", "= a", "(", "<span ", "*", "{{a", "\n{|"])
@pytest.mark.parametrize("unit", ["b", " ", "1|to|"])
def test_one_bracket_and_a_very_long_line_come_to_an_end(soon, start, unit):
    clean(start + unit * (200_000 // len(unit)) + "b}}]]}-", "zh")


@pytest.mark.parametrize(("opening", "closing"), [
    ("[[a|bcd", "]]"), ("{{nowrap|bcd", "}}"), ("[[a|bcd{{lang|en|", "}}]]"), ("{{{", "}}}"),
])
def test_brackets_nested_tens_of_thousands_deep_come_to_an_end(soon, opening, closing):
    clean(opening * 50_000 + closing * 50_000, "en")


def test_numbered_arguments_of_any_length_are_no_error():
    assert clean("a {{hlist|" + "9" * 5000 + "=x|b}}", "en") == "a b"


def test_an_unknown_language_is_an_error():
    with pytest.raises(UnknownLanguage, match="xx"):
        clean("text", "xx")


def test_real_pages_come_out_clean(shared_data):
    for path in find_dumps(shared_data / "wiki_xml" / "dbpedia_minidump_*.bz2"):
        language = language_of_dump(path)
        for page in read_pages(path, language):
            text = clean(page.text, language)
            assert not LEFT_OVER.search(text), (path, page.title, LEFT_OVER.search(text))


def test_the_sample_comes_out_clean():
    for path in find_dumps(wikitext.__file__.replace("wikitext.py", "sample/wiki")):
        for page in read_pages(path):
            literal = "<nowiki>" in page.text
            text = clean(page.text, page.site.language)
            assert literal or not LEFT_OVER.search(text), (page.title, LEFT_OVER.search(text))
