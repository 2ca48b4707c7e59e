"""How far an answer is supported by the passage that it was written from: a score in [0, 1], and the parts that it is made of.

What a person would check is measured part by part: are the answer's numbers, names and words in the passage, does each of its
sentences find a place there, does that place also speak of what was asked. A logistic regression weighs the parts;
`benchmarks/grounding.py` fits and measures it.

Notable: words are compared by their runs of four letters, so that inflected and compound words agree without a stemmer for each
language; scripts without word spaces by characters and pairs of them. A run counts the more the rarer it is among the passages
(IDF). A place is two sentences in a row. A one-word answer is supported where the question and the answer stand together.

What no part sees: a wrong statement in the words of the right sentence ("A beat B" for "B beat A").
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from ultralink_nb.embedding import Encoder, embed
from ultralink_nb.errors import KitError
from ultralink_nb.languages import get_language
from ultralink_nb.numerals import Numbers, read_numbers, spoken

PARTS = ("numbers", "names", "words", "weakest", "turn", "similarity")
SHIPPED = Path(__file__).parent / "calibrations" / "grounded.json"
BLOCK = 256  # passages that are taken apart at once
SAMPLE = 20_000  # passages of a language that are enough to tell how rare a run of letters is
_SHORT = 16  # a sentence of this many runs (about three words) counts half by itself, half as the answer's mean

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fff\u3005-\u3007\u3031-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_NAME = re.compile(rf"(?<=[\w,;)] )[^\W\d_{_UNSPACED}][^\W_{_UNSPACED}]+")
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'»”’)\]]*\s+|(?<=[。！？；])[”’」』）]*|\s*\n\s*")


class BadGrounding(KitError, ValueError):
    """Lists of different lengths, a language without rarity, or an encoder that no weights were fitted for."""


@dataclass(frozen=True)
class Weights:
    """A logistic regression over the parts. encoder: what `similarity` was measured with, None without it.

    weight: by column of `design`. fitted_on: what the labelled answers were.
    """

    encoder: str | None
    weight: Mapping[str, float]
    bias: float
    fitted_on: str

    def score(self, parts: pd.DataFrame) -> np.ndarray:
        """Score of each row of parts, shape (n,), float32 in [0, 1]."""
        columns = design(parts)
        logit = self.bias + sum(columns[name] * value for name, value in self.weight.items())
        return (1 / (1 + np.exp(-np.clip(logit, -60, 60)))).to_numpy(dtype=np.float32)


def design(parts: pd.DataFrame) -> pd.DataFrame:
    """The parts as the regression takes them: `words` and `weakest` as one, their mean.

    With a weight of its own, each takes the other's: single sentences ask for the one, answers of several for the other.
    """
    return parts.assign(words=(parts["words"] + parts["weakest"]) / 2).drop(columns="weakest")


def read_weights(encoder: str | None = None, path: str | Path = SHIPPED) -> Weights:
    """The weights for an encoder by name, or for the lexical parts alone (None); raises `BadGrounding` where there are none."""
    fitted = json.loads(Path(path).read_text(encoding="utf-8"))
    for one in fitted:
        if one["encoder"] == encoder:
            return Weights(**one)
    known = ", ".join(str(one["encoder"]) for one in fitted)
    raise BadGrounding(f"no weights for encoder {encoder!r} in {path} (there: {known}); fit them with benchmarks/grounding.py")


def sentences(text: str) -> list[str]:
    """The sentences of a text, without blank ones; a line break ends one too. A blank text is one empty sentence."""
    return [part for part in map(str.strip, _SENTENCE.split(text)) if part] or [""]


def plain(text: str, language: str) -> str:
    """A text as it is compared: one width, lower case, the language's normal form, letters without accents and umlauts."""
    marked = unicodedata.normalize("NFKD", get_language(language).normalise(text).casefold())
    return unicodedata.normalize("NFC", "".join(char for char in marked if not unicodedata.combining(char)))


