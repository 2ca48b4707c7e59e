"""Texts to sketches, and sketches to pairs that may be nearly the same: MinHash and banding, whole blocks of texts at a time.

MinHash (Broder 1997) keeps, for each of 63 hash functions, the lowest value over a text's shingles; two texts agree in a share
of them that estimates the Jaccard similarity of their shingles. Rows that agree in all three of one of 21 bands become a pair
(Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, ch. 3): at a similarity of 0.6 in 99 % of cases, at 0.5 in 94 %, at
0.4 in 75 %. Of a signature the bands' keys and one byte of each minimum are kept (b-bit MinHash, Li & König 2010).

It is NumPy rather than a library because a block of texts is shingled and hashed at once, in any script, without a Python
object for each shingle. 100,000 questions of 115 characters to pairs, on two cores: 1.0 s here, 6.1 s with rensa 0.5, 55 s with
datasketch 2.0 (`benchmarks/duplicates.py`).
"""

import functools
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ultralink_nb.languages import get_language

BLOCK = 200_000  # characters hashed at a time: what a processor's cache holds
BANDS, BAND_ROWS = 21, 3
CROWD = 50  # rows that share a band; a larger crowd is told apart by the bands that follow
WINDOW = 3  # rows of a crowd that each is compared with, beside the first
SLACK = 0.15  # how far below the threshold an estimate may lie: 2.4 standard deviations at 0.5

_APART = np.uint32(1 << 30)
_GAP, _MARK, _SEEN, _LETTER, _DIGIT = range(5)
_draw = np.random.default_rng(20240212)
_FACTORS = _draw.integers(0, 2**63, 5, np.uint64) * np.uint64(2) + np.uint64(1)
_PERMUTATIONS = _draw.integers(0, 2**31, BANDS * BAND_ROWS, np.uint32) * np.uint32(2) + np.uint32(1)


@functools.cache
def _kinds() -> np.ndarray:
    """What each code point is: a gap, a mark that counts before a digit (1.5, -3), what is seen, of it the letters and digits.

    Chinese and Japanese are seen but no letters: a space beside them says nothing.
    """
    kinds = np.full(sys.maxunicode + 1, _SEEN, np.uint8)
    for code in range(0x20000):  # beyond are Chinese characters
        category = unicodedata.category(chr(code))
        if category[0] in "ZCP" and chr(code) not in "#%&*/@\\":
            kinds[code] = _MARK if chr(code) in ".,:-" else _GAP
        elif category[0] in "LMN":
            kinds[code] = _DIGIT if category == "Nd" else _LETTER
    kinds[_unspaced(np.arange(len(kinds))) & (kinds == _LETTER)] = _SEEN
    return kinds


def _unspaced(points: np.ndarray) -> np.ndarray:
    """Whether code points are Chinese or Japanese, which put no spaces between words."""
    return (points >= 0x2E80) & (points < 0xAC00) | (points >= 0x20000) & (points < 0x40000)


@dataclass(frozen=True)
class Block:
    """Texts in normal form, one after the other, without spaces and sentence marks.

    points: (m,) uint32 code points, the highest bit but one set on a letter or digit that a space parts from the one before;
    ends: (t,) where each text ends; gap: (m,) whether any space or mark stood before; digit: (m,) whether it is a digit.
    """

    points: np.ndarray
    ends: np.ndarray
    gap: np.ndarray
    digit: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        return np.append(0, self.ends[:-1])

    def strings(self) -> list[str]:
        """The texts in normal form, their words with single spaces between."""
        spaced = np.insert(self.points & ~_APART, np.flatnonzero(self.gap), 32).tobytes()
        ends = 4 * (self.ends + np.append(0, np.cumsum(self.gap))[self.ends])
        return [spaced[a:b].decode("utf-32-le").strip() for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]


def read_block(texts: Sequence[str], language: str) -> Block:
    """Texts in normal form: NFKC, lower case, simplified Chinese, words apart, without other spaces and sentence marks.

    What carries meaning in code and mathematics stays: symbols, # % & * / @ \\, a point, comma, colon or hyphen before a digit.
    """
    joined = "\n".join(text.replace("\n", " ") for text in texts).encode("utf-8", "replace").decode()
    joined = get_language(language).normalise(unicodedata.normalize("NFKC", joined).casefold())
    points = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
    kind, line = _kinds()[points], points == 10
    seen = np.flatnonzero((kind >= _SEEN) | line | (kind == _MARK) & np.append(kind[1:] == _DIGIT, False)[: len(kind)])
    gap, kind, line = np.diff(seen, prepend=-1) > 1, kind[seen], line[seen]
    word = (kind >= _LETTER) & ~line
    points = points[seen] | np.where(gap & word & np.append(False, word)[:-1], _APART, np.uint32(0))
    breaks = np.append(np.flatnonzero(line), len(line))
    return Block(points[~line], breaks - np.arange(len(breaks)), gap[~line], kind[~line] == _DIGIT)


