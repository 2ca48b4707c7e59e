"""What a translator must not touch: code, LaTeX, URLs, placeholders, the frame of tables, the final answer of a worked problem.

`protect` puts a placeholder such as ⟦2⟧ for each such span before a text goes to a chat model, and `restore` puts the spans
back, so code never passes through a translator. Comments inside code are code: they stay in the language they were written in.
Of a table the bars, rules and cells without letters are held, and the words of its cells are translated. Numbers in prose are
left to the translator, who has to write them and the words around them as the language does, and are verified; they are held
too where `numbers` asks for it. `prose` is what is left for a reader, and the only part that verification judges as language.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ultralink_nb.code_spans import docstring_parts, is_python, unfenced_code

_FENCED = r"(?P<code>^[ \t]*(?P<fence>`{3,}|~{3,})[^\n`]*\n.*?(?:^[ \t]*(?P=fence)[ \t]*$|\Z))"
_MATH = (
    r"[pbvBV]?matrix|equation|align|alignat|aligned|gather|multline|cases|array|eqnarray|split|d?math|displaymath|tikzpicture|"
    r"verbatim|lstlisting"
)
_LATEX = (
    rf"(?P<latex>(?<!\w)\$\$.+?\$\$|\\\[.+?\\\]|\\\(.+?\\\)|\\begin\{{(?P<environment>(?:{_MATH})\*?)\}}.*?\\end\{{(?P=environment)\}}"
    r"|(?<![\\$\w])\$(?=[^\s$])"
    r"(?=[^$\n]*[\\^_{]|[A-Za-z]\$|[^$\n]*(?:[A-Za-z] ?[-=<>+*/]|[-=<>+*/] ?[A-Za-z]))[^$\n]*[^\s$\\]\$(?![\w$])"
    r"|\\(?:begin|end|documentclass|usepackage|label|ref|cite|input|includegraphics)(?:\[[^\]\n]*\])?\{[^{}\n]*\}|\\[A-Za-z]{2,}(?=\{))"
)
_INLINE = r"(?P<inline_code>(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)(?P=ticks)(?!`))"
_URL = r"(?P<url>https?://[^\s<>\"'`（）()，。；、》»]*[^\s<>\"'`（）()，。；、》».,;:!?*_])"
_FINAL_ANSWER = r"(?P<final_answer>^\#{4}[ \t]+[^\n]*\d[^\n]*\Z)"
_PLACEHOLDER = (
    r"(?P<placeholder>\{\{[^{}\n]{1,60}\}\}|\$?\{[A-Za-z_][\w.]{0,60}\}|(?<![\w%])%(?:\([A-Za-z_]\w*\)|[0-9.]*)[sdif](?!\w)"
    r"|</?[A-Za-z][\w:-]*(?:\s+[\w:-]+=(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s\"'<>]+))*\s*/?>)"
)
_SPAN = re.compile("|".join((_FENCED, _INLINE, _LATEX, _URL, _PLACEHOLDER, _FINAL_ANSWER)), re.DOTALL | re.MULTILINE)
_KINDS = ("code", "inline_code", "latex", "url", "placeholder", "final_answer")
_SIGNS = re.compile(r"[`~$\\{%<#]|https?:")  # a text without any of these holds none of the spans above
_TABLE_LINE = re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.MULTILINE)
_CELL = re.compile(r"[^|\n]*[^\W\d_][^|\n]*")  # with a letter
_NUMBER = re.compile(r"[^\W_]*[0-9]\w*(?:[.,:/\u00a0\u202f][0-9]+)*")  # 1,250.5; 3x, A2 and mp3 too

class LostPlaceholder(ValueError):
    """A completion in which some placeholders are missing, repeated or unknown."""


@dataclass(frozen=True)
class Span:
    """A protected stretch `text[start:end]`: code, inline_code, latex, url, placeholder, table, final_answer or number."""

    kind: str
    start: int
    end: int
    text: str


def _table_frames(text: str) -> Iterator[tuple[int, int]]:
    """The parts of tables that are no words: from one cell with a letter to the next, of two or more lines in a row."""
    tables: list[list[int]] = []
    for line in _TABLE_LINE.finditer(text):
        if tables and tables[-1][1] + 1 == line.start():
            tables[-1][1:] = line.end(), tables[-1][2] + 1
        else:
            tables.append([*line.span(), 1])
    for start, end, lines in tables:
        if lines < 2:
            continue
        for cell in _CELL.finditer(text, start, end):
            words = cell[0].strip()
            left = cell.start() + cell[0].index(words)
            yield start, left
            start = left + len(words)
        yield start, end


def protected_spans(text: str, kind: str = "", numbers: bool = False) -> list[Span]:
    """The protected spans of a text, in order and without overlap.

    kind: the sample's; in one of kind `code` code is looked for without a fence too (code_spans.py). numbers: hold numbers too.
    """
    found = []
    if _SIGNS.search(text):
        found += [(match.start(), -match.end(), _name(match)) for match in _SPAN.finditer(text)]
    if "|" in text:
        found += [(start, -end, "table") for start, end in _table_frames(text)]
    if kind == "code":
        found += [(start, -end, "code") for start, end in _code(text)]
    if numbers:
        found += [(match.start(), -match.end(), "number") for match in _NUMBER.finditer(text)]
    spans: list[Span] = []
    for start, minus_end, name in sorted(found):
        if not spans or start >= spans[-1].end:
            spans.append(Span(name, start, -minus_end, text[start:-minus_end]))
    return spans


def _name(match: re.Match[str]) -> str:
    return next(name for name in _KINDS if match[name] is not None)


def _code(text: str) -> list[tuple[int, int]]:
    """Code without a fence: all around the prose of a docstring, all of a text that is Python, else by how lines look."""
    parts = docstring_parts(text)
    if parts:
        edges = [0, *(edge for part in parts for edge in part), len(text)]
        return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]
    if "```" not in text and is_python(text):
        return [(0, len(text))]
    return unfenced_code(text)


def protect(text: str, kind: str = "", numbers: bool = False) -> tuple[str, dict[str, str]]:
    """(text with a placeholder ⟦n⟧ for each protected span, the span that each placeholder stands for)."""
    number = max((int(digits) for digits in re.findall(r"⟦(\d+)⟧", text)), default=0)
    pieces, held, position = [], {}, 0
    for span in protected_spans(text, kind, numbers):
        number += 1
        pieces += [text[position : span.start], f"⟦{number}⟧"]
        held[f"⟦{number}⟧"] = span.text
        position = span.end
    return "".join([*pieces, text[position:]]), held


def restore(completion: str, held: Mapping[str, str]) -> str:
    """The completion with every span back in its place, in any order.

    A completion that uses no placeholder at all stands on its own: a recorded translation, or a model that wrote the spans
    out; verification compares them. One that lost or repeated a part of them raises `LostPlaceholder`.
    """
    counts = {placeholder: completion.count(placeholder) for placeholder in held}
    if not any(counts.values()):
        return completion
    wrong = [f"{name} {'missing' if count == 0 else f'{count} times'}" for name, count in counts.items() if count != 1]
    if wrong:
        raise LostPlaceholder(f"the translation changed protected spans: {', '.join(wrong)}")
    return re.sub(r"⟦\d+⟧", lambda match: held.get(match[0], match[0]), completion)


def prose(text: str, kind: str = "") -> str:
    """The text without its protected spans."""
    pieces, position = [], 0
    for span in protected_spans(text, kind):
        pieces.append(text[position : span.start])
        position = span.end
    return " ".join([*pieces, text[position:]])
