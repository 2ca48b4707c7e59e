"""Which numbers a text states, in the notation and the words of its language.

A text is compared with its translation by value: 1,234.5 in English is 1 234,5 in Russian and French, 1.234,5 in Spanish and
1,234.5 in Chinese; 3 million is 300万; "two" may become 2, 两 or "deux". So digits and words are read apart: a number in digits
has to come back, in digits or in words, while a word may stay a word, become digits or vanish into the grammar ("a", "both").

Where one notation can be read in two ways (1.250 is 1250 or 1.25; 2 500 one number or two), every reading is kept, the
language's own first, and the other text decides.
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ultralink_nb.languages import get_language

Reading = tuple[int | Fraction, ...]  # an integer where the value is one

_SPACES = " \u00a0\u2009\u202f"
# Each pattern begins with a set of characters, which the engine looks for far faster than it tries alternatives.
_DIGITS = re.compile(rf"[.0-9](?:(?<=[0-9])[0-9]*(?:[.,'’{_SPACES}][0-9]+)*|(?<=\.)(?<![\w.]\.)[0-9]+)")
_WHOLE = re.compile(rf"\d*|\d{{1,3}}([.,'’{_SPACES}])\d{{3}}(?:\1\d{{3}})*")
_CLOCK = re.compile(r"([0-9][0-9]?)(?:(?: ?[:.hH] ?([0-9]{2}))?\s*([aApP])\.?\s?[mM]\b\.?|( ?[:hH] ?00\b))")
_DECADE = re.compile(r"([0-9](?<!\w[0-9])[0-9])([0-9]0)s\b")
_ROMAN = re.compile(r"([IVXLC](?<!\w[IVXLC])[IVXLC]*)(?:er|re|e|º|ª)?\b")
_DIGIT = re.compile(r"[0-9]")
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_FRACTION = re.compile("[¼-¾⅐-⅞]")
_CENTURY = re.compile(r"[0-9]{2}\s?世纪的?(?=[0-9]0(?:[、和][0-9]0)*年代)")  # 20世纪80年代 says 1980s; English leaves the 20 out
_LISTING = re.compile(r"\d{30,}")  # a row of digits that long is a key or a listing, not a quantity
_BETWEEN = re.compile(r"[\s-]*(?:(?:and|et|y)\s+)?")
_MULTIPLIERS = {10**power for power in (2, 3, 4, 6, 8, 9, 12)}
_METRIC = "米克瓦卡焦帕赫伏字升"  # after 千: kilometre, kilogram, kilowatt …, not a thousand


@dataclass(frozen=True)
class Numbers:
    """What a text states: `digits`, one tuple of alternative readings per written number, and the values of its `words`."""

    digits: tuple[tuple[Reading, ...], ...]
    words: frozenset[int | Fraction]

    @property
    def values(self) -> Counter[int | Fraction]:
        """The numbers in digits, each read in the language's own notation."""
        return Counter(value for readings in self.digits for value in readings[0])


class _Lexicon:
    """The number words of a language. found: a pattern that finds them among other words. multiplier: one after a number."""

    def __init__(self, language: str) -> None:
        entry = get_language(language)
        self.mark = entry.decimal_mark
        self.value = {word: value for value, words in entry.number_words.items() for word in words.split()}
        longest_first = sorted(map(re.escape, self.value), key=len, reverse=True)
        spaced = [word for word in longest_first if word[0] < "\u3000"]
        unspaced = [word for word in longest_first if word[0] >= "\u3000"]
        compound = [rf"(?<![^\W\d_])(?:{word})(?![^\W\d_])" for word in spaced if not word.isalpha()]
        self.found = re.compile("|".join([*compound, *unspaced, *([r"[^\W\d_]+"] if spaced else [])]) or "(?!)")
        scales = [word for word in longest_first if self.value[re.sub(r"\\", "", word)] in _MULTIPLIERS]
        ends = rf"(?![^\W\d_])|(?:{'|'.join(word for word in scales if word in unspaced) or '(?!)'})(?![{_METRIC}])"
        words = "|".join(word for word in scales if word in spaced) or "(?!)"
        self.multiplier = re.compile(rf"[-{_SPACES}多余]?((?:{words}){ends})", re.IGNORECASE)


_lexicon = functools.cache(_Lexicon)


def _compose(values: Sequence[int]) -> int:
    """The number that number words in a row name: [2, 100, 5, 1000] is 205,000, [3, 10, 5] (三十五) 35 and [1, 9, 4, 9] 1949."""
    if max(values) < 10:
        return int("".join(map(str, values)))
    total = section = digit = 0
    for value in values:
        if value in _MULTIPLIERS and value > 100:
            part = section + digit
            total = (total + part or 1) * value if total < value else total + (part or 1) * value
            section = digit = 0
        elif value == 100 or value == 10 and 0 < digit < 10:
            section, digit = section + max(digit, 1) * value, 0
        else:
            digit += value
    return total + section + digit


