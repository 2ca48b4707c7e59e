"""From probable pairs to groups of the same content, and what the pairs say of each row.

Everything works on row numbers. `group_pairs` joins most probable pairs first and never chains: every two rows of a group are
themselves a plausible pair. Nearly all groups can be read off at once, since a component of the sure pairs in which every pair
is plausible is what the joining would arrive at; only the others are joined one pair at a time.

Tried on the labelled sets that `benchmarks/` reads: joining by the mean probability across two groups instead of by the most
probable pair changes F1 by -0.005 to +0.001, so the simpler rule stays.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from ultralink_nb.records import BadRecord

_STEP = 1_000_000
SPECIFIC, AGNOSTIC = "language-specific", "language-agnostic"


def id_rank(ids: pd.Series) -> np.ndarray:
    """Place of each id among the sorted ids, (n,) int64 from 0: what ties are broken by.

    Raises `BadRecord` naming an id that occurs twice.
    """
    if not pd.Index(ids).is_unique:
        raise BadRecord(f"the id {ids[ids.duplicated()].iloc[0]!r} occurs twice: give every row an id of its own")
    return pc.rank(pa.array(ids, pa.large_string()), tiebreaker="first").to_numpy().astype(np.int64) - 1


def stand_ins(rows: pd.DataFrame, duplicates: pd.DataFrame | None) -> np.ndarray:
    """The row number that stands for each row, (n,) int64: its own, but for a duplicate that of `duplicate_of`.

    Raises `BadRecord` where an id is not among the rows, where a row is listed twice or is said to stand for a duplicate while
    being one.
    """
    stands = np.arange(len(rows))
    if duplicates is None or not len(duplicates):
        return stands
    index = pd.Index(rows["id"])
    who, whose = index.get_indexer(duplicates["id"]), index.get_indexer(duplicates["duplicate_of"])
    for name, found in (("id", who), ("duplicate_of", whose)):
        if (found < 0).any():
            lost = duplicates[name].iloc[int(np.argmax(found < 0))]
            raise BadRecord(f"duplicates, column {name}: {lost!r} is not among the rows: look for duplicates again")
    if len(np.unique(who)) < len(who):
        twice = duplicates["id"][duplicates["id"].duplicated()].iloc[0]
        raise BadRecord(f"duplicates, column id: {twice!r} is listed twice, but one row stands for a duplicate")
    stands[who] = whose
    if (chained := stands[whose] != whose).any():
        chain = duplicates["duplicate_of"].iloc[int(np.argmax(chained))]
        raise BadRecord(f"duplicates, column duplicate_of: {chain!r} is a duplicate itself: name the row that stands for both")
    return stands


@dataclass(frozen=True)
class _Plausible:
    """Plausible pairs, most probable first, ties by id: left, right (m,) row numbers, probability (m,) float32."""

    left: np.ndarray
    right: np.ndarray
    probability: np.ndarray

    def sure(self, threshold: float) -> int:
        """How many pairs, from the first on, have at least this probability."""
        return int(np.searchsorted(-self.probability, -np.float32(threshold), side="right"))


def check_pairs(n: int, pairs: pd.DataFrame, language: np.ndarray) -> None:
    """Raises `BadRecord` unless pairs are of rows 0 to n-1, of two languages, with a probability in [0, 1]."""
    left, right, probability = (pairs[name].to_numpy() for name in ("left", "right", "probability"))
    if not len(pairs):
        return
    if min(left.min(), right.min()) < 0 or max(left.max(), right.max()) >= n:
        raise BadRecord(f"pairs name row numbers outside 0 to {n - 1}: score the pairs of these rows again")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise BadRecord("pairs, column probability: a value is not in [0, 1]: give the pairs a calibrated probability first")
    if (same := language[left] == language[right]).any():
        first = int(np.argmax(same))
        raise BadRecord(f"pairs: rows {left[first]} and {right[first]} are of one language: name such rows in duplicates")


def _plausible(
    rows: pd.DataFrame, pairs: pd.DataFrame, stands: np.ndarray, language: np.ndarray, rank: np.ndarray, floor: float
) -> _Plausible:
    check_pairs(len(rows), pairs, language)
    near = pairs["probability"].to_numpy() >= np.float32(floor)
    left, right = (pairs[name].to_numpy()[near].astype(np.int64) for name in ("left", "right"))
    alone = (stands[left] == left) & (stands[right] == right)
    left, right, probability = left[alone], right[alone], pairs["probability"].to_numpy()[near][alone].astype(np.float32)
    key = np.minimum(rank[left], rank[right]) * len(rows) + np.maximum(rank[left], rank[right])
    order = np.lexsort((key, -probability))
    first = np.sort(np.unique(key[order], return_index=True)[1])  # of a pair given twice, the more probable
    order = order[first]
    return _Plausible(left[order], right[order], probability[order])


def _components(n: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _joins(n: int, near: _Plausible, sure: int) -> np.ndarray:
    """Which of the sure pairs, the first ones of `near`, join two groups: their positions, ascending.

    The joins of a higher threshold are the first ones of these: raising it only stops the joining earlier. So they are found in
    three stretches. After each, groups become nodes, one pair stands for all between two nodes, and two nodes of which some
    rows are no plausible pair (two rows of one language never are) can never join and are left out for good.
    """
    node, alive, weight, joins = np.arange(n), np.arange(len(near.left)), np.ones(len(near.left)), np.zeros(0, dtype=np.int64)
    for last in (sure // 4, sure // 2, sure):
        if len(joins):
            node = _components(n, near.left[joins], near.right[joins])
            size = np.bincount(node)
            ends = np.sort([node[near.left[alive]], node[near.right[alive]]], axis=0)
            _, first, which = np.unique(ends[0] * n + ends[1], return_index=True, return_inverse=True)
            whole = size[ends[0]] * size[ends[1]]
            first = np.sort(first[(np.bincount(which, weight) == whole[first]) & (ends[0] != ends[1])[first]])
            alive, weight = alive[first], whole[first].astype(float)
        left, right = node[near.left[alive]], node[near.right[alive]]
        joins = np.append(joins, alive[_joined(n, left, right, int(np.searchsorted(alive, last)))])
    return np.sort(joins)


def _joined(n: int, left: np.ndarray, right: np.ndarray, sure: int) -> np.ndarray:
    """Complete linkage over n nodes: which of the first `sure` pairs join two groups, as positions.

    A component of these pairs in which every two nodes are a pair becomes one group whatever the order.
    """
    component = _components(n, left[:sure], right[:sure])
    size = np.bincount(component, minlength=1)
    inside = component[left] == component[right]
    complete = np.bincount(component[left[inside]], minlength=len(size)) == size * (size - 1) // 2
    easy = np.flatnonzero(complete[component[left[:sure]]])
    tree = minimum_spanning_tree(coo_array((easy + 1.0, (left[easy], right[easy])), shape=(n, n)).tocsr())
    hard = np.flatnonzero(inside & ~complete[component[left]])
    joins = _joined_one_by_one(left[hard], right[hard], int(np.searchsorted(hard, sure)))
    return np.append(tree.data.astype(np.int64) - 1, hard[joins])


def _joined_one_by_one(left: np.ndarray, right: np.ndarray, sure: int) -> np.ndarray:
    """The same, each pair visited once; whether two nodes are a pair is looked up by bisection in a sorted list a node."""
    members, compact = np.unique(np.append(left, right), return_inverse=True)
    here, there = compact, np.append(compact[len(left) :], compact[: len(left)])
    begin = np.searchsorted(np.sort(here), np.arange(len(members) + 1)).tolist()
    known = array("q", there[np.lexsort((there, here))].tobytes())
    group = list(range(len(members)))
    nodes_of: list[list[int]] = [[node] for node in group]

    def all_pairs(ours: list[int], theirs: list[int]) -> bool:
        for x in ours:
            low, high = begin[x], begin[x + 1]
            for y in theirs:
                place = bisect_left(known, y, low, high)
                if place == high or known[place] != y:
                    return False
        return True

    joins: list[int] = []
    for start in range(0, sure, _STEP):  # in steps, so that the lists of Python numbers stay small
        stop = min(sure, start + _STEP)
        for position, a, b in zip(range(start, stop), here[start:stop].tolist(), there[start:stop].tolist(), strict=True):
            ours, theirs = group[a], group[b]
            if ours != theirs and all_pairs(nodes_of[ours], nodes_of[theirs]):
                if len(nodes_of[ours]) < len(nodes_of[theirs]):
                    ours, theirs = theirs, ours
                for node in nodes_of[theirs]:
                    group[node] = ours
                nodes_of[ours] += nodes_of[theirs]
                nodes_of[theirs] = []
                joins.append(position)
    return np.array(joins, dtype=np.int64)


def group_pairs(
    rows: pd.DataFrame, pairs: pd.DataFrame, threshold: float = 0.5, plausible: float = 0.2,
    duplicates: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Groups of rows with the same content: id, group, size, representative, duplicate_of, one row for each of `rows`.

    rows: id, language. pairs: left, right (row numbers, of two languages), probability in [0, 1]. duplicates: id, duplicate_of;
    a duplicate joins the group of the row that stands for it, and pairs of its own are not looked at.
    Pairs from `threshold` on are joined, most probable first, by complete linkage: two groups become one only if they share no
    language and every pair across them has a probability of at least `plausible` (a translation that is one row's best match
    is still known to the others). So groups do not chain, and hold at most one row a language besides duplicates. The result
    does not depend on the order of rows or pairs; groups are numbered as they first appear. `representative` is the row, no
    duplicate, that the others match best (sum of probabilities). Raises `BadRecord` for rows or pairs that do not fit.
    """
    rank, stands = id_rank(rows["id"]), stand_ins(rows, duplicates)
    language = pd.factorize(rows["language"])[0]
    near = _plausible(rows, pairs, stands, language, rank, min(plausible, threshold))
    joins = _joins(len(rows), near, near.sure(threshold))
    label = pd.factorize(_components(len(rows), near.left[joins], near.right[joins])[stands])[0]
    inside = label[near.left] == label[near.right]
    matched = sum(np.bincount(end[inside], near.probability[inside], minlength=len(rows)) for end in (near.left, near.right))
    alone = np.flatnonzero(stands == np.arange(len(rows)))
    order = alone[np.lexsort((rank[alone], -np.round(matched[alone], 6), label[alone]))]
    best = order[np.unique(label[order], return_index=True)[1]]
    ids = rows["id"].reset_index(drop=True)
    return pd.DataFrame({
        "id": ids, "group": label, "size": np.bincount(label, minlength=1)[label],
        "representative": ids.take(best[label]).array,
        "duplicate_of": ids.take(stands).where(stands != np.arange(len(rows)), None).array,
    })


