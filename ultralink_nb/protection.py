"""What a translator must not touch: code, LaTeX, URLs and the final answer of a worked problem.

`protect` puts a placeholder such as ⟦2⟧ for each such span before a text goes to a chat model, and `restore` puts the spans
back, so code never passes through a translator. Comments inside code are code: they stay in the language they were written in.
`prose` is what is left for a reader, and the only part that verification judges as language.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_FENCED = r"(?P<code>^[ \t]*(?P<fence>`{3,}|~{3,})[^\n`]*\n.*?(?:^[ \t]*(?P=fence)[ \t]*$|\Z))"
_LATEX = (
    r"(?P<latex>(?<!\w)\$\$.+?\$\$|\\\[.+?\\\]|\\\(.+?\\\)|\\begin\{(?P<environment>\w+\*?)\}.*?\\end\{(?P=environment)\}"
    r"|(?<![\\$\w])\$(?=[^\s$])"
    r"(?=[^$\n]*[\\^_{]|[A-Za-z]\$|[^$\n]*(?:[A-Za-z] ?[-=<>+*/]|[-=<>+*/] ?[A-Za-z]))[^$\n]*[^\s$\\]\$(?![\w$]))"
)
_INLINE = r"(?P<inline_code>(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)(?P=ticks)(?!`))"
_URL = r"(?P<url>https?://[^\s<>\"'`（）()，。；、》»]*[^\s<>\"'`（）()，。；、》».,;:!?*_])"
_FINAL_ANSWER = r"(?P<final_answer>^\#{4}[ \t]+[^\n]*\d[^\n]*\Z)"
_SPAN = re.compile("|".join((_FENCED, _INLINE, _LATEX, _URL, _FINAL_ANSWER)), re.DOTALL | re.MULTILINE)
_KINDS = ("code", "inline_code", "latex", "url", "final_answer")

_STATEMENT = (
    r"def|class|import|from|return|for|while|if|elif|else|try|except|finally|with|async|lambda|print|function|const|let|var|public|"
    r"private|static|void|int|float|double|string|bool|using|package|namespace|struct|echo|fi|done|do|end"
)
_SQL = "SELECT|INSERT INTO|UPDATE|DELETE|CREATE|DROP|ALTER|FROM|WHERE|(?:LEFT |INNER )?JOIN|ORDER BY|GROUP BY|LIMIT|VALUES|SET"
_CODE_LINE = re.compile(
    rf"""^(?:{_STATEMENT})\b(?=.*[(){{}}\[\]=:;,*'"<]).*[^.?!]$  # a statement: a keyword and a sign of syntax
    | ^(?:{_SQL})\b | ^import\ [\w.]+(?:\ as\ \w+)?$ | ^from\ [\w.]+\ import\b | ^(?:public|private|class)\ \w+$
    | [;{{}}]\s*(?://.*)?$ | ^[\])}}]+[;,]?$ | ^[\[({{]$   # lines that end as C, Java or CSS lines do; brackets
    | ^(?:return\ \w+|else|end|pass|break|continue)$
    | ^[\w.\[\]"']+\s*[-+*/]?=[^=].*[^.?!]$               # an assignment
    | ^[\w.]+\(.*\)(?:\s*[:;{{])?$ | ^</?\w[^>]*>         # a call; markup
    | ^(?:\[.*\]|\{{.*\}}|\(.*\))$ | ^\#(?:include|!)     # a literal; a directive""",
    re.VERBOSE,
)
_COMMENT_LINE = re.compile(r"^(?://|/\*|\*/|--\s|#|\"{3}|'{3}|@\w|<\?|\?>)")  # code only beside a line of code
_CONTINUED = re.compile(r"^(?:[ ]{2,}|\t)\s*(?![-*•]\s|\d+[.)]\s)\S")  # an indented line that is no list item


class LostPlaceholder(ValueError):
    """A completion in which some placeholders are missing, repeated or unknown."""


@dataclass(frozen=True)
class Span:
    """A protected stretch `text[start:end]` of a kind: code, inline_code, latex, url or final_answer."""

    kind: str
    start: int
    end: int
    text: str


def unfenced_code(text: str) -> list[tuple[int, int]]:
    """(start, end) of code that stands in a text without a fence, as most outputs of CodeAlpaca do.

    A line counts as code when it looks like a statement, a call, a literal or markup; indented lines after one, comment
    lines beside one and blank lines between two go with them. A rule, not a parser: it is meant for samples of kind `code`.
    """
    lines: list[tuple[int, int, bool, bool]] = []  # start, end, is it code, is it a comment
    offset, inside = 0, False
    for line in text.splitlines(keepends=True):
        bare = line.rstrip()
        if bare:
            comment = bool(_COMMENT_LINE.match(bare.lstrip()))
            inside = bool(_CODE_LINE.search(bare.strip())) or inside and (comment or bool(_CONTINUED.match(bare)))
            lines.append((offset, offset + len(bare), inside, comment))
        offset += len(line)
    runs: list[tuple[int, int]] = []
    below = False
    for start, end, is_code, comment in reversed(lines):
        is_code = is_code or comment and below
        if is_code:
            runs.append((start, runs.pop()[1] if below else end))
        below = is_code
    return runs[::-1]


def protected_spans(text: str, kind: str = "") -> list[Span]:
    """The protected spans of a text, in order and without overlap; `kind` is the sample's (see `unfenced_code`)."""
    found = [
        (match.start(), -match.end(), next(name for name in _KINDS if match[name] is not None)) for match in _SPAN.finditer(text)
    ]
    if kind == "code":
        found += [(start, -end, "code") for start, end in unfenced_code(text)]
    spans: list[Span] = []
    for start, minus_end, name in sorted(found):
        if not spans or start >= spans[-1].end:
            spans.append(Span(name, start, -minus_end, text[start:-minus_end]))
    return spans


def protect(text: str, kind: str = "") -> tuple[str, dict[str, str]]:
    """(text with a placeholder ⟦n⟧ for each protected span, the span that each placeholder stands for)."""
    number = max((int(digits) for digits in re.findall(r"⟦(\d+)⟧", text)), default=0)
    pieces, held, position = [], {}, 0
    for span in protected_spans(text, kind):
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
