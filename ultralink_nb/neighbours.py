"""Nearest neighbours with FAISS, searched per ordered pair of languages.

One index over everything would return neighbours of the same language first; an index a language, asked by each other
language, returns what the analysis is about. Exact search below `EXACT_LIMIT` rows, an inverted file in half precision above it;
on the GPU where `faiss.get_num_gpus()` finds one.
"""

from dataclasses import dataclass

import faiss
import numpy as np

from ultralink_nb.errors import KitError
from ultralink_nb.vectors import Centred

EXACT_LIMIT = 20_000
KINDS = ("auto", "exact", "ivf")


@dataclass(frozen=True)
class Neighbours:
    """For each row that was looked up its k best rows of one language, best first.

    similarity: (m, k) float32, centred cosine, -1 where there is none; rows: (m, k) int32, row numbers of all languages' table,
    -1 where there are fewer than k. queries: (m,) int32, the row numbers that were looked up, ascending.
    """

    similarity: np.ndarray
    rows: np.ndarray
    queries: np.ndarray


def search_between(
    centred: Centred, k: int, kind: str = "auto", rows: np.ndarray | None = None
) -> dict[tuple[str, str], Neighbours]:
    """Neighbours for every ordered pair of different languages: {(source, target): the k best of target for each row of source}.

    kind: `exact`, `ivf`, or `auto`. rows: the row numbers that take part, as queries and as answers; None for all.
    """
    members = _members(centred, k, kind, rows)
    return {
        (source, target): _search(centred, members[source], members[target], k, kind)
        for target in members for source in members if source != target
    }


def search_within(centred: Centred, k: int, kind: str = "auto", rows: np.ndarray | None = None) -> dict[str, Neighbours]:
    """Neighbours within each language, the row itself left out: {language: the k best others for each of its rows}."""
    return {
        code: _search(centred, members, members, k, kind, itself=False)
        for code, members in _members(centred, k, kind, rows).items()
    }


def _members(centred: Centred, k: int, kind: str, rows: np.ndarray | None) -> dict[str, np.ndarray]:
    if kind not in KINDS:
        raise KitError(f"unknown kind of search {kind!r}: choose {', '.join(KINDS)}")
    if k < 1:
        raise KitError(f"k is {k}: at least one neighbour must be asked for")
    if rows is None:
        return centred.members
    chosen = np.zeros(len(centred), bool)
    chosen[rows] = True
    return {code: members[chosen[members]] for code, members in centred.members.items()}


def _search(centred: Centred, source: np.ndarray, target: np.ndarray, k: int, kind: str, itself: bool = True) -> Neighbours:
    queries = np.ascontiguousarray(centred.vectors[source], dtype=np.float32)
    vectors = np.ascontiguousarray(centred.vectors[target], dtype=np.float32)
    similarity, rows = np.full((len(source), k), -1, np.float32), np.full((len(source), k), -1, np.int32)
    asked = min(k if itself else k + 1, len(target))
    if asked and len(source):
        if kind == "ivf" or (kind == "auto" and len(target) > EXACT_LIMIT):
            lists = int(max(1, min(4 * np.sqrt(len(target)), len(target) / 39)))
            index = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
            index.nprobe = 8
            index = _on_gpus(index)
            index.train(vectors[:: max(1, len(vectors) // (64 * lists))])
            index.add(vectors)
            found, ids = index.search(queries, asked)
        elif faiss.get_num_gpus():
            index = _on_gpus(faiss.IndexFlatIP(vectors.shape[1]))
            index.add(vectors)
            found, ids = index.search(queries, asked)
        else:
            found, ids = faiss.knn(queries, vectors, asked, faiss.METRIC_INNER_PRODUCT)
        ids = np.where(ids >= 0, target[ids], -1)
        ids[(centred.length[np.maximum(ids, 0)] == 0) | (centred.length[source] == 0)[:, None]] = -1
        if not itself:
            ids[ids == source[:, None]] = -1
        order = np.argsort(ids < 0, axis=1, kind="stable")[:, :k]
        ids, found = np.take_along_axis(ids, order, 1), np.take_along_axis(found, order, 1)
        rows[:, : ids.shape[1]], similarity[:, : ids.shape[1]] = ids, np.where(ids >= 0, found, -1)
    return Neighbours(similarity, rows, source)


def _on_gpus(index: faiss.Index) -> faiss.Index:
    """The index on every GPU that FAISS finds, its vectors shared out among them; as it is where there is none."""
    if not faiss.get_num_gpus():
        return index
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    return faiss.index_cpu_to_all_gpus(index, co=options)


def recall_against_exact(
    centred: Centred, found: dict[tuple[str, str], Neighbours] | dict[str, Neighbours], sample: int = 1000, seed: int = 0
) -> float:
    """Share of the true best neighbours that the search found, by exact search for a sample of rows per pair of languages.

    A neighbour as similar as the best, within what half precision rounds, counts as the best. 1 where nothing was asked.
    """
    rng = np.random.default_rng(seed)
    hits = asked = 0
    for pair, neighbours in found.items():
        target = pair if isinstance(pair, str) else pair[1]
        members = centred.members[target]
        chosen = rng.choice(len(neighbours.queries), size=min(sample, len(neighbours.queries)), replace=False)
        chosen = chosen[centred.length[neighbours.queries[chosen]] > 0]
        if not len(chosen) or not len(members):
            continue
        asked_rows = neighbours.queries[chosen]
        queries = np.asarray(centred.vectors[asked_rows], dtype=np.float32)
        best = np.full(len(chosen), -1, np.float32)
        for start in range(0, len(members), 16_384):
            block = members[start : start + 16_384]
            dots = queries @ np.asarray(centred.vectors[block], dtype=np.float32).T
            dots[(asked_rows[:, None] == block) | (centred.length[block] == 0)] = -1
            best = np.maximum(best, dots.max(axis=1))
        hits += int(np.sum(neighbours.similarity[chosen, 0] >= best - 2e-3))
        asked += len(chosen)
    return hits / asked if asked else 1.0
