"""Pairs, scores, groups: what is said again in another language.

Four steps, each a visible call in notebook 04: `candidate_pairs` (neighbours per pair of languages, both directions),
`score_pairs` (cosine, ratio margin, ranks, gaps, agreement of numbers and length), a `Calibration` that turns the scores into the
probability that two samples have the same content, and `group_pairs`, which never chains: every two members of a group are
themselves a plausible pair.

Same content means that the same task is asked or the same statement made; answers may be worded differently.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ultralink_nb.neighbours import Neighbours, search_between
from ultralink_nb.records import atomic_path

CALIBRATIONS = Path(__file__).parent / "calibrations"


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


_DIGITS = re.compile(r"\d+(?:[.,\u00a0\u202f ’']\d{3}(?!\d))*(?:[.,]\d+)?")


def numbers_in(text: str) -> Counter[str]:
    """The numbers written in digits in a text, as a multiset of values: 1,234.50 and 1 234,5 count as the same."""
    found: Counter[str] = Counter()
    for match in _DIGITS.findall(unicodedata.normalize("NFKC", text)):
        compact = re.sub(r"[\u00a0\u202f ’']", "", match)
        parts = re.split(r"[.,]", compact)
        if len(parts) > 1 and (len(parts[-1]) != 3 or parts[0] in ("0", "")):
            whole, fraction = "".join(parts[:-1]), parts[-1].rstrip("0")
        else:
            whole, fraction = "".join(parts), ""
        found[(whole.lstrip("0") or "0") + ("." + fraction if fraction else "")] += 1
    return found


_CODE = re.compile(r"```|`[^`\n]+`|[{};]\s*$|\b(?:def|return|import|function|SELECT|class|print)\b|[=<>!]=|->|\\\w+\{", re.MULTILINE)

FEATURES = (
    "cosine", "centred", "margin", "distance", "gap_best", "gap_worst", "mutual", "rank",
    "numbers_agree", "numbers_differ", "length", "short", "code",
)


def _neighbourhood(candidates: Candidates, vectors: np.ndarray, languages: Sequence[str], cosine: np.ndarray, side: str):
    """For one end of each pair: mean cosine of its neighbours in the other's language, its best other one, and the pair's rank."""
    codes = np.asarray(languages)
    here, there = (candidates.left, candidates.right) if side == "left" else (candidates.right, candidates.left)
    mean, other, rank = np.zeros(len(here)), np.zeros(len(here)), np.ones(len(here))
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
        itself = rows == there[chosen, None]
        mean[chosen] = similarity.mean(axis=1)
        other[chosen] = np.where(itself, -np.inf, similarity).max(axis=1)
        # at equal cosine (a text that occurs twice) the rank is the best of the equals
        rank[chosen] = 1 + (similarity > cosine[chosen, None] + 1e-6).sum(axis=1)
    return mean, np.where(np.isfinite(other), other, 0.0), rank


def score_pairs(
    candidates: Candidates, vectors: np.ndarray, languages: Sequence[str], texts: Sequence[str], raw: np.ndarray | None = None
) -> pd.DataFrame:
    """Scores of each candidate pair, one column for each name in `FEATURES`, row order that of the candidates.

    vectors: the vectors that were searched (centred); raw: the encoder's own, for the plain cosine and the margin.
    margin is the ratio margin of Artetxe & Schwenk (2019), eq. 2 to 4, with cos over the raw vectors:
    margin(x, y) = cos(x, y) / ( sum_{z in NN_k(x)} cos(x, z) / 2k + sum_{z in NN_k(y)} cos(y, z) / 2k ).
    """
    raw = vectors if raw is None else raw
    left, right = candidates.left, candidates.right
    centred = _row_dots(vectors, left, right)
    cosine = _row_dots(raw, left, right)
    mean_l, other_l, rank_l = _neighbourhood(candidates, vectors, languages, centred, "left")
    mean_r, other_r, rank_r = _neighbourhood(candidates, vectors, languages, centred, "right")
    raw_mean_l, raw_mean_r = _raw_means(candidates, raw, languages)
    gap_l, gap_r = centred - other_l, centred - other_r
    numbers = [numbers_in(text) for text in texts]
    lengths = np.log([max(1, len(text)) for text in texts])
    code = np.array([bool(_CODE.search(text)) for text in texts])
    shared = np.array([sum((numbers[a] & numbers[b]).values()) for a, b in zip(left, right, strict=True)], dtype=float)
    either = np.array([max(numbers[a].total(), numbers[b].total()) for a, b in zip(left, right, strict=True)], dtype=float)
    agreement = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
    return pd.DataFrame({
        "cosine": cosine, "centred": centred, "margin": cosine / np.maximum(1e-3, (raw_mean_l + raw_mean_r) / 2),
        "distance": centred - (mean_l + mean_r) / 2, "gap_best": np.maximum(gap_l, gap_r), "gap_worst": np.minimum(gap_l, gap_r),
        "mutual": ((rank_l == 1) & (rank_r == 1)).astype(float), "rank": np.log(np.maximum(rank_l, rank_r)),
        "numbers_agree": np.where(either > 0, agreement, 0.0), "numbers_differ": np.where(either > 0, 1 - agreement, 0.0),
        "length": _length_surprise(lengths, left, right, languages), "short": np.minimum(lengths[left], lengths[right]),
        "code": (code[left] != code[right]).astype(float),
    }, columns=list(FEATURES))


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
            table[rows] = dots.mean(axis=1)
    pick = np.zeros((2, len(candidates.left)), np.float32)
    for target, table in means.items():
        for side, (here, there) in enumerate(((candidates.left, candidates.right), (candidates.right, candidates.left))):
            chosen = codes[there] == target
            pick[side, chosen] = table[here[chosen]]
    return pick[0], pick[1]


def _length_surprise(lengths: np.ndarray, left: np.ndarray, right: np.ndarray, languages: Sequence[str]) -> np.ndarray:
    """How far the log ratio of two texts' lengths is from the ratio of their languages' median lengths."""
    codes = np.asarray(languages)
    medians = {code: float(np.median(lengths[codes == code])) for code in dict.fromkeys(languages)}
    usual = np.array([medians[code] for code in codes])
    return np.abs((lengths[left] - lengths[right]) - (usual[left] - usual[right]))
