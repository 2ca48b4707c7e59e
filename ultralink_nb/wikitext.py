"""Wikitext to plain text: paragraphs of prose, nothing of the markup.

Three passes, each linear in the length of the page. First goes what a grammar is not needed for and what slows one down:
comments, notes, tables, tags. Then mwparserfromhell resolves what nests, templates and links. Last, a scrub takes what the
parser left because the page itself was broken; it is also all that a page gets that is too long or too broken to parse.
"""

import html
import re
from html.entities import html5

import mwparserfromhell
from mwparserfromhell.nodes import Argument, Comment, ExternalLink, Heading, Tag, Template, Wikilink
from mwparserfromhell.wikicode import Wikicode

from ultralink_nb.languages import Language, get_language
from ultralink_nb.wikitemplates import shown as shown_by_template

LONGEST_PARSED = 3_000_000  # characters; the longest pages of real wikis are about 2 million, before notes and tables go
MOST_BACKTRACKING = 10_000_000  # characters: the parser reads on to the end of the page for each bracket that never closes

DROPPED_ELEMENTS = (
    "ref|references|gallery|math|chem|ce|syntaxhighlight|source|timeline|score|imagemap|templatestyles|graph|mapframe|maplink|"
    "hiero|inputbox|categorytree|includeonly|pre|dynamicpagelist|templatedata|indicator|rt|rp|style|script|nowiki"
)
KNOWN_TAGS = (
    "abbr|b|bdi|bdo|big|blockquote|br|caption|center|cite|code|dd|del|dfn|div|dl|dt|em|font|h[1-6]|hr|i|includeonly|ins|kbd|li|"
    "mark|noinclude|nowiki|ol|onlyinclude|p|poem|q|ruby|rb|rt|rp|s|samp|section|small|span|strike|strong|sub|sup|table|tbody|td|"
    "th|tr|tt|u|ul|var|wbr|noindex|" + DROPPED_ELEMENTS
)
BLOCK_TAGS = "div|p|blockquote|center|poem|li|ul|ol|dl|dd|dt|h[1-6]|hr|tr|table"

_ELEMENT = re.compile(rf"<!--|<(/?)({DROPPED_ELEMENTS})(?=[\s/>])([^<>]*)>", re.I)
_TABLE_MARK = re.compile(r"\{\{|\}\}|^[ \t:*#;]*\{\|(?!\})|^[ \t]*\|\}", re.M)
_VARIANT = re.compile(r"-\{(?!\{)((?:(?!-\{|\}-).)*?)\}-", re.S)
_VARIANT_CODE = r"zh(?:-[a-z]+)*"
_INTERWIKI = re.compile(r"(?:simple|(?!doi|mw|rfc|pmc)[a-z]{2,3}(?:-[a-z]+){0,2})")
_HEADING = re.compile(r"[ \t]*(={1,6})[ \t]*(.+?)[ \t]*\1[ \t]*$")
_QUOTES = re.compile(r"'{2,}")


def clean(wikitext: str, language: str) -> str:
    """The prose of a page in plain text; never raises on any wikitext.

    Paragraphs are separated by one blank line. A heading is a paragraph of its own, unless nothing of its section is left; the
    items of a list are lines that begin with "- ". Sections of notes, sources and links (`Language.apparatus_headings`) are left
    out. The text is normalised by `Language.normalise`: Chinese comes out in simplified characters.

    wikitext: as in a dump's `<text>`, XML entities already decoded. language: ISO 639-1 code, `UnknownLanguage` otherwise.
    """
    entry = get_language(language)
    text = _without_elements(wikitext.replace("\r\n", "\n").replace("\x00", ""))
    if entry.code == "zh":
        text = _chosen_variant(text)
    text = _without_tags(_without_tables(text))
    if len(text) <= LONGEST_PARSED and _never_closed(text) * len(text) <= MOST_BACKTRACKING:
        try:
            text = _visible(mwparserfromhell.parse(text, skip_style_tags=True), entry)
        except (mwparserfromhell.parser.ParserError, RecursionError):
            pass  # the scrub below takes the templates and links of a page that the parser cannot manage
    text = "\n".join(map(_without_quotes, _scrubbed(text, entry).split("\n")))
    text = _decoded("\n".join(_prose_lines(text, entry)))
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
        rules = re.split(rf";\s*(?={_VARIANT_CODE}\s*:|[^;]*=>|\s*$)", rest)
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


