"""Make any number of vectors in five languages that look like real ones, with the truth about which say the same.

    python benchmarks/made_vectors.py FOLDER OUT --rows 1000000

FOLDER holds labelled sets as JSONL (see fit_calibration.py). OUT.npy gets the vectors, float16, not centred, rows sorted by
language; OUT.npz gets `codes` (into `languages`), and `contents`, a number that rows of the same content share.

Real vectors are embedded first and centred per language. Then a made content is a real question moved towards one of its 20
nearest real questions (by up to half of the way) and turned by a random angle towards a mixture of four random questions, so
that contents crowd as real ones do: in the Alpaca set the best wrong row of another language is at 0.38 among 640 rows and 0.48
among 5,108, 0.03 more with each doubling, and the angles are chosen to continue that. A content's vector in a language is
sqrt(c) u + sqrt(1 - c) e: u is the content, c the cosine of a real translation pair, e the direction in which two real pairs
differ. One draw says how well the whole content translates, so that a pair's cosine is distributed as in the real sets, each
language with its own quantiles. At last the language's real mean is put back and the length is made 1. A share of contents is
in one language only; others miss each language with a chance of their own. Run as a script it prints the distributions beside
the real ones. Everything is seeded and made in blocks: memory does not grow with the rows but for the labels.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ultralink_nb.embedding import embed, open_encoder, sample_text
from ultralink_nb.vectors import Centred, centre

LANGUAGES = ("en", "zh", "ru", "fr", "es")
ALONE, MISSING = 0.15, 0.2  # share of contents in one language only; chance that another content misses a language
NEAR, NARROWEST, WIDEST = 20, 0.15, 0.9  # neighbours that a content moves towards; the angle's range in radians
BLOCK = 8192


@dataclass(frozen=True)
class Made:
    """Vectors (n, d) float16 on disk, languages (n,) str, contents (n,) int32: equal for rows of the same content."""

    vectors: np.ndarray
    languages: np.ndarray
    contents: np.ndarray


@dataclass(frozen=True)
class Real:
    """What is taken from the labelled sets: contents (m, d) unit and centred; per pair of translations their cosine and the
    direction in which they differ; per language the cosines of its pairs; means (L, d) and lengths of what centring left."""

    contents: np.ndarray
    near: np.ndarray
    differences: np.ndarray
    cosines: dict[str, np.ndarray]
    means: np.ndarray
    lengths: np.ndarray


def read_real(
    folder: Path, encoder: str = "use", cache_dir: str = ".cache", languages: Sequence[str] = LANGUAGES
) -> tuple[Centred, np.ndarray, Real]:
    """The labelled sets of a folder: their centred vectors, the content of each row, and what made vectors are made from."""
    files = sorted(folder.glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["language"] in languages]
    if not rows:
        raise SystemExit(f"{folder}: no .jsonl file with rows in {', '.join(languages)}")
    raw = embed([sample_text(row) for row in rows], open_encoder(encoder), cache_dir)
    centred = centre(raw, [row["language"] for row in rows])
    names = [str(row["id"] if row.get("localised") else row["group"]) for row in rows]
    _, first, content = np.unique(names, return_index=True, return_inverse=True)
    vectors = np.asarray(centred.vectors, dtype=np.float32)
    left, right = _true_pairs(content)
    difference = vectors[left] - vectors[right]
    norm = np.linalg.norm(difference, axis=1)
    cosine = 1 - norm**2 / 2
    ends = centred.codes[left], centred.codes[right]
    cosines = {
        code: np.sort(cosine[(ends[0] == number) | (ends[1] == number)]) for number, code in enumerate(centred.languages)
    }
    contents = vectors[first]
    order = np.argpartition(-(contents @ contents.T), NEAR, axis=1)[:, : NEAR + 1]
    order = np.sort(order, axis=1)
    real = Real(contents, order, difference[norm > 0.05] / norm[norm > 0.05, None], cosines, centred.removed, centred.length)
    return centred, content, real


def _true_pairs(content: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the pairs of equal content, for a labelled set sorted anyhow."""
    order = np.argsort(content, kind="stable")
    pairs = []
    for step in range(1, len(LANGUAGES)):
        same = content[order[step:]] == content[order[:-step]]
        pairs.append((order[:-step][same], order[step:][same]))
    left, right = zip(*pairs, strict=True)
    return np.concatenate(left), np.concatenate(right)


def _presence(rows: int, languages: int, seed: int) -> np.ndarray:
    """Which content has which languages, (contents, L) bool, just as many contents as give that many rows."""
    rng = np.random.default_rng([seed, 0])
    contents = rows  # more than enough: every content has a row
    present = rng.random((contents, languages)) >= MISSING
    alone = (rng.random(contents) < ALONE) | ~present.any(axis=1)
    present[alone] = False
    present[np.flatnonzero(alone), rng.integers(languages, size=alone.sum())] = True
    total = np.cumsum(present.sum(axis=1))
    present = present[: int(np.searchsorted(total, rows)) + 1]
    over = int(present.sum()) - rows
    if over:
        present[-1, np.flatnonzero(present[-1])[:over]] = False
    return present


def _unit(block: np.ndarray) -> np.ndarray:
    return block / np.linalg.norm(block, axis=1, keepdims=True)


