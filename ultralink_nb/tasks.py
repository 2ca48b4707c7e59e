"""A task to learn: rows with a target, a training and a test part, and what is said again within the training part.

Only the training part is pruned. Its groups come from the kit's own redundancy analysis, as a user's would; labels of content,
where a file has them, only tell which test rows belong together.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ultralink_nb import calibration, duplicates, grouping, pruning, redundancy
from ultralink_nb.chance import places_in_draw
from ultralink_nb.content import Content, arrange
from ultralink_nb.embedding import Encoder, embed
from ultralink_nb.probes import made_vectors
from ultralink_nb.repetition import find_pairs
from ultralink_nb.vectors import centre
from ultralink_nb.verdict import BadEvidence

TEST_NAMES = ("test", "validation", "valid", "dev", "eval")


@dataclass(frozen=True)
class Repetition:
    """What the redundancy analysis found among n rows: pairs (left, right, probability), groups (see `grouping`), duplicates."""

    pairs: pd.DataFrame
    groups: pd.DataFrame
    duplicates: pd.DataFrame

    def among(self, rows: pd.DataFrame, chosen: np.ndarray, threshold: float) -> "Repetition":
        """The same for some of the rows, by row number, grouped anew."""
        place = np.full(len(rows), -1)
        place[chosen] = np.arange(len(chosen))
        left, right = place[self.pairs["left"]], place[self.pairs["right"]]
        inner = (left >= 0) & (right >= 0)
        pairs = self.pairs[inner].assign(left=left[inner], right=right[inner])
        part = rows.iloc[chosen].reset_index(drop=True)
        repeated = self.duplicates[self.duplicates[["id", "duplicate_of"]].isin(set(part["id"])).all(axis=1)]
        return Repetition(pairs, grouping.group_pairs(part, pairs, threshold, duplicates=repeated), repeated)


def analyse(rows: pd.DataFrame, texts: Sequence[str], vectors: np.ndarray, encoder: Encoder, cache_dir: str = ".cache",
            threshold: float = 0.5, duplicate_threshold: float | None = 0.85, neighbours: int = 4) -> Repetition:
    """What notebook 04 does, without its pictures: rows (id, language, kind), texts (n,) and vectors (n, d) in the same order.

    encoder: the one that made the vectors; cache_dir: where the embeddings of single words are kept.
    """
    centred = centre(vectors, rows["language"].tolist())
    closeness = {} if duplicate_threshold is None else {"semantic_threshold": duplicate_threshold}
    repeated = duplicates.find_duplicates(texts, rows, centred if closeness else None, **closeness)
    candidates = redundancy.candidate_pairs(centred, neighbours, rows=np.flatnonzero(~rows["id"].isin(repeated["id"])))
    fitted, _ = calibration.load_calibrations(encoder.name)
    pairs = find_pairs(rows, texts, centred, candidates, fitted, lambda words: embed(words, encoder, cache_dir))
    return Repetition(pairs, grouping.group_pairs(rows, pairs, threshold, duplicates=repeated), repeated)


@dataclass(frozen=True)
class Task:
    """A task of n rows.

    name: what is learnt. rows: id, language, kind, quality. target: (n,) of int, places in targets. test: (n,) bool.
    contents: (n,) labels, equal for rows of the same content. content: the training rows with their groups, as policies see them.
    """

    name: str
    rows: pd.DataFrame
    target: np.ndarray
    targets: tuple[str, ...]
    test: np.ndarray
    contents: np.ndarray
    content: Content

    @property
    def train_rows(self) -> np.ndarray:
        """Row numbers of the training part."""
        return np.flatnonzero(~self.test)

    @property
    def test_rows(self) -> np.ndarray:
        """Row numbers of the test part."""
        return np.flatnonzero(self.test)

    @property
    def leaked(self) -> int:
        """Test rows whose content is in the training part as well: they can be answered by heart."""
        return int(np.isin(self.contents[self.test], self.contents[~self.test]).sum())


def column(samples: Sequence[Mapping[str, Any]], name: str) -> list[str | None]:
    """A column of each sample as text, one of the schema's or of the user's own file; None where a row has none."""
    if name in ("kind", "language"):
        return [sample[name] for sample in samples]
    held = [json.loads(sample["extra"] or "{}").get(name) for sample in samples]
    if all(value is None for value in held):
        raise BadEvidence(f"no sample has a column {name}: look at the names in your file")
    return [None if value is None else str(value) for value in held]


def split_by_column(values: Sequence[str | None]) -> np.ndarray:
    """(n,) bool, True for test rows, of a split column; raises `BadEvidence` unless it names a training and a test part."""
    names = {str(value).lower() for value in values}
    test = np.array([str(value).lower() in TEST_NAMES for value in values])
    if odd := names - {*TEST_NAMES, "train", "training"}:
        raise BadEvidence(f"the split column says {sorted(odd)[0]!r}: write train, and {' or '.join(TEST_NAMES)}")
    if test.all() or not test.any():
        raise BadEvidence("the split column names no training part or no test part: both are needed")
    return test


def split_by_content(contents: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(n,) bool: about this share of the contents, whole, so that no test row's translation is trained on."""
    return places_in_draw([str(label) for label in contents], seed) / 2.0**64 < share


