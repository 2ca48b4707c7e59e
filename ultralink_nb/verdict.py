"""What measured scores say about a loss: a paired bootstrap over test contents and seeds, and a verdict in words.

The question is one of non-inferiority (Lakens 2017, "Equivalence tests"; Piaggio et al. 2012, CONSORT statement): not whether
two models differ, which too few test items always fail to show, but whether a loss as large as a margin, named beforehand, can
be ruled out. It can if the whole interval of the difference lies above minus the margin.

Notable: what is drawn again is a test *content*, with its rows in all languages at once, since a problem and its translations
are not independent, and a seed, with all models trained under it (Efron & Tibshirani 1993, chapters 6 and 13). All comparisons
share the same draws, so that many of them can be judged together: their intervals are widened until all hold at once (maximum of
the studentised differences: Romano & Wolf 2005, Section 3). Another training set is not drawn: a verdict is about this one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ultralink_nb.errors import KitError

MEAN = "mean"  # the mean over languages, each counting the same


class BadEvidence(KitError, ValueError):
    """Scores or a task from which no verdict can be had; the message says what to do."""


@dataclass(frozen=True)
class Scores:
    """How m models did on n test items, under s seeds.

    models: names, (m,). values: (m, s, n) float, higher is better: 1 for a right answer and 0 for a wrong one, or a loss with
    its sign turned. languages: (n,) codes. contents: (n,) labels, equal for items of the same content. unit: 100 for accuracy,
    whose differences are told in points; 1 for a loss. same: models that are known to be one and the same, pairs of names.
    """

    models: tuple[str, ...]
    values: np.ndarray
    languages: np.ndarray
    contents: np.ndarray
    unit: float = 100.0
    same: frozenset[tuple[str, str]] = frozenset()

    @property
    def names(self) -> list[str]:
        """The mean, then the languages in order of first appearance."""
        return [MEAN, *dict.fromkeys(self.languages.tolist())]


@dataclass(frozen=True)
class Draws:
    """Bootstrap draws of mean scores: value (m, l), drawn (m, l, b), l as `Scores.names`.

    per_content: (m, l - 1, c), what each test content adds to a language's mean, over all seeds; asked: (l - 1, c), its rows.
    """

    scores: Scores
    value: np.ndarray
    drawn: np.ndarray
    per_content: np.ndarray
    asked: np.ndarray

    def disagreements(self, left: int, right: int, name: int) -> tuple[int, int]:
        """On how many test contents two models differ, and of how many, for the mean (0) or a language (from 1)."""
        chosen = slice(None) if name == 0 else [name - 1]
        differ = np.abs(self.per_content[left, chosen] - self.per_content[right, chosen]) > 1e-12
        return int(differ.any(axis=0).sum()), int((self.asked[chosen] > 0).any(axis=0).sum())

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """model, language, value, low, high: each score with its own interval (percentiles), in the scores' unit."""
        low, high = np.nanquantile(self.drawn, [(1 - level) / 2, (1 + level) / 2], axis=2)
        rows = [(model, name, self.value[m, k], low[m, k], high[m, k])
                for m, model in enumerate(self.scores.models) for k, name in enumerate(self.scores.names)]
        return pd.DataFrame(rows, columns=["model", "language", "value", "low", "high"])


