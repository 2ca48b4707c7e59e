"""Whether two texts of one language ask the same in nearly the same words, or in other words.

What decides is what differs, not how much is equal: in SFT data one word, name or number in fifty makes another task (a passage
with many questions, a template with many nouns). So a slip is what cannot change the task: a typing error, a word given twice,
two words that changed places, a word cut in two, an article, a courtesy, "3" for "three". And since the words that two texts
share bring their vectors together whatever the others say, a rewording must be the closer the more words are shared.
"""

import functools
import re
from collections import Counter
from fractions import Fraction

from ultralink_nb.languages import LANGUAGES, get_language
from ultralink_nb.minhash import shingles
from ultralink_nb.numerals import Numbers, compare_numbers, read_numbers

# Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|\d+(?:[.,:]\d+)*|[^\W\d_{_UNSPACED}]+|[^\s{_UNSPACED}]")
_WITHIN = re.compile(r"(?<=[\w,;)] )[^\W\d_]\w+")


@functools.cache
def _listed(table: str, language: str) -> frozenset[str]:
    if table == "numbers":
        return frozenset(word for words in get_language(language).number_words.values() for word in words.casefold().split())
    known = LANGUAGES.get(language)  # a language that is not known is compared without
    return frozenset(getattr(known, table).split()) if known else frozenset()


@functools.cache
def _courtesies(language: str) -> tuple[re.Pattern[str], ...]:
    phrases = sorted(LANGUAGES[language].courtesies.split("|") if language in LANGUAGES else [""], key=len, reverse=True)
    if not phrases[0]:
        return ()
    any_of = "|".join(phrases)
    if re.match(f"[{_UNSPACED}]", phrases[0]):
        return re.compile(rf"^(?:(?:{any_of}) ?)+"), re.compile(rf"(?: ?(?:{any_of}))+$")
    return re.compile(rf"^(?:(?:{any_of})(?: |$))+"), re.compile(rf"(?:(?:^| )(?:{any_of}))+$")


class Wording:
    """A text of a language and what it is compared by. normal: its normal form, words with spaces between (minhash.py).

    tokens: its words in order, without courtesies and passing words; a character each where there are no word spaces.
    """

    def __init__(self, text: str, normal: str, language: str) -> None:
        self.text, self.normal, self.language = text, normal, language
        core = normal
        for pattern in _courtesies(language):
            core = pattern.sub("", core)
        passing = _listed("passing_words", language)
        tokens = tuple([token for token in _TOKEN.findall(core) if token not in passing])
        self.tokens: tuple[str, ...] = tokens or tuple(_TOKEN.findall(normal))

    @functools.cached_property
    def shingles(self) -> set[str]:
        return shingles(self.normal)

    @functools.cached_property
    def numbers(self) -> Numbers:
        return read_numbers(self.text, self.language)

    @functools.cached_property
    def names(self) -> set[str]:
        """Words with a capital within a sentence."""
        return {word.casefold() for word in _WITHIN.findall(self.text) if word[0].isupper()}

    @functools.cached_property
    def negations(self) -> int:
        return sum(token in _listed("negations", self.language) for token in self.tokens)


def jaccard(a: Wording, b: Wording) -> float:
    """Jaccard similarity of the two texts' shingles, in [0, 1]."""
    return len(a.shingles & b.shingles) / max(1, len(a.shingles | b.shingles))


def numbers_differ(a: Numbers, b: Numbers) -> bool:
    """Whether two texts state other numbers, or the same digits in another order.

    A number in digits may be a word in the other text. The value 1 in words is let pass: "a", "each" and "first" have it too.
    """
    if any(compare_numbers(a, b)):
        return True
    first, second = ([value for readings in side.digits for value in readings[0]] for side in (a, b))
    if first != second and Counter(first) == Counter(second):
        return True
    written = [{value for readings in side.digits for reading in readings for value in reading} for side in (a, b)]
    return bool((a.words - b.words - written[1] | b.words - a.words - written[0]) - {Fraction(1)})


