"""Whether a translation means what its original means, by the vectors of an encoder: the pass after the gates that need none.

Two questions, for what no number or length shows. **Swapped**: is a translation nearer to its own original than to others? In
data made from templates the nearest other original may be as near, so the measure is the difference margin of Artetxe & Schwenk
(2019), own cosine less the mean of the k nearest others from both sides, on vectors without their language's mean; a swapped
pair falls far below zero. **Dropped**: has every sentence of the original a place in the translation? A logistic regression over
how well the worst and the average sentence are covered, the length and the number of sentences; its weights ship for the default
encoder, fitted on translations with a sentence taken out (`benchmarks/verification.py --fit` prints them), and `fit_dropped`
fits them for another.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ultralink_nb.checks import Refusal
from ultralink_nb.embedding import embed
from ultralink_nb.encoders import Encoder
from ultralink_nb.records import rejected
from ultralink_nb.text_parts import Text
from ultralink_nb.verification import STAGE, Lengths, Pair, length_of, usual_lengths

LEAST_MARGIN = -0.05  # of 1,000 right pairs of templates about 2 lie below it
FEW = 20              # pairs of languages with fewer translations are not judged by margin: there is too little to compare with
BLOCK = 4096          # translations compared with each other's originals at a time: 64 MiB of cosines
SHORTEST = 20         # letters of an original below which its meaning is not judged: "Thanks!" is near to much


@dataclass(frozen=True)
class Dropped:
    """A logistic regression over `FEATURES`. least: the log-odds from which a sentence counts as dropped, outside of math.

    least_in_math: lower, since a problem without one of its conditions is another problem, and its sentences are plain.
    """

    weights: tuple[float, ...]
    bias: float
    least: float
    least_in_math: float

    def log_odds(self, features: np.ndarray) -> np.ndarray:
        """features: (n, 5); log-odds (n,) that a sentence is missing."""
        return features @ np.array(self.weights) + self.bias


# length: log of the ratio to what is usual; sentences: more (to 1) or fewer (to -2) than the original's; worst and mean: cosine
# of the original's sentences to the nearest sentence, pair of sentences or clause of the translation; many: log of how many
# sentences the original has.
FEATURES = ("length", "sentences", "worst", "mean", "many")
_CLAUSE = re.compile(r"[:;,]\s|[：；，、]|[-–—•]\s|\n")
SHIPPED = {"use": Dropped((-9.297, -3.217, -25.899, 31.051, -2.041), -8.186, 4.317, 0.552)}


def margins(sources: np.ndarray, translations: np.ndarray, k: int = 4) -> np.ndarray:
    """Difference margin of each translation with its own source, (n,) float32 in [-2, 2].

    sources, translations: (n, d) vectors, row i of one belonging to row i of the other, of one pair of languages.
    margin_i = cos(x_i, y_i) - ( sum_{z in NN_k(x_i)} cos(x_i, z) / 2k + sum_{z in NN_k(y_i)} cos(y_i, z) / 2k ), the nearest
    among the others. Rows are compared within blocks of `BLOCK`, so a margin does not depend on how much data there is.
    """
    x, y = (_centred(vectors) for vectors in (sources, translations))
    found = np.zeros(len(x), np.float32)
    blocks = np.array_split(np.arange(len(x)), max(1, math.ceil(len(x) / BLOCK)))
    for rows in blocks:
        cosine = x[rows] @ y[rows].T
        own = np.diag(cosine).copy()
        np.fill_diagonal(cosine, -1)
        near = min(k, len(rows) - 1)
        if near < 1:
            continue
        others = [np.partition(side, -near, axis=1)[:, -near:].mean(axis=1) for side in (cosine, cosine.T)]
        found[rows] = own - (others[0] + others[1]) / 2
    return found


def _centred(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float32)
    vectors = vectors - vectors.mean(axis=0)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _windows(sentences: Sequence[str]) -> list[str]:
    """Sentences, pairs of neighbours and clauses: a translator may join or part them."""
    clauses = [clause.strip() for sentence in sentences for clause in _CLAUSE.split(sentence)]
    pairs = (f"{one} {other}" for one, other in zip(sentences, sentences[1:], strict=False))
    return list(dict.fromkeys([*sentences, *pairs, *(clause for clause in clauses if any(map(str.isalpha, clause)))]))


def _told(text: Text) -> list[str]:
    """The sentences of an original whose place can be found: "S." or "And so on." is near to much, or to nothing."""
    return [one for one in text.sentences if len(one) >= SHORTEST] or text.sentences or [text.prose]


def measure_dropped(ours: Sequence[Text], theirs: Sequence[Text], lengths: Lengths, encoder: Encoder,
                    cache_dir: str = ".cache") -> tuple[np.ndarray, list[str]]:
    """(`FEATURES` of each pair of texts, (n, 5); the sentence of each original that is covered worst)."""
    pairs = [(_told(left), _windows(right.sentences or [right.prose])) for left, right in zip(ours, theirs, strict=True)]
    texts = list(dict.fromkeys(text for pair in pairs for side in pair for text in side))
    row = {text: number for number, text in enumerate(texts)}
    vectors = np.asarray(embed(texts, encoder, cache_dir), dtype=np.float32)
    features, worst = np.zeros((len(pairs), len(FEATURES))), []
    for number, (said, places) in enumerate(pairs):
        covered = (vectors[[row[text] for text in said]] @ vectors[[row[text] for text in places]].T).max(axis=1)
        more = np.clip(len(theirs[number].sentences) - len(ours[number].sentences), -2, 1)
        length = math.log(length_of(ours[number], theirs[number], lengths))
        features[number] = length, more, covered.min(), covered.mean(), math.log(len(said))
        worst.append(said[int(covered.argmin())])
    return features, worst


def fit_dropped(whole: np.ndarray, dropped: np.ndarray, math_rows: np.ndarray,
                refused: tuple[float, float] = (0.015, 0.002)) -> Dropped:
    """`Dropped` from `measure_dropped` of right translations and of ones without a sentence.

    math_rows: (n,) bool, which of the right ones are math. refused: share of right ones lost, outside of math and in it (over all
    where there are none of the one).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([whole, dropped])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=10)).fit(features, np.arange(len(features)) >= len(whole))
    scale, linear = model[0], model[1]
    weights = linear.coef_[0] / scale.scale_
    found = Dropped(tuple(weights.round(3).tolist()), round(float(linear.intercept_[0] - weights @ scale.mean_), 3), 0.0, 0.0)
    odds = found.log_odds(whole)
    least = [round(float(np.quantile(odds[rows] if rows.any() else odds, 1 - share)), 3) for rows, share in
             zip((~math_rows, math_rows), refused, strict=True)]
    return Dropped(found.weights, found.bias, *least)


