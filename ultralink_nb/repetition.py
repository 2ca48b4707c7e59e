"""The pairs of samples that say the same in two languages: what notebook 04 does step by step, as one call for other callers."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ultralink_nb.agreement import compare_texts, surroundings
from ultralink_nb.calibration import LEAST, Calibrations, families
from ultralink_nb.redundancy import Candidates, corroborate, score_pairs
from ultralink_nb.vectors import Centred


def read_scores(
    candidates: Candidates, scores: pd.DataFrame, screened: np.ndarray, n: int, agreement: pd.DataFrame
) -> pd.DataFrame:
    """Scores with the columns `calibration.READ` of pairs whose texts were read, (m) rows.

    scores, screened, agreement: of these pairs, from `score_pairs`, the screen and `compare_texts`; n: rows of the data.
    """
    known = pd.concat([scores.reset_index(drop=True), agreement], axis=1)
    return pd.concat([known, surroundings(n, candidates.left, candidates.right, screened, known)], axis=1)


def decide(
    candidates: Candidates, known: pd.DataFrame, kinds: pd.Series, centred: Centred, fitted: Calibrations
) -> np.ndarray:
    """The probability of pairs that were read, (m,) float32: each by the calibration of its kind, then seen together.

    known: of `read_scores`; kinds: of the n rows.
    """
    left, right = candidates.left, candidates.right
    family = families(kinds, left, right)
    return corroborate(len(kinds), left, right, centred.codes, fitted.probability(known, family), fitted.prior(family))


def find_pairs(
    rows: pd.DataFrame, texts: Sequence[str], centred: Centred, candidates: Candidates, fitted: Calibrations,
    encode: Callable[[list[str]], np.ndarray],
) -> pd.DataFrame:
    """Each candidate pair with the probability that both say the same: left, right, cosine, margin, probability.

    rows: language, kind; texts: (n,); encode: of the encoder in use, for single words. A pair that the screen gives less than
    `LEAST` is not read and keeps that probability.
    """
    scores = score_pairs(candidates, centred, texts)
    probability = fitted.screen.probability(scores)
    read = np.flatnonzero(probability >= LEAST)
    chosen, screened = candidates.take(read), probability[read]
    agreement = compare_texts(chosen.left, chosen.right, texts, rows["language"].tolist(), encode)
    known = read_scores(chosen, scores.iloc[read], screened, len(rows), agreement)
    probability[read] = decide(chosen, known, rows["kind"], centred, fitted)
    return pd.DataFrame({"left": candidates.left, "right": candidates.right, "cosine": scores["cosine"],
                         "margin": scores["margin"], "probability": probability})
