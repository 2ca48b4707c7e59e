"""What a plan will ask and cost, before it starts: calls, tokens and dollars, low, expected and high.

    plan = plan_dialogues(passages, process, seed=seed, model="a-model", ledger=ledger, price=price_of("a-model", …))
    print(describe(plan))

What can be known is computed, the rest is estimated and learned from what the ledger already holds:

- the moves of every dialogue are drawn from its seed, so the calls of a plan are exact as long as no turn is refused. Expected
  and low follow the share of turns that passed the gates in the dialogues begun so far; none begun: all, and none;
- prompts are the real ones, counted with the stated tokenizer, and corrected by what the server counted for those it answered;
- answers are as long as the model's answers so far for the task and language, within two standard errors; before there are
  20 of them, as long as those of the embedded sample, from half to double;
- what the ledger holds is not counted again. The first 500 dialogues begun are read as a run would read them, gates included;
  of the others only whether the next question is there.
"""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

import pandas as pd

from ultralink_nb import dialogues
from ultralink_nb.begun import MESSAGE_TOKENS, Begun, LedgerAlone, begun_dialogues, going_on_share, passing_share, prompt_tokens
from ultralink_nb.chat import ChatError
from ultralink_nb.costs import Price, cost
from ultralink_nb.dialogues import Process, Turn
from ultralink_nb.ledger import Ledger
from ultralink_nb.lengths import ENOUGH, Length, learned_lengths, recorded_lengths
from ultralink_nb.sifting import sift
from ultralink_nb.tokens import DEFAULT_TOKENIZER, count_tokens
from ultralink_nb.translation import translate_text, translation_messages

SIDES = {"_low": -1, "": 0, "_high": 1}
AMOUNTS = ("calls", "prompt_tokens", "completion_tokens", "cost")
COLUMNS = ("language", "task", "cached", *(f"{amount}{side}" for amount in AMOUNTS for side in SIDES))


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    with ThreadPoolExecutor(1) as thread:  # a notebook's own event loop is running already
        return thread.submit(asyncio.run, work).result()


