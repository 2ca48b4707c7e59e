"""A model of transformers in this process: a tiny one, made here, in the layout of the hub."""

import asyncio
import os
from dataclasses import replace

import pytest

from tests.conftest import ROOT
from ultralink_nb.chat import ChatError, ChatRequest, open_chat_model
from ultralink_nb.ledger import Ledger
from ultralink_nb.transformers_model import TransformersModel, batches

TEMPLATE = ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE


def make_model(folder, template=TEMPLATE, window=512):
    import tokenizers
    import torch
    import transformers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([(ROOT / "README.md").read_text(encoding="utf-8")], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=window, pad_token_id=0, eos_token_id=1, bos_token_id=None, initializer_range=0.5,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(folder):
    return TransformersModel(str(folder), device="cpu", concurrency=8)


def ask(number, **options):
    options = {"temperature": 0.0, "max_tokens": 12, **options}
    words = f"Question {number}: " + "what is a bridge? " * (number % 7)
    return ChatRequest(({"role": "system", "content": "Answer."}, {"role": "user", "content": words}), **options)


def complete(model, *requests, failing=False):
    async def go():
        return await asyncio.gather(*(model.complete(request) for request in requests), return_exceptions=failing)

    return asyncio.run(go())


def test_an_answer_has_its_counts_and_reason(model):
    (answer,) = complete(model, ask(1))
    assert answer.text and answer.model == model.name and not answer.cached
    assert answer.finish_reason in ("stop", "length") and answer.prompt_tokens > 5
    assert answer.completion_tokens == 12 if answer.finish_reason == "length" else answer.completion_tokens <= 12


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_an_answer_does_not_depend_on_its_batch(model, temperature):
    requests = [ask(number, temperature=temperature, seed=number, max_tokens=6 + number % 5) for number in range(12)]
    together = complete(model, *requests)
    alone = [complete(model, request)[0] for request in requests]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert [replace(answer, seconds=0) for answer in together] == [replace(answer, seconds=0) for answer in alone]


def test_the_seed_decides_the_answer_where_chance_does(model):
    one, same, other = complete(model, ask(3, temperature=1.0, seed=5), ask(3, temperature=1.0, seed=5),
                                ask(3, temperature=1.0, seed=6))
    assert one.text == same.text != other.text


def test_sampling_follows_the_softmax(folder):
    import numpy as np
    import torch

    model = TransformersModel(str(folder), device="cpu", concurrency=256)
    prompt = model._prompt(ask(1))
    with torch.inference_mode():
        expected = torch.softmax(model._model(torch.tensor([prompt])).logits[0, -1] / 1.5, -1).numpy()
    drawn = complete(model, *(ask(1, temperature=1.5, seed=seed, max_tokens=1) for seed in range(800)), failing=True)
    text = model._tokenizer.decode([int(expected.argmax())])
    share = np.mean([getattr(answer, "text", "") == text for answer in drawn])  # an answer that is blank is an error
    most = float(expected.max())
    assert share == pytest.approx(most, abs=4 * (most * (1 - most) / 800) ** 0.5)


def test_requests_that_come_together_share_batches(folder, monkeypatch):
    model, sizes = TransformersModel(str(folder), device="cpu", concurrency=4), []
    rows = model._rows
    monkeypatch.setattr(model, "_rows", lambda batch: sizes.append(len(batch)) or rows(batch))
    complete(model, *(ask(number) for number in range(10)))
    assert sum(sizes) == 10 and max(sizes) == 4 and len(sizes) <= 4


def test_batches_are_of_similar_length_and_bounded():
    class Asked:
        def __init__(self, length, limit):
            self.prompt, self.limit = [0] * length, limit

    asked = [Asked(length, 10) for length in (100, 5, 90, 6, 95, 400, 7)]
    found = [[len(one.prompt) for one in batch] for batch in batches(asked, most=3, tokens=350)]
    assert found == [[5, 6, 7], [90, 95, 100], [400]]


def test_the_event_loop_is_free_while_the_model_writes(model):
    async def go():
        beats = 0
        task = asyncio.ensure_future(model.complete(ask(2, max_tokens=200)))
        while not task.done():
            await asyncio.sleep(0.005)
            beats += 1
        return beats

    assert asyncio.run(go()) > 5


def test_a_prompt_beyond_the_context_is_refused_and_an_answer_ends_with_it(tmp_path):
    model = TransformersModel(str(make_model(tmp_path / "small", window=64)), device="cpu")
    (answer,) = complete(model, ask(1, max_tokens=500))
    assert answer.prompt_tokens + answer.completion_tokens <= 64
    with pytest.raises(ChatError, match="max_context_tokens") as raised:
        complete(model, ChatRequest(({"role": "user", "content": "word " * 200},)))
    assert raised.value.cause == "too_long"


def test_without_a_template_it_is_asked_in_plain_text_and_says_so(tmp_path):
    folder = make_model(tmp_path / "plain", template=None)
    with pytest.warns(UserWarning, match="no chat template"):
        model = TransformersModel(str(folder), device="cpu")
    prompt = model._tokenizer.decode(model._prompt(ask(0)))
    assert prompt == "Answer.\n\nUser: Question 0: \nAssistant:"
    assert complete(model, ask(1, temperature=0.5))[0].text
    wrote = model._tokenizer("It is.\nUser: And then?")["input_ids"]
    request = type("Asked", (), {"limit": 99, "prompt": [1]})
    cut = model._completion(request, wrote, 0.0)
    assert (cut.text, cut.finish_reason, cut.completion_tokens) == ("It is.", "stop", len(wrote))


def test_a_template_without_a_system_role_gets_it_in_the_first_message(tmp_path):
    model = TransformersModel(str(make_model(tmp_path / "nosystem", template=NO_SYSTEM)), device="cpu")
    assert "<|user|>Answer.\n\nQuestion 0" in model._tokenizer.decode(model._prompt(ask(0)))


def test_it_opens_by_name_with_the_ledger(folder, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    model = open_chat_model(f"transformers:{folder}", device="cpu", ledger=ledger)
    assert model.name.startswith(f"transformers:{folder.name}@") and str(folder.parent) not in model.name
    first, second = complete(model, ask(1))[0], complete(model, ask(1))[0]
    assert first.text == second.text and second.cached and ledger.summary()[0]["answered"] == 1


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(ChatError, match="could not be loaded") as raised:
        open_chat_model(f"transformers:{tmp_path}", ledger=None)
    assert raised.value.cause == "no_model"
    with pytest.raises(ChatError, match="base_url empty"):
        open_chat_model("transformers:x", base_url="http://localhost/v1", ledger=None)


def test_a_failure_in_the_model_fails_its_requests_and_no_others(folder, monkeypatch):
    model = TransformersModel(str(folder), device="cpu", concurrency=1)
    rows = model._rows

    def sometimes(batch):
        if len(batch[0].prompt) < 20:
            raise RuntimeError("device-side assert")
        return rows(batch)

    monkeypatch.setattr(model, "_rows", sometimes)

    failed, answered = complete(model, ask(0), ask(6), failing=True)
    assert isinstance(failed, ChatError) and failed.cause == "generation" and answered.text
