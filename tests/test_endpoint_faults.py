"""Whole runs against a real HTTP server that fails: each ends complete, or with a clear cause and a ledger to go on from."""

import asyncio
import email.utils
import json
import threading
import time
from collections import Counter

import pytest

from tests.chat_server import ChatServer, Reply, completion
from ultralink_nb import endpoint
from ultralink_nb.asking import ask_all
from ultralink_nb.chat import ChatError, ChatRequest, open_chat_model
from ultralink_nb.ledger import Ledger

GOOD = Reply(body=completion("A knotted record."))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("ultralink_nb.limits.FIRST_PAUSE", 0.02)


def request(number):
    return ChatRequest(({"role": "user", "content": f"Question {number}"},), {"task": "answer", "subject": str(number)})


def open_at(url, ledger=None, **options):
    options = {"timeout": 5.0, "concurrency": 8, "api_key_variable": "NO_KEY", **options}
    return open_chat_model("loopback", base_url=url, ledger=ledger, **options)


def run(model, requests, concurrency=8):
    """(answers, failures by cause) of a run."""
    async def go():
        found = [outcome async for _, outcome in ask_all(
            range(requests), lambda number: model.complete(request(number)), concurrency=concurrency, give_up_after=1000
        )]
        failed = Counter(outcome.cause for outcome in found if isinstance(outcome, ChatError))
        return requests - failed.total(), failed

    return asyncio.run(go())


