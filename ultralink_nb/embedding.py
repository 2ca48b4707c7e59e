"""Text to vectors, each text encoded once per encoder and kept on disk; long texts pooled rather than cut off.

Notable: texts are sorted by length and batched by tokens, not by number; what is encoded goes to an SQLite cache within a
second (`vector_cache.py`), and vectors are then read from there in blocks of rows, so that a million texts need little more
memory than their strings. A text longer than an encoder's window is cut into windows at spaces; its vector is the mean of the
windows' vectors of length one, weighted by their tokens. Vectors have length one, so that an inner product is a cosine.
"""

import errno
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from ultralink_nb.encoders import Encoder, ModelNotFound, open_encoder
from ultralink_nb.engine import Engine, LocalEngine
from ultralink_nb.errors import KitError
from ultralink_nb.records import atomic_path
from ultralink_nb.vector_cache import CacheError, VectorCache, text_keys

__all__ = [
    "BadEmbedding", "CacheError", "Encoder", "ModelNotFound", "check_template", "embed", "open_encoder", "read_embeddings",
    "sample_text", "write_embeddings",
]
BLOCK = 8192  # rows of vectors that are in memory at once
_BREAK = re.compile(r"[\s。！？；，、]")


class BadEmbedding(KitError, ValueError):
    """Vectors not finite or of a wrong shape, a text template with an unknown field, or files that do not belong together."""


_PARTS = ("question", "answer", "first_turn", "all")


@lru_cache
def check_template(what: str) -> str:
    """The template that `what` stands for; raises `BadEmbedding` unless it is one of the parts' names or has them in braces."""
    template = f"{{{what}}}" if what in _PARTS else what
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
        template.format(**dict.fromkeys(_PARTS, ""))
    except (ValueError, LookupError, AttributeError):
        fields = []
    if not fields or not set(fields) <= set(_PARTS):
        raise BadEmbedding(
            f"{what!r} does not say what of a sample is embedded: give {', '.join(_PARTS)}, or a template such as "
            '"{question}\\n{answer}"'
        )
    return template


def sample_text(sample: Mapping[str, Any], what: str = "question") -> str:
    """The part of a sample that is embedded.

    what: `question` (the first message of the user), `answer` (the first of the assistant after it, "" where there is none),
    `first_turn` (both), `all` (every message from the question on, but the system's), or a template with these in braces. Two
    samples have the same content when the same task is asked, whatever the wording of the answer, so the question alone is
    the default. Raises `BadEmbedding` for anything else.
    """
    template = check_template(what)
    messages = [message for message in sample["messages"] if message["role"] != "system"]
    first = next((number for number, message in enumerate(messages) if message["role"] == "user"), len(messages))
    texts = [message["content"] for message in messages[first:]]
    answers = (message["content"] for message in messages[first:] if message["role"] == "assistant")
    parts = (texts[0] if texts else "", next(answers, ""), "\n\n".join(texts[:2]), "\n\n".join(texts))
    return template.format(**dict(zip(_PARTS, parts, strict=True))).strip()


