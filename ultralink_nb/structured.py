"""Answers that are JSON of a given shape: asked for where a server knows how, checked always.

A model may wrap its JSON in prose or in a code fence; what satisfies the schema is taken out of it. An answer in which nothing
does is asked again, with another seed, and then it is a `ChatError` with the cause `invalid_json` or `schema`.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import jsonschema

from ultralink_nb.completions import ChatError, ChatModel, ChatRequest, Completion

MAX_STARTS = 64  # brackets in an answer at which a JSON value is looked for


class UnfitAnswer(ChatError):
    """An answer without JSON (cause `invalid_json`), or whose JSON does not satisfy the schema (cause `schema`)."""


@functools.lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    parsed = json.loads(schema)
    try:
        kind = jsonschema.validators.validator_for(parsed)
        kind.check_schema(parsed)
    except jsonschema.SchemaError as error:
        raise ChatError(f"the request's schema is no JSON schema: {error.message}", "schema") from None
    return kind(parsed)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_no_constant)


def _candidates(answer: str) -> Iterator[Any]:
    """The JSON values in an answer: the whole of it, what stands in code fences, what begins at a bracket."""
    fenced = re.findall(r"```[\w-]*\s*\n(.*?)```", answer, flags=re.DOTALL)
    for text in (answer, *fenced):
        try:
            yield _decoder.decode(text)
        except (ValueError, RecursionError):
            continue
    end = 0
    for start in islice(re.finditer(r"[{\[]", answer), MAX_STARTS):
        if start.start() >= end:  # what is inside a value that was tried is no answer of its own
            try:
                value, end = _decoder.raw_decode(answer, start.start())
                yield value
            except (ValueError, RecursionError):
                continue


def checked_json(answer: str, schema: Mapping[str, Any]) -> str:
    """The JSON in an answer that satisfies the schema, as text. Raises `UnfitAnswer` where there is none."""
    validator = _validator(json.dumps(schema, sort_keys=True))
    first: str | None = None
    for value in _candidates(answer):
        error = jsonschema.exceptions.best_match(validator.iter_errors(value))
        if error is None:
            return json.dumps(value, ensure_ascii=False)
        first = first or f"at {error.json_path}: {error.message[:160]}"
    if first is None:
        raise UnfitAnswer(f"the answer holds no JSON: {answer[:80]!r}", "invalid_json")
    raise UnfitAnswer(f"the answer's JSON does not satisfy the schema {first}", "schema")


class CheckedModel:
    """A model whose answers to a request with a schema are checked, and asked again `max_retries` times where they do not fit.

    Each time the seed is one higher. The tokens of a completion are those of all its attempts: they are paid for. An answer
    that was cut at its length, and at temperature 0 any answer of a model that always says the same, is not asked again.
    """

    def __init__(self, model: ChatModel, max_retries: int = 5):
        self.model, self.name, self.max_retries = model, model.name, max_retries

    async def complete(self, request: ChatRequest) -> Completion:
        if request.schema is None:
            return await self.model.complete(request)
        _validator(json.dumps(request.schema, sort_keys=True))  # a schema that is none costs no request
        attempts: list[Completion] = []
        while True:
            completion = await self.model.complete(replace(request, seed=request.seed + len(attempts)))
            attempts.append(completion)
            try:
                text = checked_json(completion.text, request.schema)
                break
            except UnfitAnswer as error:
                if completion.finish_reason == "length":
                    raise UnfitAnswer(f"{error}; it was cut: raise max_answer_tokens", error.cause) from None
                fixed = getattr(self.model, "deterministic", False) and request.temperature == 0
                if fixed or len(attempts) > self.max_retries:
                    raise UnfitAnswer(f"{error} (asked {len(attempts)} times)", error.cause) from None
        return replace(
            completion, text=text, seconds=sum(attempt.seconds for attempt in attempts),
            prompt_tokens=sum(attempt.prompt_tokens for attempt in attempts),
            completion_tokens=sum(attempt.completion_tokens for attempt in attempts),
        )
