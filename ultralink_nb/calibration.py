"""From the scores of a pair to the probability that both samples have the same content.

A calibration is a logistic regression fitted with scikit-learn on labelled pairs and kept as readable JSON, never as a pickle.
It takes more than one: `screen` sees the vectors' scores alone and lets go what is surely different; what it leaves is read
(agreement.py) and weighed by the calibration of its kind. Chat, for one, is data in which a prompt may have been rewritten for
another culture, and math is data in which all texts look alike. The kit ships them for its default encoder, fitted by
`benchmarks/fit_calibration.py`; each file says on what. An encoder that has none borrows the default's, and
`load_calibrations` says so.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ultralink_nb.agreement import AGREEMENT, SURROUNDINGS
from ultralink_nb.records import atomic_path
from ultralink_nb.redundancy import FEATURES

SHIPPED = Path(__file__).parent / "calibrations"
READ = (*FEATURES, *AGREEMENT, *SURROUNDINGS)  # what is known of a pair whose texts were read
LEAST = 0.01  # what the screen gives less is not read


@dataclass(frozen=True)
class Calibration:
    """Weights of a logistic regression over standardised scores, and where they come from.

    mean, scale, weight: one number per feature; bias: the intercept; fitted_on: what the labelled pairs were; pairs: how many;
    prior: the share of them that was true, which `redundancy.corroborate` replaces by that of the data at hand.
    """

    encoder: str
    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    bias: float
    fitted_on: str
    pairs: int
    prior: float

    def probability(self, scores: pd.DataFrame) -> np.ndarray:
        """Probability in [0, 1] for each row of scores, shape (m,), float32."""
        logit = np.full(len(scores), self.bias)
        for name, mean, scale, weight in zip(self.features, self.mean, self.scale, self.weight, strict=True):
            logit += (scores[name].to_numpy() - mean) * (weight / scale)
        return (1 / (1 + np.exp(-np.clip(logit, -60, 60)))).astype(np.float32)

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def fit_calibration(
    scores: pd.DataFrame, same: np.ndarray, encoder: str, fitted_on: str, weights: np.ndarray | None = None,
    features: tuple[str, ...] = FEATURES,
) -> Calibration:
    """Fit on labelled pairs: scores (m rows), same (m,) of 0 and 1, weights (m,) or None for equal ones.

    features: the columns of scores that count, of `READ`.

    Raises ValueError unless both labels occur.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(same)) < 2:
        raise ValueError("a calibration needs labelled pairs of both kinds: some with the same content and some without")
    columns = scores[list(features)].to_numpy(dtype=float)
    with np.errstate(invalid="ignore"):  # of a feature that never varies, and keeps weight 0, a variance may round below 0
        scaler = StandardScaler().fit(columns, sample_weight=weights)
    model = LogisticRegression(max_iter=3000).fit(scaler.transform(columns), same, sample_weight=weights)
    return Calibration(
        encoder, tuple(features), tuple(scaler.mean_.tolist()), tuple(scaler.scale_.tolist()), tuple(model.coef_[0].tolist()),
        float(model.intercept_[0]), fitted_on, len(scores), float(np.average(same, weights=weights)),
    )


