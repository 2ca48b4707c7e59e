"""A model at an OpenAI-compatible endpoint: vLLM, llama.cpp, Ollama, a hosted service.

Spoken with aiohttp and not with openai's client: that takes about eight times the processor time for a request, gives up where
a server asks for a pause above two minutes, and lets each request find out alone that the server is overloaded or away.
"""

import asyncio
import json
import os
import re
import time
import urllib.request
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from ultralink_nb.answers import Answer, Trouble, read_answer
from ultralink_nb.completions import ChatError, ChatRequest, Completion
from ultralink_nb.limits import LONGEST_PAUSE, RateLimit, SharedPause, backoff, named_pause
from ultralink_nb.tokens import count_tokens

MAX_BODY = 8 * 2**20  # bytes of an answer; a completion of 100,000 tokens is below one MiB
ADVICE = {
    400: "the server does not accept the request: is the prompt longer than its context?",
    401: "check the key in the environment variable {key}",
    403: "the key in {key} may not use this model",
    404: "check chat_model and the path in base_url (it usually ends in /v1)",
    413: "the server does not accept so long a request: lower max_context_tokens",
    429: "lower concurrency, set requests_per_minute and tokens_per_minute, or raise patience",
}
AWAY, BUSY = (502, 503), (429, 529)  # a gateway without its server or a server still loading; too many requests, overloaded


@dataclass
class Link:
    """What an endpoint needs within one event loop: connections, slots, limits and the shared pause."""

    loop: asyncio.AbstractEventLoop
    session: aiohttp.ClientSession
    slots: asyncio.Semaphore
    pause: SharedPause
    requests: RateLimit | None
    tokens: RateLimit | None


def _hang_up(session: aiohttp.ClientSession) -> None:
    """Close the connections of a session that nobody will use again, from wherever that is found out."""
    connector = session.connector
    session.detach()
    if connector is not None:
        closing = connector.close()  # does its work before it first waits
        try:
            closing.__await__().send(None)
        except (StopIteration, RuntimeError):
            pass