def _without_tables(text: str) -> str:
    """Text without `{| … |}`, tables in tables and in templates included; of an unclosed table the first line goes."""
    open_marks: list[tuple[str, int]] = []
    cuts: list[tuple[int, int]] = []
    tables = cursor = 0
    while match := _TABLE_MARK.search(text, cursor):
        cursor = match.end()
        mark = match[0].strip(" \t:*#;")
        if mark in ("{{", "{|"):
            open_marks.append((mark, match.start()))
            tables += mark == "{|"
        elif mark == "}}":
            if open_marks and open_marks[-1][0] == "{{":
                open_marks.pop()
        elif open_marks and open_marks[-1][0] == "{{" and text.startswith("}", cursor):
            open_marks.pop()  # "|}}" on a line of its own ends a template whose last argument is empty
            cursor += 1
        elif tables:
            while open_marks[-1][0] == "{{":
                open_marks.pop()  # never closed within the table
            cuts.append((open_marks.pop()[1], cursor))
            tables -= 1
    for mark, start in open_marks:
        if mark == "{|":
            end = text.find("\n", start)
            cuts.append((start, len(text) if end < 0 else end))
    kept, position = [], 0
    for start, end in sorted(cuts):
        if start >= position:  # else it lies within the one before
            kept.append(text[position:start])
            position = end
    return "".join([*kept, text[position:]])


def _without_tags(text: str) -> str:
    """Text without HTML tags, blocks on lines of their own; any other "<" becomes an entity, so that it stays literal."""
    if "<" not in text:
        return text
    for pattern, instead in (
        (r"<(span|div)\b[^<>]*display\s*:\s*none[^<>]*>[^<]*</\1\s*>", ""),
        (r"<li(?:\s[^<>]*)?>", "\n* "),
        (rf"<br\s*/?>|</?(?:{BLOCK_TAGS})(?:\s[^<>]*)?/?>", "\n"),
        (rf"</?(?:{KNOWN_TAGS})(?:\s[^<>]*)?/?>", ""),
    ):
        text = re.sub(pattern, instead, text, flags=re.I)
    return text.replace("<", "&lt;")


def _never_closed(text: str) -> int:
    """How many opening brackets and braces have no closing one."""
    depth = {"[": 0, "{": 0}
    for match in re.finditer(r"\{\{|\}\}|[\[\]]", text):
        kind = "{" if match[0] in ("{{", "}}") else "["
        depth[kind] = depth[kind] + 1 if match[0] in ("{{", "[") else max(0, depth[kind] - 1)
    return sum(depth.values())


def _visible(code: Wikicode, language: Language) -> str:
    """What a reader sees of parsed wikitext; headings, list marks and entities stay as written."""
    return "".join(_visible_node(node, language) for node in code.nodes)


def _visible_node(node, language: Language) -> str:
    if isinstance(node, Template):
        return shown_by_template(_visible(node.name, language), language.code, lambda: _arguments(node, language))
    if isinstance(node, Wikilink):
        return _link_text(_visible(node.title, language), None if node.text is None else _visible(node.text, language), language)
    if isinstance(node, ExternalLink):
        return _visible(node.title, language) if node.title is not None else "" if node.brackets else str(node.url)
    if isinstance(node, Heading):
        return f"\n{'=' * node.level} {_visible(node.title, language).strip()} {'=' * node.level}\n"
    if isinstance(node, Tag):  # only wiki marks are left: those of lists, a ruled line, a table that the first pass did not see
        return "" if node.contents else str(node.wiki_markup or "")
    return "" if isinstance(node, (Argument, Comment)) else str(node)


def _link_text(title: str, text: str | None, language: Language) -> str:
    """What `[[title|text]]` shows: nothing for files, categories and links to the same page in another language."""
    title = title.strip()
    prefix, colon, rest = (part.strip() for part in title.partition(":"))
    if colon and prefix:
        word = prefix.lower().replace("_", " ")
        if word in ("file", "image", "category", *language.file_words, *language.category_words) or _INTERWIKI.fullmatch(prefix):
            return ""
    if text is not None:
        return text or re.sub(r"\s*[(（][^()（）]*[)）]$", "", rest or title)
    title = title.lstrip(":")
    prefix, colon, rest = title.partition(":")
    return (rest if colon and _INTERWIKI.fullmatch(prefix) else title).replace("_", " ")


def _arguments(template: Template, language: Language) -> dict[str, str]:
    return {str(one.name).strip().lower(): _visible(one.value, language).strip() for one in template.params}