def blocks_of(texts: Sequence[str], rows: np.ndarray, language: str, size: int = BLOCK) -> Iterator[tuple[np.ndarray, Block]]:
    """The listed texts in blocks of about `size` characters, each with its row numbers."""
    part, characters = [], 0
    for row in rows.tolist():
        part.append(row)
        characters += len(texts[row]) + 1
        if characters >= size:
            yield np.array(part), read_block([texts[row] for row in part], language)
            part, characters = [], 0
    if part:
        yield np.array(part), read_block([texts[row] for row in part], language)


@dataclass(frozen=True)
class Sketches:
    """What is kept of each text, 259 bytes. Rows are those of the texts.

    digest: (n,) uint64, equal for equal normal forms (for two others among a million texts with a probability of 3e-8);
    keys: (n, BANDS) uint64; minima: (n, BANDS * BAND_ROWS) uint8; digits: (n,) uint64, a hash of the digits in their order;
    numbers: (n,) int32, how many runs of digits; length: (n,) int64, characters.
    """

    digest: np.ndarray
    keys: np.ndarray
    minima: np.ndarray
    digits: np.ndarray
    numbers: np.ndarray
    length: np.ndarray

    @classmethod
    def empty(cls, n: int) -> "Sketches":
        return cls(
            np.zeros(n, np.uint64), np.zeros((n, BANDS), np.uint64), np.zeros((n, BANDS * BAND_ROWS), np.uint8),
            np.zeros(n, np.uint64), np.zeros(n, np.int32), np.zeros(n, np.int64),
        )

    def read(self, texts: Sequence[str], rows: np.ndarray, block: Block, near: bool = True) -> None:
        """Fill in the rows of a block; without `near` the digest alone."""
        self.length[rows] = block.ends - block.starts
        self.digest[rows] = digests([texts[row] for row in rows], block)
        if near:
            signature = signatures(block)
            self.minima[rows] = signature.astype(np.uint8)
            bands = signature.reshape(len(rows), BANDS, BAND_ROWS).astype(np.uint64)
            self.keys[rows] = _mixed((bands * _FACTORS[:BAND_ROWS]).sum(axis=2))
            self.digits[rows], self.numbers[rows] = _digit_hashes(block)


