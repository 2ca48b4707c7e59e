"""Other datasets from the same parts: pairs of questions, quotas per language, a source language other than English.

Each recipe takes samples and gives samples, so that `translation.translate`, `verification.verify_samples` and the release work
on what it makes.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ultralink_nb.chance import place_in_draw
from ultralink_nb.errors import KitError
from ultralink_nb.languages import get_language

DIRECTIONS = ("to_source", "from_source", "both")
PAIR = "{from_language} → {to_language}\n\n{question}"  # the request of a pair, in no language's words


class BadRecipe(KitError, ValueError):
    """A recipe that cannot be followed as asked; the message says what is wrong."""


def questions_only(samples: Iterable[Mapping[str, Any]]) -> Iterator[dict]:
    """Each sample cut down to the first message of its user, so that a translation costs a question and no answer.

    Id, kind and source stay the sample's own, so a translation of it names the sample as its parent. Raises `BadRecipe` for a
    sample in which no user speaks.
    """
    for sample in samples:
        asked = next((message for message in sample["messages"] if message["role"] == "user"), None)
        if asked is None:
            raise BadRecipe(f"sample {sample['id']} holds no message of a user, so it has no question")
        yield {**sample, "messages": [{"role": "user", "content": asked["content"]}]}


def question_pairs(samples: Sequence[Mapping[str, Any]], translated: Iterable[Mapping[str, Any]],
                   direction: str = "to_source") -> Iterator[dict]:
    """Pairs of questions as samples: the question in one language as the request, in the other as the answer.

    Training on them before, or beside, English data lets a model use what it learned in English (question alignment: Zhu et
    al., arXiv 2401.07817, and Zhang et al., arXiv 2405.13816). direction: `to_source` (a translated question is asked, the
    original answers, as there), `from_source`, or `both`. The request names the two languages by their own names and an arrow,
    see `PAIR`. kind: `question_pair`; source.parent_id names the original sample.
    Raises `BadRecipe` for an unknown direction or a translation whose parent is not among the samples.
    """
    if direction not in DIRECTIONS:
        raise BadRecipe(f"question pairs go {', '.join(DIRECTIONS)}, not {direction!r}")
    originals = {sample["id"]: sample for sample in questions_only(samples)}
    for theirs in questions_only(translated):
        ours = originals.get(theirs["source"]["parent_id"])
        if ours is None:
            raise BadRecipe(f"{theirs['id']}: its parent {theirs['source']['parent_id']} is not among the samples")
        for name, asked, answer in (("to_source", theirs, ours), ("from_source", ours, theirs)):
            if direction in (name, "both"):
                yield _pair(theirs, asked, answer)


def _pair(translated: Mapping[str, Any], asked: Mapping[str, Any], answer: Mapping[str, Any]) -> dict:
    names = {f"{end}_language": get_language(row["language"]).own_name for end, row in (("from", asked), ("to", answer))}
    return {
        **translated, "id": f"{asked['language']}-{answer['language']}_{translated['source']['parent_id']}",
        "language": answer["language"], "kind": "question_pair",
        "messages": [{"role": "user", "content": PAIR.format(question=asked["messages"][0]["content"], **names)},
                     {"role": "assistant", "content": answer["messages"][0]["content"]}],
    }


def reservoir(rows: Iterable[Mapping[str, Any]], quotas: Mapping[str, int], seed: int = 1) -> list[Mapping[str, Any]]:
    """At most `quotas[language]` rows of each language, drawn uniformly without replacement, in the order of the rows.

    rows: a stream, read once; only the rows of the sample so far are held. Languages without a quota are kept in full.
    Reservoir sampling by random keys (Efraimidis & Spirakis 2006, with equal weights), the key being a hash of seed and id: a
    language's sample has exactly min(quota, rows) rows and depends on neither the order of the rows nor the other languages,
    and a smaller quota gives a part of a larger one's. Raises `BadRecipe` for a quota below 0.
    """
    low = {language: quota for language, quota in quotas.items() if quota < 0}
    if low:
        raise BadRecipe(f"a quota is 0 rows or more: {low}")
    held: dict[str, list[tuple[int, int, Mapping[str, Any]]]] = {}
    for number, row in enumerate(rows):
        quota = quotas.get(row["language"])
        kept = held.setdefault(row["language"], [])
        key = 0 if quota is None else place_in_draw(row["id"], seed)
        entry = (-key, -number, row)  # a heap gives its least first: the greatest key, the latest row
        if quota is None or len(kept) < quota:
            heapq.heappush(kept, entry)
        elif kept and entry[:2] > kept[0][:2]:
            heapq.heapreplace(kept, entry)
    return [row for _, _, row in sorted((entry for kept in held.values() for entry in kept), key=lambda entry: -entry[1])]


def choose_sources(samples: Iterable[Mapping[str, Any]], order: Sequence[str]) -> list[Mapping[str, Any]]:
    """One version of each content, from which the others are to be translated: in the first language of `order` that it has.

    Versions of one content are a sample and those whose source.parent_id names it. What has no version in any of the languages
    is left out, since nobody asked to translate from its language. The order of the contents is that of their first row.
    """
    rank = {language: place for place, language in enumerate(order)}
    best: dict[str, Mapping[str, Any]] = {}
    for sample in samples:
        content = sample["source"].get("parent_id") or sample["id"]
        best.setdefault(content, sample)
        if rank.get(sample["language"], len(rank)) < rank.get(best[content]["language"], len(rank)):
            best[content] = sample
    return [sample for sample in best.values() if sample["language"] in rank]
