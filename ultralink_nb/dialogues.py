"""Dialogues about passages, the process of UltraLink (Section 3.1): ask about a passage, answer from it, ask on.

A first question about a passage; an answer that draws on it; then follow-up questions in depth or in width, each answered with
the passage and the dialogue so far. From the second turn on a dialogue ends with probability 0.1, which doubles after every
turn. All random choices of a dialogue come from (seed, passage id) alone, so neither the order nor the number of requests in
flight changes a result.

The passage is quoted as data: what it says cannot close its tag, and the prompts say that it gives no orders.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ultralink_nb import grounded
from ultralink_nb.asking import ask_all
from ultralink_nb.chat import ChatError, ChatModel, ChatRequest, Completion, NoRecording, model_label
from ultralink_nb.checks import Gates, Refusal, check_turn
from ultralink_nb.languages import UnknownLanguage, get_language
from ultralink_nb.obeying import without_instructions
from ultralink_nb.prompts import DIALOGUE_TAGS, load_prompts, quoted
from ultralink_nb.records import SAMPLE_SUFFIXES, BadRecord, find_files, read_rows, rejected
from ultralink_nb.tokens import DEFAULT_TOKENIZER, count_tokens

STAGE = "dialogue_generation"
KIND = "chat_specific"
MISSING = 12  # pieces of an answer that a sample lists as missing in its passage


@dataclass(frozen=True)
class Process:
    """How dialogues are made.

    end_probability: that a dialogue ends after its second turn; doubles every turn. max_turns: longest dialogue.
    max_context_tokens: longest prompt; a dialogue ends before it. max_answer_tokens: longest completion. temperature: 0 to 2.
    answer_with_document: show the passage when asking for an answer. stop_after: dialogues failing in a row for one cause
    (a wrong key, a server that is down) before everything stops.
    """

    end_probability: float = 0.1
    max_turns: int = 6
    max_context_tokens: int = 6000
    max_answer_tokens: int = 2048
    temperature: float = 0.7
    answer_with_document: bool = True
    tokenizer: str = DEFAULT_TOKENIZER
    stop_after: int = 16


@dataclass(frozen=True)
class Turn:
    """A question and its answer. move: `first`, `depth` or `width`."""

    move: str
    question: str
    answer: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class Dialogue:
    """What became of a passage: the turns that passed, and the refusals of the turn at which it was cut."""

    passage: Mapping[str, Any]
    turns: list[Turn] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    refused_turn: Turn | None = None


def plan(passage_id: str, seed: int, end_probability: float, max_turns: int) -> list[str]:
    """The moves of a dialogue, its length drawn too: `first`, then `depth` or `width` with equal chance.

    After turn t = 2, 3, … the dialogue ends with probability min(1, end_probability * 2 ** (t - 2)).
    """
    digest = hashlib.sha256(passage_id.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    moves = ["first"]
    while len(moves) < max_turns:
        moves.append(str(rng.choice(["depth", "width"])))
        if rng.random() < end_probability * 2.0 ** (len(moves) - 2):
            break
    return moves


def passage_text(passage: Mapping[str, Any]) -> str:
    """A passage as prompts quote it and as answers are held against it: its document's title, then its text."""
    return f"{passage['title']}\n\n{passage['text']}"


def question_messages(move: str, passage: Mapping[str, Any], turns: Sequence[Turn]) -> tuple[dict[str, str], ...]:
    """The prompt for a dialogue's next question, in the passage's language."""
    prompts = load_prompts(passage["language"])["dialogue"]
    values = {"passage": quoted(passage_text(passage), *DIALOGUE_TAGS)}
    if move != "first":
        said = [(quoted(turn.question, *DIALOGUE_TAGS), quoted(turn.answer, *DIALOGUE_TAGS)) for turn in turns]
        values["dialogue"] = "\n".join(f"<question>{asked}</question>\n<answer>{told}</answer>" for asked, told in said)
    return (
        {"role": "system", "content": prompts["system_question"].strip()},
        {"role": "user", "content": prompts[f"{move}_question"].format(**values).strip()},
    )


def answer_messages(passage: Mapping[str, Any], turns: Sequence[Turn], question: str,
                    with_document: bool = True) -> tuple[dict[str, str], ...]:
    """The prompt for an answer: the passage as what the assistant knows, the dialogue so far, the question."""
    prompts = load_prompts(passage["language"])["dialogue"]
    known = prompts["answer_alone"]
    if with_document:
        known = prompts["answer"].format(passage=quoted(passage_text(passage), *DIALOGUE_TAGS))
    past = [{"role": role, "content": text} for turn in turns
            for role, text in (("user", turn.question), ("assistant", turn.answer))]
    return ({"role": "system", "content": known.strip()}, *past, {"role": "user", "content": question})


def tidy(text: str) -> str:
    """A completion without quotation marks around the whole of it."""
    text = text.strip()
    for left, right in (('"', '"'), ("“", "”"), ("«", "»"), ("「", "」"), ("„", "“")):
        inner = text[1:-1]
        if len(text) > 2 and text[0] == left and text[-1] == right and left not in inner and right not in inner:
            text = inner.strip()
    return text


