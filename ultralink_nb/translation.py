"""English samples into the run's other languages, with what must not be translated kept out of reach.

The second stage of the paper's language-agnostic data (Section 3.2). Code, LaTeX, URLs and final answers are replaced by
placeholders before a message goes to the model and put back afterwards (`protection.py`); of a function that is to be written
only the prose of its docstring is translated. Comments in code stay in the language they were written in; what becomes of
names of people is said by the prompt's rules.

A message goes to the model in pieces of whole paragraphs (`paragraphs.py`). With `context`, a piece is the last turn of a
conversation in which the pieces and messages before it were translated, so that a term that was chosen once is seen again. What
came back is judged by `verify`, where one is given, and asked again once with the reason.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ultralink_nb.asking import ask_all
from ultralink_nb.chat import ChatError, ChatModel, ChatRequest, model_label
from ultralink_nb.checks import Refusal
from ultralink_nb.languages import get_language
from ultralink_nb.paragraphs import paragraph_batches
from ultralink_nb.prompts import load_prompts, quoted
from ultralink_nb.protection import LostPlaceholder, protect, restore
from ultralink_nb.records import rejected

STAGE = "translation"
LONGEST = 800  # tokens of a piece that is translated at once, by cl100k; in other languages the same takes up to twice as many
# said where a language's prompt file has no `translation.again`

Exchange = tuple[str, str]  # a piece as it was sent, and its translation
Verify = Callable[..., Sequence[Refusal]]  # `verification.verify`, or anything that is called as it is


def translation_messages(text: str, source_language: str, target_language: str,
                         before: Sequence[Exchange] = ()) -> tuple[dict[str, str], ...]:
    """The prompt that asks for a text in the target language; it is written in that language (`prompts/<target>.yaml`).

    before: what was translated already, shown as earlier turns of the conversation.
    """
    prompts = load_prompts(target_language)["translation"]
    source = get_language(source_language).own_name
    turns: list[dict[str, str]] = [{"role": "system", "content": f"{prompts['system']}\n{prompts['rules']}"}]
    for shown, translation in (*before, (text, "")):
        request = prompts["translate"].format(source_language=source, text=quoted(shown, "text"))
        turns += [{"role": "user", "content": request}, {"role": "assistant", "content": translation}]
    return tuple(turns[:-1])


def _recent(before: Sequence[Exchange], most: int) -> list[Exchange]:
    """The latest exchanges that fit, with a mark for what is held back, so that no placeholder of theirs is mistaken for one."""
    kept: list[Exchange] = []
    for shown, translation in reversed(before):
        most -= len(shown) + len(translation)
        if most < 0:
            break
        kept.insert(0, (re.sub(r"⟦\d+⟧", "[…]", shown), re.sub(r"⟦\d+⟧", "[…]", translation)))
    return kept


def _complaint(answer: str, reason: str, language: str) -> tuple[dict[str, str], ...]:
    """An answer that cannot be used, and what the model is told about it, as two more turns."""
    request = load_prompts(language)["translation"]["again"].format(reason=reason)
    return {"role": "assistant", "content": answer}, {"role": "user", "content": request}


async def translate_text(text: str, model: ChatModel, source_language: str, target_language: str, *, kind: str = "",
                         about: Mapping | None = None, seed: int = 1, temperature: float = 0.0, max_tokens: int = 2048,
                         numbers: bool = False, longest: int = LONGEST, context: int = 0,
                         before: list[Exchange] | None = None,
                         refused: tuple[Sequence[Exchange], str] | None = None) -> str:
    """One message in the target language, its protected spans untouched; text without a word outside them is not sent.

    numbers: hold numbers back too, so that no model can change one, at the price of the target language's notation. longest:
    tokens of a piece. before: the exchanges so far, to which those of this message are added; the latest are shown, at most
    `context` characters of them. refused: this message's exchanges of an earlier attempt, and why it was refused, which the
    model is told. A piece that lost a placeholder is asked again once. Raises `ChatError` (cause `truncated`, `placeholder`,
    or the model's own) where no usable translation came back.
    """
    masked, held = protect(text, kind, numbers)
    exchanges, translated = [] if before is None else before, []
    parts = paragraph_batches(masked, longest)
    earlier, reason = (iter(refused[0]), refused[1]) if refused else (iter(()), "")
    for number, part in enumerate(parts):
        here = {mark: span for mark, span in held.items() if mark in part}
        if not any(char.isalpha() for char in part):
            translated.append(restore(part, here))
            continue
        bare = part.rstrip() if len(parts) > 1 else part
        messages = translation_messages(bare, source_language, target_language, _recent(exchanges, context))
        place = {"task": "translate", "language": target_language, **(about or {})}
        place |= {"piece": number} if len(parts) > 1 else {}
        if refused:
            messages += _complaint(next(earlier)[1], reason, target_language)
            place["attempt"] = 2
        for last in (bool(refused), True):
            completion = await model.complete(ChatRequest(
                messages, place, temperature, max_tokens, seed, load_prompts(target_language)["version"]
            ))
            if completion.finish_reason == "length":
                raise ChatError(f"the translation was cut at {max_tokens} tokens; raise max_answer_tokens", "truncated")
            answer = completion.text if "&lt;" in masked else completion.text.replace("&lt;", "<")
            try:
                restored = restore(answer, here)
                break
            except LostPlaceholder as error:
                if last:
                    raise ChatError(str(error), "placeholder") from None
                messages += _complaint(completion.text, str(error), target_language)
                place = {**place, "attempt": 2}
        exchanges.append((bare, answer))
        translated.append(restored.rstrip() + part[len(bare) :] if len(parts) > 1 else restored)
    return "".join(translated)


async def translate_messages(sample: Mapping, model: ChatModel, language: str, verify: Verify | None = None,
                             **options: Any) -> tuple[list[dict], list[Refusal]]:
    """(a sample's messages in a language, why they are refused still).

    verify: called as `verification.verify` is, with one message of either side; a message that it refuses is asked again once,
    with its first reason. options: as for `translate_text`.
    """
    source, kind = sample["language"], sample["kind"]
    messages: list[dict] = []
    refusals: list[Refusal] = []
    before: list[Exchange] = []
    for turn, message in enumerate(sample["messages"]):
        about = {"subject": sample["id"], "turn": turn}
        start, refused, found = len(before), None, []
        for _ in range(2):
            text = await translate_text(message["content"], model, source, language, kind=kind, about=about, before=before,
                                        refused=refused, **options)
            found = list(verify([message], [{**message, "content": text}], source, language, kind=kind)) if verify else []
            asked = before[start:]
            if not found or not asked or refused:
                break
            refused = asked, found[0].reason
            del before[start:]
        messages.append({"role": message["role"], "content": text})
        refusals += found
    if refusals and verify:  # once more for all messages, so that the reasons number them
        refusals = list(verify(sample["messages"], messages, source, language, kind=kind)) or refusals
    return messages, refusals


async def translate(samples: Sequence[Mapping], model: ChatModel, languages: Sequence[str], *, seed: int = 1,
                    temperature: float = 0.0, max_tokens: int = 2048, concurrency: int = 8, numbers: bool = False,
                    context: int = 0, verify: Verify | None = None) -> tuple[list[dict], list[dict]]:
    """(translated samples, rejected rows): every sample in every language but its own, in the order of the samples.

    A translation's id is `<language>_<parent id>`; it names its parent in `source.parent_id` and keeps its kind. A message that
    cannot be had refuses its translation in that language only (gate: the error's cause, as `no_recording` or `placeholder`).
    context: characters of the sample's earlier pieces and their translations that a piece is shown, 0 for none; numbers: hold
    numbers back (see `translate_text`). verify: `verification.verify` or what is called alike; a translation that it refuses
    twice becomes a rejected row with its gate, of stage `verification`. The samples themselves are not among the results.
    Raises `ChatError` when everything fails for one cause.
    """
    tasks = [(sample, language) for sample in samples for language in languages if language != sample["language"]]

    async def one(task: tuple[Mapping, str]) -> tuple[dict, list[Refusal]]:
        sample, language = task
        messages, refusals = await translate_messages(
            sample, model, language, verify, seed=seed, temperature=temperature, max_tokens=max_tokens, numbers=numbers,
            context=context,
        )
        return _translated(sample, language, messages, model_label(model), load_prompts(language)["version"], seed), refusals

    translated, refused = [], []
    async for (sample, language), outcome in ask_all(
        iter(tasks), one, concurrency=concurrency, total=len(tasks), description="translating"
    ):
        row_id = f"{language}_{sample['id']}"
        if isinstance(outcome, ChatError):
            refused.append(rejected(row_id, language, STAGE, outcome.cause, str(outcome), sample))
            continue
        row, refusals = outcome
        if refusals:
            reasons = "; ".join(f"{refusal.gate}: {refusal.reason}" for refusal in refusals)
            refused.append(rejected(row_id, language, "verification", refusals[0].gate, reasons, row))
        else:
            translated.append(row)
    return translated, refused


def _translated(sample: Mapping, language: str, messages: list[dict], model: str, prompt_version: str, seed: int) -> dict:
    return {
        "id": f"{language}_{sample['id']}", "language": language, "kind": sample["kind"], "messages": messages,
        "source": {**sample["source"], "parent_id": sample["id"]},
        "generator": {"model": model, "prompt_version": prompt_version, "seed": seed}, "extra": None,
    }


def in_languages(samples: Sequence[Mapping], parent_id: str) -> Iterator[Mapping]:
    """A sample and its translations, in the order in which they stand."""
    return (sample for sample in samples if parent_id in (sample["id"], sample["source"]["parent_id"]))
