"""Chat models behind one small protocol: any OpenAI-compatible server, or the recordings of the embedded sample.

    model = open_chat_model("Qwen/Qwen3-8B", base_url="http://localhost:8000/v1", ledger=open_ledger(".cache"))
    completion = await model.complete(ChatRequest(messages=({"role": "user", "content": "¿Qué es un ayllu?"},)))

What a server answers is in the ledger before anybody sees it. A request that fails for good is a `ChatError` whose sentence
says the cause and what to do; the key never appears in it.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ultralink_nb.errors import KitError
from ultralink_nb.ledger import Ledger, request_key
from ultralink_nb.records import read_rows
from ultralink_nb.tokens import count_tokens
from ultralink_nb.workspace import AUTHORS, SAMPLE

REPLAY = "replay"
MAX_CONNECTIONS = 1000  # the pool of openai's client; more requests at once would only wait inside it


class ChatError(KitError):
    """A request that failed for good. `cause` is a short name to count by; the message says why and what to do."""

    def __init__(self, message: str, cause: str = "chat_error"):
        super().__init__(message)
        self.cause = cause


class NoRecording(ChatError):
    """The replay model has no recorded answer for this request."""

    def __init__(self, message: str):
        super().__init__(message, "no_recording")


@dataclass(frozen=True)
class ChatRequest:
    """What is asked of a chat model.

    messages: role and content of each. about: what the request is for (`task`, `subject`, `language`, `turn`, …); it stands in
    the ledger beside the answer and tells replay which recording is meant, and no server ever sees it.
    temperature: 0 to 2. max_tokens: longest answer, in tokens. prompt_version: version of the prompt file. schema: a JSON schema
    that the answer must satisfy; the completion's text is then the JSON alone.
    """

    messages: tuple[dict[str, str], ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 0.7
    max_tokens: int = 1024
    seed: int = 1
    prompt_version: str = "1"
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Completion:
    """An answer. finish_reason: `stop`, or `length` where it was cut at max_tokens. seconds: from request to answer.
    cached: it came from the ledger or from a recording and cost nothing now."""

    text: str
    model: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cached: bool


class ChatModel(Protocol):
    """Anything that completes a chat. Raises `ChatError` where it cannot."""

    name: str

    async def complete(self, request: ChatRequest) -> Completion: ...


class _Garbled(Exception):
    """A server said 200 and sent something else than a completion; `advice` is there where asking again cannot help."""

    def __init__(self, what: str, advice: str = ""):
        super().__init__(what)
        self.advice = advice


def _read_completion(body: str) -> tuple[str, str, str, int, int]:
    """(text, answering model, finish reason, prompt tokens, completion tokens) of a chat completion's JSON body."""
    try:
        answer = json.loads(body)
    except json.JSONDecodeError:
        raise _Garbled(f"the body is not JSON: {body!r}") from None
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] or ""
        reason = choice.get("finish_reason") or "stop"
        usage = answer.get("usage") or {}
        counts = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        if not isinstance(text, str):
            raise TypeError
    except (LookupError, TypeError, AttributeError, ValueError):
        error = answer.get("error") if isinstance(answer, dict) else None
        raise _Garbled(f"the server reports {error!r}" if error else f"it holds no choice: {body!r}") from None
    text = re.sub(r"^\s*<think>.*?</think>", "", text, flags=re.DOTALL)  # a reasoning model's thoughts are not its answer
    if re.match(r"\s*<think>", text):
        raise _Garbled("it ends inside the model's thoughts", "raise max_answer_tokens, or turn thinking off at the server")
    if not text.strip():
        final = {"length": "raise max_answer_tokens", "content_filter": "the server's filter refuses this passage"}
        raise _Garbled(f"the text is empty (finish reason {reason})", final.get(reason, ""))
    return text, str(answer.get("model") or ""), str(reason), *counts


