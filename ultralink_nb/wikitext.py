"""Wikitext to plain text: paragraphs of prose, nothing of the markup.

Passes, each linear in the length of the page: comments, notes and tags go; one scan resolves what nests (`wikibrackets.py`); the
lines that are left are sorted into headings, list items and paragraphs; last, the holes that markup left are closed.

Own code, for no library does it: WikiExtractor 3.1.0 drops most lists and the words that templates stand for, `strip_code` of
mwparserfromhell leaves captions and cells of tables in, gensim's `filter_wiki` the marks of lists, headings and emphasis. It is
three times as fast as WikiExtractor, five times as gensim and fourteen times as `strip_code` (`benchmarks/dump_speed.py`), and
keeps more of the prose (`benchmarks/fidelity.py`).
"""

import html
import re
from functools import cache, partial
from html.entities import html5

from ultralink_nb.languages import Language, get_language
from ultralink_nb.wikibrackets import resolve
from ultralink_nb.wikitemplates import NOTHING
from ultralink_nb.wikitemplates import shown as shown_by_template

DROPPED_ELEMENTS = (
    "ref|references|gallery|math|chem|ce|syntaxhighlight|source|timeline|score|imagemap|templatestyles|graph|mapframe|maplink|"
    "hiero|inputbox|categorytree|includeonly|pre|dynamicpagelist|templatedata|indicator|rt|rp|style|script|nowiki"
)
LONGEST_TITLE = 300  # characters; MediaWiki's have at most 255 bytes
BLOCK_TAGS = frozenset("br div p blockquote center poem ul ol dl dd dt h1 h2 h3 h4 h5 h6 hr tr table".split())
KNOWN_TAGS = BLOCK_TAGS.union(
    "abbr b bdi bdo big caption cite code del dfn em font i ins kbd mark noinclude onlyinclude q ruby rb s samp section".split(),
    "small span strike strong sub sup tbody td th tt u var wbr noindex".split(),
    DROPPED_ELEMENTS.split("|"),
)

_ELEMENT = re.compile(rf"<!--|<(/?)({DROPPED_ELEMENTS})(?=[\s/>])([^<>]*)>", re.I)
_TAG = re.compile(r"<(/?)([a-zA-Z]\w*)(?:\s[^<>]*|/)?>")
_FLAT = re.compile(r"<(span|div)\b([^<>]*+)>[^<]*+</\1\s*>", re.I)
_HIDDEN = re.compile(r"display\s*:\s*none", re.I)
_VARIANT = re.compile(r"-\{(?!\{)((?:(?!-\{|\}-).)*?)\}-", re.S)
_VARIANT_CODE = r"zh(?:-[a-z]+)*"
_INTERWIKI = re.compile(r"(?:simple|(?!doi|mw|rfc|pmc)[a-z]{2,3}(?:-[a-z]+){0,2})")
_WEB_LINK = re.compile(r"\[(?:https?:|ftp:)?//[^\s\[\]]++[ \t]*+([^\[\]\n]*+)\]")
_QUOTES = re.compile(r"'{2,}")
_WORD = re.compile(r"\w")
_MAGIC_WORD = re.compile(r"__[^\W\da-zа-яё_]+__")
_PLAIN_TITLE = re.compile(r"\s*[(（][^()（）]*[)）]$")
_BRACKETS = re.compile(r"\{\{+|\}\}+|\[\[+|\]\]+|\{\|")


