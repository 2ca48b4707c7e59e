"""Quality beside the peers: pairs across languages against labels, and how far a probability can be trusted.

    python benchmarks/quality.py FOLDER [--encoder use] [--cache-dir .cache] [--sets NAME …]

FOLDER holds labelled sets as JSONL: rows {id, language, kind, messages, group, localised?}. Rows of one group in different
languages are the true pairs; a localised row was rewritten for its own culture, asks something else and has a group of its own.
Every method gets the same vectors. The peers search one pool; what they find within a language is left out, neither for nor
against them. Each is shown at its default and at the best threshold that the labels of the same set give away, which no user
has; ours never sees the labels of the set it is scored on. A set of n rows takes about 5 n² bytes for all its cosines.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import fit_calibration
import numpy as np
import pandas as pd
import peers

from ultralink_nb.calibration import expected_calibration_error, reliability
from ultralink_nb.embedding import Encoder, embed, open_encoder, sample_text


@dataclass(frozen=True)
class LabelledSet:
    """One labelled set of n rows.

    samples: the rows as read. languages: (n,) str. content: (n,) int, equal for rows of the same content. vectors: (n, d)
    float32 of length one, the encoder's own. true: how many pairs across languages have the same content.
    """

    name: str
    samples: list[dict[str, Any]]
    languages: np.ndarray
    content: np.ndarray
    vectors: np.ndarray
    true: int


class Found(NamedTuple):
    """What pairs are worth against the labels: threshold, number of pairs found, precision, recall, F1, each in [0, 1]."""

    threshold: float
    found: int
    precision: float
    recall: float
    f1: float


Probabilities = tuple[np.ndarray, np.ndarray, np.ndarray]


def ours(folder: Path, documents: Path | None, encoder: Encoder, cache_dir: str) -> dict[str, Probabilities]:
    """Our pairs of each set, fitted on the other sets only: left (m,), right (m,) row numbers, probability (m,) in [0, 1]."""
    sets, measured = fit_calibration.read_sets(folder, documents, encoder, cache_dir)
    found = {}
    for name in measured:
        pairs = sets[name]["whole"].candidates
        found[name] = (pairs.left, pairs.right, fit_calibration.left_out(sets, name, encoder.name))
    return found


def pairs_across(labels: np.ndarray, languages: np.ndarray) -> int:
    """How many unordered pairs of rows share a label and differ in language; labels, languages: (n,)."""
    label = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    language = np.unique(languages, return_inverse=True)[1]
    together = np.bincount(label)
    within = np.unique(label * (language.max(initial=0) + 1) + language, return_counts=True)[1]
    return int((together**2).sum() - (within.astype(np.int64) ** 2).sum()) // 2


def _found(threshold: float, found: int, right: int, true: int) -> Found:
    return Found(threshold, found, right / max(1, found), right / max(1, true), 2 * right / max(1, found + true))


def at_threshold(score: np.ndarray, same: np.ndarray, true: int, threshold: float) -> Found:
    """The pairs whose score (m,) is at least the threshold; same (m,) bool; true: all true pairs there are, found or not."""
    hit = score >= threshold
    return _found(threshold, int(hit.sum()), int((hit & same).sum()), true)


def best_threshold(score: np.ndarray, same: np.ndarray, true: int) -> Found:
    """The threshold with the highest F1 of all, the highest of equals.

    Exact: lowering a threshold to let in only wrong pairs never helps, so the best one is the score of a right pair.
    """
    right = np.sort(score[same])
    if not len(right):
        return _found(float("inf"), 0, 0, true)
    scores = np.sort(score)
    found = len(scores) - np.searchsorted(scores, right, side="left")
    hits = len(right) - np.searchsorted(right, right, side="left")
    f1 = 2 * hits / (found + true)
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))
    return _found(float(right[best]), int(found[best]), int(hits[best]), true)


def best_neighbours(left: np.ndarray, right: np.ndarray, score: np.ndarray, languages: np.ndarray) -> np.ndarray:
    """For every row and every other language in which it has a pair, the position of its best pair: (s,) into the pairs.

    left, right: (m,) row numbers; score: (m,), the higher the better (of equals the lower other row); languages: (n,). A pair
    that is the best of both its ends is there twice: reliability is over samples.
    """
    code = np.unique(languages, return_inverse=True)[1]
    row, other = np.concatenate([left, right]), np.concatenate([right, left])
    position = np.tile(np.arange(len(left)), 2)
    question = row.astype(np.int64) * (code.max(initial=0) + 1) + code[other]
    order = np.lexsort((other, -np.asarray(score)[position], question))
    first = np.flatnonzero(np.diff(question[order], prepend=-1))
    return position[order][first]


def read_set(path: Path, encoder: Encoder, cache_dir: str) -> LabelledSet:
    """A labelled set with its vectors, of which only those not in the cache are made."""
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    languages = np.array([sample["language"] for sample in samples])
    names = [str(sample["id"] if sample.get("localised") else sample["group"]) for sample in samples]
    content = np.unique(names, return_inverse=True)[1]
    vectors = embed([sample_text(sample) for sample in samples], encoder, cache_dir)
    return LabelledSet(path.stem, samples, languages, content, vectors, pairs_across(content, languages))


def across(labelled: LabelledSet, pairs: peers.Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Score and whether they have the same content, (m,) each, of the pairs in different languages."""
    left, right, score = pairs
    chosen = labelled.languages[left] != labelled.languages[right]
    return score[chosen], labelled.content[left[chosen]] == labelled.content[right[chosen]]