def _word_values(text: str, language: str) -> Iterator[int]:
    """The value of each number word, and of each row of them."""
    lexicon = _lexicon(language)
    row: list[int] = []
    end = 0
    values = lexicon.value
    for match in lexicon.found.finditer(text.lower()):
        value = values.get(match[0])
        if value is None:
            continue
        yield value
        if row and not _BETWEEN.fullmatch(match.string, end, match.start()):
            if len(row) > 1:
                yield _compose(row)
            row = []
        row.append(value)
        end = match.end()
    if len(row) > 1:
        yield _compose(row)


def _exact(whole: str, decimals: str = "") -> int | Fraction:
    """A number as an integer where it is one: an integer equals the fraction of its value and is compared far faster."""
    return Fraction(f"{whole or 0}.{decimals}") if decimals.strip("0") else int(whole or 0)


def _decimal(token: str, mark: str) -> int | Fraction | None:
    """The value of a written number with this decimal mark, None where its other separators do not stand before threes."""
    whole, _, decimals = token.partition(mark) if token.count(mark) == 1 else (token, "", "")
    if decimals and not decimals.isdigit() or not _WHOLE.fullmatch(whole):
        return None
    return _exact(re.sub(r"\D", "", whole), decimals)


def _scale(text: str, position: int, lexicon: _Lexicon) -> int:
    """By how much the words behind a number multiply it: a million for `3 million`, a billion for `2 mil millones`."""
    scale = 1
    while match := lexicon.multiplier.match(text, position):
        scale *= lexicon.value[match[1].lower()]
        position = match.end()
    return scale


def _readings(token: str, mark: str, scale: int) -> tuple[Reading, ...]:
    if scale == 1 and token.isdigit():
        return ((int(token),),)
    other = "," if mark == "." else "."
    apart = tuple(int(part) for part in re.findall(r"\d+", token))
    single = [value for value in (_decimal(token, mark), _decimal(token, other)) if value is not None]
    plain = [*((value,) for value in single), apart]
    scaled = [(value * scale,) for value in single] if scale > 1 else []
    return tuple(dict.fromkeys([*scaled, *plain] if scale in (1, 100) else scaled or plain))  # 50 cents is no 5000


def read_numbers(text: str, language: str) -> Numbers:
    """The numbers of a text in this language.

    Signs, units and percent marks are left to the words around them; a time of day on the full hour is its hour, and 3 pm
    is also 15; 1990s is also the 90s of century 20; XIX is a word for 19.
    """
    if not text.isascii():
        text = _FOREIGN_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text)
        text = _CENTURY.sub("", text)
        text = _FRACTION.sub(lambda match: f" {unicodedata.normalize('NFKC', match[0])}", text)
    words = {*_word_values(text, language), *(_roman(match[1]) for match in _ROMAN.finditer(text))}
    return Numbers(tuple(_written(text, _lexicon(language))), frozenset(words))


def _written(text: str, lexicon: _Lexicon) -> Iterator[tuple[Reading, ...]]:
    """The readings of each number in digits."""
    if not _DIGIT.search(text):
        return
    found: list[tuple[Reading, ...]] = []

    def clock(match: re.Match[str]) -> str:
        if match[4]:
            found.append(((int(match[1]),), (int(match[1]), 0)))
            return " "
        hour, minutes = int(match[1]), [int(match[2])] if match[2] and int(match[2]) else []
        later = hour % 12 + 12 * (match[3].lower() == "p")
        found.append(((hour, *minutes), (later, *minutes)))
        return " "

    def decade(match: re.Match[str]) -> str:
        found.append(((int(match[1] + match[2]),), (int(match[1]) + 1, int(match[2])), (int(match[2]),)))
        return " "

    text = _LISTING.sub(" ", text)
    text = _DECADE.sub(decade, _CLOCK.sub(clock, text))
    yield from found
    for match in _DIGITS.finditer(text):
        yield _readings(match[0], lexicon.mark, _scale(text, match.end(), lexicon))


def _roman(numeral: str) -> int:
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}[letter] for letter in numeral]
    return sum(-value if value < following else value for value, following in zip(values, [*values[1:], 0], strict=True))


def _settle(numbers: Numbers, other: Counter[int | Fraction]) -> Counter[int | Fraction]:
    """One reading of each written number: the first that the other text's numbers can still answer, else the first."""
    left = other.copy()
    settled: Counter[int | Fraction] = Counter()
    for readings in sorted(numbers.digits, key=len):
        chosen = next((reading for reading in readings if not Counter(reading) - left), readings[0]) if len(readings) > 1 \
            else readings[0]
        settled.update(chosen)
        left -= Counter(chosen)
    return settled


def compare_numbers(source: Numbers, translation: Numbers) -> tuple[list[int | Fraction], list[int | Fraction]]:
    """(missing, added): numbers in digits of the source that the translation lacks, and of the translation that it adds.

    A number in digits may be answered by a word of the same value; a word needs no answer.
    """
    if source.digits == translation.digits:
        return [], []
    pool = Counter(value for readings in translation.digits for value in set().union(*readings))
    wanted = _settle(source, pool)
    found = _settle(translation, wanted)
    missing = [value for value in (wanted - found).elements() if value not in translation.words]
    added = [value for value in (found - wanted).elements() if value not in source.words]
    return sorted(missing), sorted(added)


def spoken(value: int | Fraction) -> str:
    """A value as a person writes it: 12, 1250.5."""
    return f"{float(value):.10g}"