class _Plan:
    """Sums by language and task; amounts are given at one side: low, expected or high."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: dict.fromkeys(COLUMNS[2:], 0.0))

    def add(self, group: tuple[str, str], side: str, calls: float, prompt: float, completion: float) -> None:
        for amount, value in zip(AMOUNTS, (calls, prompt, completion), strict=False):
            self.sums[group][f"{amount}{side}"] += value

    def frame(self, found: Mapping[tuple[str, str], Sequence], price: Price | None) -> pd.DataFrame:
        rows = []
        for group in sorted({*self.sums, *found}):
            row = {name: round(value) for name, value in self.sums[group].items()}
            row |= {"language": group[0], "task": group[1], "cached": len(found.get(group, ()))}
            for side in SIDES:
                row[f"cost{side}"] = cost(price, row[f"prompt_tokens{side}"], row[f"completion_tokens{side}"])
            rows.append(row)
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype({f"cost{side}": float for side in SIDES})


class _Templates:
    """Tokens of the dialogue prompts of a language without their passage and their turns."""

    def __init__(self, language: str, tokenizer: str):
        blank = {"language": language, "title": "", "text": ""}
        self.question = {move: prompt_tokens(dialogues.question_messages(move, blank, ()), tokenizer)
                         for move in ("first", "depth", "width")}
        one = prompt_tokens(dialogues.question_messages("depth", blank, (Turn("first", "", ""),)), tokenizer)
        self.tags = one - self.question["depth"]
        self.answer = {shown: prompt_tokens(dialogues.answer_messages(blank, (), "", shown), tokenizer)
                       for shown in (True, False)}


def plan_dialogues(passages: Sequence[Mapping[str, Any]], process: Process = Process(), *, seed: int, model: str,  # noqa: B008
                   languages: Sequence[str] | None = None, ledger: Ledger | None = None, price: Price | None = None,
                   lengths: Mapping[tuple[str, str], Length] | None = None, **options: Any) -> pd.DataFrame:
    """What `generate_dialogues` with these arguments would ask `model` (a name), one row a language and task: `COLUMNS`.

    cached: answers that the ledger holds; they are in no other number. calls_high is exact where no turn is refused and no prompt
    outgrows `process.max_context_tokens`; requests that a server refuses and that are asked again are not counted. cost: US
    dollars, NaN without a price. lengths: your own, by (language, task), before those learned and recorded. options: what else
    `converse` is given in the run, such as gates.
    """
    languages = languages or sorted({passage["language"] for passage in passages})
    known = {**recorded_lengths(process.tokenizer), **(learned_lengths(ledger, model, process.tokenizer) if ledger else {}),
             **(lengths or {})}
    alone = LedgerAlone(model, ledger, process.tokenizer)
    begun = _run(begun_dialogues(passages, alone, seed, languages, process, options)) if ledger else {}
    moves = [dialogues.plan(passage["id"], seed, process.end_probability, process.max_turns) for passage in passages]
    turns: dict[str, int] = defaultdict(int)
    of_language: dict[str, list[Begun]] = defaultdict(list)
    for passage, planned in zip(passages, moves, strict=True):
        turns[passage["language"]] += len(planned)
        of_language[passage["language"]] += [begun[passage["id"]]] if passage["id"] in begun else []
    guesses, going_on = {}, going_on_share(begun.values())
    for code, ones in of_language.items():
        passing = passing_share(ones if sum(len(one.texts) // 2 for one in ones) >= ENOUGH else begun.values())
        pair = [known.get((code, task), known["", task]) for task in ("question", "answer")]
        for side, sign in SIDES.items():
            paid = [min(length.at(sign, turns[code]), process.max_answer_tokens) for length in pair]
            kept = [length.text * tokens / length.paid for length, tokens in zip(pair, paid, strict=True)]
            guesses[code, side] = _Guess(*paid, *kept, passing[side], going_on[side], alone.correction(code))
    templates = {code: _Templates(code, process.tokenizer) for code in turns}
    plan = _Plan()
    for passage, planned, tokens in zip(passages, moves, _passage_tokens(passages, process.tokenizer), strict=True):
        start, code = begun.get(passage["id"], Begun()), passage["language"]
        if not start.over:
            for side in SIDES:
                _add_dialogue(plan, side, code, planned, start, tokens, templates[code], process, guesses[code, side])
    return plan.frame(alone.found, price)


@dataclass(frozen=True)
class _Guess:
    """What is expected of a language's dialogues at one side: tokens paid and kept, shares that pass and go on, correction."""

    question: float
    answer: float
    question_text: float
    answer_text: float
    passing: float
    going_on: float
    correction: float


def _passage_tokens(passages: Sequence[Mapping[str, Any]], tokenizer: str) -> Iterator[int]:
    for start in range(0, len(passages), 1000):
        yield from count_tokens([dialogues.passage_text(passage) for passage in passages[start : start + 1000]], tokenizer)


def _add_dialogue(plan: _Plan, side: str, code: str, moves: Sequence[str], begun: Begun, passage: int,
                  templates: _Templates, process: Process, guess: _Guess) -> None:
    """What is still to be asked of a dialogue that is not over."""
    texts = begun.texts
    held, waiting = divmod(len(texts), 2)
    past = float(sum(texts[: 2 * held]))  # tokens of the turns so far
    asked = 1.0 if begun.checked or waiting or not held else guess.going_on  # the chance that it gets here
    for turn in range(held, len(moves)):
        question = texts[-1] if waiting and turn == held else None
        prompt = templates.question[moves[turn]] + passage + past + turn * templates.tags
        if question is None:
            if prompt > process.max_context_tokens:
                return
            plan.add((code, "question"), side, asked, asked * prompt * guess.correction, asked * guess.question)
            question = guess.question_text
        prompt = templates.answer[process.answer_with_document] + passage * process.answer_with_document
        prompt += past + 2 * turn * MESSAGE_TOKENS + question
        if prompt > process.max_context_tokens:
            return
        plan.add((code, "answer"), side, asked, asked * prompt * guess.correction, asked * guess.answer)
        past += question + guess.answer_text
        asked *= guess.passing


