"""What others use to find repetition, on the same vectors: SemHash, paraphrase mining, SemDeDup-style k-means.

Vectors in, pairs of row numbers out, each unordered pair once. All three search one pool: pairs of one language are among what
they return, and the caller keeps or drops them. Each has its own default, cited beside it, and returns a score to find a better
threshold with. SemHash is an optional package: pip install semhash==0.5.0.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import faiss
import numpy as np

from ultralink_nb.errors import KitError

# SemHash.self_deduplicate(threshold=0.9), semhash 0.5.0.
SEMHASH_THRESHOLD = 0.9
# paraphrase_mining has no threshold; 0.75 is the default of its sister community_detection in sentence_transformers.util.
MINING_THRESHOLD = 0.75
# 1 - eps with eps = 0.01, the default of NeMo Curator (its docs, "Semantic Deduplication", key parameters).
SEMDEDUP_THRESHOLD = 0.99


class Pairs(NamedTuple):
    """Pairs of rows, each unordered pair once: left < right (m,) int64, score (m,) float32, a cosine in [-1, 1]."""

    left: np.ndarray
    right: np.ndarray
    score: np.ndarray


class PeerMissing(KitError, ImportError):
    """A peer that is not installed."""


class _RowEncoder:
    """SemHash's Encoder protocol over vectors that exist already: the text of a record is its row number."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def encode(self, inputs: Sequence[str] | str, **_: Any) -> np.ndarray:
        return self._vectors[np.asarray(inputs, dtype=np.int64)]


def _semhash(vectors: np.ndarray):
    try:
        from semhash import SemHash
    except ImportError:
        raise PeerMissing("the comparison with SemHash needs its package: pip install semhash==0.5.0") from None
    names = [str(row) for row in range(len(vectors))]
    return SemHash.from_embeddings(embeddings=vectors, records=names, model=_RowEncoder(vectors))


def _stands_for(result, n: int) -> np.ndarray:
    stands = np.arange(n)
    for duplicate in result.filtered:
        stands[int(duplicate.record)] = int(duplicate.duplicate_of)
    return stands


