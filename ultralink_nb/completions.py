"""What is asked of a chat model and what comes back: the protocol that every model of the kit follows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ultralink_nb.errors import KitError


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


def model_label(model: ChatModel) -> str:
    """What a sample's `generator.model` says: the model's name; for replay, who wrote the recordings."""
    return getattr(model, "label", model.name)
