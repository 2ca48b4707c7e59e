"""English samples into the run's other languages, one request a message, with what must not be translated kept out of reach.

The second stage of the paper's language-agnostic data (Section 3.2). Code, LaTeX, URLs and final answers are replaced by
placeholders before a message goes to the model and put back afterwards (`protection.py`). By default comments in code stay in
the language they were written in. What came back is judged in `verification.py`.
"""

from collections.abc import Iterator, Mapping, Sequence

from ultralink_nb.asking import ask_all
from ultralink_nb.chat import ChatError, ChatModel, ChatRequest, model_label
from ultralink_nb.languages import get_language
from ultralink_nb.prompts import load_prompts, quoted
from ultralink_nb.protection import LostPlaceholder, protect, restore
from ultralink_nb.records import rejected

STAGE = "translation"


def translation_messages(text: str, source_language: str, target_language: str) -> tuple[dict[str, str], ...]:
    """The prompt that asks for a text in the target language; it is written in that language (`prompts/<target>.yaml`)."""
    prompts = load_prompts(target_language)["translation"]
    request = prompts["translate"].format(source_language=get_language(source_language).own_name, text=quoted(text, "text"))
    return ({"role": "system", "content": f"{prompts['system']}\n{prompts['rules']}"}, {"role": "user", "content": request})


async def translate_text(text: str, model: ChatModel, source_language: str, target_language: str, *, kind: str = "",
                         about: Mapping | None = None, seed: int = 1, temperature: float = 0.0, max_tokens: int = 2048) -> str:
    """One message in the target language, its protected spans untouched; text without a word outside them is not sent.

    Raises `ChatError` (cause `truncated`, `placeholder`, or the model's own) where no usable translation came back.
    """
    masked, held = protect(text, kind)
    if not any(char.isalpha() for char in masked):
        return text
    request = ChatRequest(
        translation_messages(masked, source_language, target_language),
        {"task": "translate", "language": target_language, **(about or {})},
        temperature=temperature, max_tokens=max_tokens, seed=seed, prompt_version=load_prompts(target_language)["version"],
    )
    completion = await model.complete(request)
    if completion.finish_reason == "length":
        raise ChatError(f"the translation was cut at {max_tokens} tokens; raise max_answer_tokens", "truncated")
    try:
        return restore(completion.text if "&lt;" in masked else completion.text.replace("&lt;", "<"), held)
    except LostPlaceholder as error:
        raise ChatError(str(error), "placeholder") from None


async def translate(samples: Sequence[Mapping], model: ChatModel, languages: Sequence[str], *, seed: int = 1,
                    temperature: float = 0.0, max_tokens: int = 2048, concurrency: int = 8) -> tuple[list[dict], list[dict]]:
    """(translated samples, rejected rows): every sample in every language but its own, in the order of the samples.

    A translation's id is `<language>_<parent id>`; it names its parent in `source.parent_id` and keeps its kind. A message that
    cannot be had refuses its translation in that language only (gate: the error's cause, as `no_recording` or `placeholder`).
    The samples themselves are not among the results. Raises `ChatError` when everything fails for one cause.
    """
    tasks = [(sample, language) for sample in samples for language in languages if language != sample["language"]]

    async def one(task: tuple[Mapping, str]) -> dict:
        sample, language = task
        messages = []
        for turn, message in enumerate(sample["messages"]):
            text = await translate_text(
                message["content"], model, sample["language"], language, kind=sample["kind"], seed=seed,
                temperature=temperature, max_tokens=max_tokens, about={"subject": sample["id"], "turn": turn},
            )
            messages.append({"role": message["role"], "content": text})
        return _translated(sample, language, messages, model_label(model), load_prompts(language)["version"], seed)

    translated, refused = [], []
    async for (sample, language), outcome in ask_all(
        iter(tasks), one, concurrency=concurrency, total=len(tasks), description="translating"
    ):
        if isinstance(outcome, ChatError):
            refused.append(rejected(f"{language}_{sample['id']}", language, STAGE, outcome.cause, str(outcome), sample))
        else:
            translated.append(outcome)
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