class EndpointModel:
    """A model at an OpenAI-compatible endpoint (vLLM, llama.cpp, Ollama, a hosted service).

    Rate limits, server errors, time-outs, broken connections and garbled answers are asked again `max_retries` times with growing
    pauses, or after the pause that the server names; `concurrency` requests are in flight at most.
    """

    def __init__(self, name: str, base_url: str | None = None, api_key_variable: str = "OPENAI_API_KEY", concurrency: int = 8,
                 timeout: float = 120.0, max_retries: int = 5):
        import openai

        self.name, self.max_retries, self.timeout = name, max_retries, timeout
        self.base_url = base_url or "https://api.openai.com/v1"
        self.api_key_variable = api_key_variable
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ChatError(f"base_url must look like http://localhost:8000/v1, not {self.base_url!r}", "base_url")
        if parts.username or parts.password or parts.query:
            raise ChatError(
                f"base_url carries a key or a password for {parts.hostname}; parameters are written into the executed notebook: "
                "put the key into an environment variable and name that in api_key_variable", "base_url",
            )
        self._key = os.environ.get(api_key_variable, "").strip()
        if not self._key and base_url is None:
            raise ChatError(
                f"the environment variable {api_key_variable} is empty: set it to the key of {parts.hostname}, or name a "
                "server of your own with base_url", "no_key",
            )
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none", base_url=self.base_url, timeout=timeout, max_retries=max_retries
        )
        self._slots = asyncio.Semaphore(min(concurrency, MAX_CONNECTIONS))

    async def complete(self, request: ChatRequest) -> Completion:
        async with self._slots:
            started = time.monotonic()
            for attempt in range(self.max_retries + 1):
                try:
                    body = await self._post(request)
                    text, answered_by, reason, prompt_tokens, completion_tokens = _read_completion(body)
                    break
                except _Garbled as garbled:
                    if attempt == self.max_retries or garbled.advice:
                        advice = garbled.advice or "look at the server's log"
                        raise self._error(f"sent no usable answer: {garbled}", "garbled", advice) from None
                    await asyncio.sleep(min(8.0, 0.5 * 2**attempt))
            seconds = time.monotonic() - started
        return Completion(text, answered_by or self.name, reason, prompt_tokens, completion_tokens, seconds, cached=False)

    async def _post(self, request: ChatRequest) -> str:
        import openai

        try:
            response = await self._client.chat.completions.with_raw_response.create(
                model=self.name, messages=list(request.messages), temperature=request.temperature,
                max_tokens=request.max_tokens, seed=request.seed,
            )
            return response.text
        except openai.APITimeoutError:
            raise self._error(f"did not answer within {self.timeout:g} s", "timeout",
                              "raise request_timeout or lower concurrency") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise self._error(f"cannot be reached ({type(cause).__name__}: {cause})", "connection",
                              "is the server running, and is base_url right?") from None
        except openai.APIStatusError as error:
            advice = {
                400: "the server does not accept the request: is the prompt longer than its context?",
                401: f"check the key in the environment variable {self.api_key_variable}",
                403: f"the key in {self.api_key_variable} may not use this model",
                404: "check chat_model and the path in base_url (it usually ends in /v1)",
                429: "lower concurrency or raise max_retries",
            }.get(error.status_code, "look at the server's log")
            raise self._error(f"answered {error.status_code}: {error.message}", f"http_{error.status_code}", advice) from None
        except openai.OpenAIError as error:
            raise self._error(f"failed: {error}", "client", "see the message") from None

    def _error(self, what: str, cause: str, advice: str) -> ChatError:
        what = " ".join((what.replace(self._key, "***") if self._key else what).split())
        what = what if len(what) <= 240 else what[:239] + "…"
        return ChatError(f"{self.name} at {self.base_url} {what}; {advice}", cause)