def runs(text: str, n: int = 4) -> list[str]:
    """Runs of n letters of each word between its marked ends, a shorter word whole; characters and pairs without word spaces."""
    found: list[str] = []
    for word in _WORD.findall(text):
        if re.match(f"[{_UNSPACED}]", word):
            found += [*word, *(word[i : i + 2] for i in range(len(word) - 1))]
        else:
            marked = f"_{word}_"
            found += [marked[i : i + n] for i in range(max(1, len(marked) - n + 1))]
    return found


_RUNS = HashingVectorizer(analyzer=runs, binary=True, norm=None, alternate_sign=False, n_features=2**20, dtype=np.float32)


def _by_passage(passages: Sequence[str], languages: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """Row numbers by language and passage."""
    rows: dict[str, dict[str, list[int]]] = {}
    for row, (passage, language) in enumerate(zip(passages, languages, strict=True)):
        rows.setdefault(language, {}).setdefault(passage, []).append(row)
    return rows


def measure_rarity(passages: Sequence[str], languages: Sequence[str]) -> dict[str, np.ndarray]:
    """For each language how much a run of letters counts, by its hash, shape (2**20,): log(1 + (m + 2) / (df + 2)).

    m: distinct passages of the language, at most `SAMPLE` of them; df: how many have the run.
    """
    rarity = {}
    for language, rows in _by_passage(passages, languages).items():
        texts = list(rows)[:: -(-len(rows) // SAMPLE)]
        df = np.zeros(_RUNS.n_features, dtype=np.float32)
        for start in range(0, len(texts), BLOCK):
            block = _RUNS.transform(plain(text, language) for text in texts[start : start + BLOCK])
            np.add.at(df, block.indices, 1)
        rarity[language] = np.log1p((len(texts) + 2) / (df + 2))
    return rarity


def _stem(word: str) -> str:
    return word if len(word) < 4 else word[: -1 if len(word) < 6 else -2]


class _Stated:
    """What a passage states that one looks up: the values of its numbers and the beginnings of its words."""

    def __init__(self, passage: str, language: str) -> None:
        numbers = read_numbers(passage, language)
        self._language = language
        self._values = {value for readings in numbers.digits for reading in readings for value in reading} | numbers.words
        words = set(_WORD.findall(plain(passage, language)))
        self._beginnings = {word[:end] for word in words for end in range(1, len(word) + 1)}

    def lacks(self, numbers: Numbers) -> list[Fraction]:
        """The numbers in digits that the passage has in no reading, in digits or in words."""
        return [readings[0][0] for readings in numbers.digits if not any(set(values) <= self._values for values in readings)]

    def has(self, word: str) -> bool:
        """Whether a word of the passage begins like this one, its ending put aside."""
        return all(_stem(part) in self._beginnings for part in _WORD.findall(plain(word, self._language)))

    def shares(self, answer: str) -> tuple[float, float]:
        """Of the answer's numbers in digits and of its names, the share that the passage has; 1 where there are none."""
        numbers, names = read_numbers(answer, self._language), _names(answer)
        return (1 - len(self.lacks(numbers)) / max(1, len(numbers.digits)),
                sum(map(self.has, names)) / len(names) if names else 1.0)


def _bare(text: str) -> str:
    """A text without the marks that its letters do not need: encyclopedias mark the stress of Russian names."""
    return "".join(char for char in unicodedata.normalize("NFC", text) if not unicodedata.combining(char))


def _names(text: str) -> list[str]:
    """Words with a capital within a sentence, each once."""
    return list(dict.fromkeys(word for word in _NAME.findall(_bare(text)) if word[0].isupper()))


def unsupported(answer: str, passage: str, language: str) -> list[str]:
    """What of an answer the passage lacks, to show to a person: numbers, then names and words of six letters or more.

    In scripts without word spaces a piece is three characters or more of which the passage has no pair.
    """
    stated, text = _Stated(passage, language), plain(passage, language)
    pieces = list(map(spoken, stated.lacks(read_numbers(answer, language))))
    names = set(_names(answer))
    for word in _WORD.findall(_bare(get_language(language).normalise(answer))):
        if re.match(f"[{_UNSPACED}]", word):
            missing = "".join("x" if word[i : i + 2] in text else "-" for i in range(len(word) - 1))
            pieces += [word[found.start() : found.end() + 1] for found in re.finditer("--+", missing)]
        elif (word in names or len(word) > 5) and not word[0].isdigit() and not stated.has(word):
            pieces.append(word)
    return list(dict.fromkeys(pieces))


def _dense(rows: sparse.csr_matrix, vocabulary: np.ndarray) -> np.ndarray:
    """The columns of the rows that a sorted vocabulary lists, in its order."""
    row, dense = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), np.zeros((rows.shape[0], len(vocabulary)), np.float32)
    at = np.searchsorted(vocabulary, rows.indices)
    known = np.append(vocabulary, -1)[at] == rows.indices
    dense[row[known], at[known]] = rows.data[known]
    return dense


def _share(texts: sparse.csr_matrix, vocabulary: np.ndarray, places: np.ndarray) -> np.ndarray:
    """For each text (rows of weighted runs) the share of its weight that each place has; 1 for a text without any."""
    total = np.asarray(texts.sum(axis=1))
    return np.where(total > 0, np.minimum(1, _dense(texts, vocabulary) @ places.T / np.maximum(total, 1e-9)), 1.0)


def _weakest(shares: np.ndarray, mass: np.ndarray, count: np.ndarray) -> float:
    """The least of some sentences' shares, short ones drawn to the mean; mass, count: weight and number of each one's runs."""
    if not mass.any():
        return 1.0
    short = _SHORT * mass.sum() / count.sum()
    return float(((mass * shares + short * np.average(shares, weights=mass)) / (mass + short)).min())


def _lexical(question: sparse.csr_matrix, answer: sparse.csr_matrix, said: sparse.csr_matrix, at: np.ndarray,
             passage: sparse.csr_matrix) -> list[tuple[float, float, float]]:
    """`words`, `weakest` and `turn` of a passage's answers. said: their sentences, those of answer i from at[i] to at[i + 1]."""
    vocabulary = np.unique(passage.indices)
    single = _dense(passage, vocabulary)
    places = np.maximum(single[:-1], single[1:]) if len(single) > 1 else single
    words = _share(answer, vocabulary, single.max(axis=0, keepdims=True))[:, 0]
    asked, here = _share(question, vocabulary, places), _share(said, vocabulary, places)
    mass, count = np.asarray(said.sum(axis=1)).ravel(), np.diff(said.indptr)
    own = [slice(*pair) for pair in zip(at[:-1], at[1:], strict=True)]
    return [(share, _weakest(here[part].max(axis=1), mass[part], count[part]), ((here[part] + one) / 2).max())
            for share, one, part in zip(words, asked, own, strict=True)]


def _nearest(vector: np.ndarray, sentence_vectors: np.ndarray) -> float:
    """Cosine of a vector to the nearest of a passage's sentences and pairs of sentences in a row (the sum of their vectors)."""
    pairs = sentence_vectors[:-1] + sentence_vectors[1:]
    found = pairs @ vector / np.maximum(np.linalg.norm(pairs, axis=1), 1e-9)
    return float(max((sentence_vectors @ vector).max(), found.max(initial=-1)))


def measure(
    questions: Sequence[str], answers: Sequence[str], passages: Sequence[str], languages: Sequence[str],
    encoder: Encoder | None = None, cache_dir: str | Path = ".cache", rarity: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """The parts of n answers, each in [0, 1] but for the cosine, one row an answer and one column for each of `PARTS`.

    numbers, names: share of the answer's that the passage has, 1 where it has none. words: weighted share of its runs of
    letters in the passage. weakest: the same of its least supported sentence, in that one's best place. turn: how much of a
    sentence of the answer and of the question one place has, half each; an empty question asks nothing. similarity: cosine of
    question and answer to the nearest sentence or place; only with an encoder.

    passages and languages (ISO 639-1): one for each answer. rarity: of `measure_rarity`, by default of these passages; give the
    run's own where few answers are measured at a time. Each passage is taken apart once, each of its sentences encoded once.
    Raises `BadGrounding` if the lists differ in length or rarity lacks a language, `UnknownLanguage` for an unknown code.
    """
    if len({len(questions), len(answers), len(passages), len(languages)}) > 1:
        raise BadGrounding("questions, answers, passages and languages differ in number")
    rarity = measure_rarity(passages, languages) if rarity is None else rarity
    if unknown := sorted(set(languages) - set(rarity)):
        raise BadGrounding(f"no rarity for {', '.join(unknown)}: measure it on passages of every language")
    parts = np.ones((len(answers), len(PARTS) - (encoder is None)))
    for language, rows in _by_passage(passages, languages).items():
        for start in range(0, len(rows), BLOCK):
            texts, chosen = (list(islice(part, start, start + BLOCK)) for part in (rows, rows.values()))
            found = _block(texts, chosen, questions, answers, language, rarity[language], encoder, cache_dir)
            parts[list(chain.from_iterable(chosen))] = found
    return pd.DataFrame(parts, columns=PARTS[: parts.shape[1]])


def _block(texts: list[str], chosen: list[list[int]], questions: Sequence[str], answers: Sequence[str], language: str,
           weights: np.ndarray, encoder: Encoder | None, cache_dir: str | Path) -> np.ndarray:
    """The parts of the answers to some passages, in the order of `chosen`, the rows of each passage."""
    asked, told = ([group[row] for rows in chosen for row in rows] for group in (questions, answers))
    said, known = (list(map(sentences, group)) for group in (told, texts))
    said_at, known_at = (np.cumsum([0, *map(len, group)]) for group in (said, known))
    said, known = (list(chain.from_iterable(group)) for group in (said, known))
    question, answer, sentence, passage = (_RUNS.transform(plain(text, language) for text in group)
                                           for group in (asked, told, said, known))
    for matrix in (question, answer, sentence):
        matrix.data *= weights[matrix.indices]
    if encoder:
        turns = [" ".join(pair).strip() for pair in zip(asked, told, strict=True)]
        vectors = embed([*turns, *known], encoder, cache_dir)
    result = []
    for number, (text, rows) in enumerate(zip(texts, chosen, strict=True)):
        start = len(result)
        own, at = slice(*known_at[number : number + 2]), said_at[start : start + len(rows) + 1]
        here, stated = slice(start, start + len(rows)), _Stated(text, language)
        lexical = _lexical(question[here], answer[here], sentence[at[0] : at[-1]], at - at[0], passage[own])
        for row, values in enumerate(lexical, start):
            nearest = [_nearest(vectors[row], vectors[len(told) :][own])] if encoder else []
            result.append([*stated.shares(told[row]), *values, *nearest])
    return np.array(result)


def score(
    questions: Sequence[str], answers: Sequence[str], passages: Sequence[str], languages: Sequence[str],
    encoder: Encoder | None = None, cache_dir: str | Path = ".cache", rarity: Mapping[str, np.ndarray] | None = None,
    weights: Weights | None = None,
) -> np.ndarray:
    """How far each answer is supported by its passage, shape (n,), float32 in [0, 1]; arguments as for `measure`.

    weights: those that ship with the kit unless given; raises `BadGrounding` for an encoder that has none.
    """
    weights = weights or read_weights(encoder.name if encoder else None)
    return weights.score(measure(questions, answers, passages, languages, encoder, cache_dir, rarity))