def digests(texts: Sequence[str], block: Block) -> np.ndarray:
    """64 bits for each text's normal form; for the text itself where nothing of it is left but marks."""
    raw, found = block.points.tobytes(), []
    for text, start, end in zip(texts, (4 * block.starts).tolist(), (4 * block.ends).tolist(), strict=True):
        whole = raw[start:end] or b"\xff" + " ".join(text.split()).encode("utf-8", "replace")
        found.append(blake2b(whole, digest_size=8).digest())
    return np.frombuffer(b"".join(found), np.uint64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of MurmurHash3: 64 bits, each of which depends on every other."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def shingles(text: str) -> set[str]:
    """Every four characters of a normal form, spaces put aside; every two where most are Chinese or Japanese."""
    text = text.replace(" ", "")
    width = 2 if 2 * _unspaced(np.frombuffer(text.encode("utf-32-le"), np.uint32)).sum() > len(text) else 4
    return {text[start : start + width] for start in range(max(1, len(text) - width + 1))}


def signatures(block: Block) -> np.ndarray:
    """MinHash signatures, (t, BANDS * BAND_ROWS) uint32; all at the largest value where a text has no character."""
    points, starts, ends = (block.points & ~_APART).astype(np.uint64), block.starts, block.ends
    sizes = ends - starts
    counted = np.append(0, np.cumsum(_unspaced(points)))
    width = np.repeat(np.where(2 * (counted[ends] - counted[starts]) > sizes, 2, 4), sizes)
    left = np.repeat(ends, sizes) - np.arange(len(points))
    hashed = points * _FACTORS[0]
    for step in range(1, min(4, len(points))):
        inside = ((left > step) & (width > step))[:-step]
        hashed[:-step] += np.where(inside, points[step:] * _FACTORS[step], np.uint64(0))
    whole = left >= width
    filled = np.flatnonzero(sizes)
    whole[starts[filled]] = True
    first = np.append(0, np.cumsum(whole))[starts[filled]]
    hashed = (_mixed(hashed[whole]) >> np.uint64(32)).astype(np.uint32)
    signature = np.full((len(starts), len(_PERMUTATIONS)), 2**32 - 1, np.uint32)
    if len(filled):
        permuted = np.empty_like(hashed)
        for number, factor in enumerate(_PERMUTATIONS):
            np.multiply(hashed, factor, out=permuted)
            signature[filled, number] = np.minimum.reduceat(permuted, first)
    return signature


def _digit_hashes(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each text's digits in their order, and how many runs of digits there are."""
    before = np.append(0, np.cumsum(block.digit))
    first, last = before[block.starts], before[block.ends]
    where = np.flatnonzero(block.digit)
    begins = (np.diff(where, prepend=-2) > 1) | (block.points[where] >= _APART)
    begins[first[first < last]] = True
    position = np.arange(len(where)) - np.repeat(first, last - first)
    values = _mixed((block.points[where] & ~_APART) + position.astype(np.uint64) * _FACTORS[3] + begins * _FACTORS[2])
    sums, runs = np.append(np.uint64(0), np.cumsum(values)), np.append(0, np.cumsum(begins))
    return sums[last] - sums[first], (runs[last] - runs[first]).astype(np.int32)


def candidate_pairs(sketches: Sketches, rows: np.ndarray, threshold: float) -> np.ndarray:
    """Pairs of the listed rows whose similarity may reach the threshold, (m, 2) row numbers, the one listed first on the left.

    rows: in order of preference. Rows that share a band are compared with the first of them and with `WINDOW` before them, so
    that the work grows with the number of rows whatever they share. Pairs of other digits in as many numbers are left out.
    """
    found = [np.zeros(0, np.int64)]
    bits = np.uint64(max(1, len(rows)).bit_length())
    for band in range(BANDS):
        members, key = np.arange(len(rows), dtype=np.uint64), sketches.keys[rows, band]
        for further in range(1, 4):
            packed = np.sort((key << bits) | members)  # one fast sort: by key, and within a key by preference
            order = (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
            begins = np.append(True, np.diff(packed >> bits) != 0)[: len(order)]
            start = np.flatnonzero(begins)
            size = np.diff(np.append(start, len(order)))
            leader, crowded = np.repeat(start, size), np.repeat((size > CROWD) & (further < 3), size)
            follows = np.flatnonzero(~begins)
            found.append(_plausible(sketches, rows, order[leader[follows]], order[follows], threshold))
            for step in range(1, WINDOW + 1):
                near = follows[(follows - step > leader[follows]) & ~crowded[follows]]
                found.append(_plausible(sketches, rows, order[near - step], order[near], threshold))
            members = order[crowded].astype(np.uint64)
            if not len(members):
                break
            key = (packed >> bits)[crowded] * _FACTORS[4] + sketches.keys[rows[order[crowded]], (band + further) % BANDS]
            key = _mixed(key)
    codes = np.unique(np.concatenate(found))
    return np.stack([rows[codes // len(rows)], rows[codes % len(rows)]], axis=1) if len(codes) else np.zeros((0, 2), np.int64)


def _plausible(sketches: Sketches, rows: np.ndarray, left: np.ndarray, right: np.ndarray, threshold: float) -> np.ndarray:
    """Codes (left * n + right, in positions of `rows`) of the pairs whose estimate and digits allow them."""
    codes = []
    for start in range(0, len(left), BLOCK):
        a, b = rows[left[start : start + BLOCK]], rows[right[start : start + BLOCK]]
        same = (sketches.digits[a] == sketches.digits[b]) | (sketches.numbers[a] != sketches.numbers[b])
        same = np.flatnonzero(same)
        kept = start + same[similarity(sketches, a[same], b[same]) >= threshold - SLACK]
        codes.append(left[kept] * len(rows) + right[kept])
    return np.concatenate([np.zeros(0, np.int64), *codes])


def similarity(sketches: Sketches, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The Jaccard similarity of pairs of rows as their minima estimate it, (m,); one in 256 agrees by chance."""
    return ((sketches.minima[left] == sketches.minima[right]).mean(axis=1) - 1 / 256) * 256 / 255