def only_slips(a: Wording, b: Wording) -> bool:
    """Whether the two texts have the same words in the same order but for slips, and state the same numbers."""
    x, y, code = a.tokens, b.tokens, a.language
    i = j = 0
    changed: list[str] = []
    while i < len(x) and j < len(y):
        p, q = x[i], y[j]
        if p == q:
            i, j = i + 1, j + 1
            continue
        if i and p == x[i - 1] and len(p) > 1:
            step = (1, 0)
        elif j and q == y[j - 1] and len(q) > 1:
            step = (0, 1)
        elif p[0].isdigit() and q[0].isdigit():
            if re.sub(r"\D", "", p) != re.sub(r"\D", "", q):  # 1,250 and 1250; numbers_differ has the last word
                return False
            step = (1, 1)
        elif p[0].isdigit() or q[0].isdigit():
            if not (_kind(p, code) and _kind(q, code)):
                return False
            step = (_run(x, i, code), _run(y, j, code))
        elif _misspelt(p, q):
            step = (1, 1)
        elif i and len(p) > 1 and len(q) > 1 and x[i : i + 2] == y[j : j + 2][::-1]:  # not at the start: "is it" is a question
            step = (2, 2)
        elif "".join(x[i : i + 2]) == q:
            step = (2, 1)
        elif p == "".join(y[j : j + 2]):
            step = (1, 2)
        else:
            return False
        changed += (*x[i : i + step[0]], *y[j : j + step[1]])
        i, j = i + step[0], j + step[1]
    rest = x[i:] + y[j:]
    before = x[:i] if i < len(x) else y[:j]
    if rest and (not before or any(token != before[-1] or len(token) == 1 for token in rest)):
        return False
    return not any(_kind(token, code) for token in (*changed, *rest)) or not numbers_differ(a.numbers, b.numbers)


def _kind(token: str, language: str) -> str:
    return "digits" if token[0].isdigit() else "word" if token in _listed("numbers", language) else ""


def _run(tokens: tuple[str, ...], start: int, language: str) -> int:
    """How many tokens of one kind, digits or number words, stand here in a row."""
    end = start
    while end < len(tokens) and _kind(tokens[end], language) == _kind(tokens[start], language):
        end += 1
    return end - start


def _misspelt(a: str, b: str) -> bool:
    """Whether one word is the other with one letter more, less or changed, or two that changed places, inside the word.

    First and last letter are the same in both: a change there more often makes another word (Maria, Mario; Gambia, Zambia).
    """
    if a[0] != b[0] or a[-1] != b[-1] or max(len(a), len(b)) < 5 or abs(len(a) - len(b)) > 1:
        return False
    head = next(n for n in range(min(len(a), len(b)) + 1) if n == min(len(a), len(b)) or a[n] != b[n])
    a, b = a[head:], b[head:]
    tail = next(n for n in range(min(len(a), len(b)) + 1) if n == min(len(a), len(b)) or a[-1 - n] != b[-1 - n])
    a, b = a[: len(a) - tail], b[: len(b) - tail]
    return max(len(a), len(b)) <= 1 or len(a) == 2 and a == b[::-1]


def rewords(a: Wording, b: Wording, cosine: float, threshold: float) -> bool:
    """Whether two texts with this centred cosine c ask the same in other words: 1 - c <= (1 - threshold) (1 - J).

    J is the Jaccard overlap of their words, with multiplicity. Never so if a number, a name or the number of negations differs,
    or one text has every word of the other and more: what it adds narrows what is asked.
    """
    if only_slips(a, b):
        return cosine >= threshold
    first, second = Counter(a.tokens), Counter(b.tokens)
    overlap = (first & second).total() / max(1, (first | second).total())
    if 1 - cosine > (1 - threshold) * (1 - overlap) or not first - second or not second - first:
        return False
    names = a.names - b.names and b.names - a.names
    return not names and a.negations == b.negations and not numbers_differ(a.numbers, b.numbers)