def clean(wikitext: str, language: str) -> str:
    """The prose of a page in plain text; never raises on any wikitext.

    Paragraphs are separated by one blank line. A heading is a paragraph of its own, unless nothing of its section is left; the
    items of a list are lines that begin with "- ". Sections of notes, sources and links (`Language.apparatus_headings`) are left
    out. The text is normalised by `Language.normalise`: Chinese comes out in simplified characters.

    wikitext: as in a dump's `<text>`, XML entities already decoded. language: ISO 639-1 code, `UnknownLanguage` otherwise.
    """
    entry = get_language(language)
    text = _without_elements(wikitext.replace("\r\n", "\n").replace(NOTHING, ""))
    if entry.code == "zh":
        text = _chosen_variant(text)
    text = _WEB_LINK.sub(r"\1", _without_tags(text))
    text = resolve(
        text, lambda content: shown_by_template(content, entry.code) or NOTHING, partial(_shown_link, language=entry.code)
    )
    text = text.replace(f"'{NOTHING}'", "'\x01'").replace(NOTHING, "")  # apostrophes around nothing must not run together
    text = _decoded("\n".join(_prose_lines(_scrubbed(text, entry.code), entry)))
    return entry.normalise(_tidy(text)).strip()


def _without_elements(text: str) -> str:
    """Text without comments and elements such as notes; what `<nowiki>` holds becomes entities, so that it stays literal."""
    last_close = {match[2].lower(): match.start() for match in _ELEMENT.finditer(text) if match[1]}
    kept: list[str] = []
    position = 0  # up to here the text is dealt with
    inside, start, content = "", 0, 0  # an open element: its name, where its tag starts and where its content does
    cursor = 0
    while match := _ELEMENT.search(text, cursor):
        cursor = match.end()
        if match[0] == "<!--":
            if inside:
                continue
            end = text.find("-->", match.end())
            cursor = len(text) if end < 0 else end + 3
            before = text[position:match.start()]
            alone = re.compile(r"[ \t]*(\n|$)").match(text, cursor)
            if alone and (before.rstrip(" \t").endswith("\n") or not before and not kept):
                cursor = alone.end()  # a comment alone on its line takes the line with it
            kept.append(before)
            position = cursor
            continue
        name = match[2].lower()
        if inside and name != inside:
            continue
        if inside and match[1]:
            if inside == "nowiki":
                kept.append(re.sub(r"[^\w\s]", lambda mark: f"&#{ord(mark[0])};", text[content:match.start()]))
            inside, position = "", match.end()
        elif match[3].rstrip().endswith("/") or match[1] or last_close.get(name, -1) < match.end():
            if not inside:  # empty, or one half of a pair: only the tag goes
                kept.append(text[position:match.start()])
                position = match.end()
        else:
            if inside:  # opened again before it was closed: the first was never closed, so what followed it is prose
                kept.append(text[content:match.start()])
            else:
                kept.append(text[position:match.start()])
            inside, start, content = name, match.start(), match.end()
            position = start
    kept.append(text[position:] if not inside else text[content:])
    return "".join(kept)


def _chosen_variant(text: str) -> str:
    """Chinese conversion marks resolved: `-{zh-hans:软件;zh-hant:軟體}-` is 软件, `-{A|…}-` shows, `-{H|…}-` hides."""

    def chosen(match: re.Match) -> str:
        flags, bar, rest = match[1].partition("|")
        if bar and re.fullmatch(rf"\s*(?:[A-Z+\-](?:\s*;\s*[A-Z+\-])*|{_VARIANT_CODE}(?:\s*;\s*{_VARIANT_CODE})*|)\s*", flags):
            if {flag.strip() for flag in flags.split(";")} & {"H", "T", "-", "D", "N"}:
                return ""
        else:
            rest = match[1]
        rules = re.split(rf";\s*+(?={_VARIANT_CODE}\s*:|[^;]*=>|$)", rest)
        variants = dict(
            (found[1].strip(), found[2].strip()) for rule in rules
            if (found := re.match(rf"\s*(?:.*=>\s*)?({_VARIANT_CODE})\s*:(.*)", rule, re.S))
        )
        return next((variants[code] for code in ("zh-hans", "zh-cn", "zh-sg", "zh-my", "zh") if code in variants), None) or (
            next(iter(variants.values())) if variants else rest
        )

    for _ in range(5):  # marks nest a level or two
        text, count = _VARIANT.subn(chosen, text)
        if not count:
            break
    return text


