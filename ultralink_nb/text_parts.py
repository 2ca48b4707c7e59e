"""A text taken apart once for all gates of verification: its protected spans, and of its prose the words and numbers."""

import functools
import re
import unicodedata
from collections import Counter
from functools import cached_property

from ultralink_nb.languages import get_language
from ultralink_nb.numerals import Numbers, read_numbers
from ultralink_nb.protection import Span, protected_spans

WORD = re.compile(r"[一-鿿]|[^\W\d_一-鿿]+")
WORD_OR_SIGN = re.compile(rf"{WORD.pattern}|[(){{}}\[\]=;|<>]")
SEEN = 200  # words of a text by which its language is judged
CJK = re.compile(r"[一-鿿]")
_END = re.compile(  # of a sentence, also where a line break was lost behind it: "dates.Return"
    r"[.!?…]+[\"'»”’)\]]*(?=\s|$)|(?<=[^\W\d_A-Z])[.!?:](?=[A-ZÀ-ÝА-Я¿¡])|[。！？]+[”’」』）]*|\n\s*\n|$"
)
_COMMENT_LINE = re.compile(r"^[ \t]*(?:#(?!include|!)|//|--[ \t]).*\n?", re.MULTILINE)


class Text:
    """A message's text in a language. kind: its sample's, since code without a fence is looked for only in kind `code`."""

    def __init__(self, text: str, language: str, kind: str = "") -> None:
        self.text, self.language, self.kind = text, language, kind

    @cached_property
    def spans(self) -> list[Span]:
        """Its protected spans; the frames of tables are not among them, since their notation of numbers may change."""
        return [span for span in protected_spans(self.text, self.kind) if span.kind != "table"]

    @cached_property
    def prose(self) -> str:
        """The text without its protected spans."""
        if not self.spans:
            return self.text
        pieces, position = [], 0
        for span in self.spans:
            pieces.append(self.text[position : span.start])
            position = span.end
        return " ".join([*pieces, self.text[position:]])

    def of(self, kind: str) -> list[str]:
        """The texts of the spans of a kind, in order."""
        return [span.text for span in self.spans if span.kind == kind] if self.spans else []

    @cached_property
    def words(self) -> list[str]:
        """The words of the prose; a Chinese character is one."""
        return WORD.findall(self.prose)

    @cached_property
    def plain(self) -> list[str]:
        """Of the first `SEEN` words those without a capital letter, so that names are left out: they tell the language."""
        return [word for word in self.words[:SEEN] if not word[0].isupper()]

    @cached_property
    def letters(self) -> int:
        return sum(map(len, self.words))

    @cached_property
    def script(self) -> str:
        """The script of most plain letters, by the first word of their Unicode names: LATIN, CYRILLIC, CJK; else empty."""
        count: Counter[str] = Counter()
        for word in self.plain[:80]:
            count[_script(word[0])] += len(word)
        return max(count, key=count.__getitem__, default="")

    @cached_property
    def numbers(self) -> Numbers:
        return read_numbers(self.prose, self.language)

    @cached_property
    def sentences(self) -> list[str]:
        """Its sentences, without those that hold no letter."""
        found, start = [], 0
        for end in _END.finditer(self.prose):
            piece = self.prose[start : end.end()].strip()
            if any(map(str.isalpha, piece)):
                found.append(piece)
            start = end.end()
        return found

    @cached_property
    def blocks(self) -> list[str]:
        """Its fenced code."""
        return [code for code in self.of("code") if code.lstrip().startswith(("```", "~~~"))]

    @cached_property
    def unfenced(self) -> list[str]:
        return [code for code in self.of("code") if not code.lstrip().startswith(("```", "~~~"))]


@functools.cache
def _script(char: str) -> str:
    return unicodedata.name(char, "").partition(" ")[0]


@functools.lru_cache(4096)
def same_code(block: str) -> str:
    """A fenced block without comments (pygments decides what they are) and without space at the ends of lines."""
    from pygments.lexers import get_lexer_by_name
    from pygments.token import Comment
    from pygments.util import ClassNotFound

    first, _, body = block.strip().partition("\n")
    name = first.strip("`~ \t").split(" ")[0]
    try:
        tokens = list(get_lexer_by_name(name).get_tokens(body)) if name else []
    except ClassNotFound:
        tokens = []
    kept = (Comment.Preproc, Comment.PreprocFile, Comment.Hashbang)
    code = "".join(text for kind, text in tokens if kind not in Comment or any(kind in one for one in kept)) or body
    return "\n".join(line.rstrip() for line in f"{name}\n{code}".splitlines() if line.strip())


def without_comment_lines(code: str) -> str:
    """Code whose language is not told, without the lines that are nothing but a comment."""
    return _COMMENT_LINE.sub("", code).strip()


@functools.cache
def common_words(language: str) -> frozenset[str]:
    """The most frequent words of a language, empty where the kit has no list of them."""
    return frozenset(get_language(language).common_words.split())
