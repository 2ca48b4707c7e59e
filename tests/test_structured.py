"""Answers that must be JSON of a given shape."""

import asyncio
import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chat_server import ChatServer, Reply, completion
from ultralink_nb.chat import ChatError, ChatRequest, Completion, open_chat_model
from ultralink_nb.ledger import Ledger, request_key
from ultralink_nb.structured import CheckedModel, UnfitAnswer, checked_json

SCHEMA = {"type": "object", "properties": {"score": {"type": "integer", "minimum": 0}}, "required": ["score"]}
ASK = ChatRequest(({"role": "user", "content": "Score it."},), {"task": "sift", "subject": "s1"}, schema=SCHEMA)


@pytest.mark.parametrize("answer", [
    '{"score": 3}', ' \n{"score": 3}\n', '```json\n{"score": 3}\n```', 'Here you are:\n```\n{"score": 3}\n```\nAnything else?',
    'I think that {"score": 3} is right.', 'Not {this}, nor [1, 2], but {"score": 3}', '{"score": -1} no, sorry: {"score": 3}',
    '[[[[{"score": 3}', '```json\n{"score": 3}',
])
def test_json_is_taken_out_of_what_stands_around_it(answer):
    assert json.loads(checked_json(answer, SCHEMA)) == {"score": 3}


@pytest.mark.parametrize("answer, cause", [
    ("no", "invalid_json"), ('{"score": 3', "invalid_json"), ('{"score": NaN}', "invalid_json"), ("[" * 100_000, "invalid_json"),
    ('{"score": "3"}', "schema"), ('{"points": 3}', "schema"), ('[{"score": 3}]', "schema"), ("3", "schema"),
    ('{"outer": {"score": 3}}', "schema"), ("9" * 5000, "invalid_json"),
])
def test_what_does_not_fit_is_named(answer, cause):
    with pytest.raises(UnfitAnswer) as raised:
        checked_json(answer, SCHEMA)
    assert raised.value.cause == cause and len(str(raised.value)) < 400


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.booleans()), st.text(alphabet="abc .\n`"))
def test_any_object_comes_back_as_it_was(value, around):
    text = checked_json(f"{around}{json.dumps(value)}{around}", {"type": "object"})
    assert json.loads(text) == value


def test_a_schema_that_is_none_costs_no_request():
    with ChatServer() as server, pytest.raises(ChatError, match="no JSON schema"):
        asyncio.run(at(server).complete(replace(ASK, schema={"type": "thing"})))
    assert not server.requests


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("ultralink_nb.limits.FIRST_PAUSE", 0.02)


def at(server, ledger=None, **options):
    return open_chat_model("loopback", base_url=server.url, ledger=ledger, api_key_variable="NO_KEY", **options)


def test_the_schema_goes_to_the_server_and_the_json_comes_back_alone(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ChatServer(lambda *_: Reply(body=completion('Sure: {"score": 3}.'))) as server:
        answers = [asyncio.run(at(server, ledger).complete(ASK)) for _ in range(2)]
    assert [(answer.text, answer.cached) for answer in answers] == [('{"score": 3}', False), ('{"score": 3}', True)]
    (body,) = [body for _, body in server.requests]
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA and body["response_format"]["type"] == "json_schema"


def test_a_server_that_knows_no_schemas_is_asked_without_and_remembered():
    def respond(body, number):
        if "response_format" in body:
            return Reply(400, b'{"error": {"message": "unknown field response_format"}}')
        return Reply(body=completion('{"score": 1}'))

    async def twice(model):
        return [await model.complete(replace(ASK, seed=seed)) for seed in (1, 2)]

    with ChatServer(respond) as server:
        assert [answer.text for answer in asyncio.run(twice(at(server)))] == ['{"score": 1}'] * 2
    assert ["response_format" in body for _, body in server.requests] == [True, False, False]


def test_a_400_for_another_reason_is_not_held_against_schemas():
    def respond(body, number):
        return Reply(400, b'{"error": "too long"}') if number < 2 else Reply(body=completion('{"score": 1}'))

    async def twice(model):
        with pytest.raises(ChatError, match="too long"):
            await model.complete(ASK)
        await model.complete(ASK)

    with ChatServer(respond) as server:
        asyncio.run(twice(at(server)))
    assert ["response_format" in body for _, body in server.requests] == [True, False, True]


def test_an_answer_that_does_not_fit_is_asked_again_with_another_seed_and_all_tokens_count():
    texts = ["no", '{"score": "x"}', '{"score": 5}']
    with ChatServer(lambda body, number: Reply(body=completion(texts[number]))) as server:
        answer = asyncio.run(at(server).complete(ASK))
    assert answer.text == '{"score": 5}' and (answer.prompt_tokens, answer.completion_tokens) == (33, 21)
    assert [body["seed"] for _, body in server.requests] == [1, 2, 3]


@pytest.mark.parametrize("text, reason, asked, cause", [
    ("never", "stop", 3, "invalid_json"), ('{"score": "x"}', "stop", 3, "schema"), ('{"score": ', "length", 1, "invalid_json"),
])
def test_an_answer_that_never_fits_fails_with_its_cause(tmp_path, text, reason, asked, cause):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ChatServer(lambda *_: Reply(body=completion(text, reason))) as server, pytest.raises(ChatError) as raised:
        asyncio.run(at(server, ledger, max_retries=2).complete(ASK))
    assert raised.value.cause == cause and len(server.requests) == asked and ledger.summary()[0]["failed"] == 1


def test_a_model_that_always_says_the_same_is_not_asked_again_at_temperature_0():
    class Fixed:
        name, deterministic, asked = "fixed", True, 0

        async def complete(self, request):
            self.asked += 1
            return Completion("no", self.name, "stop", 1, 1, 0.0, False)

    for temperature, asked in ((0.0, 1), (0.7, 4)):
        fixed = Fixed()
        with pytest.raises(UnfitAnswer):
            asyncio.run(CheckedModel(fixed, max_retries=3).complete(replace(ASK, temperature=temperature)))
        assert fixed.asked == asked


def test_a_schema_is_part_of_the_key_only_where_there_is_one():
    plain = replace(ASK, schema=None)
    before = json.dumps(["m", list(ASK.messages), 0.7, 1024, 1, "1"], ensure_ascii=False, sort_keys=True).encode()
    assert request_key("m", plain) == hashlib.sha256(before).hexdigest()  # ledgers from before there were schemas stay good
    assert len({request_key("m", one) for one in (plain, ASK, replace(ASK, schema={"type": "object"}))}) == 3