def _of_length_one(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def _batches(lengths: np.ndarray, batch_tokens: int) -> Iterator[slice]:
    """Slices of texts sorted from long to short, each of at most `batch_tokens` tokens when padded, and at least one text."""
    start = 0
    while start < len(lengths):
        stop = start + max(1, batch_tokens // max(1, int(lengths[start])))
        yield slice(start, stop)
        start = stop


def _windows(text: str, length: int, encoder: Encoder) -> list[tuple[str, int]]:
    """The text in pieces of at most `encoder.window` tokens, and each piece's tokens; blank pieces are left out."""
    if not text.strip():
        return []
    if length <= encoder.window or len(text) < 2:
        return [(text, length)]
    parts = min(len(text), max(2, -(-length * 10 // (encoder.window * 9))))  # a tenth of slack: tokens are not spread evenly
    step, cuts = len(text) / parts, [0]
    for number in range(1, parts):
        end = int(number * step)
        low = max(cuts[-1] + 1, end - int(step / 4))
        spaces = [space.end() for space in _BREAK.finditer(text, low - 1, end)]
        cuts.append(spaces[-1] if spaces else end)
    pieces = [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]
    return [window for piece, tokens in zip(pieces, encoder.lengths(pieces), strict=True)
            for window in _windows(piece, int(tokens), encoder)]


def _encode(texts: Sequence[str], lengths: np.ndarray, encoder: Encoder, batch_tokens: int) -> np.ndarray:
    """Vectors of the texts, shape (n, dimension), float32, of length one; windows of long texts pooled by their tokens."""
    found = [(piece, row, tokens) for row, (text, length) in enumerate(zip(texts, lengths, strict=True))
             for piece, tokens in _windows(text, int(length), encoder)]
    found.sort(key=lambda piece: -piece[2])
    pooled = np.zeros((len(texts), encoder.dimension), dtype=np.float32)
    for part in _batches(np.array([tokens for _, _, tokens in found]), batch_tokens):
        pieces, rows, weights = zip(*found[part], strict=True)
        vectors = np.asarray(encoder.encode(list(pieces)))
        if vectors.shape != (len(pieces), encoder.dimension):
            expected = (len(pieces), encoder.dimension)
            raise BadEmbedding(f"encoder {encoder.name} returned an array of shape {vectors.shape}, not {expected}")
        if not np.isfinite(vectors).all():
            bad = pieces[int(np.argmin(np.isfinite(vectors).all(axis=1)))]
            raise BadEmbedding(f"encoder {encoder.name}: the vector of the text {bad[:80]!r} is not finite")
        np.add.at(pooled, list(rows), _of_length_one(vectors) * np.array(weights, dtype=np.float32)[:, None])
    return _of_length_one(pooled)


_opened = cache(open_encoder)  # a process of a cluster opens an encoder once


def _encode_far(
    texts: Sequence[str], lengths: np.ndarray, encoder: Encoder | tuple, identity: str, batch_tokens: int
) -> np.ndarray:
    """`_encode` on another node. encoder: what opens it there, since models do not travel; or one that does."""
    opened = _opened(*encoder) if isinstance(encoder, tuple) else encoder
    if opened.identity != identity:
        raise BadEmbedding(f"a node has another encoder ({opened.identity}) than this machine ({identity}), whose vectors would "
                           "not be comparable: give all nodes the same versions and files")
    with threadpool_limits(1, user_api="blas"):
        return _encode(texts, lengths, opened, batch_tokens)


def _fill(
    cache: VectorCache, keys: np.ndarray, rows: np.ndarray, texts: Sequence[str], encoder: Encoder, batch_tokens: int,
    engine: Engine,
) -> None:
    """Encode texts into the cache: of each of the `keys` (m,), the one that stands in its row (m,) of `texts`."""
    def chosen(rows: np.ndarray) -> list[str]:  # half surrogate pairs and zero bytes stop most tokenizers
        return [texts[row].encode("utf-8", "replace").decode().replace("\0", " ") for row in rows]

    lengths = np.concatenate([encoder.lengths(chosen(rows[start : start + BLOCK])) for start in range(0, len(rows), BLOCK)])
    order = np.argsort(-lengths, kind="stable")  # long texts first: memory that does not suffice shows at once
    batches = [order[part] for part in _batches(lengths[order], batch_tokens)]

    def encoded(batch: np.ndarray) -> np.ndarray:
        return _encode(chosen(rows[batch]), lengths[batch], encoder, batch_tokens)

    far = ((chosen(rows[batch]), lengths[batch], getattr(encoder, "recipe", encoder), encoder.identity, batch_tokens)
           for batch in batches)
    with (
        ThreadPoolExecutor(encoder.workers) as pool,
        threadpool_limits(1 if encoder.workers > 1 else None, user_api="blas"),
        tqdm(total=lengths.sum(), desc=f"encoding with {encoder.name}", unit="token", unit_scale=True,
             disable=None if len(rows) > 500 else True) as bar,
    ):
        try:
            found = engine.map(_encode_far, far, gpu=encoder.on_gpu) if engine.far else pool.map(encoded, batches)
            for batch, vectors in zip(batches, found, strict=True):
                cache.put(keys[batch], vectors)
                bar.update(int(lengths[batch].sum()))
        finally:
            pool.shutdown(cancel_futures=True)


def embed(
    texts: Sequence[str], encoder: Encoder, cache_dir: str | Path, batch_tokens: int = 16384, out: str | Path | None = None,
    dtype: type = np.float32, engine: Engine = LocalEngine(),  # noqa: B008 (it has no state)
) -> np.ndarray:
    """Vectors of the texts, shape (n, dimension), of length one; only texts that are not in the cache are encoded.

    batch_tokens: tokens encoded at once, padding included, by each of the encoder's workers. out: a `.npy` file to write, block
    by block; it comes back memory-mapped and read-only, for where n × dimension does not fit in memory. dtype: float32 or
    float16; the values are those of the cache, rounded to float16 and brought to length one again. engine: where texts are
    encoded; the same batches come to the same vectors, and the cache is written here.
    A text without content (empty, blank, or without a token that the encoder knows) has no direction: its row is zero.
    Raises `BadEmbedding` if the encoder returns a vector that is not finite or of another dimension, `CacheError` if the cache
    cannot be read or written. What was encoded before an error is kept.
    """
    if np.dtype(dtype) not in (np.float32, np.float16):
        raise BadEmbedding(f"vectors are kept as float32 or float16, not as {np.dtype(dtype)}")
    slug = re.sub(r"[^\w.-]+", "_", encoder.identity).strip("_")[-100:]
    slug += hashlib.blake2b(encoder.identity.encode(), digest_size=4).hexdigest()
    with VectorCache(Path(cache_dir) / "embeddings" / f"{slug}.sqlite", encoder.identity, encoder.dimension) as cache:
        keys, first, row_key = np.unique(text_keys(texts), return_index=True, return_inverse=True)
        numbers = cache.find(keys)
        missing = np.flatnonzero(numbers < 0)
        if len(missing):
            _fill(cache, keys[missing], first[missing], texts, encoder, batch_tokens, engine)
            numbers[missing] = cache.find(keys[missing])

        def blocks() -> Iterator[np.ndarray]:
            for start in range(0, len(texts), BLOCK):
                yield _of_length_one(cache.read(numbers[row_key[start : start + BLOCK]])).astype(dtype)

        if out is not None:
            return _written(Path(out), blocks(), (len(texts), encoder.dimension), np.dtype(dtype))
        vectors = np.empty((len(texts), encoder.dimension), dtype=dtype)
        for number, block in enumerate(blocks()):
            vectors[number * BLOCK : number * BLOCK + len(block)] = block
        return vectors


def _written(path: Path, blocks: Iterator[np.ndarray], shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """A `.npy` file written in order, since a full disk is then an error, where a memory map would kill the process."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    try:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        size = shape[0] * shape[1] * dtype.itemsize / 1e9
        raise BadEmbedding(f"{path}: the disk is full; the vectors need {size:.1f} GB (float16 half of float32)") from None
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _mark(ids: Sequence[str], vectors: np.ndarray) -> str:
    """A hash of all ids and of about a thousand rows: it tells whether files belong together."""
    digest = hashlib.blake2b("\0".join(ids).encode("utf-8", "surrogatepass"), digest_size=16)
    digest.update(np.ascontiguousarray(vectors[:: max(1, len(vectors) // 1000)]).tobytes())
    return digest.hexdigest()


def write_embeddings(folder: Path, ids: Sequence[str], vectors: np.ndarray, encoder: Encoder, what: str) -> None:
    """Write `embeddings.npy`, `embeddings.ids.parquet` (one column, in the same order) and `embeddings.json` (what they are).

    vectors: (n, dimension), float32 or float16; not written again if `embed` has written them to this `embeddings.npy` (its
    `out`). The JSON is written last: where it is missing, so are the embeddings.
    Raises `BadEmbedding` if ids and vectors differ in number.
    """
    if len(ids) != len(vectors):
        raise BadEmbedding(f"{len(ids)} ids do not fit {len(vectors)} vectors")
    path = Path(folder) / "embeddings.npy"
    path.with_suffix(".json").unlink(missing_ok=True)
    mark, mapped = _mark(ids, vectors), getattr(vectors, "filename", None)
    if not (mapped and Path(mapped).absolute() == path.absolute() and _mark(ids, np.load(path, mmap_mode="r")) == mark):
        blocks = (vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK))
        _written(path, blocks, vectors.shape, vectors.dtype)
    with atomic_path(path.with_suffix(".ids.parquet")) as temporary:
        pq.write_table(pa.table({"id": pa.array(ids, pa.string())}), temporary, compression="zstd")
    about = {
        "encoder": encoder.name, "identity": encoder.identity, "dimension": encoder.dimension, "rows": len(ids),
        "dtype": vectors.dtype.name, "text": what, "mark": mark,
        "pooling": f"mean of windows of {encoder.window} tokens, weighted by tokens",
    }
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")


def read_embeddings(folder: Path) -> tuple[list[str], np.ndarray, dict]:
    """Ids, vectors (memory-mapped, read-only) and the description that `write_embeddings` left in a folder.

    Raises FileNotFoundError if they are not there, `BadEmbedding` if the files do not belong together.
    """
    path = Path(folder) / "embeddings.npy"
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    ids = pq.read_table(path.with_suffix(".ids.parquet"))["id"].to_pylist()
    if vectors.shape != (len(ids), about["dimension"]) or _mark(ids, vectors) != about["mark"]:
        raise BadEmbedding(f"{path} and the files beside it do not belong together: run notebook 04 again")
    return ids, vectors, about