class ReplayModel:
    """The recordings of the embedded sample: written by the kit's authors, not a model's output.

    A question or an answer is found by the recording whose anchor (a fragment of the article) stands in
    `about["passage"]`, and by `about["turn"]`; a sifting verdict and a translated message by `about["subject"]`, the sample's id.
    Raises `NoRecording` where there is none.
    """

    name = REPLAY
    label = AUTHORS

    def __init__(self, sample: str | Path = SAMPLE):
        self.sample = Path(sample)
        self._files: dict[str, list[dict]] = {}

    def _rows(self, name: str) -> list[dict]:
        if name not in self._files:
            path = self.sample / name
            self._files[name] = [row for _, row in read_rows(path)] if path.is_file() else []
        return self._files[name]

    async def complete(self, request: ChatRequest) -> Completion:
        text = self._recorded(request.about)
        prompt = "\n".join(message["content"] for message in request.messages)
        prompt_tokens, completion_tokens = count_tokens([prompt, text])
        return Completion(text, self.name, "stop", prompt_tokens, completion_tokens, 0.0, cached=True)

    def _recorded(self, about: Mapping[str, Any]) -> str:
        task, subject, turn = about.get("task"), about.get("subject"), about.get("turn", 0)
        if task in ("question", "answer"):
            for row in self._rows(f"dialogues/{about['language']}.jsonl"):
                if row["anchor"] in about["passage"]:
                    if turn < len(row["turns"]):
                        return row["turns"][turn][task]
                    raise NoRecording(f"the recorded dialogue for passage {subject} has {len(row['turns'])} turns")
        elif task == "sift":
            for row in self._rows("sft/verdicts.jsonl"):
                if row["id"] == subject:
                    return json.dumps(row["scores"], ensure_ascii=False)
        elif task == "translate":
            for row in self._rows(f"sft/translations/{about['language']}.jsonl"):
                if row["id"] == subject and turn < len(row["messages"]):
                    return row["messages"][turn]["content"]
        raise NoRecording(
            f"nothing is recorded for {task} {subject} ({about.get('language')}): replay knows the embedded sample only; "
            "for other data name a model with chat_model and base_url"
        )


class LedgeredModel:
    """A model whose every answer is in the ledger before it is returned, and which never asks twice for the same.

    Equal requests in flight at once are asked once. Asking goes on when a caller is cancelled: the answer is paid for.
    """

    def __init__(self, model: ChatModel, ledger: Ledger):
        self.model, self.ledger, self.name = model, ledger, model.name
        self._in_flight: dict[str, asyncio.Task[Completion]] = {}

    async def complete(self, request: ChatRequest) -> Completion:
        key = request_key(self.name, request)
        found = self.ledger.find(key)
        if found is not None:
            return Completion(**found, cached=True)
        task = self._in_flight.get(key)
        first = task is None
        if task is None:
            task = self._in_flight[key] = asyncio.create_task(self._ask(key, request))
            task.add_done_callback(lambda done: self._settle(key, done))
        completion = await asyncio.shield(task)
        return completion if first else replace(completion, cached=True)

    def _settle(self, key: str, task: asyncio.Task[Completion]) -> None:
        del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # marks it as seen where every caller is gone

    async def _ask(self, key: str, request: ChatRequest) -> Completion:
        try:
            completion = await self.model.complete(request)
        except ChatError as error:
            await asyncio.to_thread(self.ledger.record_failure, key, self.name, request, str(error))
            raise
        await asyncio.to_thread(self.ledger.record, key, self.name, request, completion)
        return completion


def model_label(model: ChatModel) -> str:
    """What a sample's `generator.model` says: the model's name; for replay, who wrote the recordings."""
    return getattr(model, "label", model.name)


def open_chat_model(chat_model: str, *, base_url: str | None = None, api_key_variable: str = "OPENAI_API_KEY",
                    concurrency: int = 8, timeout: float = 120.0, max_retries: int = 5, ledger: Ledger | None) -> ChatModel:
    """The chat model that a notebook's parameters name: `replay`, or a model's name at `base_url`.

    api_key_variable: name of the environment variable that holds the key; a server of your own may need none. timeout: seconds.
    ledger: where answers are recorded (replay has no use for it). Raises `ChatError` for a name or address that cannot be right.
    """
    if chat_model == REPLAY:
        if base_url:
            raise ChatError("chat_model is replay, which asks no server: name the model that base_url serves", "base_url")
        return ReplayModel()
    if not chat_model.strip():
        raise ChatError("chat_model is empty: write replay, or the model's name at the endpoint", "base_url")
    model = EndpointModel(chat_model, base_url, api_key_variable, concurrency, timeout, max_retries)
    return LedgeredModel(model, ledger) if ledger else model
