"""Which English samples make sense in any language and culture: a chat model judges, the kit checks its judgement.

The first stage of the paper's language-agnostic data (Section 3.2). Seven criteria say what binds a sample to English or to one
culture; each gets a score from 0 (absent) to 5 with a verbatim quote as evidence, and a sample passes only with zero in all
of them. Math and code samples are not judged by `code_or_formulas`, which would refuse every one.
"""

import json
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ultralink_nb.asking import ask_all
from ultralink_nb.chat import ChatError, ChatModel, ChatRequest
from ultralink_nb.prompts import load_prompts, quoted
from ultralink_nb.records import rejected

STAGE = "sifting"
CRITERIA = {
    "full_names": "full names of people",
    "code_or_formulas": "code or formulas in a chat",
    "places": "names of places",
    "conventions": "conventions, politics, religion, customs",
    "expressions": "poetry, jokes, slang, wordplay, spelling",
    "material_things": "food, clothes, measures, coins of one culture",
    "organisations": "organisations and brands",
}


class Score(BaseModel):
    """One criterion's score, 0 (absent) to 5, and the quote that shows it."""

    model_config = ConfigDict(extra="ignore")
    score: float = Field(ge=0, le=5, allow_inf_nan=False)
    evidence: str = ""


class UnreadableVerdict(ValueError):
    """An answer of the judge that is no verdict; the message says what is wrong with it."""


def criteria_for(kind: str) -> tuple[str, ...]:
    """The criteria by which a sample of this kind is judged: all seven for chats, all but `code_or_formulas` for others."""
    return tuple(name for name in CRITERIA if name != "code_or_formulas" or kind.startswith("chat"))


def dialogue_text(sample: Mapping) -> str:
    """A sample as the judge reads it: each message after its role."""
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in sample["messages"])


def read_verdict(answer: str, kind: str) -> dict[str, Score]:
    """The scores in a judge's answer, by criterion; prose or a code fence around the JSON is ignored.

    Raises `UnreadableVerdict` where there is no JSON object, a criterion is missing or a score is not between 0 and 5.
    """
    start, end = answer.find("{"), answer.rfind("}")
    if start < 0 or end < start:
        raise UnreadableVerdict(f"there is no JSON object in {answer[:80]!r}")
    try:
        given = json.loads(answer[start : end + 1])
    except json.JSONDecodeError as error:
        raise UnreadableVerdict(f"not valid JSON ({error.msg} at character {start + error.pos})") from None
    scores: dict[str, Score] = {}
    for criterion in criteria_for(kind):
        try:
            scores[criterion] = Score.model_validate(given[criterion])
        except KeyError:
            raise UnreadableVerdict(f"criterion {criterion} is missing") from None
        except ValidationError as error:
            first = error.errors()[0]
            column = ".".join([criterion, *map(str, first["loc"])])
            raise UnreadableVerdict(f"{column}: {first['msg']}") from None
    return scores


def _refusal(scores: Mapping[str, Score], text: str) -> tuple[str, str] | None:
    """(gate, reason) by the criterion with the highest score, with the evidence of every one above zero; None where all are 0."""
    bound = sorted((name for name, score in scores.items() if score.score > 0), key=lambda name: -scores[name].score)
    if not bound:
        return None
    flat = " ".join(text.split()).lower()
    parts = []
    for name in bound:
        evidence = scores[name].evidence.strip()
        quoted = f"“{evidence}”" if evidence else "no evidence given"
        found = not evidence or " ".join(evidence.split()).lower() in flat
        parts.append(f"{CRITERIA[name]} ({scores[name].score:g}): {quoted}{'' if found else ' (not in the sample)'}")
    return f"sift:{bound[0]}", "; ".join(parts)


async def sift(samples: Sequence[Mapping], model: ChatModel, *, seed: int = 1, max_tokens: int = 1024,
               concurrency: int = 8) -> tuple[list[dict], list[dict], list[dict]]:
    """(passed, rejected, verdicts): samples with zero in every criterion, rejected rows for the others, and every score.

    A rejected row's gate is `sift:<criterion>` with the highest score, `sift_unreadable` where the judge's answer is no
    verdict, or the cause of a failed request. verdicts: rows {id, kind, criterion, score, evidence}, one a criterion.
    Raises `ChatError` when every request fails for one cause.
    """
    prompts = load_prompts("en")

    async def judge(sample: Mapping) -> str:
        request = ChatRequest(
            (
                {"role": "system", "content": prompts["sifting"]["system"]},
                {"role": "user", "content": prompts["sifting"]["judge"].format(sample=quoted(dialogue_text(sample), "sample"))},
            ),
            {"task": "sift", "subject": sample["id"], "language": sample["language"], "turn": 0},
            temperature=0.0, max_tokens=max_tokens, seed=seed, prompt_version=prompts["version"],
        )
        return (await model.complete(request)).text

    passed, refused, verdicts = [], [], []
    failures: list[ChatError] = []
    async for sample, outcome in ask_all(samples, judge, concurrency=concurrency, total=len(samples), description="sifting"):
        if isinstance(outcome, ChatError):
            failures.append(outcome)
            refused.append(rejected(sample["id"], sample["language"], STAGE, outcome.cause, str(outcome), sample))
            continue
        try:
            scores = read_verdict(outcome, sample["kind"])
        except UnreadableVerdict as error:
            refused.append(rejected(sample["id"], sample["language"], STAGE, "sift_unreadable", str(error), sample))
            continue
        verdicts += [
            {"id": sample["id"], "kind": sample["kind"], "criterion": name, "score": score.score, "evidence": score.evidence}
            for name, score in scores.items()
        ]
        refusal = _refusal(scores, dialogue_text(sample))
        if refusal:
            refused.append(rejected(sample["id"], sample["language"], STAGE, *refusal, sample))
        else:
            passed.append(dict(sample))
    if failures and len(failures) == len(samples) and len({failure.cause for failure in failures}) == 1:
        raise ChatError(f"every request failed: {failures[0]}", failures[0].cause)
    return passed, refused, verdicts