def _members(languages: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers of each unordered pair of languages."""
    yield from combinations([np.flatnonzero(languages == code) for code in np.unique(languages)], 2)


def all_cosines(labelled: LabelledSet) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and whether they have the same content of every pair across languages there is."""
    score, same = [np.zeros(0, np.float32)], [np.zeros(0, bool)]
    for here, there in _members(labelled.languages):
        score.append((labelled.vectors[here] @ labelled.vectors[there].T).ravel())
        same.append((labelled.content[here][:, None] == labelled.content[there]).ravel())
    return np.concatenate(score), np.concatenate(same)


def ratio_margin(labelled: LabelledSet, k: int = 4) -> peers.Pairs:
    """Ratio margin (Artetxe & Schwenk, 2019, eq. 2 to 4) of each row with its k nearest of every other language.

    margin(x, y) = cos(x, y) / ( sum_{z in NN_k(x)} cos(x, z) / 2k + sum_{z in NN_k(y)} cos(y, z) / 2k ), over the pairs found
    from either side, on the vectors as they are.
    """
    parts = []
    for here, there in _members(labelled.languages):
        x, y = labelled.vectors[here], labelled.vectors[there]
        forward, near = faiss.knn(x, y, min(k, len(there)), metric=faiss.METRIC_INNER_PRODUCT)
        backward, back = faiss.knn(y, x, min(k, len(here)), metric=faiss.METRIC_INNER_PRODUCT)
        found = np.concatenate([
            np.stack([np.repeat(np.arange(len(x)), near.shape[1]), near.ravel()], axis=1),
            np.stack([back.ravel(), np.repeat(np.arange(len(y)), back.shape[1])], axis=1),
        ])
        left, right = np.unique(found, axis=0).T
        mean = (forward.mean(axis=1)[left] + backward.mean(axis=1)[right]) / 2
        parts.append((here[left], there[right], np.einsum("ij,ij->i", x[left], y[right]) / np.maximum(mean, 1e-3)))
    return peers.Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def semhash_found(labelled: LabelledSet, thresholds: np.ndarray) -> list[Found]:
    """SemHash at each threshold, the better of two readings of its groups.

    Each duplicate is a pair with the selected row that it repeats; or every two rows of a group are, counted and not listed.
    """
    found = []
    for threshold, stands in peers.semhash_groups(labelled.vectors, thresholds.tolist()):
        both = pairs_across(stands * (labelled.content.max() + 1) + labelled.content, labelled.languages)
        groups = _found(threshold, pairs_across(stands, labelled.languages), both, labelled.true)
        selected = labelled.languages != labelled.languages[stands]
        right = int((selected & (labelled.content == labelled.content[stands])).sum())
        found.append(max(groups, _found(threshold, int(selected.sum()), right, labelled.true), key=lambda one: one.f1))
    return found


def semhash_best(labelled: LabelledSet) -> Found:
    """SemHash at its best threshold: it selects anew at each, so a grid of 0.01 and then of 0.001 around the best."""
    best = max(semhash_found(labelled, np.arange(40, 100) / 100), key=lambda one: one.f1)
    return max(semhash_found(labelled, np.arange(-10, 11) / 1000 + best.threshold), key=lambda one: one.f1)


def peer_rows(labelled: LabelledSet) -> Iterator[tuple[str, str, Found]]:
    """Method, setting and worth of each peer at its default and at its best, of the plain cosine and of the ratio margin."""
    true = labelled.true
    try:
        yield "SemHash", "default", semhash_found(labelled, np.array([peers.SEMHASH_THRESHOLD]))[0]
        yield "SemHash", "best threshold", semhash_best(labelled)
        scored = across(labelled, peers.semhash_neighbours(labelled.vectors, 0.4))
        yield "SemHash", "best, its search alone", best_threshold(*scored, true)
    except peers.PeerMissing as missing:
        print(missing, file=sys.stderr)
    scored = across(labelled, peers.paraphrase_mining_pairs(labelled.vectors))
    yield "paraphrase mining", "default", at_threshold(*scored, true, peers.MINING_THRESHOLD)
    yield "paraphrase mining", "best threshold", best_threshold(*scored, true)
    scored = across(labelled, peers.semdedup_pairs(labelled.vectors, threshold=-1.0))
    yield "SemDeDup k-means", "default", at_threshold(*scored, true, peers.SEMDEDUP_THRESHOLD)
    yield "SemDeDup k-means", "best threshold", best_threshold(*scored, true)
    scored = all_cosines(labelled)
    yield "cosine", "0.9, a usual default", at_threshold(*scored, true, 0.9)
    yield "cosine", "best threshold", best_threshold(*scored, true)
    yield "ratio margin, k = 4", "best threshold", best_threshold(*across(labelled, ratio_margin(labelled)), true)


def table(rows: list[tuple[str, str, Found]]) -> str:
    """The rows as text, one method and setting a line."""
    frame = pd.DataFrame([(method, setting, *found) for method, setting, found in rows],
                         columns=["method", "setting", "threshold", "found", "precision", "recall", "F1"])
    return frame.to_string(index=False, float_format="{:.3f}".format)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=Path, help="folder with XQuAD and NTREX files, used to fit only")
    parser.add_argument("--encoder", default="use")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="score these alone; ours is still fitted on all others")
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("*.jsonl"))
    if not files:
        parser.error(f"no .jsonl file in {arguments.folder}")
    encoder = open_encoder(arguments.encoder)
    sets = {file.stem: read_set(file, encoder, arguments.cache_dir) for file in files}
    if unknown := set(arguments.sets or ()) - set(sets):
        parser.error(f"no set {', '.join(sorted(unknown))}; there are {', '.join(sets)}")
    found = ours(arguments.folder, arguments.documents, encoder, arguments.cache_dir)
    for name in arguments.sets or sets:
        labelled = sets[name]
        about = f"{len(labelled.samples):,} rows, {labelled.true:,} true pairs across languages, encoder {encoder.name}"
        print(f"\n{name}: {about}", flush=True)
        rows = [] if arguments.no_peers else list(peer_rows(labelled))
        if name in found:
            left, right, probability = found[name]
            score, same = across(labelled, peers.Pairs(left, right, probability))
            rows.append(("ours", "p >= 0.5, the default", at_threshold(score, same, labelled.true, 0.5)))
            rows.append(("ours", "best threshold", best_threshold(score, same, labelled.true)))
        print(table(rows), flush=True)
        if name in found:
            best = best_neighbours(left, right, probability, labelled.languages)
            same = labelled.content[left] == labelled.content[right]
            error = expected_calibration_error(probability[best], same[best])
            print(f"reliability over {len(best):,} best neighbours: expected calibration error {error:.3f}")
            print(reliability(probability[best], same[best]).to_string(index=False, float_format="{:.3f}".format), flush=True)


if __name__ == "__main__":
    main()