def _without_tags(text: str) -> str:
    """Text without HTML tags, blocks on lines of their own; any other "<" becomes an entity, so that it stays literal."""
    if "<" not in text:
        return text
    if "display" in text:
        text = _FLAT.sub(lambda element: "" if _HIDDEN.search(element[2]) else element[0], text)
    return _TAG.sub(_instead_of_tag, text).replace("<", "&lt;")


def _instead_of_tag(tag: re.Match) -> str:
    name = tag[2].lower()
    if name == "li":
        return "" if tag[1] else "\n* "
    return "\n" if name == "br" or name in BLOCK_TAGS else "" if name in KNOWN_TAGS else tag[0]


def _shown_link(content: str, language: str) -> str:
    """What `[[title|text]]` shows: nothing for files, categories and links to the same page in another language."""
    title, bar, text = content.replace(NOTHING, "").partition("|")
    if "\n" in title.strip() or len(title) > LONGEST_TITLE:  # never closed: what closes here is a later one
        return content
    if ":" not in title:
        return text or (_PLAIN_TITLE.sub("", title.strip()) if bar else title.strip().replace("_", " "))
    title = title.strip()
    prefix, _, rest = (part.strip() for part in title.partition(":"))
    if prefix and (prefix.lower().replace("_", " ") in _hidden_spaces(language) or _INTERWIKI.fullmatch(prefix)):
        return ""
    if bar:
        return text or _PLAIN_TITLE.sub("", rest or title)
    title = title.lstrip(":")
    prefix, colon, rest = title.partition(":")
    return (rest if colon and _INTERWIKI.fullmatch(prefix) else title).replace("_", " ")


@cache
def _hidden_spaces(language: str) -> frozenset[str]:
    entry = get_language(language)
    return frozenset(("file", "image", "category", *entry.file_words, *entry.category_words))


def _scrubbed(text: str, language: str) -> str:
    """Text without the markup that is left of a broken page."""
    if "__" in text:
        text = _MAGIC_WORD.sub("", text)
    if not any(mark in text for mark in "[]{}"):
        return text
    text = _WEB_LINK.sub(r"\1", text)  # those around a link
    if "{{" in text or "[[" in text:  # a template or picture that never closes goes to the end of its line
        words = "|".join(map(re.escape, _hidden_spaces(language)))
        text = re.sub(rf"\{{\{{[^\n{{}}]*\|[^\n]*|(?i:\[\[\s*(?:{words})\s*:[^\n]*)", "", text)
    if "{|" in text:  # a table that never closes loses the lines of its cells
        text = re.sub(r"\{\|[^\n]*|\n[ \t:*#;]*![^\n|!]*(?:\||!!)[^\n]*", "", text)
    if language == "zh":
        text = re.sub(r"-\{|\}-", "", text)
    for _ in range(20):  # what is taken away can bring two brackets together
        text, count = _BRACKETS.subn("", text)
        if not count:
            return text
    return re.sub(r"[\[\]{}]", "", text)


def _without_quotes(line: str) -> str:
    """A line without the apostrophes of bold and italics; as in MediaWiki, `l'''Odyssée''` keeps the one that is a letter."""
    if "''''" not in line:
        without_bold = line.replace("'''", "")
        if without_bold.count("''") % 2 == 0 or (len(line) - len(without_bold)) % 6 == 0:
            return without_bold.replace("''", "")
    runs = list(_QUOTES.finditer(line))
    bold = [run for run in runs if len(run[0]) in (3, 4)]
    italics = sum(len(run[0]) == 2 for run in runs)
    fives = sum(len(run[0]) >= 5 for run in runs)
    literal = -1
    if (len(bold) + fives) % 2 and (italics + fives) % 2 and bold:
        after_letter = [run for run in bold if re.search(r"(?:^|[^\w’'])\w$", line[max(0, run.start() - 2): run.start()])]
        after_word = [run for run in bold if line[max(0, run.start() - 1): run.start()].strip()]
        literal = (after_letter or after_word or bold)[0].start()

    def shown(run: re.Match) -> str:
        return "'" if run.start() == literal or len(run[0]) == 4 else "'" * max(0, len(run[0]) - 5)

    return _QUOTES.sub(shown, line)