def request_for(task: str, messages: tuple[dict[str, str], ...], passage: Mapping[str, Any], turn: int, seed: int,
                process: Process) -> ChatRequest:
    """The request for a question or an answer (`task`) of a dialogue's turn, counted from 0.

    Every passage has a seed of its own, drawn from the run's: equal prompts of two passages are two requests.
    """
    about = {"task": task, "subject": passage["id"], "title": passage["title"], "language": passage["language"], "turn": turn,
             "passage": passage["text"]}
    own_seed = int.from_bytes(hashlib.sha256(f"{seed}:{passage['id']}".encode()).digest()[:4], "big") >> 1
    version = load_prompts(passage["language"])["version"]
    return ChatRequest(messages, about, process.temperature, process.max_answer_tokens, own_seed, version)


async def converse(passage: Mapping[str, Any], model: ChatModel, *, seed: int, languages: Sequence[str],
                   process: Process = Process(), gates: Gates = Gates(),  # noqa: B008 (both are frozen)
                   rarity: Mapping[str, np.ndarray] | None = None) -> Dialogue:
    """One passage's dialogue, each turn through the gates as soon as it stands; it is cut at the first turn refused.

    rarity: of `grounded.measure_rarity` over the run's passages, as `passage_text` gives them. Raises `ChatError` where the first
    turn has no answer; later, what stands is kept and the cause becomes a refusal.
    """
    language, text, dialogue = passage["language"], passage_text(passage), Dialogue(passage)

    async def ask(task: str, messages: tuple[dict[str, str], ...]) -> Completion | None:
        length = sum(count_tokens([message["content"] for message in messages], process.tokenizer))
        if length > process.max_context_tokens:
            return None
        completion = await model.complete(request_for(task, messages, passage, len(dialogue.turns), seed, process))
        return replace(completion, text=tidy(completion.text))

    for move in plan(passage["id"], seed, process.end_probability, process.max_turns):
        question = answer = None
        try:
            question = await ask("question", question_messages(move, passage, dialogue.turns))
            if question:
                messages = answer_messages(passage, dialogue.turns, question.text, process.answer_with_document)
                answer = await ask("answer", messages)
        except ChatError as error:
            if not dialogue.turns:
                raise
            if not isinstance(error, NoRecording):  # a recording ends where it ends
                dialogue.refusals = [Refusal(error.cause, str(error))]
                dialogue.refused_turn = Turn(move, question.text if question else "", "")
            break
        if not question or not answer:
            if not dialogue.turns:
                dialogue.refusals = [Refusal("too_long", f"the prompt exceeds {process.max_context_tokens} tokens")]
                dialogue.refused_turn = Turn(move, question.text if question else "", "")
            break
        turn = Turn(move, question.text, answer.text, question.prompt_tokens + answer.prompt_tokens,
                    question.completion_tokens + answer.completion_tokens)
        refusals = check_turn(
            turn.question, turn.answer, passage=text, language=language, among=languages, gates=gates,
            earlier=[past.question for past in dialogue.turns], rarity=rarity,
            finish_reason="length" if "length" in (question.finish_reason, answer.finish_reason) else answer.finish_reason,
        )
        if refusals:
            dialogue.refusals, dialogue.refused_turn = refusals, turn
            break
        dialogue.turns.append(turn)
    return dialogue


def to_sample(dialogue: Dialogue, model: ChatModel, seed: int, document: Mapping[str, Any] | None = None,
              dataset: str = "passages", rarity: Mapping[str, np.ndarray] | None = None) -> dict[str, Any]:
    """A dialogue as a sample; `extra` holds each turn's move, tokens, grounding, and what of its answer the passage lacks."""
    passage, document, language = dialogue.passage, document or {}, dialogue.passage["language"]
    messages = [{"role": role, "content": text} for turn in dialogue.turns
                for role, text in (("user", turn.question), ("assistant", turn.answer))]
    support = without_instructions(passage_text(passage), load_prompts(language)["dialogue"]["patterns"])
    told = [[turn.question for turn in dialogue.turns], [turn.answer for turn in dialogue.turns]]
    n = len(dialogue.turns)
    scores = grounded.score(*told, [support] * n, [language] * n, rarity=rarity)
    turns = [{"move": turn.move, "grounding": round(float(score), 3),
              "missing": grounded.unsupported(turn.answer, support, language)[:MISSING],
              "prompt_tokens": turn.prompt_tokens, "completion_tokens": turn.completion_tokens}
             for turn, score in zip(dialogue.turns, scores, strict=True)]
    return {
        "id": f"{passage['language']}_{KIND}_{passage['id']}", "language": passage["language"], "kind": KIND,
        "messages": messages,
        "source": {"dataset": document.get("source") or dataset, "parent_id": None, "document_id": passage["document_id"],
                   "url": document.get("url"), "license": document.get("license")},
        "generator": {"model": model_label(model), "prompt_version": load_prompts(passage["language"])["version"], "seed": seed},
        "extra": json.dumps({"title": passage["title"], "turns": turns}, ensure_ascii=False),
    }


