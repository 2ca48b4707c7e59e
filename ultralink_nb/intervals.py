"""How far a score may lie from the truth: intervals for shares of right answers and for means over questions."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

DRAWS = 2000  # resamples of a bootstrap; their own noise at the interval's ends is then about a twentieth of its width


def wilson(right: float, total: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share of `right` among `total`, each 0 to 1 (Wilson, 1927); (0, 1) where nothing was asked.

    Unlike the usual mean plus and minus twice the standard error it never leaves 0 to 1 and says something at 0 of 8, too.
    """
    if not 0 <= right <= total or not 0 < level < 1:
        raise ValueError(f"wilson({right}, {total}, {level}): 0 <= right <= total and 0 < level < 1 must hold")
    if not total:
        return 0.0, 1.0
    z, share = float(norm.ppf((1 + level) / 2)), right / total
    middle = share + z * z / (2 * total)
    spread = z * float(np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)))
    scale = 1 + z * z / total
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def bootstrap(values: Sequence[float], seed: int = 1, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of the mean of `values`, one a question, by drawing questions again (Efron, 1979).

    Where all values are equal no draw can differ and the interval has no width: for shares of right answers use `wilson`.
    Raises ValueError without values.
    """
    if not len(values):
        raise ValueError("bootstrap: there are no values")
    data = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).choice(data, (DRAWS, len(data))).mean(axis=1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