def semhash_groups(vectors: np.ndarray, thresholds: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
    """For each threshold, ascending: SemHash's groups, as the row that stands for each row, (n,) int64, itself if selected.

    vectors: (n, d) float32. One index and one search at the lowest threshold serve all, by SemHash's own `rethreshold`.
    """
    thresholds = sorted(thresholds)
    result = _semhash(vectors).self_deduplicate(threshold=thresholds[0])
    for threshold in thresholds:
        result.rethreshold(threshold)
        yield threshold, _stands_for(result, len(vectors))


def pairs_of_groups(stands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every two rows that one row stands for: left < right, both (m,) int64; quadratic in the size of a group."""
    order = np.argsort(stands, kind="stable")
    start = np.flatnonzero(np.diff(stands[order], prepend=-1))
    size = np.diff(np.append(start, len(order)))
    position = np.arange(len(order)) - np.repeat(start, size)  # of each row in its group; it pairs with those before it
    right = np.repeat(np.arange(len(order)), position)
    left = np.arange(len(right)) - np.repeat(np.cumsum(position) - position, position) + np.repeat(
        np.repeat(start, size), position)
    return order[left], order[right]


def semhash_pairs(vectors: np.ndarray, threshold: float = SEMHASH_THRESHOLD) -> Pairs:
    """SemHash 0.5 (MinishLab; HNSW by usearch, then greedy selection in input order) on its defaults.

    vectors: (n, d) float32. SemHash names for each duplicate the selected row that it repeats; all rows that repeat the same
    one are taken as pairs of each other too, which is what removing them says. The score is their cosine.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    left, right = pairs_of_groups(_stands_for(_semhash(vectors).self_deduplicate(threshold=threshold), len(vectors)))
    return Pairs(left, right, cosines(vectors, left, right))


def semhash_neighbours(vectors: np.ndarray, threshold: float) -> Pairs:
    """SemHash's search without its selection: every pair at or above the threshold that its index finds from either side.

    vectors: (n, d) float32. It looks at the 1,000 nearest of a row at most.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    near = _semhash(vectors).index.query_threshold(vectors, threshold=threshold)
    row = np.repeat(np.arange(len(near)), [len(rows) for rows, _ in near])
    other = np.concatenate([rows for rows, _ in near]).astype(np.int64)
    chosen = row != other
    left, right = np.minimum(row, other)[chosen], np.maximum(row, other)[chosen]
    left, right = np.divmod(np.unique(left * len(vectors) + right), len(vectors))
    return Pairs(left, right, cosines(vectors, left, right))


def paraphrase_mining_pairs(
    vectors: np.ndarray,
    top_k: int = 100,
    max_pairs: int = 500_000,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100_000,
    threshold: float = -1.0,
) -> Pairs:
    """sentence_transformers.util.paraphrase_mining_embeddings on its documented defaults: exact search, the max_pairs best.

    vectors: (n, d) float32. threshold: the lowest cosine returned; it has none of its own. A block of scores takes
    query_chunk_size × min(n, corpus_chunk_size) × 4 bytes, 2 GB from 100,000 rows on.
    """
    import torch
    from sentence_transformers.util import paraphrase_mining_embeddings

    mined = paraphrase_mining_embeddings(
        torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32)), query_chunk_size=query_chunk_size,
        corpus_chunk_size=corpus_chunk_size, max_pairs=max_pairs, top_k=top_k,
    )
    table = np.array(mined, dtype=np.float64).reshape(-1, 3)
    del mined
    table = table[table[:, 0] >= threshold]
    return Pairs(table[:, 1].astype(np.int64), table[:, 2].astype(np.int64), table[:, 0].astype(np.float32))


def default_clusters(n: int) -> int:
    """sqrt(n) clusters: the 100 and 1,000 that NeMo Curator defaults to and recommends at 10,000 and 1,000,000 rows.

    Abbas et al. take 50,000 for 440 million images, 2.4 sqrt(n).
    """
    return max(1, round(n**0.5))


def semdedup_pairs(
    vectors: np.ndarray, n_clusters: int | None = None, threshold: float = SEMDEDUP_THRESHOLD, iterations: int = 100,
    seed: int = 1234,
) -> Pairs:
    """SemDeDup (Abbas et al., 2023, arXiv 2303.09540, Section 3): spherical k-means, then all cosines within a cluster.

    vectors: (n, d) float32. n_clusters: `default_clusters` if None. threshold: 1 - eps, the lowest cosine returned. iterations
    and seed are those of the authors' code, as is FAISS for the clustering. They remove a row if any row before it in its
    cluster is closer than the threshold; here every such pair is returned, which can only help its recall.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    n, d = vectors.shape
    kmeans = faiss.Kmeans(d, n_clusters or default_clusters(n), niter=iterations, seed=seed, spherical=True, verbose=False,
                          min_points_per_centroid=1)
    kmeans.train(vectors)
    cluster = kmeans.index.search(vectors, 1)[1][:, 0]
    order = np.argsort(cluster, kind="stable")
    parts = []
    for rows in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
        for start in range(0, len(rows), 1024):
            block = vectors[rows[start : start + 1024]] @ vectors[rows[: start + 1024]].T  # rows of a cluster ascend
            here, before = np.nonzero(block >= threshold)
            earlier = before < here + start
            here, before = here[earlier], before[earlier]
            parts.append((rows[before], rows[here + start], block[here, before]))
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True))) if parts else Pairs(
        np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def cosines(vectors: np.ndarray, left: np.ndarray, right: np.ndarray, step: int = 100_000) -> np.ndarray:
    """Inner products of pairs of rows, (m,) float32, in blocks of `step` pairs."""
    dots = np.empty(len(left), dtype=np.float32)
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        dots[part] = np.einsum("ij,ij->i", vectors[left[part]], vectors[right[part]])
    return dots
