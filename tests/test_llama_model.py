"""llama.cpp in this process: for real where the opt-in extra and a GGUF file (ULTRALINK_GGUF) are there."""

import asyncio
import importlib.util
import json
import os
import sys

import pytest

from ultralink_nb.chat import ChatError, ChatRequest, open_chat_model
from ultralink_nb.ledger import Ledger

GGUF = os.environ.get("ULTRALINK_GGUF", "")


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(ChatError, match="no file") as raised:
        open_chat_model(f"llama:{tmp_path / 'none.gguf'}", ledger=None)
    assert raised.value.cause == "no_model"
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04")
    with pytest.raises(ChatError, match="not a GGUF file"):
        open_chat_model(f"llama:{other}", ledger=None)
    other.write_bytes(b"GGUF\x03")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ChatError, match=r"pip install 'ultralink-nb\[llama\]'"):
        open_chat_model(f"llama:{other}", ledger=None)
    with pytest.raises(ChatError, match="base_url empty"):
        open_chat_model(f"llama:{other}", base_url="http://localhost:1/v1", ledger=None)


@pytest.mark.skipif(not GGUF or not importlib.util.find_spec("xllamacpp"), reason="needs the extra llama and ULTRALINK_GGUF")
def test_a_real_model_answers_through_its_server_into_the_ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    model = open_chat_model(f"llama:{GGUF}", ledger=ledger, timeout=300)
    schema = {"type": "object", "properties": {"sides": {"type": "integer"}}, "required": ["sides"]}
    ask = ChatRequest(({"role": "user", "content": "How many sides has a square?"},), {"task": "answer"}, 0.0, 48)

    async def go():
        return await asyncio.gather(
            model.complete(ask), model.complete(ChatRequest(ask.messages, ask.about, 0.0, 64, schema=schema))
        )

    text, structured = asyncio.run(go())
    assert text.text and text.finish_reason in ("stop", "length") and 0 < text.completion_tokens <= 48
    assert isinstance(json.loads(structured.text)["sides"], int)
    assert ledger.summary()[0]["answered"] == 2 and "/" not in model.name
