"""Vectors per language, centred, with what brings a raw cosine back.

Multilingual encoders put each language in a cone of its own; with each language's mean removed, languages lie on top of each
other, and one clustering serves them all. Rows are read in blocks: an array on disk (`numpy.memmap`) is never in memory as a
whole. The raw cosine of a pair follows from its centred one in a few multiplications, without a second look at the vectors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import torch

from ultralink_nb.errors import KitError
from ultralink_nb.records import atomic_path

BLOCK = 16_384  # rows in float32 at a time: 32 MiB at 512 dimensions
FLOAT32_LIMIT = 256 * 2**20  # bytes; a result in memory beyond this is held in float16


class BadVectors(KitError, ValueError):
    """Vectors that cannot be compared; the message names the row or the shape."""


@dataclass(frozen=True)
class Centred:
    """Rows of length one around their language's mean.

    vectors: (n, d) float32 or float16, in memory or on disk; a zero row was zero before and resembles nothing.
    codes: (n,) int8, each row's position in `languages`, which are in order of first appearance.
    removed: (L, d) float32, r_l, what was subtracted from the rows of language l. length: (n,) float32, s_i = |x_i - r_l| (0 for
    a zero row). onto: (n, L) float32, the inner product of row i with each r. The encoder's unit vector is x_i = s_i c_i + r_l.
    first: (n,) int32, the first row that has the same vector, the row itself where there is none before it.
    """

    vectors: np.ndarray
    codes: np.ndarray
    languages: tuple[str, ...]
    removed: np.ndarray
    length: np.ndarray
    onto: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def members(self) -> dict[str, np.ndarray]:
        """The row numbers of each language, ascending, int32."""
        order = np.argsort(self.codes, kind="stable").astype(np.int32)
        ends = np.cumsum(np.bincount(self.codes, minlength=len(self.languages)))
        return dict(zip(self.languages, np.split(order, ends[:-1]) if len(ends) else [], strict=True))

    def raw_cosine(self, left: np.ndarray, right: np.ndarray, cosine: np.ndarray) -> np.ndarray:
        """The cosine that the encoder's own vectors have, (m,) float32, from the centred cosine of rows left and right.

        x.y = s_x s_y (c_x.c_y) + s_x (c_x.r_b) + s_y (c_y.r_a) + r_a.r_b for x of language a and y of b; 0 where either is zero.
        """
        a, b = self.codes[left], self.codes[right]
        s_x, s_y = self.length[left], self.length[right]
        raw = s_x * s_y * cosine + s_x * self.onto[left, b] + s_y * self.onto[right, a] + (self.removed @ self.removed.T)[a, b]
        return np.where((s_x > 0) & (s_y > 0), raw, 0).astype(np.float32)


def centre(vectors: np.ndarray, languages: Sequence[str], shrink: float = 50.0, out: str | Path | None = None) -> Centred:
    """Remove each language's mean and make the length one again, block by block.

    vectors: (n, d), float16 or wider, in memory or memory-mapped, of any length. languages: n codes, at most 127 different ones.
    shrink: a language of n rows loses n / (n + shrink) of its mean, so that a handful of rows is not centred into noise.
    out: a path for the result, written as float16 `.npy` and memory-mapped; without it the result is in memory, float32 up to
    256 MiB and float16 above, where a cosine is off by at most about 5e-4.
    Raises BadVectors for a value that is not finite (naming the row), a wrong shape, or too many languages.
    """
    codes, names = _codes(vectors, languages)
    n, d = vectors.shape
    total, count = np.zeros((len(names), d)), np.zeros(len(names))
    for rows, block in _unit_blocks(vectors):
        alive = block.any(axis=1)
        for code in np.unique(codes[rows]):
            chosen = alive & (codes[rows] == code)
            total[code] += block[chosen].sum(axis=0, dtype=np.float64)
            count[code] += chosen.sum()
    removed = (total / np.maximum(count + shrink, 1)[:, None]).astype(np.float32)

    length, onto, hashes = np.zeros(n, np.float32), np.zeros((n, len(names)), np.float32), np.zeros(n, np.uint64)

    def fill(centred: np.ndarray) -> None:
        for rows, block in _unit_blocks(vectors):
            alive = block.any(axis=1)
            block -= removed[codes[rows]]
            norms = np.where(alive, np.sqrt(np.einsum("ij,ij->i", block, block)), 0).astype(np.float32)
            norms[norms < 1e-6] = 0  # what is left of a row that equals its mean is rounding
            block *= np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)[:, None]
            length[rows], onto[rows] = norms, block @ removed.T
            torch.from_numpy(centred[rows]).copy_(torch.from_numpy(block))
            hashes[rows] = _hashes(centred[rows])

    if out is None:
        centred = np.empty((n, d), np.float32 if 4 * n * d <= FLOAT32_LIMIT else np.float16)
        fill(centred)
    else:
        with atomic_path(out) as temporary:
            centred = np.lib.format.open_memmap(temporary, "w+", np.float16, (n, d))
            fill(centred)
            centred.flush()
            del centred
        centred = np.load(out, mmap_mode="r")
    _, first, same = np.unique(hashes, return_index=True, return_inverse=True)
    return Centred(centred, codes, names, removed, length, onto, first[same].astype(np.int32))


def read_rows(vectors: np.ndarray, rows: np.ndarray | slice, out: np.ndarray | None = None) -> np.ndarray:
    """The listed rows as float32, (m, d).

    out: a float32 array of at least m rows to use again, since fresh memory costs more than the copy.

    torch turns float16 into float32 ten times as fast as NumPy.
    """
    block = vectors[rows]
    held = np.empty(block.shape, np.float32) if out is None else out[: len(block)]
    if block.dtype == np.float16:
        torch.from_numpy(held).copy_(torch.from_numpy(block if block.flags.writeable else block.copy()))
    else:
        held[:] = block
    return held


def row_dots(vectors: np.ndarray, left: np.ndarray, right: np.ndarray, block: int = 32_768) -> np.ndarray:
    """Inner products of the listed pairs of rows, (m,) float32; of unit vectors these are cosines.

    vectors: (n, d) of any float type, in memory or memory-mapped; left, right: (m,) row numbers. Pairs are taken in the order of
    left, and each row that a block of them needs is read once.
    """
    left, right = np.asarray(left, dtype=np.int64), np.asarray(right, dtype=np.int64)
    dots, held = np.empty(len(left), np.float32), np.empty((2 * min(block, len(left)), vectors.shape[1]), np.float32)
    order = np.argsort(left, kind="stable")
    for start in range(0, len(order), block):
        chosen = order[start : start + block]
        needed, position = np.unique(np.concatenate([left[chosen], right[chosen]]), return_inverse=True)
        rows, ends = read_rows(vectors, needed, held), np.ascontiguousarray(position.reshape(2, -1), dtype=np.int64)
        part = np.empty(len(chosen), np.float32)
        faiss.pairwise_indexed_inner_product(
            rows.shape[1], len(part), *map(faiss.swig_ptr, (rows, ends[0], rows, ends[1], part))
        )
        dots[chosen] = part
    return dots


def _codes(vectors: np.ndarray, languages: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        shape = f"{vectors.dtype} of shape {vectors.shape}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise BadVectors(f"vectors must be an array of floats, a row a sample, all of one dimension; this is {shape}")
    if len(vectors) != len(languages):
        raise BadVectors(f"{len(vectors):,} vectors but {len(languages):,} languages: each row needs one of each")
    codes, names = pd.factorize(np.asarray(languages, dtype=object))
    if len(names) > 127:
        raise BadVectors(f"{len(names)} different languages; 127 can be compared at once: look at the column language")
    if (codes < 0).any():
        raise BadVectors(f"row {int(np.argmax(codes < 0))} has no language")
    return codes.astype(np.int8), tuple(map(str, names))


def _unit_blocks(vectors: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of rows as float32 of length one, each in the memory of the one before; zero rows stay zero."""
    held = np.empty((min(BLOCK, len(vectors)), vectors.shape[1]), np.float32)
    for start in range(0, len(vectors), BLOCK):
        rows = slice(start, min(start + BLOCK, len(vectors)))
        block = read_rows(vectors, rows, held)
        norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        if not np.isfinite(norms).all():
            bad = start + int(np.argmin(np.isfinite(norms)))
            raise BadVectors(f"row {bad:,} of the vectors holds a value that is not a finite number: encode that sample again")
        block *= (1 / np.where(norms > 0, norms, 1))[:, None]
        yield rows, block


def _hashes(block: np.ndarray) -> np.ndarray:
    """(m,) uint64, equal for rows of equal bytes; for others equal by chance in one of 2^64 cases."""
    words = block.view(np.uint64 if block.shape[1] * block.itemsize % 8 == 0 else np.uint16).astype(np.uint64)
    words ^= words >> np.uint64(31)
    factors = np.random.default_rng(0).integers(2**63, size=words.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    words *= factors
    return np.bitwise_xor(words, words >> np.uint64(29)).sum(axis=1, dtype=np.uint64)
