"""Classifiers on frozen vectors, and made data on which it is known what pruning does.

Logistic regression over the encoder's vectors, one model for all languages, stands for "a model that learns a task from the
training set" (Alain & Bengio 2016 call it a linear probe). It is cheap enough to train hundreds of times, so that sizes, policies
and seeds can all be tried, and it is no language model: what it says of transfer between languages is what the encoder's shared
space allows.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

STRENGTHS = (0.3, 3.0, 30.0)


def fit_probe(vectors: np.ndarray, target: np.ndarray, strength: float) -> LogisticRegression:
    """A multinomial logistic regression (L-BFGS) on vectors (n, d) and target (n,); strength is scikit-learn's C, above 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a hundred steps are enough for the answers to settle
        return LogisticRegression(C=strength, max_iter=100, tol=1e-3).fit(vectors, target)


def right(vectors: np.ndarray, target: np.ndarray, train: np.ndarray, test: np.ndarray, strength: float) -> np.ndarray:
    """(len(test),) bool: which test rows a probe trained on `train` answers rightly; train, test: row numbers.

    Where all training rows have one target, that one is the answer.
    """
    if len(seen := np.unique(target[train])) < 2:
        return np.isin(target[test], seen)
    return fit_probe(vectors[train], target[train], strength).predict(vectors[test]) == target[test]


def choose_strength(vectors: np.ndarray, target: np.ndarray, train: np.ndarray, contents: np.ndarray,
                    strengths: Sequence[float] = STRENGTHS, folds: int = 3) -> float:
    """The strength that does best on the full training set by cross-validation in which a content is never torn apart.

    Chosen once, on the full set, and used for every subset: that favours the full set, if anything. The test rows are not seen.
    """
    folds = min(folds, len(np.unique(contents[train])))
    if folds < 2:
        return strengths[len(strengths) // 2]
    parts = list(GroupKFold(folds).split(train, groups=contents[train]))
    accuracy = [np.mean([right(vectors, target, train[fit], train[held], strength).mean() for fit, held in parts])
                for strength in strengths]
    return strengths[int(np.argmax(accuracy))]


def made_vectors(shared: bool, contents: int, languages: Sequence[str], dimension: int = 24, noise: float = 0.15,
                 mistakes: float = 0.05, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (n, d), target (n,), languages (n,), contents (n,) of made rows, every content once in every language.

    The label of a content is the side of a plane on which its point lies. shared: all languages use the same dimensions, so
    that a translation is the same point with some noise, and says nothing new. Otherwise each language has dimensions of its
    own: what is learnt in one is worth nothing in another, and dropping translations takes a language's data away. mistakes:
    share of contents with a label drawn blindly.
    """
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(contents, dimension)) / np.sqrt(dimension)
    target = (points @ rng.normal(size=dimension) > 0).astype(int)
    wrong = rng.random(contents) < mistakes
    target[wrong] = rng.integers(2, size=int(wrong.sum()))
    n = len(languages)
    blocks = np.zeros((n, contents, dimension if shared else n * dimension))
    for place in range(n):
        start = 0 if shared else place * dimension
        blocks[place, :, start : start + dimension] = points + noise * rng.normal(size=points.shape) / np.sqrt(dimension)
    return (blocks.reshape(n * contents, -1), np.tile(target, n), np.repeat(np.array(languages, dtype=object), contents),
            np.tile(np.arange(contents), n))
