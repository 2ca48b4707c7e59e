"""Speed beside the peers: seconds, memory and what is found, from vectors to a pruned set, as the rows grow.

    python benchmarks/speed.py FOLDER [--rows 10000 100000 1000000] [--methods NAME …] [--cap 1200] [--scratch DIR]

FOLDER holds labelled sets; vectors are made from them (made_vectors.py), in five languages, and every method gets the same file.
Each method runs in a process of its own, on at most two threads, and is ended after `--cap` seconds. Ours reads the vectors from
disk and centres them, searches, scores, groups and prunes. There are no texts, so the screen decides alone; what reading them
adds is measured by quality.py. `plain` is the least code that finds neighbours per pair of languages: an IVF index in half
precision for each, 8 probes. The peers search one pool; of what they find only pairs across languages count.

Memory: `anonymous` is what the process itself holds; `resident` counts the pages of the file that the system keeps for it as
well, which it may take back at any time. recall: share of the true pairs among what is found, for ours after the screen; recall,
search: before it; best neighbour: share of rows (a sample) of which the search found what exact search finds. Both of these are
measured between the stages and are in no time. load: of the system when a method ends, in processes that want to run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

THREADS = "2"
THIRD = 3.0  # what a third language's word weighs where no texts are read: nothing else tells of a row's other pairs
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, THREADS)

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
import made_vectors  # noqa: E402
import peers  # noqa: E402
import quality  # noqa: E402

from ultralink_nb import calibration, grouping, neighbours, pruning, redundancy  # noqa: E402
from ultralink_nb.vectors import centre  # noqa: E402


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (n, d) on disk, languages (n,) and contents (n,) of a made file."""
    about = np.load(f"{path}.npz", allow_pickle=False)
    return np.load(f"{path}.npy", mmap_mode="r"), about["languages"][about["codes"]], about["contents"]


def found(
    left: np.ndarray, right: np.ndarray, score: np.ndarray, content: np.ndarray, languages: np.ndarray, default: float
) -> dict[str, float]:
    """What pairs are worth: recall of all of them, F1 from the default threshold on, and at the best threshold."""
    across = languages[left] != languages[right]
    left, right, score = left[across], right[across], score[across]
    same, true = content[left] == content[right], quality.pairs_across(content, languages)
    at, best = quality.at_threshold(score, same, true, default), quality.best_threshold(score, same, true)
    return {"recall": same.sum() / max(1, true), "F1": at.f1, "F1, best threshold": best.f1}


def searched(between: dict[tuple[str, str], neighbours.Neighbours], content: np.ndarray) -> int:
    """How many true pairs the lists of neighbours hold; a made content has at most one row a language."""
    either = {}
    for pair, found in between.items():
        hit = (found.rows >= 0) & (content[found.rows] == content[found.queries][:, None])
        either.setdefault(frozenset(pair), []).append(content[found.queries[hit.any(axis=1)]])
    return sum(len(np.unique(np.concatenate(both))) for both in either.values())


def table_of(languages: np.ndarray) -> pd.DataFrame:
    """The table that the kit would have of these rows: id, language, kind."""
    ids = pc.utf8_lpad(pc.cast(pa.array(np.arange(len(languages))), pa.string()), 9, "0")
    return pa.table({"id": ids, "language": pa.array(languages), "kind": pa.repeat("made", len(languages))}).to_pandas()


def ours(path: Path) -> dict:
    """The kit's steps on vectors alone: the screen decides. What is no longer needed is let go before the next step."""
    vectors, languages, content = read(path)
    fitted = calibration.load_calibrations("use")[0].screen
    clock = {"start": time.perf_counter()}

    def lap(name: str) -> None:
        now = time.perf_counter()
        clock[name], clock["start"] = now - clock["start"], now

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        centred = centre(vectors, languages, out=Path(scratch) / "centred.npy")
        lap("centre")
        between = neighbours.search_between(centred, 4)
        lap("search")
        recall = searched(between, content) / max(1, quality.pairs_across(content, languages))
        near = neighbours.recall_against_exact(centred, between, sample=250, rows=None)
        clock["start"] = time.perf_counter()
        candidates, scores = redundancy.screen_pairs(centred, between, None, fitted.probability)
        left, right, codes, count = candidates.left, candidates.right, centred.codes, len(centred)
        del between, candidates, centred
        alone = fitted.probability(scores)
        del scores
        together = redundancy.corroborate(count, left, right, codes, alone, fitted.prior, THIRD)
        del alone
        lap("scores")
        rows = table_of(languages)
        pairs = pd.DataFrame({"left": left, "right": right, "probability": together}, copy=False)
        groups = grouping.group_pairs(rows, pairs)
        lap("groups")
        pruned = pruning.prune(rows, groups, pairs, "balanced")
        lap("pruning")
        del clock["start"]
        stands = pd.Index(rows["id"]).get_indexer(pruned.dropped["kept_by"])
        right_drops = content[pruned.dropped["position"]] == content[stands]
        worth = found(left, right, together, content, languages, 0.5)
        return {**clock, "recall, search": recall, **worth, "drops right": right_drops.mean(), "best neighbour": near}


