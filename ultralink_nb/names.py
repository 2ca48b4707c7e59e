"""Names: which of a text's names come back in a text of another language.

A text rewritten for another culture says nearly the same with other names: Obama becomes Chirac. Embeddings hardly see it.
Spelling does: a name keeps its sounds in every script (Obama, Обама, 奥巴马), so both texts are folded to Latin letters,
and a name is looked for among the other text's words by its letters, by its stem (Обамой) and by its sound skeleton. The
skeleton is Soundex's idea (R. C. Russell and M. K. Odell; Russell's patent is of 1918): letters of like sound are one
class, and vowels go. Here l and r, m and n, and s, z and j are one too, as transcription into Chinese confuses them. What
a script writes without spaces is read as one flow of skeleton letters, and a name's skeleton may stand anywhere in it.

What it cannot see: names that begin a sentence or are written small; names in scripts without capitals (a Chinese name in a
Chinese text only answers one written in letters) and in languages where every noun has a capital
(`Language.names_by_capitals`); names that are translated, not transcribed (Germany, 德国: see `places.py`); Japanese
names in kanji, which are read as Chinese. A short name finds a chance counterpart in a long text.
"""

import functools
import re
from typing import NamedTuple

from anyascii import anyascii
from rapidfuzz import fuzz

from ultralink_nb.languages import LANGUAGES
from ultralink_nb.words import UNSPACED

RUN = re.compile(f"[{UNSPACED}]+")  # what stands together without spaces
_WORD = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+")
_NO_LETTER = re.compile("[^a-z]+")
_BEGINNERS = {"", ".", "!", "?", ":", "…", "\n", "-"}  # a word behind one of these has its capital for its place
_OPENERS = ' "«“(\''
_SHORTEST = 3  # letters of a name
_FOREIGN = 0.2  # of a text in another script: the Latin words in it are names
_DIGRAPHS = {"ch": "s", "sh": "s", "th": "t", "ph": "f", "x": "ks"}
_CLASSES = str.maketrans("pfvwcqgzjdrn", "bbbbkkksstlm", "yhaeiou")  # from, to, gone
_REPEATED = re.compile(r"(.)\1+")

# What counts as the same name, in percent of rapidfuzz's ratio; a skeleton says less than the letters. Set on texts in English,
# Chinese, Russian, French and Spanish.
_SAME_LETTERS = 70
_SAME_SOUNDS = 70 / 0.95


class Names(NamedTuple):
    """What is kept of a text.

    names: its names, folded to ASCII lower case, sorted and distinct. words: all that a name may be found among, its
    words folded likewise, and sounds: the skeleton of each. flow: the skeleton of what is written without spaces, or "".
    """

    names: tuple[str, ...]
    words: tuple[str, ...]
    sounds: tuple[str, ...]
    flow: str


def _folded(text: str) -> str:
    """A text in the letters a to z, without anything else."""
    return _NO_LETTER.sub("", anyascii(text).lower())


def _skeleton(folded: str) -> str:
    for letters, sound in _DIGRAPHS.items():
        folded = folded.replace(letters, sound)
    return _REPEATED.sub(r"\1", folded.translate(_CLASSES))


@functools.lru_cache(1 << 16)
def _sounded(word: str) -> tuple[str, str]:
    """A word folded, and its skeleton. Most words of a corpus are common ones."""
    folded = _folded(word)
    return folded, _skeleton(folded)


def _inside(match: re.Match[str]) -> bool:
    """Whether a word stands within a sentence, so that its capital means something."""
    before = match.string[max(0, match.start() - 3):match.start()]
    return before.rstrip(_OPENERS)[-1:] not in _BEGINNERS


def read_names(text: str, language: str) -> Names:
    """The names of a text. A language that `LANGUAGES` lacks is read as one whose names have capitals."""
    unspaced = "".join(RUN.findall(text))
    matches = list(_WORD.finditer(RUN.sub(lambda run: " " * len(run[0]), text) if unspaced else text))
    other = sum(not (match[0].isascii() or _LATIN.fullmatch(match[0])) for match in matches)
    foreign = len(unspaced) > _FOREIGN * len(text) or other > _FOREIGN * len(matches)
    capitals = language not in LANGUAGES or LANGUAGES[language].names_by_capitals
    capitals = capitals and 2 * sum(match[0].isupper() for match in matches) <= len(matches)  # A TEXT IN CAPITALS
    names: set[str] = set()
    words: dict[str, str] = {}
    for match in matches:
        word = match[0]
        folded, sound = _sounded(word)
        if folded:
            words[folded] = sound
        if len(folded) >= _SHORTEST and (foreign and word.isascii() or capitals and word[0].isupper() and _inside(match)):
            names.add(folded)
    listed = sorted(words)
    return Names(tuple(sorted(names)), tuple(listed), tuple(map(words.get, listed)), _skeleton(_folded(unspaced)))


def _alike(name: str, sound: str, word: str, other: str) -> bool:
    """Whether a word can be a name in another spelling, case or script; sound and other are their skeletons."""
    stem = min(len(name), len(word)) - 1
    if stem >= 3 and name[:stem] == word[:stem] or fuzz.ratio(name, word) >= _SAME_LETTERS:
        return True
    shortest = min(len(sound), len(other))  # two consonants alone are alike by chance
    return (shortest > 2 or shortest == 2 and name[0] == word[0]) and fuzz.ratio(sound, other) >= _SAME_SOUNDS


def _found(name: str, text: Names) -> bool:
    if name in text.words:
        return True
    sound, size = _sounded(name)[1], len(name)
    reach = max(3, size // 2)
    for word, other in zip(text.words, text.sounds, strict=True):
        if -reach <= len(word) - size <= reach and _alike(name, sound, word, other):
            return True
    if len(sound) <= 2:
        return len(sound) == 2 and sound in text.flow
    return fuzz.partial_ratio(sound, text.flow, score_cutoff=_SAME_SOUNDS) > 0


def compare_names(a: Names, b: Names) -> tuple[int, int]:
    """(lacking, shared): how many names of either text have no counterpart in the other, and how many have one."""
    shared = sum(_found(name, b) for name in a.names) + sum(_found(name, a) for name in b.names)
    return len(a.names) + len(b.names) - shared, shared