def _prose_lines(text: str, language: Language) -> list[str]:
    """Lines of prose: headings as paragraphs of their own, list marks as "- ", without sections of apparatus or of nothing."""
    body: list[str] = []
    sections = [(0, "", body)]
    for line in text.split("\n"):
        line = line.strip()
        if "''" in line:
            line = _without_quotes(line).strip()
        if line and not line[0].isalnum():
            if line[0] == "=" and (level := _heading_level(line)):
                body = []
                sections.append((level, line[level:-level].strip(), body))
                continue
            words = line.lstrip("*#:; \t")
            marks = line[: len(line) - len(words)]
            if not _WORD.search(words) or words[0] == "|":
                line = ""  # nothing, or cells of a table that never closes
            elif marks:
                line = "- " + words if "*" in marks or "#" in marks else words
        body.append(line)
    return _without_apparatus(sections, language)


def _heading_level(line: str) -> int:
    """1 to 6 for a heading, 0 for any other line."""
    title = line.strip("=")
    return min(6, line.find(title), len(line) - line.rfind(title) - len(title)) if title else 0


def _without_apparatus(sections: list[tuple[int, str, list[str]]], language: Language) -> list[str]:
    """The lines of sections (level, title, lines) that are prose, each title as a paragraph where prose follows."""
    lines: list[str] = []
    waiting: list[tuple[int, str]] = []  # headings with nothing below them so far
    skipped = 9  # the level of the section of apparatus that is being left out
    for level, title, body in sections:
        if level > skipped:
            continue
        skipped = 9
        if level and level <= 2 and _decoded(title).strip(" :'\u00a0").lower() in language.apparatus_headings:
            skipped = level
            continue
        if level:
            waiting = [one for one in waiting if one[0] < level] + [(level, title)]
        if any(body):
            for _, title in waiting:
                lines += ["", title, ""]
            waiting = []
            lines += body
    return lines


def _decoded(text: str) -> str:
    """Text with its entities decoded, the complete ones only: "&c" is not an entity, "&copy;" is."""

    def character(entity: re.Match) -> str:
        return html.unescape(entity[0]) if entity[1].startswith("#") else html5.get(entity[1] + ";", entity[0])

    return re.sub(r"&(#\d{1,7}|#x[0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});", character, text)


_UNSEEN = [*map(chr, (*range(9), *range(11, 32), 127)), *"\u200b\u200e\u200f\u2060\ufeff\u00ad"]
_STOPS = ",;，；、"
_HOLE = " \u00a0" + _STOPS


def _tidy(text: str) -> str:
    """Text without the holes that dropped templates leave: "( ; )", " ,", blank lines, control characters."""
    for character in _UNSEEN:
        if character in text:
            text = text.replace(character, "")
    text = text.replace("\t", " ")
    for bracket in "(（":
        if bracket in text:
            first, *rest = text.split(bracket)
            text = bracket.join([first, *(piece.lstrip(_HOLE) for piece in rest)])
    for bracket in ")）":
        if bracket in text:
            *rest, last = text.split(bracket)
            text = bracket.join([*(piece.rstrip(_HOLE + ":：") for piece in rest), last])
    text = re.sub(r"\((?<![^\s，。；]\()[ \u00a0:/–—-]*\)", "", text)
    text = re.sub(r"（[ \u00a0:：/–—-]*）", "", text)
    for stop in _STOPS:
        if stop in text:
            text = re.sub(stop + r"(?:[ \u00a0]*[,;，；、])+", stop, text)
    text = re.sub(r",[ \u00a0]*\.(?=\s|$)", ".", text)
    text = re.sub("  +", " ", text)
    for stop in (" ,", " ."):
        first, *rest = text.split(stop)
        text = first + "".join((stop[1] if not piece or piece[0] in " \n" else stop) + piece for piece in rest)
    text = re.sub("\n +", "\n", text.replace(" \n", "\n"))
    return re.sub("\n\n\n+", "\n\n", text)
