"""Nearest neighbours with FAISS, searched per ordered pair of languages.

One index over everything would return neighbours of the same language first; an index a language, asked by each other
language, returns what the analysis is about. Exact search below `EXACT_LIMIT` rows, an inverted file in half precision above it;
on the GPU where `faiss.get_num_gpus()` finds one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from tqdm.auto import tqdm

EXACT_LIMIT = 50_000


@dataclass(frozen=True)
class Neighbours:
    """For one ordered pair of languages: for each query row its k best rows of the other language, best first.

    similarity: (n, k) float32, the inner product; rows: (n, k) int64 into the target's rows, -1 where there are fewer.
    """

    similarity: np.ndarray
    rows: np.ndarray


def build_index(vectors: np.ndarray, kind: str = "auto") -> faiss.Index:
    """A FAISS index for inner products over `vectors` (n, d).

    kind: `exact`, `ivf`, or `auto`, which is exact up to `EXACT_LIMIT` rows.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    n, d = vectors.shape
    if kind == "exact" or (kind == "auto" and n <= EXACT_LIMIT):
        index = faiss.IndexFlatIP(d)
    else:
        lists = int(max(1, min(4 * np.sqrt(n), n / 39)))
        index = faiss.index_factory(d, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
        faiss.extract_index_ivf(index).nprobe = max(16, lists // 64)
    if faiss.get_num_gpus():
        index = faiss.index_cpu_to_all_gpus(index)
    if not index.is_trained:
        sample = np.random.default_rng(0).choice(n, size=min(n, 64 * lists), replace=False)
        index.train(vectors[np.sort(sample)])
    index.add(vectors)
    return index


def search(index: faiss.Index, queries: np.ndarray, k: int) -> Neighbours:
    """The k best rows of an index for each query; k is cut to the size of the index."""
    k = min(k, index.ntotal)
    if k == 0 or not len(queries):
        return Neighbours(np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64))
    similarity, rows = index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
    return Neighbours(similarity, rows)


def search_between(
    vectors: np.ndarray, languages: Sequence[str], k: int, kind: str = "auto"
) -> dict[tuple[str, str], Neighbours]:
    """Neighbours for every ordered pair of different languages; `rows` are row numbers of `vectors`.

    vectors: (n, d) of length one. languages: the n rows' codes. Returns {(a, b): for each row of a, in order, its k best of b}.
    """
    codes = np.asarray(languages)
    members = {code: np.flatnonzero(codes == code) for code in dict.fromkeys(languages)}
    found: dict[tuple[str, str], Neighbours] = {}
    for target, target_rows in tqdm(members.items(), desc="searching neighbours", unit="language", disable=None):
        index = build_index(vectors[target_rows], kind)
        for source, source_rows in members.items():
            if source != target:
                hits = search(index, vectors[source_rows], k)
                rows = np.where(hits.rows >= 0, target_rows[hits.rows], -1)
                found[source, target] = Neighbours(hits.similarity, rows)
    return found


def recall_against_exact(
    vectors: np.ndarray, languages: Sequence[str], found: dict[tuple[str, str], Neighbours], sample: int = 1000, seed: int = 0
) -> float:
    """Share of the true best neighbours that the search found, measured by exact search on a sample of rows per pair."""
    codes, rng = np.asarray(languages), np.random.default_rng(seed)
    hits = asked = 0
    for (source, target), neighbours in found.items():
        if not neighbours.rows.shape[1]:
            continue
        chosen = rng.choice(len(neighbours.rows), size=min(sample, len(neighbours.rows)), replace=False)
        queries = vectors[np.flatnonzero(codes == source)[chosen]]
        best = np.max(queries @ vectors[codes == target].T, axis=1)
        hits += int(np.sum(neighbours.similarity[chosen, 0] >= best - 2e-3))  # half precision moves a cosine by about 1e-3
        asked += len(chosen)
    return hits / asked if asked else 1.0
