"""What an OpenAI-compatible server sends: the answer in a chat completion's body, or what is wrong with it."""

import json
import re
from dataclasses import dataclass


class Trouble(Exception):
    """An attempt that failed. kind: `final` where asking again cannot help, `again` where it may, `busy` or `away` where
    all requests wait together. pause: the seconds that the server asks to wait."""

    def __init__(self, what: str, cause: str, advice: str, kind: str = "again", pause: float | None = None):
        super().__init__(what)
        self.cause, self.advice, self.kind, self.pause = cause, advice, kind, pause


@dataclass(frozen=True)
class Answer:
    """What stands in a chat completion's body."""

    text: str
    model: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def read_answer(body: str) -> Answer:
    """The answer in a chat completion's JSON body, without a reasoning model's thoughts. Raises `Trouble` where there is none."""
    def garbled(what: str, advice: str = "") -> Trouble:
        return Trouble(f"sent no usable answer: {what}", "garbled", advice or "look at the server's log",
                       "final" if advice else "again")

    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise garbled(f"the body is not JSON: {body[:2000]!r}") from None
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] or ""
        reason = str(choice.get("finish_reason") or "stop")
        usage = answer.get("usage") or {}
        counts = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        if not isinstance(text, str):
            raise TypeError
    except (LookupError, TypeError, AttributeError, ValueError):
        error = answer.get("error") if isinstance(answer, dict) else None
        raise garbled(f"the server reports {error!r}" if error else f"it holds no choice: {body[:2000]!r}") from None
    text = re.sub(r"^\s*<think>.*?</think>", "", text, flags=re.DOTALL)
    if re.match(r"\s*<think>", text):
        raise garbled("it ends inside the model's thoughts", "raise max_answer_tokens, or turn thinking off at the server")
    if not text.strip():
        final = {"length": "raise max_answer_tokens", "content_filter": "the server's filter refuses this passage"}
        raise garbled(f"the text is empty (finish reason {reason})", final.get(reason, ""))
    text = text.encode(errors="replace").decode()  # half a surrogate pair is valid JSON, but no text that a file can hold
    return Answer(text, str(answer.get("model") or ""), reason, *counts)
