"""Pairs, scores, groups: what is said again in another language.

The steps are visible calls in notebook 04: `centre`, `candidate_pairs` (neighbours per pair of languages, both directions),
`score_pairs` (cosine, ratio margin, gaps to the next best, agreement of numbers); then a `Calibration` (calibration.py) turns
the scores into the probability that two samples have the same content, and `group_pairs` joins pairs to groups. It never
chains: every two members of a group are themselves a plausible pair.

Same content means that the same task is asked or the same statement made; answers may be worded differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ultralink_nb.neighbours import Neighbours, search_between
from ultralink_nb.numerals import read_numbers


def centre(vectors: np.ndarray, languages: Sequence[str], shrink: float = 50.0) -> np.ndarray:
    """Vectors with their language's mean removed, of length one again.

    Multilingual encoders put each language in a cone of its own; without its mean, two languages can be compared. A language of
    n rows loses n / (n + shrink) of its mean, so that a handful of rows is not centred into noise.
    """
    codes = np.asarray(languages)
    centred = np.array(vectors, dtype=np.float32)
    for code in dict.fromkeys(languages):
        rows = codes == code
        weight = rows.sum() / (rows.sum() + shrink)
        centred[rows] -= np.float32(weight) * centred[rows].mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(norms > 0, norms, 1)


@dataclass(frozen=True)
class Candidates:
    """Candidate pairs and the neighbour lists that they came from.

    left, right: (m,) row numbers, left's language before right's in the order of first appearance; every pair once.
    between: the neighbour lists per ordered pair of languages.
    """

    left: np.ndarray
    right: np.ndarray
    between: dict[tuple[str, str], Neighbours]


def candidate_pairs(vectors: np.ndarray, languages: Sequence[str], k: int = 4, index: str = "auto") -> Candidates:
    """The k nearest rows of every other language for every row, both directions joined.

    vectors: (n, d) of length one; languages: n codes; k: neighbours per direction, of which margins are means too.
    """
    between = search_between(vectors, languages, k, index)
    codes = np.asarray(languages)
    order = {code: position for position, code in enumerate(dict.fromkeys(languages))}
    found = []
    for (source, target), neighbours in between.items():
        sources = np.repeat(np.flatnonzero(codes == source), neighbours.rows.shape[1])
        targets = neighbours.rows.ravel()
        valid = targets >= 0
        ends = (sources[valid], targets[valid])
        found.append(np.stack(ends if order[source] < order[target] else ends[::-1], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), np.int64)
    return Candidates(pairs[:, 0], pairs[:, 1], between)


SCORES = ("cosine", "margin", "gap_best", "gap_worst", "mutual", "numbers_agree", "numbers_differ")

# What a calibration sees of a pair. The margin is not among them: it and the gaps measure the same thing, and with both the
# weights of a linear model lose their meaning and carry over to other data less well.
FEATURES = ("cosine", "gap_best", "gap_worst", "mutual", "numbers_agree", "numbers_differ")


def _neighbourhood(candidates: Candidates, copy: np.ndarray, languages: Sequence[str], cosine: np.ndarray, side: str):
    """For one end of each pair: cosine of its best *other* neighbour in the other's language, and whether the pair is best.

    copy: a number for each row that equal texts share; a second copy of the other end is no other neighbour.
    """
    codes = np.asarray(languages)
    here, there = (candidates.left, candidates.right) if side == "left" else (candidates.right, candidates.left)
    other, first = np.zeros(len(here)), np.ones(len(here), dtype=bool)
    position = np.zeros(len(codes), np.int64)
    for code in dict.fromkeys(languages):
        rows = np.flatnonzero(codes == code)
        position[rows] = np.arange(len(rows))
    for (source, target), neighbours in candidates.between.items():
        chosen = np.flatnonzero((codes[here] == source) & (codes[there] == target))
        if not len(chosen) or not neighbours.rows.shape[1]:
            continue
        listed = position[here[chosen]]
        similarity, rows = neighbours.similarity[listed], neighbours.rows[listed]
        itself = (rows < 0) | (copy[np.maximum(rows, 0)] == copy[there[chosen], None])
        other[chosen] = np.where(itself, -np.inf, similarity).max(axis=1)
        first[chosen] = cosine[chosen] >= similarity[:, 0] - 1e-6  # of equals (a text that occurs twice) each is best
    return np.where(np.isfinite(other), other, 0.0), first


def score_pairs(
    candidates: Candidates, vectors: np.ndarray, languages: Sequence[str], texts: Sequence[str], raw: np.ndarray | None = None
) -> pd.DataFrame:
    """Scores of each candidate pair, one column for each name in `SCORES`, row order that of the candidates.

    vectors: the vectors that were searched (centred); raw: the encoder's own, for the plain cosine and the margin.
    margin is the ratio margin of Artetxe & Schwenk (2019), eq. 2 to 4, with cos over the raw vectors:
    margin(x, y) = cos(x, y) / ( sum_{z in NN_k(x)} cos(x, z) / 2k + sum_{z in NN_k(y)} cos(y, z) / 2k ).
    gap_best and gap_worst: how much closer the pair is (centred cosine) than each end's best other neighbour, the larger and the
    smaller of the two. mutual: 1 if each is the other's nearest. numbers_agree, numbers_differ: share of the numbers in the two
    texts that match and that do not; both 0 where there are none.
    """
    raw = vectors if raw is None else raw
    left, right = candidates.left, candidates.right
    centred = _row_dots(vectors, left, right)
    cosine = _row_dots(raw, left, right)
    copy = pd.factorize(np.asarray(texts, dtype=object))[0]
    other_l, first_l = _neighbourhood(candidates, copy, languages, centred, "left")
    other_r, first_r = _neighbourhood(candidates, copy, languages, centred, "right")
    raw_mean_l, raw_mean_r = _raw_means(candidates, raw, languages)
    gap_l, gap_r = centred - other_l, centred - other_r
    numbers = [read_numbers(text, code).values for text, code in zip(texts, languages, strict=True)]
    shared = np.array([sum((numbers[a] & numbers[b]).values()) for a, b in zip(left, right, strict=True)], dtype=float)
    either = np.array([max(numbers[a].total(), numbers[b].total()) for a, b in zip(left, right, strict=True)], dtype=float)
    agreement = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
    return pd.DataFrame({
        "cosine": cosine, "margin": cosine / np.maximum(1e-3, (raw_mean_l + raw_mean_r) / 2),
        "gap_best": np.maximum(gap_l, gap_r), "gap_worst": np.minimum(gap_l, gap_r),
        "mutual": (first_l & first_r).astype(float),
        "numbers_agree": np.where(either > 0, agreement, 0.0), "numbers_differ": np.where(either > 0, 1 - agreement, 0.0),
    }, columns=list(SCORES))


def _row_dots(vectors: np.ndarray, left: np.ndarray, right: np.ndarray, step: int = 100_000) -> np.ndarray:
    dots = np.empty(len(left), dtype=np.float32)
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        dots[part] = np.einsum("ij,ij->i", vectors[left[part]], vectors[right[part]])
    return dots


def _raw_means(candidates: Candidates, raw: np.ndarray, languages: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Mean raw cosine of each end to its k neighbours in the other's language."""
    codes = np.asarray(languages)
    means: dict[str, np.ndarray] = {}
    for (source, target), neighbours in candidates.between.items():
        table = means.setdefault(target, np.zeros(len(codes), np.float32))
        rows, k = np.flatnonzero(codes == source), neighbours.rows.shape[1]
        if k:
            dots = _row_dots(raw, np.repeat(rows, k), np.maximum(neighbours.rows, 0).ravel()).reshape(-1, k)
            found = neighbours.rows >= 0
            table[rows] = np.where(found, dots, 0).sum(axis=1) / np.maximum(1, found.sum(axis=1))
    pick = np.zeros((2, len(candidates.left)), np.float32)
    for target, table in means.items():
        for side, (here, there) in enumerate(((candidates.left, candidates.right), (candidates.right, candidates.left))):
            chosen = codes[there] == target
            pick[side, chosen] = table[here[chosen]]
    return pick[0], pick[1]