def _made_contents(real: Real, count: int, rng: np.random.Generator) -> np.ndarray:
    base = rng.integers(len(real.contents), size=count)
    towards = real.near[base, rng.integers(NEAR + 1, size=count)]
    share = rng.uniform(0, 0.5, size=(count, 1)).astype(np.float32)
    here = _unit(real.contents[base] * (1 - share) + real.contents[towards] * share)
    away = np.zeros_like(here)
    for _ in range(4):
        away += rng.normal(size=(count, 1)).astype(np.float32) * real.contents[rng.integers(len(real.contents), size=count)]
    away = _unit(away - (away * here).sum(axis=1, keepdims=True) * here)
    angle = rng.uniform(NARROWEST, WIDEST, size=(count, 1)).astype(np.float32)
    return np.cos(angle) * here + np.sin(angle) * away


def _said_in(real: Real, code: int, name: str, contents: np.ndarray, ease: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Raw unit vectors of contents in a language; ease in [0, 1): the quantile of how well each translates."""
    count = len(contents)
    known = real.cosines[name]
    c = known[np.minimum((ease * len(known)).astype(int), len(known) - 1)].clip(0.05, 0.98)[:, None]
    turn = rng.uniform(0, np.pi, size=(count, 1)).astype(np.float32)
    one, two = real.differences[rng.integers(len(real.differences), size=(2, count))]
    off = np.cos(turn) * one + np.sin(turn) * two
    off = _unit(off - (off * contents).sum(axis=1, keepdims=True) * contents)
    vectors = np.sqrt(c) * contents + np.sqrt(1 - c) * off
    length = real.lengths[rng.integers(len(real.lengths), size=count)][:, None]
    return _unit(vectors * length + real.means[code])


def make_vectors(
    folder: Path, rows: int, out: Path, seed: int = 0, encoder: str = "use", cache_dir: str = ".cache"
) -> Made:
    """Make `rows` vectors and write them to `out`.npy and `out`.npz; what is there already for these numbers is used again.

    Raises SystemExit where the folder has no labelled sets.
    """
    about = {"rows": rows, "seed": seed, "encoder": encoder, "version": 2}
    labels, path = out.with_name(out.name + ".npz"), out.with_name(out.name + ".npy")
    if not (labels.is_file() and path.is_file() and json.loads(str(np.load(labels)["about"])) == about):
        centred, _, real = read_real(folder, encoder, cache_dir)
        present = _presence(rows, len(LANGUAGES), seed)
        place = np.cumsum(present, axis=0) - 1 + np.concatenate([[0], np.cumsum(present.sum(axis=0))[:-1]])
        vectors = np.lib.format.open_memmap(path, "w+", np.float16, (rows, real.contents.shape[1]))
        contents = np.empty(rows, np.int32)
        for block, start in enumerate(range(0, len(present), BLOCK)):
            rng = np.random.default_rng([seed, 1, block])
            here = present[start : start + BLOCK]
            made, ease = _made_contents(real, len(here), rng), rng.random(len(here))
            for number, name in enumerate(LANGUAGES):
                chosen = here[:, number]
                if chosen.any():
                    first = place[start : start + BLOCK][chosen, number]
                    part = slice(int(first[0]), int(first[-1]) + 1)
                    code = centred.languages.index(name)
                    vectors[part] = _said_in(real, code, name, made[chosen], ease[chosen], rng)
                    contents[part] = start + np.flatnonzero(chosen)
        vectors.flush()
        codes = np.repeat(np.arange(len(LANGUAGES), dtype=np.int8), present.sum(axis=0))
        np.savez(labels, codes=codes, languages=np.array(LANGUAGES), contents=contents, about=json.dumps(about))
    held = np.load(labels)
    return Made(np.load(path, mmap_mode="r"), held["languages"][held["codes"]], held["contents"])


def true_pairs(contents: np.ndarray, sample: int | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of pairs of equal content, each pair once; all, or a sample of them."""
    left, right = _true_pairs(contents)
    if sample is not None and sample < len(left):
        chosen = np.random.default_rng(seed).choice(len(left), size=sample, replace=False)
        left, right = left[chosen], right[chosen]
    return left, right


def distributions(centred: Centred, content: np.ndarray, sample: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """Quantiles (5, 25, 50, 75, 95 %) of the centred cosine of true pairs and of the best wrong row of another language."""
    left, right = true_pairs(content, sample, seed)
    queries = np.asarray(centred.vectors[left], dtype=np.float32)
    true = np.einsum("ij,ij->i", queries, np.asarray(centred.vectors[right], dtype=np.float32))
    wrong, language = np.full(len(left), -1, np.float32), centred.codes[right]
    for start in range(0, len(content), BLOCK):
        part = slice(start, start + BLOCK)
        dots = queries @ np.asarray(centred.vectors[part], dtype=np.float32).T
        dots[(language[:, None] != centred.codes[part]) | (content[left][:, None] == content[part])] = -1
        wrong = np.maximum(wrong, dots.max(axis=1))
    quantiles = [0.05, 0.25, 0.5, 0.75, 0.95]
    return {
        "true pair": np.quantile(true, quantiles), "best wrong row": np.quantile(wrong, quantiles),
        "true above wrong": np.array([np.mean(true > wrong)]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encoder", default="use")
    parser.add_argument("--cache-dir", default=".cache")
    arguments = parser.parse_args()
    made = make_vectors(
        arguments.folder, arguments.rows, arguments.out, arguments.seed, arguments.encoder, arguments.cache_dir
    )
    real, content, _ = read_real(arguments.folder, arguments.encoder, arguments.cache_dir)
    names = [("real, all sets", real, content), ("made", centre(made.vectors, made.languages), made.contents)]
    print("centred cosine, quantiles 5, 25, 50, 75, 95 %, pairs across languages")
    for name, centred, contents in names:
        for what, values in distributions(centred, contents).items():
            print(f"{name:16}{len(contents):>9,} rows  {what:18}" + "  ".join(f"{value:.2f}" for value in values))


if __name__ == "__main__":
    main()
