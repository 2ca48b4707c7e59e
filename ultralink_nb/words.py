"""Texts of two languages compared word by word, through word vectors: what does one say that the other does not?

The vector of a text moves little when a name, a place or a negation is changed; the word that is changed finds no counterpart
in the other text. Words of different languages are near each other once each language's mean is removed, as texts are. A script
without spaces has no words to look up: every short piece of a run that the language's texts hold is a candidate, and a
character is matched as well as the best piece around it. Nothing is fitted; the constants were set by hand, in round numbers,
by the AUC that `benchmarks/specificity.py` measures.
"""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from ultralink_nb.errors import KitError
from ultralink_nb.vectors import centre, read_rows

MATCHED = 0.6  # centred cosine from which a word counts as said by the other text
NAME_WEIGHT = 5.0  # a name that is not matched counts as so many words
LONGEST = 4  # characters of a word, at most, in a script without spaces
BAGS = 20_000  # texts whose words are held at once, a few KiB each
HELD = 512  # word vectors of a text that are read into the same memory each time, which takes half as long
PAIRS = 2048  # pairs between two updates of the progress bar
# Scripts that put no spaces between words, as the inside of a pattern's brackets: Thai … Khmer, kana, Han.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_FIRST = re.compile(f"[{UNSPACED}]")
_TOKEN = re.compile(rf"[{UNSPACED}]+|\d+(?:[.,]\d+)*|[^\W\d_{UNSPACED}]+(?:['’-][^\W\d_{UNSPACED}]+)*")
_BEGINS = {"", *"*.!?:…"}  # before the first word of a sentence, which says nothing about a name


class BadWords(KitError, ValueError):
    """Texts whose words cannot be compared as asked; the message says what does not fit."""


class _Bag(NamedTuple):
    """The tokens of a text, each once, and the words that hold them.

    words: (w,) rows of the word vectors. flat: positions in `words`, those of token i from starts[i] on. weight: (t,) float32,
    each token's. numbers: those written in digits, without separators, to be found again as they are.
    """

    words: np.ndarray
    flat: np.ndarray
    starts: np.ndarray
    weight: np.ndarray
    numbers: frozenset[str]