def group_pairs(
    ids: Sequence[str], languages: Sequence[str], pairs: pd.DataFrame, threshold: float = 0.5, plausible: float = 0.2
) -> pd.DataFrame:
    """Groups of rows with the same content: columns id, group, size, representative, one row for each id, in their order.

    pairs: columns left_id, right_id, probability. Pairs from `threshold` on are joined, most probable first, by complete linkage:
    two groups become one only if they share no language and every pair across them has a probability of at least `plausible`
    (a translation that is one row's best match is still known to the others). So groups do not chain, and hold at most one
    row a language. The result does not depend on the order of rows or pairs. `representative` is the row that the others match
    best.
    """
    code = dict(zip(ids, languages, strict=True))
    left, right = pairs["left_id"].to_numpy(), pairs["right_id"].to_numpy()
    probability = pairs["probability"].to_numpy()
    near = probability >= min(plausible, threshold)
    known = {
        (a, b) if a < b else (b, a): p
        for a, b, p in zip(left[near], right[near], probability[near].tolist(), strict=True)
    }
    members: dict[str, list[str]] = {}
    group_of: dict[str, str] = {}
    joined = ((-p, pair) for pair, p in known.items() if p >= threshold)
    for _, (a, b) in sorted(joined):
        first, second = group_of.get(a, a), group_of.get(b, b)
        if first == second:
            continue
        ours, theirs = members.get(first, [first]), members.get(second, [second])
        if {code[row] for row in ours} & {code[row] for row in theirs}:
            continue
        if all(((x, y) if x < y else (y, x)) in known for x in ours for y in theirs):
            members[first] = ours + theirs
            members.pop(second, None)
            group_of.update(dict.fromkeys(members[first], first))
    stands: dict[str, str] = {}
    for name, rows in members.items():
        total = {x: sum(known[(x, y) if x < y else (y, x)] for y in rows if y != x) for x in rows}
        stands[name] = min(rows, key=lambda row: (-round(total[row], 6), row))
    names = [group_of.get(row, row) for row in ids]
    number = {name: position for position, name in enumerate(dict.fromkeys(names))}
    return pd.DataFrame({
        "id": list(ids), "group": [number[name] for name in names], "size": [len(members.get(name, (name,))) for name in names],
        "representative": [stands.get(name, name) for name in names],
    })