def _scrubbed(text: str, language: Language) -> str:
    """Text without the markup that is left of a broken page, innermost first."""
    for _ in range(40):
        text, count = re.subn(r"\{\{[^{}]*\}\}|\{\{\{[^{}]*\}\}\}", "", text)
        if not count:
            break
    link = re.compile(r"\[\[([^\[\]|\n]*)(?:\|([^\[\]\n]*))?\]\]")
    for _ in range(5):
        text, count = link.subn(lambda m: _link_text(m[1], m[2].split("|")[-1] if m[2] is not None else None, language), text)
        if not count:
            break
    files = "|".join(map(re.escape, ("file", "image", *language.file_words)))
    for pattern, instead in (
        (r"\{\{[^\n{}]*\|[^\n]*", ""),  # a template that never closes, to the end of its line
        (rf"(?i)\[\[\s*(?:{files})\s*:[^\n\[\]]*(?:\|[^\n]*)?", ""),  # a picture that never closes
        (r"\[(?:https?:|ftp:)?//[^\s\[\]]+[ \t]*([^\[\]\n]*)\]", r"\1"),
        (r"\{\{+|\}\}+|\[\[+|\]\]+", ""),
        (r"(?m)^[ \t:*#;]*\{?\|.*$|^[ \t]*!.*(?:\||!!).*$|\{\|[ \t]*(?:[\w-]+[ \t]*=.*)?$", ""),  # a table that never closes
        (r"__[^\W\da-zа-яё_]+__", ""),
    ):
        text = re.sub(pattern, instead, text)
    count = 1
    while count:  # what is taken away can bring two brackets together
        text, count = re.subn(r"\{\{+|\}\}+|\[\[+|\]\]+|\{\|", "", text)
    return re.sub(r"-\{|\}-", "", text) if language.code == "zh" else text


def _without_quotes(line: str) -> str:
    """A line without the apostrophes of bold and italics; as in MediaWiki, `l'''Odyssée''` keeps the one that is a letter."""
    runs = [match for match in _QUOTES.finditer(line)]
    if not runs:
        return line
    bold = [run for run in runs if len(run[0]) in (3, 4)]
    italics = sum(len(run[0]) == 2 for run in runs)
    fives = sum(len(run[0]) >= 5 for run in runs)
    literal = -1
    if (len(bold) + fives) % 2 and (italics + fives) % 2 and bold:
        after_letter = [run for run in bold if re.search(r"(?:^|[^\w’'])\w$", line[: run.start()])]
        after_word = [run for run in bold if line[: run.start()][-1:].strip()]
        literal = (after_letter or after_word or bold)[0].start()

    def shown(run: re.Match) -> str:
        return "'" if run.start() == literal or len(run[0]) == 4 else "'" * max(0, len(run[0]) - 5)

    return _QUOTES.sub(shown, line)


def _prose_lines(text: str, language: Language) -> list[str]:
    """Lines of prose: headings as paragraphs of their own, list marks as "- ", without sections of apparatus or of nothing."""
    sections: list[tuple[int, str, list[str]]] = [(0, "", [])]
    for line in text.split("\n"):
        if heading := _HEADING.match(line):
            sections.append((len(heading[1]), heading[2], []))
        else:
            marks = re.match(r"\s*([*#:;]*)\s*", line)
            body = line[marks.end():].rstrip()
            if not re.search(r"\w", body):
                sections[-1][2].append("")
            else:
                sections[-1][2].append(("- " if "*" in marks[1] or "#" in marks[1] else "") + body)
    lines: list[str] = []
    skipped = 9  # the level of the section of apparatus that is being left out
    for index, (level, title, body) in enumerate(sections):
        if level > skipped:
            continue
        skipped = 9
        if level and level <= 2 and _decoded(title).strip(" :'\u00a0").lower() in language.apparatus_headings:
            skipped = level
            continue
        if level and _has_prose(sections, index, language):
            lines += ["", title, ""]
        lines += body
    return lines


def _has_prose(sections: list[tuple[int, str, list[str]]], index: int, language: Language) -> bool:
    level = sections[index][0]
    for inner_index in range(index, len(sections)):
        inner_level, _, body = sections[inner_index]
        if inner_index > index and inner_level <= level:
            return False
        if any(body):
            return True
    return False


def _decoded(text: str) -> str:
    """Text with its entities decoded, the complete ones only: "&c" is not an entity, "&copy;" is."""

    def character(entity: re.Match) -> str:
        return html.unescape(entity[0]) if entity[1].startswith("#") else html5.get(entity[1] + ";", entity[0])

    return re.sub(r"&(#\d{1,7}|#x[0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});", character, text)


def _tidy(text: str) -> str:
    """Text without the holes that dropped templates leave: "( ; )", " ,", blank lines, control characters."""
    for pattern, instead in (
        (r"[\x00-\x08\x0b-\x1f\x7f\u200b\u200e\u200f\u2060\ufeff\u00ad]", ""),
        (r"([(（])[ \u00a0]*(?:[,;，；、][ \u00a0]*)+", r"\1"),
        (r"(?:[ \u00a0]{0,3}[,;:，；：、]){1,9}[ \u00a0]{0,3}(?=[)）])", ""),
        (r"(?:(?<=[\s，。；])|^)\([ \u00a0:/–—-]*\)|（[ \u00a0:：/–—-]*）", ""),
        (r"([,;，；、])(?:[ \u00a0]*[,;，；、])+", r"\1"),
        (r"[ \t]+", " "), (r"(?<=[(（]) | (?=[)）])", ""), (r" +(?=[,.](?:\s|$))", ""), (r"(?m)^ | $", ""), (r"\n{3,}", "\n\n"),
    ):
        text = re.sub(pattern, instead, text)
    return text