def plan_sifting(samples: Sequence[Mapping[str, Any]], *, seed: int, model: str, max_tokens: int = 1024,
                 ledger: Ledger | None = None, price: Price | None = None,
                 tokenizer: str = DEFAULT_TOKENIZER) -> pd.DataFrame:
    """What `sift` would ask: one call a sample, less those that the ledger holds; `COLUMNS` as in `plan_dialogues`."""
    alone = LedgerAlone(model, ledger, tokenizer, "{}")
    _run(sift(samples, alone, seed=seed, max_tokens=max_tokens, concurrency=1))
    known = {**recorded_lengths(tokenizer), **(learned_lengths(ledger, model, tokenizer) if ledger else {})}
    plan = _Plan()
    for (code, task), prompts in alone.missing.items():
        length = known.get((code, task), known["", task])
        for side, sign in SIDES.items():
            each = min(length.at(sign, len(prompts)), max_tokens)
            plan.add((code, task), side, len(prompts), sum(prompts) * alone.correction(code), len(prompts) * each)
    return plan.frame(alone.found, price)


def plan_translation(samples: Sequence[Mapping[str, Any]], languages: Sequence[str], *, seed: int, model: str,
                     temperature: float = 0.0, max_tokens: int = 2048, ledger: Ledger | None = None,
                     price: Price | None = None, tokenizer: str = DEFAULT_TOKENIZER) -> pd.DataFrame:
    """What `translate` would ask: one call a message and language, less those that the ledger holds; `COLUMNS`.

    A message that fails ends its sample, so the calls are the most that can be. A translation is as long as those of this plan
    that the ledger holds, measured by their originals, or else as those of the embedded sample.
    """
    alone = LedgerAlone(model, ledger, tokenizer, "")
    plan = _Plan()

    async def ask_all() -> None:
        for sample in samples:
            for turn, message in enumerate(sample["messages"]):
                for code in languages:
                    if code != sample["language"]:
                        try:
                            await translate_text(message["content"], alone, sample["language"], code, kind=sample["kind"],
                                                 seed=seed, temperature=temperature, max_tokens=max_tokens,
                                                 about={"subject": sample["id"], "turn": turn})
                        except ChatError:
                            pass  # the stand-in is no translation; the call was counted

    _run(ask_all())
    guessed = recorded_lengths(tokenizer)
    for (code, task), prompts in alone.missing.items():
        template = prompt_tokens(translation_messages("", samples[0]["language"], code), tokenizer)
        pairs = [(tokens - template, paid) for tokens, _, paid in alone.found.get((code, task), ())]
        length = guessed.get((code, task), guessed["", task])
        if len(pairs) >= ENOUGH and all(paid for _, paid in pairs):
            ratio = sum(paid for _, paid in pairs) / sum(tokens for tokens, _ in pairs)
            mean = fmean(tokens for tokens, _ in pairs)
            spread = pstdev([(paid - ratio * tokens) / mean for tokens, paid in pairs])
            length = Length(ratio, ratio, spread, len(pairs))
        source = sum(prompts) - template * len(prompts)
        for side, sign in SIDES.items():
            plan.add((code, task), side, len(prompts), sum(prompts) * alone.correction(code),
                     source * length.at(sign, len(prompts)))
    return plan.frame(alone.found, price)


def describe(plan: pd.DataFrame) -> str:
    """A plan in one sentence: calls, tokens and dollars together, each with its bounds."""
    total = plan[[name for name in COLUMNS[2:]]].sum(min_count=1)

    def span(amount: str, digits: int = 0) -> str:
        return f"{total[amount]:,.{digits}f} ({total[f'{amount}_low']:,.{digits}f} to {total[f'{amount}_high']:,.{digits}f})"

    price = "price unknown" if plan["cost"].isna().any() or plan.empty else f"{span('cost', 2)} US dollars"
    return (f"{span('calls')} calls, {span('prompt_tokens')} prompt tokens, {span('completion_tokens')} completion tokens, "
            f"{price}; {int(plan['cached'].sum()):,} answers are in the ledger already")