async def generate_dialogues(
    passages: Iterable[Mapping[str, Any]], model: ChatModel, *, seed: int, languages: Sequence[str],
    process: Process = Process(), gates: Gates = Gates(), concurrency: int = 8,  # noqa: B008 (both are frozen)
    documents: Mapping[str, Mapping[str, Any]] | None = None, dataset: str = "passages",
    rarity: Mapping[str, np.ndarray] | None = None,
) -> tuple[list[dict], list[dict]]:
    """(samples, rejected rows), both in the order of the passages, whichever dialogue ended first.

    passages: rows of `PASSAGES`, read as they are needed. concurrency: dialogues built at once. documents: by id, for a
    sample's source, url and licence; `dataset` names the source where they are not given. rarity: as for `converse`. A passage
    that fails is a rejected row and never stops the others. Raises `ChatError` when `process.stop_after` dialogues in a row, or
    all there are, fail for one cause.
    """
    async def one(passage: Mapping[str, Any]) -> Dialogue:
        return await converse(passage, model, seed=seed, languages=languages, process=process, gates=gates, rarity=rarity)

    samples: list[dict] = []
    refused: list[dict] = []
    failed: list[ChatError] = []  # the last ones in a row, all for one cause
    total = len(passages) if isinstance(passages, Sized) else None
    asked = ask_all(passages, one, concurrency=concurrency, total=total, description="dialogues",
                    give_up_after=process.stop_after)
    async with aclosing(asked) as outcomes:
        async for passage, outcome in outcomes:
            if isinstance(outcome, ChatError):
                failed = [*failed, outcome] if failed and failed[-1].cause == outcome.cause else [outcome]
                if len(failed) >= process.stop_after and not isinstance(outcome, NoRecording):
                    raise ChatError(f"{len(failed)} dialogues in a row failed: {outcome}", outcome.cause)
                dialogue = Dialogue(passage, refusals=[Refusal(outcome.cause, str(outcome))])
            else:
                failed, dialogue = [], outcome
            if dialogue.turns:
                document = (documents or {}).get(passage["document_id"])
                samples.append(to_sample(dialogue, model, seed, document, dataset, rarity))
            refused += refused_rows(dialogue)
    if failed and not samples and len(failed) == len(refused):
        raise ChatError(f"every dialogue failed: {failed[-1]}", failed[-1].cause)
    return samples, refused


def refused_rows(dialogue: Dialogue) -> list[dict]:
    """The rejected rows of a dialogue, one for each gate that the turn at its cut did not pass."""
    passage, turn = dialogue.passage, dialogue.refused_turn
    record = {"passage_id": passage["id"], "title": passage["title"], "turn": len(dialogue.turns) + 1,
              "turns_kept": len(dialogue.turns), "move": turn.move if turn else "first",
              "question": turn.question if turn else "", "answer": turn.answer if turn else ""}
    sample_id = f"{passage['language']}_{KIND}_{passage['id']}"
    language = passage["language"]
    return [rejected(sample_id, language, STAGE, refusal.gate, refusal.reason, record) for refusal in dialogue.refusals]


def read_passages(pattern: str | Path) -> list[dict]:
    """Passages of a file, a folder or a glob (Parquet, JSON or JSONL), rows with id, language, title and text.

    Where a row has no document_id, its id stands in. Raises `BadRecord` naming file, row and column.
    """
    rows: list[dict] = []
    seen: dict[str, str] = {}
    try:
        files = find_files(pattern, SAMPLE_SUFFIXES)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; notebook 01 writes passages, or name your own with passages_path") from None
    for file in files:
        for place, row in read_rows(file):
            for name in ("id", "language", "title", "text"):
                if not isinstance(row.get(name), str) or not row[name].strip():
                    raise BadRecord(f"{place}, column {name}: a passage needs a text there, not {row.get(name)!r}")
            try:
                get_language(row["language"])
            except UnknownLanguage as error:
                raise BadRecord(f"{place}, column language: {error}") from None
            if row["id"] in seen:
                raise BadRecord(f"{place}, column id: {row['id']!r} stands already in {seen[row['id']]}")
            seen[row["id"]] = place
            rows.append({**row, "document_id": row.get("document_id") or row["id"]})
    return rows


def choose_passages(passages: Iterable[Mapping[str, Any]], languages: Sequence[str], seed: int,
                    limit: int | None = None) -> list[Mapping[str, Any]]:
    """The passages of these languages, at most `limit` of each, in their order.

    The choice is a draw by seed that does not depend on the order of the passages, and a larger limit only adds to it.
    """
    wanted = [passage for passage in passages if passage["language"] in languages]
    if limit is None:
        return wanted
    chosen: set[str] = set()
    for language in languages:
        ids = [passage["id"] for passage in wanted if passage["language"] == language]
        chosen.update(sorted(ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())[:limit])
    return [passage for passage in wanted if passage["id"] in chosen]
