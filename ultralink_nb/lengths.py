"""How long a model's answers are, in tokens, by language and task: learned from the ledger, guessed from the embedded sample."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from statistics import fmean, pstdev

from ultralink_nb import layouts
from ultralink_nb.ledger import Ledger
from ultralink_nb.records import read_rows
from ultralink_nb.tokens import DEFAULT_TOKENIZER, count_tokens
from ultralink_nb.workspace import SAMPLE

ENOUGH = 20  # answers from which a length is learned


@dataclass(frozen=True)
class Length:
    """Tokens of an answer. text: what is kept of it, by the stated tokenizer; paid: what the server counts, thoughts too.

    spread: standard deviation of `paid`. seen: answers of the model that this was learned from; 0: none, a guess.
    """

    text: float
    paid: float
    spread: float = 0.0
    seen: int = 0

    def at(self, side: int, calls: float) -> float:
        """Mean tokens of `calls` answers to come: expected (side 0), low (-1) or high (1)."""
        if not self.seen:
            return self.paid * 2.0**side
        return max(0.1 * self.paid, self.paid + side * 2 * self.spread * math.sqrt(1 / self.seen + 1 / max(calls, 1)))


@cache
def recorded_lengths(tokenizer: str = DEFAULT_TOKENIZER) -> dict[tuple[str, str], Length]:
    """Mean lengths by (language, task) in the embedded sample; for `translate`, tokens for one token of English.

    The language "" stands for any that the sample does not have.
    """
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path in sorted((SAMPLE / "dialogues").glob("*.jsonl")):
        turns = [turn for _, row in read_rows(path) for turn in row["turns"]]
        for task in ("question", "answer"):
            seen[path.stem, task] = list(map(float, count_tokens([turn[task] for turn in turns], tokenizer)))
    verdicts = [json.dumps(row["scores"], ensure_ascii=False) for _, row in read_rows(SAMPLE / "sft" / "verdicts.jsonl")]
    seen["en", "sift"] = list(map(float, count_tokens(verdicts, tokenizer)))
    originals = {sample["id"]: sample["messages"] for sample in layouts.read_sft(layouts.EMBEDDED)[0]}
    for path in sorted((SAMPLE / "sft" / "translations").glob("*.jsonl")):
        rows = [row for _, row in read_rows(path)]
        ours = count_tokens([message["content"] for row in rows for message in row["messages"]], tokenizer)
        theirs = count_tokens([message["content"] for row in rows for message in originals[row["id"]]], tokenizer)
        seen[path.stem, "translate"] = [sum(ours) / sum(theirs)]
    for task in ("question", "answer", "sift", "translate"):
        seen["", task] = [fmean(values) for (_, name), values in seen.items() if name == task]
    return {group: Length(fmean(values), fmean(values)) for group, values in seen.items()}


def learned_lengths(ledger: Ledger, model: str, tokenizer: str = DEFAULT_TOKENIZER) -> dict[tuple[str, str], Length]:
    """Lengths of a model's latest answers in the ledger by (language, task), where there are at least `ENOUGH`."""
    groups: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for row in ledger.answers(model, 20_000):
        if len(group := groups[row["language"], row["task"]]) < 500:
            group.append((row["text"], row["completion_tokens"] or 0))
    lengths = {}
    for group, answers in groups.items():
        text = count_tokens([text for text, _ in answers], tokenizer)
        paid = [counted or own for (_, counted), own in zip(answers, text, strict=True)]  # a server may not count
        if len(answers) >= ENOUGH and group[1] != "translate":
            lengths[group] = Length(fmean(text), fmean(paid), pstdev(paid), len(answers))
    return lengths
