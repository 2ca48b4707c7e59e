"""The chat models against a real HTTP server that misbehaves in every way a server can."""

import asyncio
import json

import pytest

from tests.chat_server import ChatServer, Reply, completion
from ultralink_nb import answers
from ultralink_nb.chat import ChatError, ChatRequest, Completion, LedgeredModel, NoRecording, ReplayModel, open_chat_model
from ultralink_nb.ledger import Ledger

KEY = "sk-planted-0123456789"
ASK = ChatRequest(({"role": "user", "content": "What is a quipu?"},), {"task": "answer", "subject": "p1", "turn": 0})
GOOD = Reply(body=completion("A knotted record."))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("ultralink_nb.limits.FIRST_PAUSE", 0.02)


def model_at(server, ledger=None, **options):
    options = {"timeout": 5.0, "max_retries": 2, "api_key_variable": "TEST_KEY", **options}
    return open_chat_model("loopback", base_url=server.url, ledger=ledger, **options)


def faults(*replies):
    """A server that sends these replies in turn and then good ones."""
    return ChatServer(lambda body, number: replies[number] if number < len(replies) else GOOD)


def test_a_completion_carries_text_counts_and_sampling(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with ChatServer(lambda *_: GOOD) as server:
        answer = asyncio.run(model_at(server).complete(ASK))
        body = server.requests[0][1]
    assert (answer.text, answer.model, answer.finish_reason) == ("A knotted record.", "loopback-model", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached) == (11, 7, False)
    assert body["model"] == "loopback" and body["seed"] == ASK.seed and body["temperature"] == ASK.temperature
    assert body["messages"] == list(ASK.messages) and "about" not in json.dumps(body)
    assert server.keys == [f"Bearer {KEY}"]


def test_a_local_server_needs_no_key(monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with ChatServer(lambda *_: GOOD) as server:
        assert asyncio.run(model_at(server).complete(ASK)).text


@pytest.mark.parametrize("reply", [
    Reply(500, b'{"error": {"message": "out of memory"}}'),
    Reply(502, b"<html>Bad Gateway</html>", content_type="text/html"),
    Reply(200, b"<html>wait</html>", content_type="text/html"),
    Reply(200, b'{"choices": [{"message"'),
    Reply(200, b'{"choices": []}'),
    Reply(200, b'{"choices": [{"message": {"content": null}}]}'),
    Reply(200, b'[1, 2]'),
    Reply(200, completion("   ")),
    Reply(200, completion("half of it"), cut=True),
], ids=["500", "html 502", "html 200", "broken json", "no choice", "null text", "a list", "blank text", "cut body"])
def test_a_fault_is_asked_again_and_named_when_it_stays(reply):
    with faults(reply) as server:
        assert asyncio.run(model_at(server, max_retries=1).complete(ASK)).text == "A knotted record."
        assert len(server.requests) == 2
    with faults(*[reply] * 9) as server:
        with pytest.raises(ChatError) as raised:
            asyncio.run(model_at(server, max_retries=1).complete(ASK))
        assert len(server.requests) == 2
    message = str(raised.value)
    assert server.url in message and ";" in message and "\n" not in message and len(message) < 500


def test_retry_after_is_honoured():
    with faults(Reply(429, b"{}", headers=(("Retry-After", "1"),))) as server:
        asyncio.run(model_at(server).complete(ASK))
        (first, _), (second, _) = server.requests
    assert 0.95 <= second - first < 3


def test_a_server_that_hangs_times_out():
    with faults(*[Reply(body=completion("late"), delay=1.5)] * 3) as server, pytest.raises(ChatError, match="0.3 s") as raised:
        asyncio.run(model_at(server, timeout=0.3, max_retries=0).complete(ASK))
    assert raised.value.cause == "timeout"


def test_no_server_is_named():
    with ChatServer() as server:
        pass
    with pytest.raises(ChatError, match="cannot be reached.*is the server running") as raised:
        asyncio.run(model_at(server, max_retries=0).complete(ASK))
    assert raised.value.cause == "connection"


@pytest.mark.parametrize("status, cause", [(400, "http_400"), (401, "http_401"), (404, "http_404")])
def test_what_cannot_get_better_is_asked_once_and_never_shows_the_key(monkeypatch, status, cause):
    monkeypatch.setenv("TEST_KEY", KEY)
    echo = json.dumps({"error": {"message": "x" * 190 + f" Incorrect API key provided: {KEY}"}}).encode()
    with faults(*[Reply(status, echo)] * 5) as server, pytest.raises(ChatError) as raised:
        asyncio.run(model_at(server).complete(ASK))
    assert len(server.requests) == 1 and raised.value.cause == cause
    assert "sk-plant" not in str(raised.value)


def test_an_answer_cut_before_its_first_word_is_not_asked_again():
    with faults(*[Reply(body=completion("", "length"))] * 5) as server, pytest.raises(ChatError, match="max_answer_tokens"):
        asyncio.run(model_at(server).complete(ASK))
    assert len(server.requests) == 1


def test_concurrency_is_bounded():
    import threading

    busy, most, lock = 0, 0, threading.Lock()

    def respond(body, number):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        threading.Event().wait(0.05)
        with lock:
            busy -= 1
        return GOOD

    async def ask_many(model):
        await asyncio.gather(*(model.complete(ChatRequest(({"role": "user", "content": str(n)},))) for n in range(20)))

    with ChatServer(respond) as server:
        asyncio.run(ask_many(model_at(server, concurrency=3)))
    assert most == 3 and len(server.requests) == 20


@pytest.mark.parametrize("name, options, wanted", [
    ("m", {"base_url": "localhost:8000"}, "must look like"),
    ("m", {"base_url": "http://user:secret@host/v1"}, "environment variable"),
    ("m", {"base_url": "http://host/v1?key=secret"}, "environment variable"),
    ("m", {}, "NO_SUCH_KEY is empty"),
    ("replay", {"base_url": "http://host/v1"}, "replay"),
    (" ", {"base_url": "http://host/v1"}, "chat_model is empty"),
])
def test_what_cannot_be_right_stops_before_any_request(name, options, wanted):
    with pytest.raises(ChatError, match=wanted) as raised:
        open_chat_model(name, api_key_variable="NO_SUCH_KEY", ledger=None, **options)
    assert "secret" not in str(raised.value)


def test_the_ledger_answers_what_was_asked_before(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ChatServer(lambda *_: GOOD) as server:
        first = asyncio.run(model_at(server, ledger).complete(ASK))
        second = asyncio.run(model_at(server, ledger).complete(ASK))
        other = ChatRequest(ASK.messages, ASK.about, ASK.temperature, ASK.max_tokens, ASK.seed + 1, ASK.prompt_version)
        asyncio.run(model_at(server, ledger).complete(other))
    assert not first.cached and second.cached and first.text == second.text and len(server.requests) == 2
    (row,) = ledger.summary()
    assert (row["answered"], row["reused"], row["failed"], row["completion_tokens"]) == (2, 1, 0, 14)


def test_a_failure_is_recorded_and_asked_again(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with faults(Reply(401, b'{"error": {"message": "no"}}')) as server:
        with pytest.raises(ChatError):
            asyncio.run(model_at(server, ledger).complete(ASK))
        assert ledger.summary()[0]["failed"] == 1 and "401" in ledger.failures()[0]["cause"]
        assert asyncio.run(model_at(server, ledger).complete(ASK)).text
    assert ledger.summary()[0]["failed"] == 0 and ledger.summary()[0]["answered"] == 1


class SlowModel:
    """A model in process that counts what it was asked."""

    name = "slow"

    def __init__(self):
        self.asked = 0

    async def complete(self, request):
        self.asked += 1
        await asyncio.sleep(0.05)
        return Completion("slow answer", self.name, "stop", 1, 1, 0.05, False)


def test_equal_requests_in_flight_are_asked_once(tmp_path):
    slow = SlowModel()

    async def twice():
        model = LedgeredModel(slow, Ledger(tmp_path / "ledger.sqlite"))
        return await asyncio.gather(model.complete(ASK), model.complete(ASK))

    answers = asyncio.run(twice())
    assert slow.asked == 1 and [answer.cached for answer in answers] == [False, True]


def test_an_answer_is_recorded_when_its_caller_is_cancelled(tmp_path):
    slow, ledger = SlowModel(), Ledger(tmp_path / "ledger.sqlite")

    async def cancel():
        caller = asyncio.create_task(LedgeredModel(slow, ledger).complete(ASK))
        await asyncio.sleep(0.01)
        caller.cancel()
        await asyncio.sleep(0.3)

    asyncio.run(cancel())
    assert ledger.summary()[0]["answered"] == 1


def replay_sample(folder):
    (folder / "dialogues").mkdir()
    (folder / "sft" / "translations").mkdir(parents=True)
    turns = [{"question": "¿Qué es un quipu?", "answer": "Un registro con nudos."}]
    row = {"title": "Quipu", "anchor": "cuerdas con nudos", "turns": turns}
    (folder / "dialogues" / "es.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (folder / "sft" / "verdicts.jsonl").write_text('{"id": "c-1", "scores": {"places": {"score": 2, "evidence": "Texas"}}}')
    (folder / "sft" / "translations" / "es.jsonl").write_text('{"id": "c-1", "messages": [{"role": "user", "content": "Hola"}]}')
    return ReplayModel(folder)


def replay(model, **about):
    return asyncio.run(model.complete(ChatRequest(ASK.messages, about))).text


def test_replay_answers_by_passage_and_turn(tmp_path):
    model = replay_sample(tmp_path)
    passage = {"language": "es", "passage": "El quipu son cuerdas con nudos de lana."}
    assert replay(model, task="question", turn=0, **passage) == "¿Qué es un quipu?"
    assert replay(model, task="answer", turn=0, **passage) == "Un registro con nudos."
    assert json.loads(replay(model, task="sift", subject="c-1")) == {"places": {"score": 2, "evidence": "Texas"}}
    assert replay(model, task="translate", subject="c-1", language="es", turn=0) == "Hola"


@pytest.mark.parametrize("about", [
    {"task": "question", "language": "es", "passage": "cuerdas con nudos", "turn": 1},
    {"task": "question", "language": "es", "passage": "otra cosa", "turn": 0},
    {"task": "question", "language": "fr", "passage": "cuerdas con nudos", "turn": 0},
    {"task": "sift", "subject": "c-2"},
    {"task": "translate", "subject": "c-1", "language": "es", "turn": 1},
    {"task": "translate", "subject": "c-1", "language": "ru", "turn": 0},
])
def test_replay_says_when_nothing_is_recorded(tmp_path, about):
    with pytest.raises(NoRecording):
        replay(replay_sample(tmp_path), **about)


def test_replay_needs_no_ledger_and_says_who_wrote_it():
    model = open_chat_model("replay", ledger=None)
    assert model.name == "replay" and "authors" in model.label


def test_a_reasoning_models_thoughts_are_not_its_answer():
    def body(text):
        return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})

    assert answers.read_answer(body("<think>\nhm\n</think>\n\nWhy?")).text.strip() == "Why?"
    assert answers.read_answer(body("a <think> tag in a text")).text == "a <think> tag in a text"
    with pytest.raises(answers.Trouble, match="inside the model's thoughts"):
        answers.read_answer(body("<think>\nand so on"))