def read_calibration(path: str | Path) -> Calibration:
    """A calibration from its JSON file; ValueError names the file and what is wrong with it."""
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
        loaded = Calibration(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
        unknown = set(loaded.features) - set(READ)
        lengths = {len(part) for part in (loaded.features, loaded.mean, loaded.scale, loaded.weight)}
    except FileNotFoundError:
        ships = "leave calibration_path empty to take those that the kit ships"
        raise FileNotFoundError(f"{path}: no such calibration; {ships}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is not a calibration file: {error}") from None
    if unknown or len(lengths) > 1:
        raise ValueError(f"{path}: its features do not fit this version of the kit ({', '.join(sorted(unknown)) or 'lengths'})")
    return loaded


@dataclass(frozen=True)
class Calibrations:
    """What decides on pairs: `screen` on all of them, then of those that it leaves each by its kind.

    by_kind: the calibrations of families of kinds ("chat" for chat_agnostic and chat_specific), "" for all others.
    """

    screen: Calibration
    by_kind: Mapping[str, Calibration]

    def _each(self, families: np.ndarray) -> list[tuple[np.ndarray, Calibration]]:
        return [(families == family, self.by_kind.get(family, self.by_kind[""])) for family in np.unique(families)]

    def probability(self, scores: pd.DataFrame, families: np.ndarray) -> np.ndarray:
        """Probability in [0, 1] of each pair that was read, (m,) float32: scores with columns `READ`, families as `families`."""
        found = np.zeros(len(scores), np.float32)
        for chosen, fitted in self._each(families):
            found[chosen] = fitted.probability(scores[chosen])
        return found

    def prior(self, families: np.ndarray) -> np.ndarray:
        """The share of true pairs among those that each pair's calibration was fitted on, (m,)."""
        shares = np.zeros(len(families))
        for chosen, fitted in self._each(families):
            shares[chosen] = fitted.prior
        return shares


def families(kinds: pd.Series, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The family that both ends of a pair belong to, (m,) of str: their kind up to "_"; "" where they differ.

    kinds: of the n rows; left, right: (m,) row numbers.
    """
    family = kinds.astype(str).str.split("_").str[0].to_numpy(dtype=object)
    return np.where(family[left] == family[right], family[left], "").astype(str)


def load_calibrations(encoder: str, path: str | None = None) -> tuple[Calibrations, str]:
    """The calibrations for an encoder and a sentence on how far they can be trusted.

    path: one of the user's own, FILE.json, for pairs of every kind; FILE.screen.json and FILE.<kind>.json count where they lie
    beside it. Without it, the shipped ones for this encoder; without those, the default encoder's, whose probabilities then only
    rank.
    """
    has_own = re.fullmatch(r"[\w.-]+", encoder) and (SHIPPED / f"{encoder}.screen.json").is_file()
    shipped = SHIPPED / f"{encoder if has_own else 'use'}.json"
    found = _beside(Path(path) if path else shipped)
    screen = found.pop("screen", None) or read_calibration(shipped.with_suffix(".screen.json"))
    calibrations = Calibrations(screen, found)
    on = "; for ".join(f"{kind or 'any other kind'} on {one.pairs:,} pairs of {one.fitted_on}" for kind, one in found.items())
    if path:
        return calibrations, f"calibration {Path(path).name}, for {on}"
    if has_own:
        return calibrations, f"the kit's calibrations for {encoder}, for {on}"
    return calibrations, (
        f"NO calibration for encoder {encoder}: the default encoder's are used, so read the probabilities as a ranking only; "
        "fit one with benchmarks/fit_calibration.py and name it in calibration_path"
    )


def _beside(path: Path) -> dict[str, Calibration]:
    """{"": FILE.json} and {part: FILE.part.json} for what lies beside it."""
    parts = {other.stem.removeprefix(f"{path.stem}."): other for other in sorted(path.parent.glob(f"{path.stem}.*.json"))}
    return {part: read_calibration(file) for part, file in {"": path, **parts}.items()}


def recalibrated(probability: np.ndarray, labelled: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Probabilities (m,) float32 whose log-odds are stretched and shifted to suit labelled pairs (Platt 1999).

    probability: (m,); labelled: (l,) positions; same: (l,) of 0 and 1; a few hundred are enough. Which score counts how much
    stays as it was. Raises `ValueError` unless both labels occur, or if the labels contradict the probabilities (less probable
    pairs are more often the same).
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(same)) < 2:
        raise ValueError("a calibration needs labelled pairs of both kinds: some with the same content and some without")
    clipped = np.clip(np.asarray(probability, dtype=float), 1e-9, 1 - 1e-9)
    odds = np.log(clipped / (1 - clipped))[:, None]
    model = LogisticRegression(max_iter=1000).fit(odds[labelled], same)
    if model.coef_[0, 0] <= 0:
        raise ValueError("the labels contradict the scores: look at them again, or label more pairs")
    return model.predict_proba(odds)[:, 1].astype(np.float32)


def reliability(probability: np.ndarray, same: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Reliability in bins of equal mass: columns samples, low, high, probability (mean), same (share that is).

    probability, same: (m,). Equal probabilities share one rate of `same` before they are split over bins, so that the order of
    rows cannot matter. Fewer than `bins` samples give a bin each. ValueError: nothing to measure, or not in [0, 1].
    """
    probability, same = np.asarray(probability, dtype=np.float64), np.asarray(same, dtype=np.float64)
    if probability.shape != same.shape or not len(probability):
        raise ValueError(f"reliability needs as many labels as probabilities, and some: {same.shape}, {probability.shape}")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("reliability needs probabilities in [0, 1]")
    value, which, count = np.unique(probability, return_inverse=True, return_counts=True)
    rate = np.bincount(which, weights=same) / count
    order = np.sort(which)
    parts = np.array_split(order, min(bins, len(order)))
    return pd.DataFrame({
        "samples": [len(part) for part in parts],
        "low": [value[part[0]] for part in parts], "high": [value[part[-1]] for part in parts],
        "probability": [value[part].mean() for part in parts], "same": [rate[part].mean() for part in parts],
    })


def expected_calibration_error(probability: np.ndarray, same: np.ndarray, bins: int = 15) -> float:
    """Mean distance between probability and share of same over the bins of `reliability`, weighted by their size: in [0, 1].

    Expected calibration error (Naeini et al., 2015) in bins of equal mass (Nguyen & O'Connor, 2015).
    """
    table = reliability(probability, same, bins)
    return float(np.average((table["probability"] - table["same"]).abs(), weights=table["samples"]))