def best_counterpart(ids: Sequence[str], pairs: pd.DataFrame) -> np.ndarray:
    """For each id the highest probability of a counterpart in any other language, 0 where none was found: (n,) in [0, 1].

    One minus it is how language-specific a sample is: what nobody says in another language is that language's own.
    """
    ends = pd.concat([pairs["left_id"], pairs["right_id"]], ignore_index=True)
    best = pd.concat([pairs["probability"]] * 2, ignore_index=True).groupby(ends).max()
    return best.reindex(list(ids)).fillna(0.0).to_numpy(dtype=np.float32)


def redundancy_matrix(ids: Sequence[str], languages: Sequence[str], pairs: pd.DataFrame, threshold: float = 0.5) -> pd.DataFrame:
    """Share of each language's rows (index) that have a counterpart in each other language (columns); the diagonal is empty."""
    code = pd.Series(list(languages), index=list(ids))
    sure = pairs[pairs["probability"] >= threshold]
    directed = pd.concat([
        pd.DataFrame({"row": sure["left_id"], "other": sure["right_id"]}),
        pd.DataFrame({"row": sure["right_id"], "other": sure["left_id"]}),
    ])
    directed["language"], directed["of"] = code[directed["row"]].to_numpy(), code[directed["other"]].to_numpy()
    order = list(dict.fromkeys(languages))
    found = directed.drop_duplicates(["row", "of"]).groupby(["language", "of"]).size().unstack(fill_value=0)
    matrix = found.reindex(index=order, columns=order, fill_value=0).astype(float)
    matrix = matrix.div(code.value_counts().reindex(order), axis=0)
    values = matrix.to_numpy(copy=True)
    np.fill_diagonal(values, np.nan)
    return pd.DataFrame(values, index=pd.Index(order, name="language"), columns=pd.Index(order, name="has a counterpart in"))


def against_truth(
    ids: Sequence[str], languages: Sequence[str], truth: Sequence[str], pairs: pd.DataFrame, threshold: float = 0.5
) -> dict[str, float]:
    """Precision, recall and F1 of the pairs from `threshold` on, where `truth` is equal for rows of the same content.

    Only pairs across languages count. Recall is over all true pairs of the set, found as candidates or not.
    """
    label = dict(zip(ids, truth, strict=True))
    sure = pairs[pairs["probability"] >= threshold]
    right = int((sure["left_id"].map(label) == sure["right_id"].map(label)).sum())
    sizes = pd.DataFrame({"truth": list(truth), "language": list(languages)}).value_counts(["truth", "language"])
    per_truth = sizes.groupby("truth").agg(["sum", lambda counts: (counts**2).sum()])
    total = int(((per_truth.iloc[:, 0] ** 2 - per_truth.iloc[:, 1]) // 2).sum())
    precision, recall = right / max(1, len(sure)), right / max(1, total)
    return {"true pairs": total, "found": len(sure), "right": right, "precision": precision, "recall": recall,
            "F1": 2 * right / max(1, len(sure) + total)}