def plain(path: Path) -> dict:
    vectors, languages, content = read(path)
    start = time.perf_counter()
    centred = centre(vectors, languages)
    parts = []
    for target, members in centred.members.items():
        lists = int(max(1, min(4 * len(members) ** 0.5, len(members) / 39)))
        index = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.nprobe = 8
        block = np.asarray(centred.vectors[members], dtype=np.float32)
        index.train(block[:: max(1, len(block) // (64 * lists))])
        index.add(block)
        for source, rows in centred.members.items():
            if source != target:
                score, at = index.search(np.asarray(centred.vectors[rows], dtype=np.float32), 4)
                here, there = np.repeat(rows, 4)[at.ravel() >= 0], members[at.ravel()[at.ravel() >= 0]]
                parts.append((np.minimum(here, there), np.maximum(here, there), score.ravel()[at.ravel() >= 0]))
    seconds = time.perf_counter() - start
    left, right, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    once = np.unique(left.astype(np.int64) * len(vectors) + right, return_index=True)[1]
    return {"search": seconds, **found(left[once], right[once], score[once], content, languages, 0.9)}


def peer(path: Path, search, default: float) -> dict:
    vectors, languages, content = read(path)
    vectors = np.asarray(vectors, dtype=np.float32)
    start = time.perf_counter()
    pairs = search(vectors)
    seconds = time.perf_counter() - start
    return {"search": seconds, **found(pairs.left, pairs.right, pairs.score, content, languages, default)}


METHODS = {
    "ours": ours, "plain": plain,
    "SemHash": lambda path: peer(path, peers.semhash_pairs, peers.SEMHASH_THRESHOLD),
    "SemHash, search at 0.6": lambda path: peer(path, lambda v: peers.semhash_neighbours(v, 0.6), peers.SEMHASH_THRESHOLD),
    "paraphrase mining": lambda path: peer(path, peers.paraphrase_mining_pairs, peers.MINING_THRESHOLD),
    "SemDeDup k-means": lambda path: peer(path, lambda v: peers.semdedup_pairs(v, threshold=0.6), peers.SEMDEDUP_THRESHOLD),
}


def work(method: str, path: Path) -> None:
    """Run one method here and print its figures as JSON, with the most memory it held."""
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            status = Path("/proc/self/status").read_text()
            most[0] = max(most[0], int(status.split("RssAnon:")[1].split()[0]))

    threading.Thread(target=watch, daemon=True).start()
    figures = METHODS[method](path)
    ended.set()
    resident = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    print(json.dumps({**{name: float(value) for name, value in figures.items()},
                      "anonymous, GiB": most[0] / 2**20, "resident, GiB": resident / 2**20, "load": os.getloadavg()[0]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--cap", type=float, default=1200, help="seconds after which a method is ended")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "ultralink-speed",
                        help="needs 1 GB a million rows")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--work", choices=METHODS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments.work, arguments.folder)
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    table = []
    for count in arguments.rows:
        path = arguments.scratch / f"made-{count}"
        made_vectors.make_vectors(arguments.folder, count, path, cache_dir=arguments.cache_dir)
        for method in arguments.methods:
            command = [sys.executable, __file__, str(path), "--work", method]
            start = time.perf_counter()
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.cap)
                said = done.stdout.strip().splitlines()[-1:] if done.returncode == 0 else []
                figures = json.loads(said[0]) if said else {"note": (done.stderr.strip().splitlines() or ["failed"])[-1][:80]}
            except subprocess.TimeoutExpired:
                figures = {"note": f"ended after {time.perf_counter() - start:.0f} s"}
            stages = [figures[name] for name in ("centre", "search", "scores", "groups", "pruning") if name in figures]
            table.append({"rows": count, "method": method, **({"seconds": sum(stages)} if stages else {}), **figures})
            print(pd.DataFrame(table[-1:]).to_string(index=False, float_format="{:.3g}".format), flush=True)
    print(pd.DataFrame(table).to_string(index=False, na_rep="", float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
