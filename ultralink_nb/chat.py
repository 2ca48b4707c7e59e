"""Chat models behind one small protocol, opened by name.

    model = open_chat_model("Qwen/Qwen3-8B", base_url="http://localhost:8000/v1", ledger=open_ledger(".cache"))
    completion = await model.complete(ChatRequest(messages=({"role": "user", "content": "¿Qué es un ayllu?"},)))

| `chat_model` | what answers |
|---|---|
| a model's name, with `base_url` | any OpenAI-compatible server (`endpoint.py`) |
| `transformers:<hub name or folder>` | a model of transformers in this process (`transformers_model.py`) |
| `llama:<file>.gguf` | llama.cpp in this process, an opt-in extra (`llama_model.py`) |
| `replay` | the recordings of the embedded sample (`replay.py`) |

What a model answers is in the ledger before anybody sees it (`ledgered.py`), and where a request has a JSON schema the answer
satisfies it (`structured.py`). A request that fails for good is a `ChatError` whose sentence says the cause and what to do; the
key never appears in it.
"""

from functools import partial

from ultralink_nb.completions import ChatError, ChatModel, ChatRequest, Completion, NoRecording, model_label
from ultralink_nb.engine import Engine, LocalEngine
from ultralink_nb.ledger import Ledger
from ultralink_nb.ledgered import LedgeredModel
from ultralink_nb.replay import REPLAY, ReplayModel
from ultralink_nb.structured import CheckedModel

__all__ = [
    "ChatError", "ChatModel", "ChatRequest", "Completion", "LedgeredModel", "NoRecording", "ReplayModel", "model_label",
    "open_chat_model",
]

TRANSFORMERS, LLAMA = "transformers:", "llama:"


def _open_on_node(name: str, settings: dict, concurrency: int, rates: dict, nodes: int) -> ChatModel:
    """The model on one of several nodes, with its part of what all may do together."""
    parts = {limit: rate and rate / nodes for limit, rate in rates.items()}
    return open_chat_model(name, **settings, **parts, concurrency=-(-concurrency // nodes))


def open_chat_model(chat_model: str, *, base_url: str | None = None, api_key_variable: str = "OPENAI_API_KEY",
                    concurrency: int = 8, timeout: float = 120.0, max_retries: int = 5, patience: float = 600.0,
                    requests_per_minute: float | None = None, tokens_per_minute: float | None = None, device: str = "auto",
                    ledger: Ledger | None, engine: Engine = LocalEngine()) -> ChatModel:  # noqa: B008 (it has no state)
    """The chat model that a notebook's parameters name, see the table above.

    api_key_variable: name of the environment variable that holds the key; a server of your own may need none. concurrency:
    requests in flight; in process, answers written at once. timeout: seconds for one answer. patience: seconds that a server
    which is busy, or was there and is away, is waited for. requests_per_minute, tokens_per_minute: what the endpoint allows,
    None for as fast as it answers. device: `auto`, `cpu` or `cuda`, for transformers. ledger: where answers are recorded (replay
    has no use for it). engine: from where requests go out, or where models are loaded; concurrency and limits are those of all
    nodes together. Raises `ChatError` for a name or address that cannot be right, or a model that cannot be loaded.
    """
    name = chat_model.strip()
    model: ChatModel
    if base_url and (name == REPLAY or name.startswith((TRANSFORMERS, LLAMA))):
        raise ChatError(f"chat_model is {name}, which asks no server: leave base_url empty, or name the model that it serves",
                        "base_url")
    if not name:
        raise ChatError("chat_model is empty: write replay, or the model's name at the endpoint", "base_url")
    if name == REPLAY:
        return ReplayModel()
    if engine.far:
        settings = dict(base_url=base_url, api_key_variable=api_key_variable, timeout=timeout, max_retries=max_retries,
                        patience=patience, device=device, ledger=None)
        rates = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        model = engine.chat_model(partial(_open_on_node, name, settings, concurrency, rates),
                                  gpu=name.startswith(TRANSFORMERS) and device != "cpu")
        return LedgeredModel(model, ledger) if ledger else model
    if name.startswith(TRANSFORMERS):
        from ultralink_nb.transformers_model import TransformersModel

        model = TransformersModel(name.removeprefix(TRANSFORMERS), device=device, concurrency=concurrency)
    elif name.startswith(LLAMA):
        from ultralink_nb.llama_model import LlamaModel

        model = LlamaModel(name.removeprefix(LLAMA), concurrency=concurrency, timeout=timeout, max_retries=max_retries)
    else:
        from ultralink_nb.endpoint import EndpointModel

        model = EndpointModel(chat_model, base_url, api_key_variable, concurrency, timeout, max_retries, patience,
                              requests_per_minute, tokens_per_minute)
    model = CheckedModel(model, max_retries)
    return LedgeredModel(model, ledger) if ledger else model