def threshold_curve(
    rows: pd.DataFrame, pairs: pd.DataFrame, thresholds: Sequence[float], plausible: float = 0.2,
    duplicates: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What each threshold would do: columns threshold, groups, rows in groups of more than one, rows that could be dropped.

    The joining is done once for all thresholds from `plausible` on, and once for each below it.
    """
    rank, stands = id_rank(rows["id"]), stand_ins(rows, duplicates)
    language = pd.factorize(rows["language"])[0]
    made: dict[float, tuple[_Plausible, np.ndarray]] = {}
    table = []
    for threshold in sorted(thresholds):
        floor = min(plausible, threshold)
        if floor not in made:
            near = _plausible(rows, pairs, stands, language, rank, floor)
            made = {floor: (near, _joins(len(rows), near, near.sure(threshold)))}
        near, joins = made[floor]
        kept = joins[joins < near.sure(threshold)]
        size = np.bincount(_components(len(rows), near.left[kept], near.right[kept])[stands], minlength=1)
        table.append((threshold, int((size > 0).sum()), int(size[size > 1].sum()), len(rows) - int((size > 0).sum())))
    names = ["threshold", "groups", "rows in groups of more than one", "rows that could be dropped"]
    return pd.DataFrame(table, columns=names)


def best_counterpart(n: int, pairs: pd.DataFrame) -> np.ndarray:
    """For each of n rows the highest probability of a counterpart in any other language, 0 without one: (n,) float32."""
    best = np.zeros(n, dtype=np.float32)
    for end in ("left", "right"):
        np.maximum.at(best, pairs[end].to_numpy(), pairs["probability"].to_numpy(dtype=np.float32))
    return best


def specificity(
    rows: pd.DataFrame, pairs: pd.DataFrame, threshold: float = 0.5, duplicates: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What nobody says in another language is that language's own: id, language, kind, counterpart, measured, one row each.

    counterpart: the highest probability of one in another language, in [0, 1], a duplicate's being that of the row that stands
    for it; measured: `language-specific` below the threshold, else `language-agnostic`.
    """
    best = best_counterpart(len(rows), pairs)[stand_ins(rows, duplicates)]
    measured = np.where(best < np.float32(threshold), SPECIFIC, AGNOSTIC)
    return rows[["id", "language", "kind"]].reset_index(drop=True).assign(counterpart=best, measured=measured)


def specific_share(measured: pd.DataFrame) -> pd.DataFrame:
    """Of `specificity`: columns language, kind, rows, specific (rows that are language-specific), share (in [0, 1])."""
    of = measured.assign(specific=measured["measured"] == SPECIFIC).groupby(["language", "kind"], sort=False)["specific"]
    return of.agg(rows="size", specific="sum", share="mean").reset_index()


def redundancy_matrix(
    rows: pd.DataFrame, pairs: pd.DataFrame, threshold: float = 0.5, duplicates: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Share of each language's rows (index) that have a counterpart in each other language (columns); the diagonal is empty.

    Languages in the order of first appearance; a duplicate has the counterparts of the row that stands for it.
    """
    language, order = pd.factorize(rows["language"])
    sure = pairs["probability"].to_numpy() >= np.float32(threshold)
    left, right = pairs["left"].to_numpy()[sure], pairs["right"].to_numpy()[sure]
    has = np.zeros((len(rows), len(order)), dtype=bool)
    has[left, language[right]] = has[right, language[left]] = True
    has = has[stand_ins(rows, duplicates)]
    share = np.array([has[language == code].mean(axis=0) for code in range(len(order))]).reshape(len(order), len(order))
    np.fill_diagonal(share, np.nan)
    return pd.DataFrame(share, index=pd.Index(order, name="language"), columns=pd.Index(order, name="has a counterpart in"))
