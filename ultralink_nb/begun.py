"""What the ledger already holds of a plan: its answers read as a run would read them, and how far they take each dialogue."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ultralink_nb import dialogues
from ultralink_nb.chat import ChatRequest, Completion
from ultralink_nb.dialogues import Process, Turn
from ultralink_nb.ledger import Ledger, request_key
from ultralink_nb.lengths import ENOUGH
from ultralink_nb.tokens import DEFAULT_TOKENIZER, count_tokens

CHECKED = 500  # dialogues begun that are put through the gates again; of the rest the ledger alone is read
MESSAGE_TOKENS = 4  # what a chat template puts around a message, until the server's own counts say it better


class _Missing(Exception):
    """The ledger does not hold what was asked; nothing that catches a `ChatError` sees this."""


class LedgerAlone:
    """A chat model that has only the ledger's answers. What it does not hold gets `stand_in`, or raises `_Missing`."""

    def __init__(self, name: str, ledger: Ledger | None, tokenizer: str, stand_in: str | None = None):
        self.name, self.ledger, self.tokenizer, self.stand_in = name, ledger, tokenizer, stand_in
        self.found: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)  # prompt: estimated, paid; answer: paid
        self.missing: dict[tuple[str, str], list[float]] = defaultdict(list)  # prompts as estimated
        self.answers: list[str] = []  # of the dialogue that is being read

    async def complete(self, request: ChatRequest) -> Completion:
        group = str(request.about.get("language")), str(request.about.get("task"))
        known = self.ledger.find(request_key(self.name, request), reuse=False) if self.ledger else None
        if known is None:
            if self.stand_in is None:
                raise _Missing
            self.missing[group].append(prompt_tokens(request.messages, self.tokenizer))
            return Completion(self.stand_in, self.name, "stop", 0, 0, 0.0, True)
        completion = Completion(**known, cached=True)
        estimated = prompt_tokens(request.messages, self.tokenizer)
        self.found[group].append((estimated, completion.prompt_tokens or 0, completion.completion_tokens or 0))
        self.answers.append(completion.text)
        return completion

    def correction(self, language: str) -> float:
        """The server's tokens for one token of an estimated prompt in a language; 1 where too few are known."""
        known = [(tokens, paid) for (code, _), rows in self.found.items() if code == language for tokens, paid, _ in rows if paid]
        return sum(paid for _, paid in known) / sum(tokens for tokens, _ in known) if len(known) >= ENOUGH else 1.0


def prompt_tokens(messages: Iterable[Mapping[str, str]], tokenizer: str = DEFAULT_TOKENIZER) -> int:
    """Tokens of a prompt: its messages, and `MESSAGE_TOKENS` around each."""
    return sum(tokens + MESSAGE_TOKENS for tokens in count_tokens([message["content"] for message in messages], tokenizer))


@dataclass
class Begun:
    """How far the ledger takes a dialogue: its answers' tokens (question, answer, …), and whether it is over and how."""

    texts: Sequence[int] = ()
    over: bool = False
    refused: bool = False
    checked: bool = True


async def begun_dialogues(passages: Sequence[Mapping[str, Any]], alone: LedgerAlone, seed: int, languages: Sequence[str],
                          process: Process, options: Mapping[str, Any]) -> dict[str, Begun]:
    """By passage id, the dialogues whose first question is in the ledger, built again by the process itself."""
    found = {}
    for passage in passages:
        first = dialogues.question_messages("first", passage, ())
        key = request_key(alone.name, dialogues.request_for("question", first, passage, 0, seed, process))
        if alone.ledger is None or alone.ledger.find(key, reuse=False) is None:
            continue
        alone.answers = []
        if len(found) >= CHECKED:
            found[passage["id"]] = _held(passage, alone, seed, process)
            continue
        over = refused = False
        try:
            dialogue = await dialogues.converse(passage, alone, seed=seed, languages=languages, process=process, **options)
            over, refused = True, dialogue.refused_turn is not None
        except _Missing:
            pass
        found[passage["id"]] = Begun(count_tokens(alone.answers, process.tokenizer), over, refused)
    return found


def _held(passage: Mapping[str, Any], alone: LedgerAlone, seed: int, process: Process) -> Begun:
    """What the ledger holds of a dialogue, its gates not asked: whether its last turn passed is not known."""
    turns: list[Turn] = []
    texts: list[str] = []

    def find(task: str, messages: tuple[dict[str, str], ...]) -> str | None:
        request = dialogues.request_for(task, messages, passage, len(turns), seed, process)
        known = alone.ledger.find(request_key(alone.name, request), reuse=False) if alone.ledger else None
        if known:
            alone.found[passage["language"], task].append((0, 0, 0))  # counted, and nothing learned from it
            texts.append(dialogues.tidy(known["text"]))
        return texts[-1] if known else None

    moves = dialogues.plan(passage["id"], seed, process.end_probability, process.max_turns)
    for move in moves:
        question = find("question", dialogues.question_messages(move, passage, turns))
        answer = question and find("answer", dialogues.answer_messages(passage, turns, question, process.answer_with_document))
        if not question or not answer:
            break
        turns.append(Turn(move, question, answer))
    return Begun(count_tokens(texts, process.tokenizer), len(turns) == len(moves), checked=False)


def _share(part: int, n: int) -> dict[str, float]:
    """A share, low, expected and high, by Agresti and Coull's interval, which holds for small n. Too few: none, all and all."""
    if n < ENOUGH:
        return {"_low": 0.0, "": 1.0, "_high": 1.0}
    centre = (part + 2) / (n + 4)
    error = 2 * math.sqrt(centre * (1 - centre) / (n + 4))
    return {"_low": max(0.0, centre - error), "": part / n, "_high": min(1.0, centre + error)}


def passing_share(begun: Iterable[Begun]) -> dict[str, float]:
    """The share of turns that pass the gates."""
    turns = [(len(one.texts) // 2, one.refused) for one in begun if one.checked]
    n = sum(count for count, _ in turns)
    return _share(n - sum(refused for _, refused in turns), n)


def going_on_share(begun: Iterable[Begun]) -> dict[str, float]:
    """Of the dialogues that the ledger leaves at a whole turn before their plan ends, the share that was not cut there."""
    left = [one.refused for one in begun if one.checked and len(one.texts) % 2 == 0 and (one.refused or not one.over)]
    return _share(len(left) - sum(left), len(left))
