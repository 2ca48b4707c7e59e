"""How culture-bound an English sample is, without a chat model: so that a judge is only asked where the answer is not clear.

Two logistic regressions, one over the counts of `sift_rules.features` and one over the encoder's vector of the question, are
added up and calibrated; the sum is one linear function, kept as readable JSON. The kit ships one for its default encoder and
one that needs no encoder, fitted by `benchmarks/culture.py`, which says how well they rank. `fit` makes one from a user's own
verdicts: `labels_of` reads them from what `sifting.sift` returned.

    scores = culture.score([sift_rules.parts(sample) for sample in samples], encoder, cache_dir)
    asked = culture.band(scores, model.low, model.high)
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ultralink_nb.calibration import SHIPPED
from ultralink_nb.embedding import Encoder, embed
from ultralink_nb.errors import KitError
from ultralink_nb.records import atomic_path
from ultralink_nb.sift_rules import FEATURES, features

RULES_STRENGTH, VECTOR_STRENGTH = 0.01, 1.0  # inverse regularisation of either part
VECTOR_SHARE = 0.5  # weight of the vector's part where both have the same spread
RECALL, PRECISION = 0.95, 0.9  # what the two edges of the band are set to
FEWEST = 20  # rows at or above the upper edge, from which a precision is believed
FOLDS = 10


class BadCulture(KitError, ValueError):
    """Labels or a file from which no classifier can be made, or one that does not fit the encoder."""


@dataclass(frozen=True)
class Culture:
    """A linear classifier of culture-bound samples.

    encoder: name of the encoder whose vectors it reads, "" for none. weight: one number for each of `features`; vector: one for
    each dimension. fitted_on: what the labels were; rows: how many. low and high: edges of the band in which a judge is needed,
    such that out of fold `RECALL` of the bound rows scored at least low, and `PRECISION` of those at or above high were bound
    (1, which refuses nobody unseen, where no edge with `FEWEST` rows above it was that precise).
    """

    encoder: str
    features: tuple[str, ...]
    weight: tuple[float, ...]
    vector: tuple[float, ...]
    bias: float
    low: float
    high: float
    fitted_on: str
    rows: int

    def probability(self, counts: np.ndarray, vectors: np.ndarray | None = None) -> np.ndarray:
        """Probability in [0, 1], shape (n,), from `features` (n, len(FEATURES)) and vectors (n, d)."""
        logit = counts @ np.array(self.weight) + self.bias
        if self.encoder:
            if vectors is None or vectors.shape[1] != len(self.vector):
                raise BadCulture(f"this classifier reads vectors of encoder {self.encoder}, of {len(self.vector)} dimensions")
            logit = logit + vectors @ np.array(self.vector)
        return 1 / (1 + np.exp(-np.clip(logit, -60, 60)))

    def save(self, path: str | Path) -> None:
        """Write the classifier as JSON."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_culture(path: str | Path) -> Culture:
    """A classifier from its JSON file; `BadCulture` names the file and what is wrong with it."""
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
        found = Culture(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
    except FileNotFoundError:
        raise BadCulture(f"{path}: no such classifier; leave culture_path empty for the one that the kit ships") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise BadCulture(f"{path} is not a classifier's file: {error}") from None
    numbers = [*found.weight, *found.vector, found.bias, found.low, found.high]
    if found.features != FEATURES or len(found.weight) != len(FEATURES) or bool(found.encoder) != bool(found.vector):
        raise BadCulture(f"{path}: its features do not fit this version of the kit: fit it again")
    if not all(isinstance(number, (int, float)) for number in numbers) or not np.isfinite(numbers).all():
        raise BadCulture(f"{path}: a weight is not a finite number")
    return found


def load_culture(encoder: str, path: str | Path | None = None) -> tuple[Culture, str]:
    """The classifier for an encoder, and a sentence on what it is.

    path: one of the user's own. Without it the shipped one for this encoder; without that, the one that needs no encoder.
    """
    if path:
        own = read_culture(path)
        if own.encoder not in ("", encoder):
            raise BadCulture(f"{path} was fitted on vectors of encoder {own.encoder}, not {encoder}: fit it again")
        return own, f"classifier {Path(path).name}, fitted on {own.rows:,} rows of {own.fitted_on}"
    shipped = SHIPPED / f"culture_{encoder}.json"
    if re.fullmatch(r"[\w.-]+", encoder) and shipped.is_file():
        found = read_culture(shipped)
        return found, f"the kit's classifier for {encoder}, fitted on {found.rows:,} rows of {found.fitted_on}"
    found = read_culture(SHIPPED / "culture.json")
    return found, f"the kit's classifier without an encoder (there is none for {encoder}), fitted on {found.rows:,} rows"


def score(
    texts: Sequence[tuple[str, str]], encoder: Encoder, cache_dir: str | Path, culture: Culture | None = None
) -> np.ndarray:
    """Probability that each of n (question, answer) is culture-bound, shape (n,); an answer may be empty.

    culture: what `load_culture(encoder.name)` gives unless named. Only the questions are encoded, through the cache.
    """
    culture = culture or load_culture(encoder.name)[0]
    if not len(texts):
        return np.zeros(0)
    vectors = embed([question for question, _ in texts], encoder, cache_dir) if culture.encoder else None
    return culture.probability(features(texts), vectors)


def band(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    """(n,) bool: the rows between low and high, which a judge must see. Those below low pass, those at high or above do not.

    high = 1 refuses nobody unseen. Raises `BadCulture` unless 0 ≤ low ≤ high ≤ 1.
    """
    if not 0 <= low <= high <= 1:
        raise BadCulture(f"the band from {low} to {high} is none: 0 ≤ low ≤ high ≤ 1")
    scores = np.asarray(scores)
    return (scores >= low) & ((scores < high) | (high == 1))


def edges(scores: np.ndarray, bound: np.ndarray, recall: float = RECALL, precision: float = PRECISION) -> tuple[float, float]:
    """(low, high) from scores (n,) of rows known to be bound (n,) or not: see `Culture`. Ties stay on one side."""
    scores, bound = np.asarray(scores, float), np.asarray(bound, bool)
    low = float(np.sort(scores[bound])[int((1 - recall) * bound.sum())])
    order = np.argsort(-scores, kind="stable")
    precise = np.cumsum(bound[order]) / np.arange(1, len(order) + 1) >= precision
    last = np.append(np.diff(scores[order]) < 0, True)  # the last of equal scores
    enough = np.flatnonzero(precise & last & (np.arange(1, len(order) + 1) >= FEWEST))
    return low, max(low, float(scores[order][enough[-1]])) if len(enough) else 1.0


def curve(scores: np.ndarray, bound: np.ndarray) -> pd.DataFrame:
    """What each lower edge of the band would do: columns low, recall (of the bound rows), false_alarms, saved.

    recall and false_alarms (the share of the other rows at or above low) are the two axes of an ROC curve. saved: share of all
    rows below low, which cost no call. A row for each distinct score, from high to low.
    """
    scores, bound = np.asarray(scores, float), np.asarray(bound, bool)
    low = np.unique(scores)[::-1]
    above = [len(part) - np.searchsorted(np.sort(part), low) for part in (scores[bound], scores[~bound])]
    return pd.DataFrame({"low": low, "recall": above[0] / max(1, bound.sum()), "false_alarms": above[1] / max(1, (~bound).sum()),
                         "saved": 1 - (above[0] + above[1]) / len(scores)})


def labels_of(verdicts: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """1 or 0 for every sample that a judge scored: whether any criterion is above zero. Rows are those of `sifting.sift`.

    Verdicts of the classifier or of a rule are left out: nothing learns from itself.
    """
    labels: dict[str, float] = {}
    for row in verdicts:
        if row.get("by", "judge") == "judge":
            labels[row["id"]] = max(labels.get(row["id"], 0.0), float(row["score"] > 0))
    return labels


def _logistic(columns: np.ndarray, labels: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """Weights and intercept of a logistic regression on labels in [0, 1]: each row counts as both, in these shares."""
    from sklearn.linear_model import LogisticRegression

    answers = np.repeat([1, 0], len(labels))
    shares = np.concatenate([labels, 1 - labels])
    model = LogisticRegression(C=strength, max_iter=2000).fit(np.vstack([columns, columns]), answers, sample_weight=shares)
    return model.coef_[0], float(model.intercept_[0])


def _raw(counts: np.ndarray, vectors: np.ndarray | None, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(weights, vector weights, bias) of the uncalibrated sum, both parts scaled to the same spread on these rows."""
    spread = counts.std(axis=0)
    spread = np.where(spread > 1e-6, spread, np.inf)  # what never varies keeps weight 0
    mean = counts.mean(axis=0)
    weight = _logistic((counts - mean) / spread, labels, RULES_STRENGTH)[0] / spread
    logit = counts @ weight
    weight, bias = weight / max(logit.std(), 1e-9), -logit.mean() / max(logit.std(), 1e-9)
    if vectors is None:
        return weight, np.zeros(0), bias
    vector = _logistic(vectors, labels, VECTOR_STRENGTH)[0]
    logit = vectors @ vector
    share = VECTOR_SHARE / max(logit.std(), 1e-9)
    return weight, vector * share, bias - logit.mean() * share


def fit(texts: Sequence[tuple[str, str]], labels: Sequence[float], encoder: Encoder | None, cache_dir: str | Path, *,
        fitted_on: str = "verdicts of the user's own", groups: Sequence[Any] | None = None, seed: int = 0) -> Culture:
    """A classifier from n (question, answer) with labels in [0, 1]: 1 culture-bound, or the share of judges who say so.

    encoder: None for one that reads the counts alone. groups: n marks; rows with the same stay in one fold when the sum is
    calibrated and the band set, which happens out of fold. Raises `BadCulture` unless at least 20 labels lie on either side of
    0.5: with fewer there is nothing to learn.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    answers = np.asarray(labels, dtype=float)
    bound = answers >= 0.5
    if len(texts) != len(answers) or not np.isfinite(answers).all() or answers.min(initial=0) < 0 or answers.max(initial=0) > 1:
        raise BadCulture(f"{len(texts):,} texts and {len(answers):,} labels: give each text one label from 0 to 1")
    if min(bound.sum(), (~bound).sum()) < 20:
        raise BadCulture(f"{bound.sum()} of {len(bound)} labels say culture-bound: at least 20 of each kind are needed")
    counts = features(texts).astype(float)
    vectors = embed([question for question, _ in texts], encoder, cache_dir) if encoder else None
    held = np.zeros(len(answers))
    marks = np.arange(len(answers)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    for rows, rest in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(counts, bound, marks):
        weight, vector, bias = _raw(counts[rows], None if vectors is None else vectors[rows], answers[rows])
        held[rest] = counts[rest] @ weight + bias + (vectors[rest] @ vector if vectors is not None else 0)
    stretch, shift = _logistic(held[:, None], answers, 1.0)
    if stretch[0] <= 0:
        raise BadCulture("out of fold the scores say nothing about the labels: look at the labels again, or give more")
    low, high = edges(1 / (1 + np.exp(-(stretch[0] * held + shift))), bound)
    weight, vector, bias = _raw(counts, vectors, answers)
    weight, vector = (tuple(float(f"{stretch[0] * value:.5g}") for value in part) for part in (weight, vector))
    return Culture(encoder.name if encoder else "", FEATURES, weight, vector, float(stretch[0] * bias + shift), low, high,
                   fitted_on, len(answers))
