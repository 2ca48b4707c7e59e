"""A long text cut where a reader would cut it, for a translator that takes in so many tokens at a time."""

import re

from ultralink_nb.tokens import DEFAULT_TOKENIZER, count_tokens

_PARAGRAPH = re.compile(r"(?<=\n)(?=[^\n])(?<=\n\n)|(?<=\n[ \t]\n)(?=\S)")
_FINER = (re.compile(r"(?<=\n)"), re.compile(r"(?<=[.!?…][\s\u00a0])|(?<=[。！？；])"), re.compile(r"(?<=\s)"))


def paragraph_batches(text: str, max_tokens: int, tokenizer: str = DEFAULT_TOKENIZER) -> list[str]:
    """The text in pieces of at most `max_tokens` tokens, as few as neighbours allow; joined they are the text again.

    It is cut at blank lines; a paragraph that is too long alone is cut at its lines, then at its sentences, then between words,
    and what no white space parts is left whole, longer than asked. Give it text whose code stands behind placeholders
    (`protection.protect`), so that no cut falls into code. An empty text is one empty piece.
    Raises ValueError for fewer than one token.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}: a piece has at least one token")
    pieces = [piece for paragraph in _PARAGRAPH.split(text) for piece in _fitting(paragraph, max_tokens, tokenizer, _FINER)]
    batches, size = [""], 0
    for piece, tokens in zip(pieces, count_tokens(pieces, tokenizer), strict=True):
        if batches[-1] and size + tokens > max_tokens:
            batches.append("")
            size = 0
        batches[-1] += piece
        size += tokens
    return batches


def _fitting(text: str, max_tokens: int, tokenizer: str, finer: tuple[re.Pattern[str], ...]) -> list[str]:
    if not finer or count_tokens([text], tokenizer)[0] <= max_tokens:
        return [text]
    parts = [part for part in finer[0].split(text) if part]
    return [piece for part in parts for piece in _fitting(part, max_tokens, tokenizer, finer[1:])]
