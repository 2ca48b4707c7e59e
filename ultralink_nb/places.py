"""Places and currencies: which of a text's have no counterpart in a text of another language.

A text rewritten for another culture moves: the Australian economy becomes the French one, $800 become 800 euros. Unicode's CLDR
knows what territories, languages and cities are called in every language. A language stands for the territory where most
speak it by CLDR's likely subtags, so that France, French, français, 法国 and 法语 are one. A name that means several
places (a capital and its country) has a counterpart in any of them.

What it cannot see: peoples and adjectives that are neither a language's name nor begin like the country's (American, Greek
in a French text: grec, Grèce); abbreviations (UK, США); regions within a territory, and cities that name no time zone;
traditional characters, as CLDR's Chinese is simplified. A word that begins like a short name, and a sentence, is taken for it
(Malicious: Mali); elsewhere a place has a capital where CLDR writes one.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from babel import Locale, UnknownLocaleError
from babel.core import get_global

from ultralink_nb.languages import LANGUAGES
from ultralink_nb.names import RUN

_SYMBOLS = {"USD": r"\$", "EUR": "€", "GBP": "£", "RUB": "₽", "CNY": "[¥￥]", "JPY": "円"}  # the yen has ¥ too
_SHORTEST = 4  # letters of a territory or language, in scripts with capitals
_ENDING = 6  # letters that may follow a stem
_SHORT = 5  # letters up to which a name that is written like any other word is found whole, or with one letter more


class Places(NamedTuple):
    """What is kept of a text.

    places: for every mention the set of what it may mean: a CLDR territory ("FR", "150": Europe) or a time zone's city
    ("Europe/Paris"). currencies: their ISO 4217 codes; USD is any dollar.
    """

    places: frozenset[frozenset[str]]
    currencies: frozenset[str]


def _names(locale: Locale) -> Iterator[tuple[str, str]]:
    """(name, what it means) of all that CLDR names in this language."""
    named = [(name, code) for code, name in locale.territories.items()]
    spoken = get_global("likely_subtags")
    languages = [(name, spoken[code]) for code, name in locale.languages.items() if len(code) == 2 and code in spoken]
    named += [(name, likely.split("_")[-1]) for name, likely in languages]  # fr_Latn_FR
    for name, code in named:
        for part in map(str.strip, re.split(r"[()\[\]]", name)):  # Myanmar (Burma)
            if len(part) >= (_SHORTEST if part.lower() != part.upper() else 2):
                yield part, code
    aliases = get_global("zone_aliases")
    for zone in get_global("zone_territories"):
        if "/" in zone and not zone.startswith("Etc"):
            known = locale.time_zones.get(aliases.get(zone, zone), {})
            yield known.get("city") or zone.split("/", 1)[1].replace("_", " "), zone


def _stem(name: str, meanings: set[str], is_word: bool) -> str:
    """A name without the end that inflection and derivation change: Росси-я, Росси-и. A city's name changes less.

    is_word: that it is written like any other word; then a short one stays whole (venda, a language, is not vendre).
    """
    if RUN.search(name) or re.search("[ -]", name) or len(name) < 5 or is_word and len(name) <= _SHORT:
        return name
    return name[:-2] if len(name) >= 7 and not any("/" in meaning for meaning in meanings) else name[:-1]


def _longest_of(names: list[str]) -> str:
    """A pattern of the longest of these names. Names of one initial stand together: the engine skips them together."""
    ordered = sorted(names, key=lambda name: (name[0], -len(name), name))
    return "|".join(
        f"{re.escape(first)}(?:{'|'.join(re.escape(name[1:]) for name in alike)})"
        for first, alike in groupby(ordered, key=lambda name: name[0])
    ) or "(?!)"


@functools.cache
def _gazetteer(language: str) -> tuple[re.Pattern[str], dict[str, frozenset[str]], frozenset[str]]:
    """A pattern whose groups find the stems of a language's places in lower case, what each means, and which want a capital."""
    try:
        locale = Locale.parse(language.replace("-", "_"))
    except (UnknownLocaleError, ValueError):
        return re.compile("(?!)"), {}, frozenset()
    named: defaultdict[str, set[str]] = defaultdict(set)
    small = {name.lower() for name in locale.languages.values()}  # its adjectives have no capital in most languages
    for name, meaning in _names(locale):
        named[name.lower()].add(meaning)
        if name[0].islower():
            small.add(name.lower())
    small = {name for name in small if name in named and name != name.upper()}  # where a script has capitals
    stems: defaultdict[str, set[str]] = defaultdict(set)
    for name, meanings in named.items():
        stems[_stem(name, meanings, name in small)] |= meanings
    words = {_stem(name, named[name], True) for name in small}
    short = {stem for stem in words & small if len(stem) <= _SHORT}
    unspaced = _longest_of([stem for stem in stems if RUN.search(stem)])
    spaced = [stem for stem in stems if not RUN.search(stem)]
    pattern = re.compile(
        rf"({unspaced})|\b({_longest_of([stem for stem in spaced if stem not in short])})\w{{0,{_ENDING}}}\b"
        rf"|\b({_longest_of([stem for stem in spaced if stem in short])})\w?\b"
    )
    with_capital = frozenset(stem for stem in stems if stem != stem.upper() and stem not in words)
    return pattern, {stem: frozenset(meanings) for stem, meanings in stems.items()}, with_capital


@functools.cache
def _money(language: str) -> re.Pattern[str]:
    """A pattern of currencies with a group per code: its symbol beside a number, the code itself or a word of the language."""
    words = LANGUAGES[language].currencies if language in LANGUAGES else {}
    groups = []
    for code in {**_SYMBOLS, **words}:
        ways = [rf"(?<![A-Za-z])(?-i:{code})(?![A-Za-z])"]
        if symbol := _SYMBOLS.get(code):
            ways.append(rf"{symbol}(?=\s?\d)|(?<=\d){symbol}|(?<=\d\s){symbol}")
        if word := words.get(code):
            ways.append(word if RUN.search(word) else rf"(?<![^\W\d_])(?:{word})(?![^\W\d_])")
        groups.append(f"(?P<{code}>{'|'.join(ways)})")
    return re.compile("|".join(groups), re.IGNORECASE)


def read_places(text: str, language: str) -> Places:
    """The places and currencies of a text; no places where CLDR (babel) does not know the language."""
    pattern, meanings, with_capital = _gazetteer(language)
    lower = text.lower()
    shown = text if len(text) == len(lower) else lower.upper()  # a rare letter has two in lower case: capitals are not asked for
    found = ((match[match.lastindex], shown[match.start()]) for match in pattern.finditer(lower))
    places = frozenset(meanings[stem] for stem, first in found if first.isupper() or stem not in with_capital)
    return Places(places, frozenset(match.lastgroup for match in _money(language).finditer(text)))


def _lacking(here: frozenset, there: frozenset) -> int:
    every = frozenset().union(*there)
    return sum(map(every.isdisjoint, here))


def compare_places(a: Places, b: Places) -> tuple[int, int]:
    """(places lacking, currencies lacking): what either text has without a counterpart in the other, both ways together."""
    places = 0 if a.places == b.places else _lacking(a.places, b.places) + _lacking(b.places, a.places)
    return places, len(a.currencies ^ b.currencies)