FAULTS = {
    "429": Reply(429, b'{"error": {"message": "slow down"}}', headers=(("Retry-After", "0.05"),)),
    "429 unnamed": Reply(429, b"{}"),
    "500": Reply(500, b'{"error": {"message": "out of memory"}}'),
    "502 html": Reply(502, b"<html><h1>Bad Gateway</h1></html>", content_type="text/html"),
    "503": Reply(503, b'{"error": {"message": "Loading model", "code": 503}}'),
    "529": Reply(529, b"overloaded"),
    "not json": Reply(200, b"<html>wait</html>"),
    "half json": Reply(200, b'{"choices": [{"message"'),
    "no choice": Reply(200, b'{"choices": []}'),
    "an error with 200": Reply(200, b'{"error": {"message": "no worker"}}'),
    "cut": Reply(200, completion("half of it"), cut=True),
    "reset": Reply(reset=True),
    "hangs": Reply(body=completion("late"), delay=0.6),
    "deep": Reply(200, b"[" * 200_000),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_with_a_fault_in_every_third_answer_is_complete(fault, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ChatServer(lambda _, number: FAULTS[fault] if number % 3 == 1 else GOOD) as server:
        answered, failed = run(open_at(server.url, ledger, timeout=0.3 if fault == "hangs" else 5.0, max_retries=12), 24)
    assert (answered, failed) == (24, {}) and len(server.requests) > 24
    assert ledger.summary()[0]["answered"] == 24 and ledger.summary()[0]["failed"] == 0


@pytest.mark.parametrize("fault, cause", [
    ("500", "http_500"), ("cut", "connection"), ("reset", "connection"), ("hangs", "timeout"), ("half json", "garbled"),
])
def test_a_fault_that_stays_is_recorded_and_the_next_run_goes_on(fault, cause, tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")

    def half(body, _):
        return FAULTS[fault] if int(body["messages"][0]["content"].split()[-1]) % 2 else GOOD

    with ChatServer(half) as server:
        answered, failed = run(open_at(server.url, ledger, timeout=0.3, max_retries=1), 10)
    assert (answered, failed) == (5, {cause: 5})
    assert ledger.summary()[0]["answered"] == 5 and ledger.summary()[0]["failed"] == 5
    assert server.url in " ".join(map(str, ledger.failures()[0].values()))
    with ChatServer(lambda *_: GOOD) as server:
        assert run(open_at(server.url, ledger), 10) == (10, {})
        assert len(server.requests) == 5
    assert ledger.summary()[0]["failed"] == 0


def test_one_429_makes_all_wait():
    named = Reply(429, b"{}", headers=(("Retry-After", "1"),))
    with ChatServer(lambda _, number: named if number == 4 else GOOD, delay=0.0) as server:
        assert run(open_at(server.url, concurrency=4), 60)[0] == 60
    times = [at for at, _ in server.requests]
    held = times[4]
    assert not [at for at in times[12:] if held + 0.2 < at < held + 0.95]  # but for what was under way


@pytest.mark.parametrize("value, seconds", [("2", 2.0), ("date", 1.0)])
def test_a_pause_in_seconds_or_as_a_date(value, seconds):
    value = email.utils.formatdate(time.time() + 2, usegmt=True) if value == "date" else value
    with ChatServer(lambda _, number: GOOD if number else Reply(429, b"{}", headers=(("Retry-After", value),))) as server:
        run(open_at(server.url), 1)
    (first, _), (second, _) = server.requests
    assert seconds * 0.95 <= second - first < 4


def test_a_pause_longer_than_patience_is_said_and_not_waited_for():
    long = Reply(429, b"{}", headers=(("Retry-After", "4000"),))
    with ChatServer(lambda *_: long) as server, pytest.raises(ChatError, match="4000 s, which is longer than patience") as raised:
        asyncio.run(open_at(server.url).complete(request(1)))
    assert len(server.requests) == 1 and raised.value.cause == "http_429"


def test_patience_with_a_busy_server_ends():
    with ChatServer(lambda *_: FAULTS["429"]) as server:
        started = time.monotonic()
        assert run(open_at(server.url, patience=0.5, max_retries=0), 4) == (0, {"http_429": 4})
        assert 0.3 < time.monotonic() - started < 5 and len(server.requests) > 4


def test_an_account_without_credit_is_not_waited_for():
    empty = Reply(429, b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}')
    with ChatServer(lambda *_: empty) as server, pytest.raises(ChatError, match="no credit left"):
        asyncio.run(open_at(server.url).complete(request(1)))
    assert len(server.requests) == 1


def go_away(tmp_path, back_after=None, **options):
    """A run of 20 requests whose server goes away after ten answers, and comes back so many seconds later or not at all."""
    ledger, gone, result = Ledger(tmp_path / "ledger.sqlite"), threading.Event(), []

    def respond(body, number):
        if number >= 10:
            gone.set()
            return Reply(reset=True)
        return GOOD

    with ChatServer(respond) as server:
        model = open_at(server.url, ledger, concurrency=4, **options)
        thread = threading.Thread(target=lambda: result.append(run(model, 20, concurrency=4)))
        thread.start()
        gone.wait(20)
    if back_after:
        time.sleep(back_after)
        with ChatServer(lambda *_: GOOD, port=server.port):
            thread.join(30)
    thread.join(30)
    return result[0], ledger.summary()[0]


def test_a_server_that_comes_back_is_waited_for(tmp_path):
    outcome, summary = go_away(tmp_path, back_after=1.5, max_retries=5, patience=20.0)
    assert outcome == (20, {}) and summary["answered"] == 20


def test_a_server_that_stays_away_ends_the_run_with_its_cause(tmp_path):
    (answered, failed), summary = go_away(tmp_path, max_retries=2, patience=0.5)
    assert answered == summary["answered"] == 10 and failed == {"connection": 10}


def test_a_server_that_was_never_there_is_not_waited_for_long():
    with ChatServer() as server:
        pass
    started = time.monotonic()
    assert run(open_at(server.url, max_retries=2), 4) == (0, {"connection": 4})
    assert time.monotonic() - started < 5


def test_rates_are_kept():
    with ChatServer(lambda *_: GOOD) as server:
        assert run(open_at(server.url, requests_per_minute=600), 25)[0] == 25
    times = [at for at, _ in server.requests]
    assert times[-1] - times[0] >= 1.3  # ten at once, fifteen more at ten a second
    with ChatServer(lambda *_: GOOD) as server:  # an answer counts 18 tokens, whatever was estimated
        assert run(open_at(server.url, tokens_per_minute=6000), 25)[0] == 25
    times = [at for at, _ in server.requests]
    assert 2.5 <= times[-1] - times[0] < 20


def test_an_answer_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(endpoint, "MAX_BODY", 2**20)
    with ChatServer(lambda *_: Reply(body=completion("x" * 2**21))) as server, pytest.raises(ChatError, match="more than 1 MiB"):
        asyncio.run(open_at(server.url).complete(request(1)))
    assert len(server.requests) == 1


def test_a_moved_endpoint_is_named_and_gets_no_key():
    moved = Reply(301, b"", headers=(("Location", "http://elsewhere.example/v1"),))
    with ChatServer(lambda *_: moved) as server, pytest.raises(ChatError, match="moved to http://elsewhere.example/v1"):
        asyncio.run(open_at(server.url).complete(request(1)))


def test_connections_are_kept_and_few():
    with ChatServer(lambda *_: GOOD) as server:
        assert run(open_at(server.url, concurrency=2), 60)[0] == 60
    assert server.connections <= 2


def test_a_model_serves_one_event_loop_after_another(caplog):
    with ChatServer(lambda *_: GOOD) as server:
        model = open_at(server.url)
        for number in range(3):
            assert asyncio.run(model.complete(request(number))).text
        del model
    assert not [record for record in caplog.records if "nclosed" in record.getMessage()]


def test_half_a_surrogate_pair_does_not_stop_the_ledger(tmp_path):
    body = json.dumps({"choices": [{"message": {"content": "a \ud83d b"}, "finish_reason": "stop"}]}).encode()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ChatServer(lambda *_: Reply(body=body)) as server:
        assert asyncio.run(open_at(server.url, ledger).complete(request(1))).text == "a ? b"


def test_a_server_that_wants_another_name_for_the_limit_gets_it():
    def respond(body, _):
        if "max_tokens" in body:
            return Reply(400, b'{"error": {"message": "Unsupported parameter: use \'max_completion_tokens\' instead."}}')
        return GOOD

    with ChatServer(respond) as server:
        assert run(open_at(server.url, concurrency=1), 3)[0] == 3
    assert ["max_tokens" in body for _, body in server.requests] == [True, False, False, False]


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(monkeypatch):
    monkeypatch.setenv("ODD_KEY", "sk-planted\nX-Evil: 1")
    with pytest.raises(ChatError, match="ODD_KEY") as raised:
        open_at("http://localhost:1/v1", api_key_variable="ODD_KEY")
    assert "planted" not in str(raised.value)