def make_task(
    name: str, rows: pd.DataFrame, targets: Sequence[str], test: np.ndarray, contents: np.ndarray, train: Repetition
) -> Task:
    """A task from its parts; raises `BadEvidence` if there is nothing to learn or to test.

    rows: id, language, kind, perhaps quality; train: the repetition among the rows that are not test rows, in their order.
    """
    codes, names = pd.factorize(np.asarray(targets, dtype=object), sort=True)
    if test.all() or not test.any() or len(np.unique(codes[~test])) < 2:
        raise BadEvidence(f"{name}: a task needs training rows with two targets or more, and test rows; "
                          "name a target_column with several values")
    content = arrange(rows[~test].reset_index(drop=True), train.groups, train.pairs, train.duplicates)
    return Task(name, rows, codes, tuple(map(str, names)), test, np.asarray(contents), content)


def made_task(
    shared: bool, contents: int, languages: Sequence[str], seed: int = 1, test_share: float = 0.5
) -> tuple[Task, np.ndarray]:
    """A task on made vectors, and the vectors: see `made_vectors`. Its groups are the true ones, every pair certain.

    With shared languages pruning to one row a content loses next to nothing; otherwise it takes most of each language's data.
    """
    vectors, target, codes, label = made_vectors(shared, contents, languages, seed=seed)
    rows = pd.DataFrame({"id": [f"made_{number:05}_{code}" for number, code in zip(label, codes, strict=True)], "language": codes,
                         "kind": "made", "quality": 0.5})
    test = split_by_content(label, test_share, seed)
    train = np.flatnonzero(~test)
    ends = np.array(list(combinations(range(len(languages)), 2))) * contents  # the first row of each language of a pair
    left, right = (ends.T[:, :, None] + np.arange(contents)).reshape(2, -1)
    pairs = pd.DataFrame({"left": left, "right": right, "probability": 1.0})
    none = pd.DataFrame({"id": [], "duplicate_of": [], "how": [], "similarity": [], "language": []})
    whole = Repetition(pairs, pd.DataFrame(), none)
    name = "made data whose languages " + ("share what is to be learnt" if shared else "share nothing")
    return make_task(name, rows, target.astype(str), test, label, whole.among(rows, train, 0.5)), vectors


def quality(samples: Sequence[Mapping[str, Any]]) -> pd.Series:
    """Rank of each sample's `pruning.quality_of` within its language, in (0, 1]."""
    languages = [sample["language"] for sample in samples]
    return pd.Series(map(pruning.quality_of, samples)).groupby(languages).rank(pct=True)