def bootstrap(scores: Scores, draws: int = 2000, seed: int = 1) -> Draws:
    """Draw test contents and seeds with replacement, the same ones for all models.

    With s seeds a plain bootstrap shows (s - 1)/s of their variance; their spread is widened by the root of s/(s - 1), so that
    few seeds do not pass for certainty. With one seed nothing is known of their spread, and the intervals leave it out. With
    several, what is peculiar to one item under one seed is counted in both draws, so that the intervals are rather too wide than
    too narrow (Owen 2007, "The pigeonhole bootstrap"); more seeds mend that.
    Raises `BadEvidence` unless there are scores, all finite.
    """
    m, s, n = scores.values.shape
    if not n or not np.isfinite(scores.values).all():
        raise BadEvidence("no test item, or a score that is not finite: look at the test part and at the training")
    rng = np.random.default_rng(seed)
    names = scores.names
    content, labels = pd.factorize(scores.contents)
    language = np.array([names.index(code) for code in scores.languages]) - 1
    sums = np.zeros((m, s, len(names) - 1, len(labels)))
    np.add.at(sums, (slice(None), slice(None), language, content), scores.values)
    counts = np.zeros((len(names) - 1, len(labels)))
    np.add.at(counts, (language, content), 1)

    items = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=draws).T.astype(float)
    seeds = rng.multinomial(s, np.full(s, 1 / s), size=draws).T / s
    per_seed = sums / counts.sum(axis=1)[:, None]  # so that a sum over contents is a language's mean
    centre = per_seed.mean(axis=1, keepdims=True)
    wider = centre + (per_seed - centre) * np.sqrt(s / (s - 1)) if s > 1 else per_seed
    weight = counts @ items / counts.sum(axis=1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.einsum("mslb,sb->mlb", wider @ items, seeds) / np.where(weight > 0, weight, np.nan)
    value = per_seed.sum(axis=3).mean(axis=1)
    drawn = np.concatenate([np.nanmean(drawn, axis=1, keepdims=True), drawn], axis=1)
    value = np.concatenate([value.mean(axis=1, keepdims=True), value], axis=1)
    return Draws(scores, value * scores.unit, drawn * scores.unit, centre[:, 0], counts)


def differences(draws: Draws, pairs: Sequence[tuple[str, str]], languages: Sequence[str] = (MEAN,), together: bool = False,
                level: float = 0.95) -> pd.DataFrame:
    """Each pair's difference with its interval: model, reference, language, difference, low, high.

    pairs: (model, reference). together: the intervals hold all at once at this level, not each for itself. Where two models
    are the same, the difference is 0 for certain. Where they differ on fewer than ten test contents, a bootstrap is too narrow
    (without a disagreement it has no width at all): then, for right and wrong answers, the interval reaches to either side at
    least as far as n contents without any disagreement leave open, 1 - ((1 - level)/2)^(1/n) (the "rule of three": Hanley &
    Lippman-Hand 1983).
    """
    place, names = {name: m for m, name in enumerate(draws.scores.models)}, draws.scores.names
    rows = [(model, reference, name) for model, reference in pairs for name in languages]
    table = pd.DataFrame(rows, columns=["model", "reference", "language"])
    if table.empty:
        return table.assign(difference=0.0, low=0.0, high=0.0)
    left, right = table["model"].map(place).to_numpy(), table["reference"].map(place).to_numpy()
    which = np.array([names.index(name) for name in table["language"]])
    value = draws.value[left, which] - draws.value[right, which]
    drawn = draws.drawn[left, which] - draws.drawn[right, which]
    tail = (1 - level) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=1)
    spread = np.nanstd(drawn, axis=1)
    if together and (varies := spread > 1e-9).any():
        away = np.abs(drawn[varies] - value[varies, None]) / spread[varies, None]
        reach = np.nanquantile(np.nanmax(away, axis=0), level)
        low, high = np.minimum(low, value - reach * spread), np.maximum(high, value + reach * spread)
    if draws.scores.unit == 100:
        few = [draws.disagreements(*row) for row in zip(left, right, which, strict=True)]
        least = np.array([100 * (1 - tail ** (1 / n)) if differ < 10 else 0.0 for differ, n in few])
        low, high = np.minimum(low, value - least), np.maximum(high, value + least)
    same = np.array([a == b or (a, b) in draws.scores.same for a, b in zip(table["model"], table["reference"], strict=True)])
    return table.assign(difference=np.where(same, 0.0, value), low=np.where(same, 0.0, low), high=np.where(same, 0.0, high))


OUTCOMES = ("hurts", "small loss", "no loss", "helps", "undecided")


def outcome(low: float, high: float, margin: float) -> str:
    """What an interval [low, high] of a difference says, higher being better and margin > 0; one of `OUTCOMES`.

    hurts: the whole interval is below 0, and a loss as large as the margin is not ruled out. small loss: below 0, but above
    minus the margin. helps: above 0. no loss: the interval holds 0 and no loss as large as the margin. undecided: the rest.
    """
    if not margin > 0:
        raise BadEvidence(f"the margin must be above 0, not {margin}: it is the loss that you could live with")
    if high < 0:
        return "small loss" if low > -margin else "hurts"
    return "helps" if low > 0 else "no loss" if low > -margin else "undecided"


def in_words(
    difference: float, low: float, high: float, margin: float, reference: str = "the full set", unit: str = "points"
) -> str:
    """The verdict as a sentence; reference: the full set, or what else the policy was held against."""
    interval, against = f"[{low:+.2f}, {high:+.2f}]", "" if reference == "the full set" else f" than {reference}"
    by, found = f"{abs(difference):.2f} {unit} {interval}", outcome(low, high, margin)
    if found == "undecided":
        return (f"undecided against {reference}: {difference:+.2f} {interval} {unit}, too wide an interval for the margin of "
                f"{margin:g}")
    if found == "no loss":
        return (f"no loss larger than the margin of {margin:g} {unit} could be seen against {reference}: "
                f"{difference:+.2f} {interval}")
    if against:
        return f"{'better' if found == 'helps' else 'worse'}{against} by {by}" + (
            f", less than the margin of {margin:g}" if found == "small loss" else "")
    return {"hurts": f"pruning hurts here by {by}", "helps": f"pruning helps here by {by}",
            "small loss": f"pruning costs {by} here, less than the margin of {margin:g}"}[found]


def judge(table: pd.DataFrame, margin: float, unit: str = "points") -> pd.DataFrame:
    """`differences` with the outcome and the sentence beside each row."""
    found = [(outcome(row.low, row.high, margin), in_words(row.difference, row.low, row.high, margin, row.reference, unit))
             for row in table.itertuples()]
    return table.assign(outcome=[name for name, _ in found], verdict=[text for _, text in found])
