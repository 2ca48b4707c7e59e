"""Nearest neighbours with FAISS, searched per ordered pair of languages.

One index over everything would return neighbours of the same language first; an index a language, asked by each other
language, returns what the analysis is about. Small languages are searched exactly. Large ones are searched in lists: centred
languages lie on top of each other, so one clustering and one product quantiser, trained once on a sample of all of them, serve
every language, and a row's nearest clusters are found once for all. FAISS scans the codes of these clusters ("fast scan": André
et al., 2015, 2019), and the short list that it returns is ranked by exact cosines. Rows are read in blocks, in the order of their
cluster: an array on disk is never in memory as a whole. On a GPU, or several, the search is exact.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import faiss
import numpy as np
from tqdm.auto import tqdm

from ultralink_nb.engine import Engine, LocalEngine
from ultralink_nb.errors import KitError
from ultralink_nb.vectors import Centred, read_rows

KINDS = ("auto", "exact", "ivf")
EXACT_LIMIT = 4096  # rows of a language up to which comparing with all of them is as fast as the lists
BLOCK = 8192  # queries at a time
DIMENSIONS = 256  # principal components that clusters and codes are made of; 4 of them share a code of 4 bits
PROBES, MOST_PROBES = 16, 64  # clusters scanned for a query: in the largest language, and in one with few rows
LISTS_PER_ROOT = 4  # clusters: this times the root of the largest language's rows
SUB = 4  # dimensions that share a code
SHORT_LIST = 16  # rows per query and language that are ranked exactly, at least; four for each neighbour asked for


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
    centred: Centred, k: int, kind: str = "auto", rows: np.ndarray | None = None,
    engine: Engine = LocalEngine(),  # noqa: B008 (it has no state)
) -> dict[tuple[str, str], Neighbours]:
    """Neighbours for every ordered pair of different languages: {(source, target): the k best of target for each source row}.

    kind: `exact`, `ivf` (in lists), or `auto`, which is exact for a language of at most `EXACT_LIMIT` rows and on a GPU. rows:
    the row numbers that take part, as queries and as answers; None for all. Equal vectors come in the order of their rows.
    engine: where the search runs: exact comparisons block against block, lists (made here) one target language after the other.
    """
    return _search(centred, k, kind, rows, [(a, b) for b in centred.languages for a in centred.languages if a != b], engine)


def search_within(centred: Centred, k: int, kind: str = "auto", rows: np.ndarray | None = None) -> dict[str, Neighbours]:
    """Neighbours within each language, the row itself left out: {language: the k best others for each of its rows}."""
    return {code: found for (code, _), found in _search(centred, k, kind, rows, [(a, a) for a in centred.languages]).items()}


def recall_against_exact(
    centred: Centred, found: Mapping[tuple[str, str], Neighbours] | Mapping[str, Neighbours], sample: int = 1000, seed: int = 0,
    closer_than: float = -1.0, rows: np.ndarray | None = None,
) -> float:
    """Share of the true best neighbours that the search found, by exact search for a sample of rows per pair of languages.

    closer_than: only best neighbours of at least this cosine count; who is alone has a best neighbour too, but it says nothing.
    rows: those that took part in the search. A neighbour as similar as the best, within what half precision rounds, counts
    as the best. 1 where nothing was asked.
    """
    rng, hits, asked = np.random.default_rng(seed), 0, 0
    members = {code: part.all for code, part in _parts(centred, rows).items()}
    queries, listed = {}, {}
    for pair, neighbours in found.items():
        target = pair if isinstance(pair, str) else pair[1]
        chosen = np.sort(rng.choice(len(neighbours.queries), size=min(sample, len(neighbours.queries)), replace=False))
        chosen = chosen[centred.length[neighbours.queries[chosen]] > 0]
        queries.setdefault(target, []).append(neighbours.queries[chosen])
        listed.setdefault(target, []).append(neighbours.similarity[chosen, 0])
    for target in queries:
        own, similarity = np.concatenate(queries[target]), np.concatenate(listed[target])
        vectors, best = read_rows(centred.vectors, own), np.full(len(own), -1, np.float32)
        for start in range(0, len(members[target]), BLOCK):
            block = members[target][start : start + BLOCK]
            dots = vectors @ read_rows(centred.vectors, block).T
            dots[own[:, None] == block] = -1
            best = np.maximum(best, dots.max(axis=1))
        counted = best >= max(closer_than, -0.999)
        hits += int(np.sum(similarity[counted] >= best[counted] - 2e-3))
        asked += int(counted.sum())
    return hits / asked if asked else 1.0


@dataclass(frozen=True)
class _Part:
    """The rows of a language that take part; equal vectors are searched once, for the lowest row.

    all: (m,) ascending; shown: (m,) bool, not zero; distinct: (u,); copies: the rows that are shown, those of distinct[i] at
    start[i] : start[i] + count[i]; which: position in `distinct` of each row that is shown.
    """

    all: np.ndarray
    shown: np.ndarray
    distinct: np.ndarray
    which: np.ndarray
    copies: np.ndarray
    start: np.ndarray
    count: np.ndarray


def _parts(centred: Centred, rows: np.ndarray | None) -> dict[str, _Part]:
    takes_part = np.ones(len(centred), bool)
    if rows is not None:
        takes_part[:] = False
        takes_part[rows] = True
    parts = {}
    for code, members in centred.members.items():
        members = members[takes_part[members]]
        shown = centred.length[members] > 0
        visible = members[shown]
        _, lowest, same, count = np.unique(centred.first[visible], return_index=True, return_inverse=True, return_counts=True)
        order = np.argsort(lowest)  # by row, not by the number of a row elsewhere
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        which, count = rank[same], count[order]
        copies = visible[np.argsort(which, kind="stable")]
        parts[code] = _Part(members, shown, visible[lowest[order]], which, copies, np.cumsum(count) - count, count)
    return parts


def _search(
    centred: Centred, k: int, kind: str, rows: np.ndarray | None, pairs: list[tuple[str, str]],
    engine: Engine = LocalEngine(),  # noqa: B008
) -> dict[tuple[str, str], Neighbours]:
    if kind not in KINDS:
        raise KitError(f"unknown kind of search {kind!r}: choose {', '.join(KINDS)}")
    if k < 1:
        raise KitError(f"k is {k}: at least one neighbour must be asked for")
    parts = _parts(centred, rows)
    sizes = {code: len(part.distinct) for code, part in parts.items()}
    limit = {"exact": np.inf, "auto": np.inf if faiss.get_num_gpus() else EXACT_LIMIT, "ivf": 0}[kind]
    in_lists = {target for _, target in pairs if sizes[target] > limit and sum(sizes.values()) >= 256}
    found: dict[tuple[str, str], Neighbours] = {}
    with tqdm(total=sum(sizes[a] for a, _ in pairs), desc="searching neighbours", unit="row", disable=None) as progress:
        exact = [(a, b, min(k + (a == b), sizes[b])) for a, b in pairs if b not in in_lists]
        compared = _exact_far(centred, {code: part.distinct for code, part in parts.items()}, exact, engine) if engine.far else (
            _exact(centred, parts[a].distinct, parts[b].distinct, wanted) for a, b, wanted in exact)
        for (source, target, _), raw in zip(exact, compared, strict=True):
            found[source, target] = _expanded(*raw, parts[source], parts[target], k, source == target)
            progress.update(sizes[source])
        if in_lists:
            lists = _Lists(centred, {code: part.distinct for code, part in parts.items()}, in_lists)
            asked = [(target, [a for a, b in pairs if b == target]) for target in sorted(in_lists)]
            shared = engine.share(lists)
            jobs = ((shared, target, sources, k + (target in sources)) for target, sources in asked)
            for (target, sources), raws in zip(asked, engine.map(_Lists.search, jobs), strict=True):
                for source in sources:
                    found[source, target] = _expanded(*raws.pop(source), parts[source], parts[target], k, source == target)
                    progress.update(sizes[source])
    return {pair: found[pair] for pair in pairs}


def _expanded(
    similarity: np.ndarray, at: np.ndarray, source: _Part, target: _Part, k: int, within: bool
) -> Neighbours:
    """From the neighbours of distinct vectors, as positions `at` in the target's (u, wanted), to those of all rows."""
    rows = np.full((len(source.all), k), -1, np.int32)
    cosines = np.full((len(source.all), k), -1, np.float32)
    if at.shape[1] and len(source.which):
        similarity, at = similarity[source.which], at[source.which]
        queries = source.all[source.shown]
        if within or len(target.copies) > len(target.distinct):
            count = np.where(at >= 0, target.count[at], 0)
            ends, slots = np.cumsum(count, axis=1), np.arange(k + within)
            column = (ends[:, :, None] <= slots).sum(axis=1)
            beyond = column == at.shape[1]
            column[beyond] = 0
            place = np.take_along_axis(at, column, 1)
            offset = slots - np.take_along_axis(ends - count, column, 1)
            hits = np.where(beyond, -1, target.copies[np.where(beyond, 0, target.start[place] + offset)])
            similarity = np.take_along_axis(similarity, column, 1)
            if within:
                last = np.argsort((hits == queries[:, None]) | (hits < 0), axis=1, kind="stable")[:, :k]
                itself = np.take_along_axis(hits, last, 1) == queries[:, None]
                hits = np.where(itself, -1, np.take_along_axis(hits, last, 1))
                similarity = np.take_along_axis(similarity, last, 1)
        else:
            hits = np.where(at >= 0, target.distinct[at], -1)
        rows[source.shown, : hits.shape[1]] = hits
        cosines[source.shown, : hits.shape[1]] = np.where(hits >= 0, similarity, -1)
    return Neighbours(cosines, rows, source.all)