def check_similarity(ours: Sequence[Text], theirs: Sequence[Text], encoder: Encoder, cache_dir: str = ".cache", *,
                     lengths: Lengths | None = None, dropped: Dropped | None = None,
                     least_margin: float = LEAST_MARGIN) -> list[list[Refusal]]:
    """The refusals of each translation of one pair of languages: gate `similarity` for a swapped text, `sentences` for one cut.

    ours, theirs: originals and translations in the same order, best thousands of them, since each is compared with the others.
    dropped: of `fit_dropped`, else what ships for the encoder; for one without weights sentences are not judged here.
    """
    refusals: list[list[Refusal]] = [[] for _ in ours]
    judged = [number for number, text in enumerate(ours) if text.letters >= SHORTEST]
    if not judged:
        return refusals
    lengths = lengths or usual_lengths(ours[0].language, theirs[0].language)
    if len(judged) >= FEW:
        vectors = [np.asarray(embed([side[number].prose for number in judged], encoder, cache_dir)) for side in (ours, theirs)]
        for number, margin in zip(judged, margins(*vectors), strict=True):
            if margin < least_margin:
                refusals[number].append(Refusal("similarity", f"nearer to other originals than to its own: margin {margin:.2f}"))
    dropped = dropped or SHIPPED.get(encoder.name)
    several = [number for number in judged if len(ours[number].sentences) > 1]
    if dropped and several:
        features, worst = measure_dropped(*([side[number] for number in several] for side in (ours, theirs)), lengths, encoder,
                                          cache_dir)
        for number, odds, sentence in zip(several, dropped.log_odds(features), worst, strict=True):
            if odds >= (dropped.least_in_math if ours[number].kind == "math" else dropped.least):
                refusals[number].append(Refusal("sentences", f"most likely missing: {sentence[:80]!r}"))
    return refusals


def verify_similarity(parents: Sequence[Mapping], translated: Iterable[Mapping], encoder: Encoder, cache_dir: str = ".cache",
                      lengths: Mapping[Pair, Lengths] | None = None) -> tuple[list[dict], list[dict]]:
    """(translations that passed, rejected rows), as `verification.verify_samples`, whose passed rows are meant to come here.

    Messages are compared by language, kind and place in the dialogue: first questions with first questions.
    """
    by_id = {parent["id"]: parent for parent in parents}
    translated = list(translated)
    alike: dict[tuple, list[tuple[int, Text, Text]]] = defaultdict(list)
    for row, sample in enumerate(translated):
        parent = by_id[sample["source"]["parent_id"]]
        for place, (left, right) in enumerate(zip(parent["messages"], sample["messages"], strict=True)):
            kind = parent["kind"]
            texts = Text(left["content"], parent["language"], kind), Text(right["content"], sample["language"], kind)
            alike[parent["language"], sample["language"], kind, place].append((row, *texts))
    found: dict[int, list[Refusal]] = defaultdict(list)
    for (source, target, _, place), group in alike.items():
        rows, ours, theirs = zip(*group, strict=True)
        checked = check_similarity(ours, theirs, encoder, cache_dir, lengths=(lengths or {}).get((source, target)))
        for row, refusals in zip(rows, checked, strict=True):
            found[row] += [Refusal(one.gate, f"message {place + 1}: {one.reason}") for one in refusals]
    passed, refused = [], []
    for row, sample in enumerate(translated):
        if found[row]:
            reason = "; ".join(f"{one.gate}: {one.reason}" for one in found[row])
            refused.append(rejected(sample["id"], sample["language"], STAGE, found[row][0].gate, reason, sample))
        else:
            passed.append(dict(sample))
    return passed, refused
