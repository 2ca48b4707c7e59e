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

Reading = tuple[Fraction, ...]

_SPACES = " \u00a0\u2009\u202f"
_DIGITS = re.compile(rf"(?<![\w.])\.\d+|\d+(?:[.,'’{_SPACES}]\d+)*")
_WHOLE = re.compile(rf"\d*|\d{{1,3}}([.,'’{_SPACES}])\d{{3}}(?:\1\d{{3}})*")
_CLOCK = re.compile(r"(\d{1,2})(?: ?[:.hH] ?(\d\d))?\s*([ap])\.?\s?m\b\.?|(\d{1,2}) ?[:hH] ?00\b", re.IGNORECASE)
_DECADE = re.compile(r"\b(\d\d)(\d0)s\b")
_ROMAN = re.compile(r"\b([IVXLC]+)(?:er|re|e|º|ª)?\b")
_MULTIPLIERS = {10**power for power in (2, 3, 4, 6, 8, 9, 12)}
_METRIC = "米克瓦卡焦帕赫伏字升"  # after 千: kilometre, kilogram, kilowatt …, not a thousand


@dataclass(frozen=True)
class Numbers:
    """What a text states: `digits`, one tuple of alternative readings per written number, and the values of its `words`."""

    digits: tuple[tuple[Reading, ...], ...]
    words: frozenset[Fraction]

    @property
    def values(self) -> Counter[Fraction]:
        """The numbers in digits, each read in the language's own notation."""
        return Counter(value for readings in self.digits for value in readings[0])


@functools.cache
def _word_pattern(language: str) -> tuple[re.Pattern[str], dict[str, int]]:
    values = {word: value for value, words in get_language(language).number_words.items() for word in words.split()}
    longest_first = sorted(values, key=len, reverse=True)
    spaced = "|".join(re.escape(word) for word in longest_first if word[0] < "\u3000")
    unspaced = "|".join(re.escape(word) for word in longest_first if word[0] >= "\u3000")
    parts = [part for part in (rf"(?<![^\W\d_])(?:{spaced})(?![^\W\d_])" if spaced else "", unspaced) if part]
    return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE), values


def _compose(values: Sequence[int]) -> int:
    """The number that number words in a row name: [2, 100, 5, 1000] is 205,000 and [3, 10, 5] (三十五) is 35."""
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
    pattern, values = _word_pattern(language)
    rows: list[list[int]] = []
    end = 0
    for match in pattern.finditer(text):
        value = values[match[0].lower()]
        yield value
        if rows and re.fullmatch(r"[\s-]*(?:(?:and|et|y)\s+)?", text[end : match.start()]):
            rows[-1].append(value)
        else:
            rows.append([value])
        end = match.end()
    yield from map(_compose, rows)


def _decimal(token: str, mark: str) -> Fraction | None:
    """The value of a written number with this decimal mark, None where its other separators do not stand before threes."""
    whole, _, decimals = token.partition(mark) if token.count(mark) == 1 else (token, "", "")
    if not re.fullmatch(r"\d*", decimals) or not _WHOLE.fullmatch(whole):
        return None
    digits = re.sub(r"\D", "", whole)
    return Fraction(f"{digits or 0}.{decimals or 0}")


def _scale(text: str, position: int, language: str) -> int:
    """By how much the words behind a number multiply it: a million for `3 million`, a billion for `2 mil millones`."""
    pattern, values = _word_pattern(language)
    scale = 1
    while match := re.compile(rf"[-{_SPACES}多余]?({pattern.pattern})(?![{_METRIC}])", re.IGNORECASE).match(text, position):
        if values[match[1].lower()] not in _MULTIPLIERS:
            break
        scale *= values[match[1].lower()]
        position = match.end()
    return scale


def _readings(token: str, mark: str, scale: int) -> tuple[Reading, ...]:
    other = "," if mark == "." else "."
    apart = tuple(Fraction(part) for part in re.findall(r"\d+", token))
    single = [value for value in (_decimal(token, mark), _decimal(token, other)) if value is not None]
    plain = [*((value,) for value in single), apart]
    scaled = [(value * scale,) for value in single] if scale > 1 else []
    return tuple(dict.fromkeys([*scaled, *plain] if scale in (1, 100) else scaled or plain))  # 50 cents is no 5000


def read_numbers(text: str, language: str) -> Numbers:
    """The numbers of a text in this language.

    Signs, units and percent marks are left to the words around them; a time of day on the full hour is its hour, and 3 pm
    is also 15; 1990s is also the 90s of century 20; XIX is a word for 19.
    """
    text = "".join(str(unicodedata.decimal(char, char)) for char in text)
    text = re.sub(r"\d{30,}", " ", text)  # a row of digits that long is a key or a listing, not a quantity
    text = re.sub("[¼-¾⅐-⅞]", lambda match: f" {unicodedata.normalize('NFKC', match[0])}", text)
    digits: list[tuple[Reading, ...]] = []

    def clock(match: re.Match[str]) -> str:
        if match[4]:
            digits.append(((Fraction(match[4]),), (Fraction(match[4]), Fraction(0))))
            return " "
        hour, minutes = int(match[1]), [Fraction(match[2])] if match[2] and int(match[2]) else []
        later = hour % 12 + 12 * (match[3].lower() == "p")
        digits.append(((Fraction(hour), *minutes), (Fraction(later), *minutes)))
        return " "

    def decade(match: re.Match[str]) -> str:
        year = Fraction(match[1] + match[2])
        digits.append(((year,), (Fraction(int(match[1]) + 1), Fraction(match[2])), (Fraction(match[2]),)))
        return " "

    rest = _DECADE.sub(decade, _CLOCK.sub(clock, text))
    for match in _DIGITS.finditer(rest):
        digits.append(_readings(match[0], get_language(language).decimal_mark, _scale(rest, match.end(), language)))
    roman = {Fraction(_roman(match[1])) for match in _ROMAN.finditer(text)}
    return Numbers(tuple(digits), frozenset(map(Fraction, _word_values(text, language))) | roman)


def _roman(numeral: str) -> int:
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}[letter] for letter in numeral]
    return sum(-value if value < following else value for value, following in zip(values, [*values[1:], 0], strict=True))


def _settle(numbers: Numbers, other: Counter[Fraction]) -> Counter[Fraction]:
    """One reading of each written number: the first that the other text's numbers can still answer, else the first."""
    left = other.copy()
    settled: Counter[Fraction] = Counter()
    for readings in sorted(numbers.digits, key=len):
        chosen = next((reading for reading in readings if not Counter(reading) - left), readings[0])
        settled.update(chosen)
        left -= Counter(chosen)
    return settled


def compare_numbers(source: Numbers, translation: Numbers) -> tuple[list[Fraction], list[Fraction]]:
    """(missing, added): numbers in digits of the source that the translation lacks, and of the translation that it adds.

    A number in digits may be answered by a word of the same value; a word needs no answer.
    """
    pool = Counter(value for readings in translation.digits for value in set().union(*readings))
    wanted = _settle(source, pool)
    found = _settle(translation, wanted)
    missing = [value for value in (wanted - found).elements() if value not in translation.words]
    added = [value for value in (found - wanted).elements() if value not in source.words]
    return sorted(missing), sorted(added)


def spoken(value: Fraction) -> str:
    """A value as a person writes it: 12, 1250.5."""
    return f"{float(value):.10g}"