def _exact(centred: Centred, source: np.ndarray, target: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Best k of target for each of source: inner products and positions in target, (m, k) each; on every GPU that there is."""
    similarity, at = np.full((len(source), k), -1, np.float32), np.full((len(source), k), -1, np.int64)
    if k == 0 or not len(source):
        return similarity, at
    gpus = [(faiss.StandardGpuResources(), number) for number in range(faiss.get_num_gpus())]
    step = 8 * BLOCK

    def compare(queries: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        best = min(k, len(vectors))
        if not gpus:
            return faiss.knn(queries, vectors, best, faiss.METRIC_INNER_PRODUCT)
        with ThreadPoolExecutor(len(gpus)) as pool:
            shares = np.array_split(queries, len(gpus))
            results = pool.map(lambda gpu, share: faiss.knn_gpu(
                gpu[0], share, vectors, best, metric=faiss.METRIC_INNER_PRODUCT, device=gpu[1]), gpus, shares)
            return tuple(np.concatenate(column) for column in zip(*results, strict=True))

    for start in range(0, len(source), step):
        queries = read_rows(centred.vectors, source[start : start + step])
        heap = faiss.ResultHeap(len(queries), k, keep_max=True)
        for first in range(0, len(target), step):
            found, ids = compare(queries, read_rows(centred.vectors, target[first : first + step]))
            heap.add_result(found, ids + first)
        heap.finalize()
        similarity[start : start + step], at[start : start + step] = heap.D, heap.I
    return similarity, at


def _compare(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    queries, vectors = (read_rows(block, slice(None)) for block in (queries, vectors))
    return faiss.knn(queries, vectors, min(k, len(vectors)), faiss.METRIC_INNER_PRODUCT)


def _exact_far(
    centred: Centred, rows: Mapping[str, np.ndarray], asked: list[tuple[str, str, int]], engine: Engine
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What `_exact` gives for each (source, target, k), its blocks compared on an engine's nodes; each block goes out once."""
    step = 8 * BLOCK
    used = {code for source, target, _ in asked for code in (source, target)}
    shared = {code: [engine.share(np.asarray(centred.vectors[rows[code][start : start + step]]))
                     for start in range(0, len(rows[code]), step)] for code in used}
    found = engine.map(_compare, ((queries, vectors, k) for source, target, k in asked
                                  for queries in shared[source] for vectors in shared[target]))
    for source, target, k in asked:
        similarity, at = np.full((len(rows[source]), k), -1, np.float32), np.full((len(rows[source]), k), -1, np.int64)
        for number in range(len(shared[source]) if shared[target] else 0):
            part = slice(number * step, (number + 1) * step)
            heap = faiss.ResultHeap(len(at[part]), k, keep_max=True)
            for first in range(len(shared[target])):
                cosines, ids = next(found)
                heap.add_result(cosines, ids + first * step)
            heap.finalize()
            similarity[part], at[part] = heap.D, heap.I
        yield similarity, at


class _Lists:
    """The clustering that all languages share, the nearest clusters of every row, and each target's codes by cluster."""

    def __init__(self, centred: Centred, rows: dict[str, np.ndarray], targets: set[str]) -> None:
        self.centred, self.rows = centred, rows
        largest = max(len(members) for members in rows.values())
        everyone = np.concatenate(list(rows.values()))
        n_lists = int(max(1, min(LISTS_PER_ROOT * largest**0.5, len(everyone) / 39)))
        self.probes = {
            target: int(min(MOST_PROBES, n_lists, PROBES * (largest / len(rows[target])) ** 0.5)) for target in targets
        }
        self._train(everyone, n_lists)
        self._assign(everyone, targets)

    def _train(self, everyone: np.ndarray, n_lists: int) -> None:
        """Principal components in random rotation (so that each code carries as much), the clusters, the quantiser."""
        rng = np.random.default_rng(0)
        chosen = np.sort(rng.choice(everyone, size=min(len(everyone), max(8192, 48 * n_lists)), replace=False))
        sample = read_rows(self.centred.vectors, chosen)
        d = min(DIMENSIONS, -4 * (-sample.shape[1] // 4))
        some = sample[rng.permutation(len(sample))[:32_768]]
        components = np.linalg.eigh(some.T @ some)[1][:, ::-1][:, :d]
        turn = np.linalg.qr(rng.normal(size=(d, d)))[0].astype(np.float32)
        self.projection = components @ turn[: components.shape[1]]
        projected = sample @ self.projection
        clustering = faiss.Clustering(d, n_lists)
        clustering.niter, clustering.spherical, clustering.seed, clustering.min_points_per_centroid = 6, True, 1, 1
        self.quantizer = faiss.IndexFlatIP(d)
        clustering.train(projected, self.quantizer)
        self.codes = faiss.IndexIVFPQ(self.quantizer, d, n_lists, d // SUB, 4, faiss.METRIC_INNER_PRODUCT)
        self.codes.by_residual, self.codes.pq.cp.niter, self.codes.pq.cp.min_points_per_centroid = False, 6, 1
        self.codes.train(projected[:: max(1, len(projected) // 32_768)])

    def _assign(self, everyone: np.ndarray, targets: set[str]) -> None:
        n_probes = max(self.probes.values())
        self.nearest = np.empty((len(self.centred), n_probes), np.int16 if self.quantizer.ntotal < 2**15 else np.int32)
        self.index = {}
        held = np.empty((BLOCK, self.centred.vectors.shape[1]), np.float32)
        for code, members in self.rows.items():
            index = faiss.clone_index(self.codes) if code in targets else None
            for start in range(0, len(members), BLOCK):
                rows = members[start : start + BLOCK]
                block = read_rows(self.centred.vectors, rows, held) @ self.projection
                nearest = self.quantizer.search(block, n_probes)[1]
                self.nearest[rows] = nearest
                if index:
                    own = np.ascontiguousarray(nearest[:, 0])
                    index.add_core(len(rows), faiss.swig_ptr(block), None, faiss.swig_ptr(own))
            if index:
                self.index[code] = faiss.IndexIVFPQFastScan(index)
                self.index[code].quantizer = self.quantizer  # the clone's goes with the clone
        order = np.argsort(self.nearest[everyone, 0], kind="stable")
        self.order = everyone[order]

    def search(self, target: str, sources: list[str], k: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{source: inner products and positions in the target's rows, (m, k) each, of the best k for each row of source}."""
        centred, rows, index, probes = self.centred, self.rows[target], self.index[target], self.probes[target]
        index.nprobe = probes
        asked = np.isin(centred.codes[self.order], [centred.languages.index(source) for source in sources])
        order, size = self.order[asked], max(SHORT_LIST, 4 * k)
        place = np.empty(len(centred), np.int32)
        for source in sources:
            place[self.rows[source]] = np.arange(len(self.rows[source]))
        found = {
            source: (np.empty((len(self.rows[source]), k), np.float32), np.empty((len(self.rows[source]), k), np.int64))
            for source in sources
        }
        needed, position = np.zeros(len(rows), bool), np.empty(len(rows), np.int64)
        held, held_others = (np.empty((BLOCK, centred.vectors.shape[1]), np.float32) for _ in range(2))
        for start in range(0, len(order), BLOCK):
            asking = order[start : start + BLOCK]
            queries = read_rows(centred.vectors, asking, held)
            nearest = self.nearest[asking, :probes].astype(np.int64)
            short = index.search_preassigned(queries @ self.projection, size, nearest, np.zeros(nearest.shape, np.float32))[1]
            needed[short[short >= 0]] = True
            listed = np.flatnonzero(needed)
            position[listed], needed[listed] = np.arange(len(listed)), False
            if len(listed) > len(held_others):
                held_others = np.empty((len(listed), held.shape[1]), np.float32)
            others = read_rows(centred.vectors, rows[listed], held_others)
            short = np.where(short >= 0, position[short], -1)
            best, at = np.empty((len(asking), k), np.float32), np.empty((len(asking), k), np.int64)
            pointers = map(faiss.swig_ptr, (queries, others, short))
            faiss.knn_inner_products_by_idx(
                *pointers, held.shape[1], len(asking), len(others), size, k, faiss.swig_ptr(best), faiss.swig_ptr(at), size)
            at = np.where(at >= 0, listed[at], -1)
            codes = centred.codes[asking]
            for source in sources:
                chosen = codes == centred.languages.index(source)
                to = place[asking[chosen]]
                found[source][0][to], found[source][1][to] = best[chosen], at[chosen]
        return found