class EndpointModel:
    """A model at an OpenAI-compatible endpoint. `concurrency` requests are in flight at most.

    Server errors, time-outs, broken connections and garbled answers are asked again `max_retries` times, with growing pauses
    that chance spreads. A server that says it is busy (429) makes all requests wait together, for as long as it asks or for a
    growing pause, and so does one that has answered before and is away (no connection, 502, 503); that goes on for `patience`
    seconds, after which each request is tried once. A pause above that (and above a minute) is not waited for.
    requests_per_minute, tokens_per_minute: what the endpoint allows, prompts and answers together; answers are estimated before
    and corrected after. key: instead of the variable's.
    """

    def __init__(self, name: str, base_url: str | None = None, api_key_variable: str = "OPENAI_API_KEY", concurrency: int = 8,
                 timeout: float = 120.0, max_retries: int = 5, patience: float = 600.0,
                 requests_per_minute: float | None = None, tokens_per_minute: float | None = None, key: str | None = None):
        self.name, self.concurrency, self.timeout = name, concurrency, timeout
        self.max_retries, self.patience = max_retries, patience
        self.requests_per_minute, self.tokens_per_minute = requests_per_minute, tokens_per_minute
        self.base_url = (base_url or "https://api.openai.com/v1").rstrip("/")
        self.api_key_variable = api_key_variable
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ChatError(f"base_url must look like http://localhost:8000/v1, not {self.base_url!r}", "base_url")
        if parts.username or parts.password or parts.query:
            raise ChatError(
                f"base_url carries a key or a password for {parts.hostname}; parameters are written into the executed notebook: "
                "put the key into an environment variable and name that in api_key_variable", "base_url",
            )
        self._key = os.environ.get(api_key_variable, "").strip() if key is None else key
        if not self._key and base_url is None:
            raise ChatError(
                f"the environment variable {api_key_variable} is empty: set it to the key of {parts.hostname}, or name a "
                "server of your own with base_url", "no_key",
            )
        if not (self._key.isascii() and (self._key + "x").isprintable()):
            raise ChatError(f"the environment variable {api_key_variable} holds what is in no key, as a line break", "no_key")
        self._proxy = None if urllib.request.proxy_bypass(parts.hostname) else urllib.request.getproxies().get(parts.scheme)
        self._link: Link | None = None
        self._reached = False  # the server has answered, so where it does not any more it may come back
        self._takes_schemas, self._length_field = True, "max_tokens"  # until the server says otherwise
        self._mean_answer: float | None = None

    def _linked(self) -> Link:
        loop = asyncio.get_running_loop()
        if self._link is None or self._link.loop is not loop:
            if self._link is not None:
                _hang_up(self._link.session)
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.concurrency), cookie_jar=aiohttp.DummyCookieJar(), proxy=self._proxy,
                headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
                timeout=aiohttp.ClientTimeout(total=self.timeout, sock_connect=min(30.0, self.timeout)),
            )
            weakref.finalize(self, _hang_up, session)
            self._link = Link(
                loop, session, asyncio.Semaphore(self.concurrency), SharedPause(),
                requests=RateLimit(self.requests_per_minute) if self.requests_per_minute else None,
                tokens=RateLimit(self.tokens_per_minute) if self.tokens_per_minute else None,
            )
        return self._link

    async def complete(self, request: ChatRequest) -> Completion:
        link = self._linked()
        async with link.slots:
            retries, since = 0, None
            while True:
                if self.patience and not self._out_of_patience(link):
                    await link.pause.wait()
                taken = await self._within_limits(link, request)
                sent = time.monotonic()
                try:
                    answer = await self._ask(link, request)
                    break
                except Trouble as trouble:
                    kind, pause, now = trouble.kind, trouble.pause, time.monotonic()
                    if kind == "again" and trouble.cause == "connection" and link.pause.since is not None:
                        kind = "away"  # others cannot reach the server either
                    too_long = pause is not None and pause > max(self.patience, LONGEST_PAUSE)
                    if kind == "final" or too_long or kind != "again" and self._out_of_patience(link):
                        raise self._error(trouble) from None
                    if kind != "again":
                        pause = link.pause.begin(sent, pause)
                        since = min(since or now, link.pause.since or now)
                        if self.patience and (kind == "busy" or self._reached):
                            if now + pause - since <= self.patience:
                                continue
                            raise self._error(trouble) from None
                    retries += 1
                    if retries > self.max_retries:
                        raise self._error(trouble) from None
                    await asyncio.sleep(backoff(retries - 1) if pause is None else pause)
            link.pause.end(sent)
        used = answer.prompt_tokens + answer.completion_tokens
        if link.tokens and used:
            link.tokens.correct(used - taken)
            self._mean_answer = 0.95 * (self._mean_answer or answer.completion_tokens) + 0.05 * answer.completion_tokens
        return Completion(answer.text, answer.model or self.name, answer.finish_reason, answer.prompt_tokens,
                          answer.completion_tokens, time.monotonic() - sent, cached=False)

    def _out_of_patience(self, link: Link) -> bool:
        """The endpoint was waited for in vain: until it answers again every request is tried once, and fails at once."""
        return self._reached and self.patience > 0 and link.pause.longer_than(self.patience)

    async def _within_limits(self, link: Link, request: ChatRequest) -> float:
        """Waits until the request may be sent; returns the tokens that were taken for it."""
        taken = 0.0
        if link.tokens:
            prompt = sum(count_tokens([message["content"] for message in request.messages]))
            taken = prompt + min(request.max_tokens, 512 if self._mean_answer is None else self._mean_answer)
            await link.tokens.take(taken)
        if link.requests:
            await link.requests.take()
        return taken

    async def _ask(self, link: Link, request: ChatRequest) -> Answer:
        """One request, and a second without what the server turned out not to know."""
        with_schema = request.schema is not None and self._takes_schemas
        try:
            return read_answer(await self._post(link, self._payload(request, with_schema)))
        except Trouble as trouble:
            if trouble.kind != "final" or trouble.cause not in ("http_400", "http_404", "http_415", "http_422", "http_501"):
                raise
            if "max_completion_tokens" in str(trouble) and self._length_field == "max_tokens":
                self._length_field = "max_completion_tokens"
            elif not with_schema:
                raise
            else:
                answer = read_answer(await self._post(link, self._payload(request, with_schema=False)))
                self._takes_schemas = False  # it answers without: then it was the schema that it refused
                return answer
        return await self._ask(link, request)

    def _payload(self, request: ChatRequest, with_schema: bool) -> bytes:
        payload: dict[str, Any] = {
            "model": self.name, "messages": request.messages, "temperature": request.temperature,
            self._length_field: request.max_tokens, "seed": request.seed,
        }
        if with_schema:
            payload["response_format"] = {
                "type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": request.schema}
            }
        return json.dumps(payload).encode()

    async def _post(self, link: Link, payload: bytes) -> str:
        """The body that the server answers with 200. Raises `Trouble` for all that can go wrong on the way."""
        try:
            async with link.session.post(
                f"{self.base_url}/chat/completions", data=payload, headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                self._reached = self._reached or response.status not in AWAY
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BODY:
                        response.close()
                        raise Trouble(f"sent an answer of more than {MAX_BODY >> 20} MiB", "too_large",
                                      "is this a chat endpoint?", "final")
                text = body.decode(errors="replace")
                if response.status == 200:
                    return text
                raise self._refused(response.status, response.headers, text)
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise Trouble("cannot be reached (no connection in time)", "connection",
                              "is the server running, and is base_url right?", "away") from None
            raise Trouble(f"did not answer within {self.timeout:g} s", "timeout",
                          "raise request_timeout or lower concurrency") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise Trouble(f"has no certificate that is trusted here ({error.certificate_error})", "connection",
                          "name the authority's file in the environment variable SSL_CERT_FILE", "final") from None
        except aiohttp.ClientConnectorError as error:
            raise Trouble(f"cannot be reached ({error.os_error})", "connection", "is the server running, and is base_url right?",
                          "away") from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError, OSError) as error:
            raise Trouble(f"broke off ({type(error).__name__}: {error})", "connection", "look at the server's log") from None

    def _refused(self, status: int, headers: Mapping[str, str], body: str) -> Trouble:
        said = re.sub(r"<[^>]*>", " ", body)
        code = ""
        try:
            answer = json.loads(body)
            error = answer.get("error", answer)
            said = error if isinstance(error, str) else error.get("message") or error.get("detail") or said
            code = "" if isinstance(error, str) else str(error.get("code"))
        except (ValueError, AttributeError, RecursionError):
            pass
        advice = ADVICE.get(status, "look at the server's log").format(key=self.api_key_variable)
        kind = "again" if status >= 500 or status in (408, 409, 425) else "final"
        if status in BUSY:
            kind = "busy"
        elif status in AWAY:
            kind = "away"
        if code == "insufficient_quota":
            kind, advice = "final", "the account has no credit left"
        if 300 <= status < 400:
            said, advice = f"it has moved to {headers.get('Location', 'elsewhere')}", "name that address in base_url"
        pause = named_pause(headers) if kind != "final" else None
        if pause is not None and pause > max(self.patience, LONGEST_PAUSE):
            said = f"wait {pause:.0f} s, which is longer than patience; {said}"
        return Trouble(f"answered {status}: {str(said)[:1000]}", f"http_{status}", advice, kind, pause)

    def _error(self, trouble: Trouble) -> ChatError:
        what = str(trouble)
        what = " ".join((what.replace(self._key, "***") if self._key else what).split())
        what = what if len(what) <= 240 else what[:239] + "…"
        return ChatError(f"{self.name} at {self.base_url} {what}; {trouble.advice}", trouble.cause)
