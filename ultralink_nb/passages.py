"""Documents cut into passages at paragraph boundaries, in equal parts, without losing a character of prose.

A cut falls between two paragraphs; inside one, at the end of a sentence, only where the paragraph alone is longer than a
passage may be; and inside a sentence only where the sentence is. Among all such cuts the best is searched: no heading at the end
of a passage, then as few cuts inside paragraphs and as few passages as can be, then passages of equal length.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise

from tqdm.auto import tqdm

from ultralink_nb.processes import in_order
from ultralink_nb.tokens import DEFAULT_TOKENIZER, count_tokens

BETWEEN, INSIDE, AFTER_HEADING = range(3)  # what a cut would divide
BATCH = 100  # documents that a process cuts at a time

_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[”’」』）]*\s*|\n+")


def is_heading(paragraph: str) -> bool:
    """Whether a paragraph of plain text reads as a heading: one short line that does not end as a sentence does."""
    line = paragraph.strip()
    return 0 < len(line) <= 100 and "\n" not in line and not line.startswith("- ") and line[-1] not in ".!?。！？…:：;；,，、)”»"


def split_passages(document: dict, max_tokens: int = 2000, tokenizer: str = DEFAULT_TOKENIZER) -> list[dict]:
    """The passages of a document, rows in the shape of `records.PASSAGES`, with ids `<document id>:<n>` from 0.

    max_tokens: the longest passage. Between two passages nothing is left out but white space, so passages found one after the
    other in the document's text cover all of it.
    """
    text = document["text"]
    limit = max_tokens
    while True:
        texts = [text[start:end].strip() for start, end in _spans(text, limit, tokenizer)]
        texts = [one for one in texts if one]
        lengths = count_tokens(texts, tokenizer)
        excess = max(lengths, default=0) - max_tokens
        if excess <= 0 or limit <= 1:
            break
        limit = max(1, limit - excess)  # tokens that merge across a joint can make a whole longer than its parts
    return [
        {"id": f"{document['id']}:{number}", "document_id": document["id"], "language": document["language"],
         "title": document["title"], "text": one, "n_tokens": length}
        for number, (one, length) in enumerate(zip(texts, lengths, strict=True))
    ]


def passages_of(
    documents: Iterable[dict], max_tokens: int = 2000, tokenizer: str = DEFAULT_TOKENIZER, workers: int = 1
) -> Iterator[dict]:
    """The passages of many documents, in their order; a few hundred documents are in memory at once.

    workers: processes; for a few documents one is the fastest.
    """
    split = partial(_passages_of_batch, max_tokens=max_tokens, tokenizer=tokenizer)
    documents = iter(tqdm(documents, "passages", unit=" documents", disable=None))
    batches = iter(lambda: list(islice(documents, BATCH)), [])
    for passages in in_order(split, batches, workers):
        yield from passages


def _passages_of_batch(documents: list[dict], max_tokens: int, tokenizer: str) -> list[dict]:
    return [passage for document in documents for passage in split_passages(document, max_tokens, tokenizer)]


def _spans(text: str, limit: int, tokenizer: str) -> list[tuple[int, int]]:
    """The best cuts of a text: what `best` minimises is, in this order of weight, the module's list above."""
    edges, kinds, sizes = _atoms(text, limit, tokenizer)
    best: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)]
    came_from = [0]
    for end in range(1, len(edges)):
        size, choices = 0, []
        for start in range(end - 1, -1, -1):
            size += sizes[start]
            if size > limit and choices:
                break
            after_heading, inside, count, squares = best[start]
            cut = kinds[start] if start else BETWEEN
            choices.append((
                (after_heading + (cut == AFTER_HEADING), inside + (cut == INSIDE), count + 1, squares + size * size), start
            ))
        cost, start = min(choices)
        best.append(cost)
        came_from.append(start)
    spans, end = [], len(edges) - 1
    while end > 0:
        spans.append((edges[came_from[end]], edges[end]))
        end = came_from[end]
    return spans[::-1]


def _atoms(text: str, limit: int, tokenizer: str) -> tuple[list[int], list[int], list[int]]:
    """The pieces that stay whole: n+1 edges, and for each of n pieces the kind of cut before it and its tokens."""
    starts = [0, *(match.end() for match in re.finditer(r"\n\n+", text))]
    paragraphs = [(start, end) for start, end in pairwise([*starts, len(text)]) if start < end]
    lengths = count_tokens([text[start:end] for start, end in paragraphs], tokenizer)
    edges, kinds, sizes = [0], [], []
    heading = 0  # tokens of the headings just before
    for (start, end), length in zip(paragraphs, lengths, strict=True):
        kind = AFTER_HEADING if heading else BETWEEN
        pieces = [(start, end, length)] if heading + length <= limit else _parts(text, start, end, limit, tokenizer)
        for number, (_, piece_end, size) in enumerate(pieces):
            edges.append(piece_end)
            kinds.append(INSIDE if number else kind)
            sizes.append(size)
        heading = heading + length if is_heading(text[start:end]) else 0
    return edges, kinds, sizes


def _parts(text: str, start: int, end: int, limit: int, tokenizer: str) -> list[tuple[int, int, int]]:
    """A paragraph as sentences, and a sentence that is still too long as halves of halves; (start, end, tokens) each."""
    cuts = [match.end() for match in _SENTENCE_END.finditer(text, start, end) if match.end() < end]
    spans = list(pairwise([start, *cuts, end]))
    parts = []
    for (first, last), size in zip(spans, count_tokens([text[a:b] for a, b in spans], tokenizer), strict=True):
        parts += [(first, last, size)] if size <= limit else _halves(text, first, last, size, limit, tokenizer)
    return parts


def _halves(text: str, start: int, end: int, size: int, limit: int, tokenizer: str) -> Sequence[tuple[int, int, int]]:
    if size <= limit or end - start < 2:
        return [(start, end, size)]
    middle = (start + end) // 2
    quarter = (end - start) // 4
    spaces = [match.end() for match in re.compile(r"\s+").finditer(text, middle - quarter, middle + quarter)]
    cut = min(spaces, key=lambda space: abs(space - middle)) if spaces else middle
    while cut < end - 1 and unicodedata.combining(text[cut]):
        cut += 1  # a stress mark stays with its letter
    sizes = count_tokens([text[start:cut], text[cut:end]], tokenizer)
    return [*_halves(text, start, cut, sizes[0], limit, tokenizer), *_halves(text, cut, end, sizes[1], limit, tokenizer)]
