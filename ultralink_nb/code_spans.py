"""Where code stands in a text that has no fences: outputs of code data, and the tasks of HumanEval.

`unfenced_code` goes by how lines look, `docstring_parts` by Python's own parser: of a function that is to be written, only the
prose of its docstring is for a reader, never the signature, a doctest and its output, or an example call.
"""

import ast
import re
from collections.abc import Iterator

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
_STUB = re.compile(r"^(?:async )?(?:def|class) ", re.MULTILINE)
_DOCTEST = re.compile(r"\s*(?:>>>|\.\.\.(?:\s|$))")
_SHOWN = re.compile(  # an example, a formula or a constraint, no sentence
    r"\w\[\w+\].*[-+*/]|==|->|=>|➞|→|⇒|<=|>=|!=|\+=|^\s*(?:(?:Input|Output|Example)s?:?\s*)?\w+\s*=\s*\S", re.IGNORECASE
)
_LITERAL = r"\[[^\n]*\]|\{[^{}\n]*\}|\"[^\"\n]*\"|(?<!\w)'[^'\n]*'(?!\w)"


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


def is_python(text: str) -> bool:
    """Whether a whole text is Python: statements, a function's body among them, or calls; a word or two are not."""
    for source in (text, f"def _():\n{text}") if text[:1] in " \t" else (text,):
        try:
            body = ast.parse(source).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in body)
    return False


def docstring_parts(prompt: str) -> list[tuple[int, int]]:
    """(start, end) of the prose in the docstrings of Python code that is to be completed, as HumanEval's prompts are.

    Left out, line by line: doctests with their outputs, lines that show a call, a comparison or an assignment, lines without two
    words. Within a sentence, calls of the functions defined there and bracketed or quoted values are left out too; names of
    parameters are not, since most are plain words. Empty where the text is no Python or defines nothing.
    """
    if not _STUB.search(prompt):
        return []
    try:
        tree = ast.parse(prompt)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines = prompt.splitlines(keepends=True)
    begin = [0]
    for line in lines:
        begin.append(begin[-1] + len(line))

    def place(line: int, column: int) -> int:
        return begin[line - 1] + len(lines[line - 1].encode()[:column].decode(errors="ignore"))

    defined = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    names = "|".join(sorted({re.escape(node.name) for node in defined}, key=len, reverse=True))
    shown = re.compile(rf"\b(?:{names})\((?:[^()\n]|\([^()\n]*\))*\)|{_LITERAL}")
    parts: list[tuple[int, int]] = []
    for node in (child for parent in (tree, *defined) for child in parent.body):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            start, end = place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
            quotes = re.match(r"(?i)[rubf]*(\"{3}|'{3}|\"|')", prompt[start:end])
            parts += _prose(prompt, start + quotes.end(), end - len(quotes[1]), re.compile(rf"\s*(?:{names})\("), shown)
    return sorted(parts)


def _prose(prompt: str, start: int, end: int, call: re.Pattern[str], shown: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Stretches of prose between start and end, lines of the same paragraph in one."""
    said: list[tuple[int, int]] = []
    output = False
    position = start
    for line in prompt[start:end].splitlines(keepends=True):
        bare = line.strip()
        output = bool(bare) and (output or bool(_DOCTEST.match(line)))
        if not (output or call.match(line) or _SHOWN.search(line) or len(re.findall(r"[^\W\d_]{2,}", bare)) < 2):
            at = position
            for match in (*shown.finditer(line), None):
                stop = position + (match.start() if match else len(line))
                if any(char.isalpha() for char in prompt[at:stop]):
                    said.append((at, stop))
                at = position + match.end() if match else stop
        position += len(line)
    joined: list[list[int]] = []
    for one, other in said:
        if joined and joined[-1][1] == one:
            joined[-1][1] = other
        else:
            joined.append([one, other])
    for one, other in joined:
        piece = prompt[one:other]
        yield one + len(piece) - len(piece.lstrip()), one + len(piece.rstrip())
