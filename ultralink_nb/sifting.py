"""Which English samples make sense in any language and culture: a chat model judges, the kit checks its judgement.

The first stage of the paper's language-agnostic data (Section 3.2). Seven criteria say what binds a sample to English or to one
culture; each gets a score from 0 (absent) to 5 with a verbatim quote as evidence, and a sample passes only with zero in all
of them. Math and code samples are not judged by `code_or_formulas`, which would refuse every one.

Calls are spent where they are needed: the rules of `sift_rules.py` refuse first, the classifier of `culture.py` settles the rows
that it is sure about where its scores are given, and the judge sees the rest.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ultralink_nb import culture, sift_rules
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


def verdict_schema(kind: str) -> dict[str, Any]:
    """The JSON schema of a verdict on a sample of this kind, for servers that hold a model to one."""
    score = {
        "type": "object", "required": ["score", "evidence"],
        "properties": {"score": {"type": "number", "minimum": 0, "maximum": 5}, "evidence": {"type": "string"}},
    }
    names = criteria_for(kind)
    return {"type": "object", "required": list(names), "properties": dict.fromkeys(names, score)}


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


def _in_sample(evidence: str, text: str) -> bool:
    """Whether a quote stands in the text, but for case and white space; no quote is none that is missing."""
    return " ".join(evidence.split()).casefold() in " ".join(text.split()).casefold()


def _refusal(scores: Mapping[str, Score], text: str) -> tuple[str, str] | None:
    """(gate, reason) by the criterion with the highest score, with the evidence of every one above zero; None where all are 0."""
    bound = sorted((name for name, score in scores.items() if score.score > 0), key=lambda name: -scores[name].score)
    if not bound:
        return None
    parts = []
    for name in bound:
        evidence = scores[name].evidence.strip()
        quoted = f"“{evidence}”" if evidence else "no evidence given"
        found = "" if _in_sample(evidence, text) else " (not in the sample)"
        parts.append(f"{CRITERIA[name]} ({scores[name].score:g}): {quoted}{found}")
    return f"sift:{bound[0]}", "; ".join(parts)


Settled = tuple[list[dict], tuple[str, str] | None]  # rows of verdicts, and (gate, reason) where the sample is refused


def _row(sample: Mapping, criterion: str, score: float, evidence: str, by: str) -> dict:
    found = _in_sample(evidence, dialogue_text(sample))
    return {"id": sample["id"], "kind": sample["kind"], "criterion": criterion, "score": score, "evidence": evidence, "by": by,
            "in_sample": found}


def _without_asking(sample: Mapping, score: float | None, band: tuple[float, float], rules: Collection[str]) -> Settled | None:
    """What the rules or the classifier say of a sample; None where a judge must see it."""
    cue = sift_rules.sure_cue(sample, rules)
    if cue:
        return [_row(sample, cue.criterion, 5, cue.quote, "rule")], (
            f"sift:{cue.criterion}", f"{CRITERIA[cue.criterion]}: “{cue.quote}” (rule {cue.rule}, no model asked)"
        )
    if score is None or culture.band([score], *band)[0]:
        return None
    if score < band[0]:
        return [_row(sample, "classifier", 0, "", "classifier")], None
    return [_row(sample, "classifier", round(5 * score, 2), "", "classifier")], (
        "sift:classifier", f"culture-bound with a probability of {score:.2f}, at or above {band[1]:.2f} (no model asked)"
    )


async def sift(samples: Sequence[Mapping], model: ChatModel, *, seed: int = 1, max_tokens: int = 1024, concurrency: int = 8,
               rules: Collection[str] = sift_rules.SURE, scores: Sequence[float] | None = None,
               band: tuple[float, float] = (0.0, 1.0)) -> tuple[list[dict], list[dict], list[dict]]:
    """(passed, rejected, verdicts): samples with zero in every criterion, rejected rows for the others, and every score.

    rules: names of the rules that refuse a chat without a call. scores: the classifier's probability for each sample, shape
    (n,); then only those in the band from low to below high are judged: the ones under it pass, the ones at or over it do not.
    A rejected row's gate is `sift:<criterion>` with the highest score, `sift:classifier`, `sift_unreadable` where the judge's
    answer is no verdict, or the cause of a failed request. verdicts: rows {id, kind, criterion, score, evidence, by, in_sample},
    one a criterion; by: judge, rule or classifier (whose criterion is `classifier`, with 0 where the sample passes); in_sample:
    whether the evidence stands in the sample. Results are in the order of the samples.
    Raises `ChatError` when every request fails for one cause.
    """
    if scores is not None and len(scores) != len(samples):
        raise culture.BadCulture(f"{len(scores):,} scores do not fit {len(samples):,} samples")
    prompts = load_prompts("en")

    async def judge(sample: Mapping) -> str:
        request = ChatRequest(
            (
                {"role": "system", "content": prompts["sifting"]["system"]},
                {"role": "user", "content": prompts["sifting"]["judge"].format(sample=quoted(dialogue_text(sample), "sample"))},
            ),
            {"task": "sift", "subject": sample["id"], "language": sample["language"], "turn": 0},
            temperature=0.0, max_tokens=max_tokens, seed=seed, prompt_version=prompts["version"],
            schema=verdict_schema(sample["kind"]),
        )
        return (await model.complete(request)).text

    given = [None] * len(samples) if scores is None else [float(score) for score in scores]
    settled = [_without_asking(sample, score, band, rules) for sample, score in zip(samples, given, strict=True)]
    unsettled = [number for number, outcome in enumerate(settled) if outcome is None]
    failures: list[ChatError] = []
    async for number, answer in ask_all(
        unsettled, lambda number: judge(samples[number]), concurrency=concurrency, total=len(unsettled), description="sifting"
    ):
        if isinstance(answer, ChatError):
            failures.append(answer)
            settled[number] = [], (answer.cause, str(answer))
        else:
            settled[number] = _judged(samples[number], answer)
    if failures and len(failures) == len(unsettled) and len({failure.cause for failure in failures}) == 1:
        raise ChatError(f"every request failed: {failures[0]}", failures[0].cause)
    passed, refused, verdicts = [], [], []
    for sample, (rows, refusal) in zip(samples, settled, strict=True):
        verdicts += rows
        if refusal:
            refused.append(rejected(sample["id"], sample["language"], STAGE, *refusal, sample))
        else:
            passed.append(dict(sample))
    return passed, refused, verdicts


def _judged(sample: Mapping, answer: str) -> Settled:
    try:
        scores = read_verdict(answer, sample["kind"])
    except UnreadableVerdict as error:
        return [], ("sift_unreadable", str(error))
    rows = [_row(sample, name, score.score, score.evidence, "judge") for name, score in scores.items()]
    return rows, _refusal(scores, dialogue_text(sample))