@dataclass(frozen=True)
class WordVectors:
    """The words of some texts in two languages or more, ready to compare the texts two by two.

    vectors: (w, d) float32 or float16, one for each word of each language, centred. bag: the words of a text by its row number.
    """

    vectors: np.ndarray
    bag: Callable[[int], _Bag]

    @classmethod
    def of(
        cls, texts: Sequence[str], languages: Sequence[str], encode: Callable[[list[str]], np.ndarray], most_tokens: int = 100,
        most_words: int = 200_000, rows: np.ndarray | None = None,
    ) -> "WordVectors":
        """The words of n texts, of languages given by n codes.

        encode: turns m words into (m, d) vectors, such as `embed` of the encoder that the texts have; called once. most_tokens:
        words of a text that are compared, the first ones (characters, where there are no spaces). most_words: words a language
        that are encoded, the most frequent ones; they take up to 4 d bytes each. rows: numbers of the rows that will be
        compared; only their words are encoded, and another row's words that are not among them are passed over. None: all.
        Raises `BadWords` for texts and languages of another number or a missing language; `BadVectors` for what `encode` gave.
        """
        codes, names = pd.factorize(np.asarray(languages, dtype=object))
        if len(texts) != len(codes) or (codes < 0).any():
            raise BadWords(f"{len(texts):,} texts and {(codes >= 0).sum():,} languages: each text needs a language")
        chosen = np.arange(len(codes)) if rows is None else np.unique(rows)
        known: list[dict[str, int]] = []
        listed: list[str] = []
        origin: list[str] = []
        for code, name in enumerate(names):
            words = _vocabulary((texts[row] for row in chosen[codes[chosen] == code]), most_tokens, most_words)
            known.append({word: len(listed) + number for number, word in enumerate(words)})
            listed += words
            origin += [name] * len(words)

        @functools.lru_cache(maxsize=BAGS)
        def bag(row: int) -> _Bag:
            return _bag(texts[row], known[codes[row]], most_tokens)

        return cls(centre(np.asarray(encode(listed)), origin).vectors if listed else np.zeros((0, 1), np.float32), bag)

    def compare(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How little the texts of each pair of row numbers, (m,) each, say the same: lacking, apart, both (m,) float32 from 0.

        A token is matched as well as the best of the words that hold it is by a word of the other text, in centred cosine; what
        it misses to `MATCHED` counts. lacking: log(1 + the sum over both texts' tokens), a name `NAME_WEIGHT` times. apart: the
        mean over the one text's tokens plus the mean over the other's, all alike. A text without a known word lacks nothing;
        the other lacks all of its own.
        """
        lacking, apart = np.zeros(len(left), np.float32), np.zeros(len(left), np.float32)
        for pair, x, y, of_x, of_y in self._missed(left, right):
            lacking[pair] = math.log1p(float(x.weight @ of_x) + float(y.weight @ of_y))
            apart[pair] = of_x.sum() / max(1, len(of_x)) + of_y.sum() / max(1, len(of_y))
        return lacking, apart

    def unmatched(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The weight of what either text of each pair has and the other lacks, (m,) float32 from 0.

        The sum of which `compare` takes the logarithm, and `MATCHED` for every number in digits that only one of the two has.
        """
        weight = np.zeros(len(left), np.float32)
        for pair, x, y, of_x, of_y in self._missed(left, right):
            weight[pair] = float(x.weight @ of_x) + float(y.weight @ of_y) + MATCHED * len(x.numbers ^ y.numbers)
        return weight

    def _missed(
        self, left: np.ndarray, right: np.ndarray
    ) -> Iterator[tuple[int, _Bag, _Bag, np.ndarray, np.ndarray]]:
        """Each pair's position, both bags, and what each of their tokens misses, (t,) float32 each; by the left row.

        A pair has a product of its own: one for all pairs of a row is not faster, and rounds otherwise with the pairs in it.
        """
        left, right = np.asarray(left), np.asarray(right)
        order, last = np.argsort(left, kind="stable"), -1
        held = np.empty((2, HELD, self.vectors.shape[1]), np.float32)
        with (
            threadpool_limits(1, user_api="blas"),
            tqdm(desc="comparing words", total=len(order), unit=" pairs", disable=None) as bar,
        ):
            for start in range(0, len(order), PAIRS):
                block = order[start : start + PAIRS]
                for pair, row, other in zip(block.tolist(), left[block].tolist(), right[block].tolist(), strict=True):
                    if row != last:
                        last, x = row, self.bag(row)
                        of_x = read_rows(self.vectors, x.words, held[0] if len(x.words) <= HELD else None)
                    y = self.bag(other)
                    likeness = of_x @ read_rows(self.vectors, y.words, held[1] if len(y.words) <= HELD else None).T
                    yield (pair, x, y, _missing(x, likeness.max(axis=1, initial=0)),
                           _missing(y, likeness.max(axis=0, initial=0)))
                bar.update(len(block))


def _missing(bag: _Bag, likeness: np.ndarray) -> np.ndarray:
    """What each token misses to `MATCHED`, (t,) float32. likeness: (w,), of each word of the bag with its best counterpart."""
    return np.maximum(MATCHED - np.maximum.reduceat(likeness[bag.flat], bag.starts), 0)


def tokens(text: str, most: int) -> Iterator[tuple[str, bool]]:
    """The first tokens in lower case, and whether each has a capital within a sentence.

    A run of characters without spaces is yielded as one, and counts as many tokens as it has characters.
    """
    for found in _TOKEN.finditer(text):
        token, start, unspaced = found[0], found.start(), is_unspaced(found[0])
        if unspaced:
            token = token[:most]
        yield token.lower(), token[0].isupper() and text[max(0, start - 2) : start].rstrip()[-1:] not in _BEGINS
        most -= len(token) if unspaced else 1
        if most <= 0:
            return


def is_unspaced(token: str) -> bool:
    """Whether a token is a run of a script without spaces."""
    return token >= UNSPACED[0] and _FIRST.match(token) is not None  # the comparison settles most at a third of the time


def _words(token: str) -> Iterable[tuple[str, Sequence[str]]]:
    """Each word that a token may hold, with its parts: itself, or every piece of a run without spaces and its characters."""
    if not is_unspaced(token):
        return [(token, [token])]
    pieces = [token[start:end] for start in range(len(token)) for end in range(start + 1, min(start + LONGEST, len(token)) + 1)]
    return zip(pieces, pieces, strict=True)


def _bag(text: str, known: Mapping[str, int], most: int) -> _Bag:
    place: dict[str, int] = {}
    holders: dict[str, list[int]] = {}
    names, numbers = set(), set()
    for token, is_name in tokens(text, most):
        if token[0].isdecimal():
            numbers.add(re.sub("[.,]", "", token))
            continue
        for word, parts in _words(token):
            if word in known and word not in place:
                position = place[word] = len(place)
                for part in parts:
                    holders.setdefault(part, []).append(position)
        if is_name:
            names.add(token)
    counts = [len(positions) for positions in holders.values()]
    return _Bag(
        np.array([known[word] for word in place], dtype=np.int64),
        np.array(list(itertools.chain.from_iterable(holders.values())), dtype=np.int64),
        np.cumsum([0, *counts])[:-1], np.array([NAME_WEIGHT if part in names else 1 for part in holders], dtype=np.float32),
        frozenset(numbers),
    )


def _vocabulary(texts: Iterable[str], most_tokens: int, most_words: int) -> list[str]:
    """The most frequent words of a language's texts, in the order of the alphabet."""
    count: Counter[str] = Counter()
    for text in texts:
        of_text = {token for token, _ in tokens(text, most_tokens) if not token[0].isdecimal()}
        count.update({word for token in of_text for word, _ in _words(token)})
    if len(count) <= most_words:
        return sorted(count)
    return sorted(sorted(count, key=lambda word: (-count[word], len(word), word))[:most_words])
