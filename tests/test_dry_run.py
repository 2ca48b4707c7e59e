"""The dry run beside what a real run over HTTP asks and pays."""

import asyncio
import json

import pytest

from tests.chat_server import ChatServer, Reply, grounded_text
from tests.test_dialogues import TEXT, passage
from ultralink_nb import begun
from ultralink_nb.chat import ChatRequest, Completion, open_chat_model
from ultralink_nb.checks import Gates
from ultralink_nb.costs import Price
from ultralink_nb.dialogues import Process, generate_dialogues, plan
from ultralink_nb.dry_run import AMOUNTS, describe, plan_dialogues, plan_sifting, plan_translation
from ultralink_nb.ledger import Ledger, request_key
from ultralink_nb.lengths import Length, learned_lengths, recorded_lengths
from ultralink_nb.sifting import sift
from ultralink_nb.tokens import count_tokens
from ultralink_nb.translation import translate

PRICE = Price(1.0, 4.0)


def counted(body, text):
    """A completion whose usage counts what was really sent, as a server with another tokenizer does."""
    sent = sum(count_tokens([message["content"] for message in body["messages"]])) + 5 * len(body["messages"])
    usage = {"prompt_tokens": round(1.3 * sent), "completion_tokens": round(1.3 * count_tokens([text])[0]) + 1}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return Reply(body=json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode())


def respond(body, _):
    text = grounded_text(body["messages"])
    if len(body["messages"]) > 2 and hash_of(body) % 4 == 0:
        text = "I'm sorry, but as an AI language model I cannot say anything at all about that."
    return counted(body, text)


def hash_of(body):
    return int(request_key("m", ChatRequest(tuple(body["messages"]), seed=body["seed"]))[:8], 16)


def generate(passages, url, ledger, process=Process()):  # noqa: B008 (frozen)
    model = open_chat_model("m", base_url=url, ledger=ledger, concurrency=8)
    return asyncio.run(generate_dialogues(passages, model, seed=1, languages=["en"], process=process))


def total(frame):
    return {amount: tuple(frame[f"{amount}{side}"].sum() for side in ("_low", "", "_high")) for amount in AMOUNTS}


def paid(ledger):
    rows = ledger.summary()
    return {"calls": sum(row["answered"] for row in rows), **{
        name: sum(row[name] for row in rows) for name in ("prompt_tokens", "completion_tokens")}}


def test_the_calls_of_a_plan_are_those_of_the_run_where_nothing_is_refused(tmp_path):
    passages, ledger = [passage(n) for n in range(12)], Ledger(tmp_path / "l")
    frame = plan_dialogues(passages, seed=1, model="m", ledger=ledger, price=PRICE)
    assert frame["calls"].sum() == 2 * sum(len(plan(one["id"], 1, 0.1, 6)) for one in passages) == frame["calls_high"].sum()
    assert frame["calls_low"].sum() == 24 and list(frame["task"]) == ["answer", "question"] and not frame["cached"].any()
    with ChatServer(lambda body, _: counted(body, grounded_text(body["messages"]))) as server:
        _, refused = generate(passages, server.url, ledger)
        asked = len(server.requests)
    assert frame["calls_low"].sum() <= asked <= frame["calls_high"].sum()
    if not refused:
        assert asked == frame["calls"].sum()
    after = plan_dialogues(passages, seed=1, model="m", ledger=ledger, price=PRICE)
    assert after["calls_high"].sum() == 0 and after["cached"].sum() == asked
    assert ledger.summary()[0]["reused"] == 0, "looking counts as no reuse"


@pytest.mark.parametrize("checked", [begun.CHECKED, 12])
def test_a_plan_after_a_pilot_is_close_to_the_bill(tmp_path, monkeypatch, checked):
    monkeypatch.setattr(begun, "CHECKED", checked)
    passages, ledger = [passage(n, text=TEXT[: 400 + 37 * (n % 9)]) for n in range(72)], Ledger(tmp_path / "l")
    with ChatServer(respond) as server:
        assert plan_dialogues(passages[:2], seed=1, model="m", ledger=ledger, gates=Gates())["cached"].sum() == 0
        generate(passages[:24], server.url, ledger)
        pilot = paid(ledger)
        expected = total(plan_dialogues(passages, seed=1, model="m", languages=["en"], ledger=ledger, price=PRICE))
        generate(passages, server.url, ledger)
    real = {name: value - pilot[name] for name, value in paid(ledger).items()}
    real["cost"] = (real["prompt_tokens"] + 4 * real["completion_tokens"]) / 1e6
    for amount, value in real.items():
        low, middle, high = expected[amount]
        assert low <= value <= high, amount
        assert middle == pytest.approx(value, rel=0.15), amount


def test_a_dialogue_that_was_stopped_half_way_is_planned_from_there(tmp_path):
    passages, ledger = [passage(n) for n in range(6)], Ledger(tmp_path / "l")
    with ChatServer(lambda body, _: counted(body, grounded_text(body["messages"]))) as server:
        generate(passages, server.url, ledger, Process(max_turns=2))
        asked = len(server.requests)
        frame = plan_dialogues(passages, seed=1, model="m", languages=["en"], ledger=ledger)
        assert frame["cached"].sum() == asked
        generate(passages, server.url, ledger)
        assert frame["calls_low"].sum() <= len(server.requests) - asked <= frame["calls_high"].sum()
    assert frame["cost"].isna().all() and "price unknown" in describe(frame)


def test_prompts_that_outgrow_the_context_are_not_planned():
    passages = [passage(n) for n in range(20)]
    short = plan_dialogues(passages, Process(max_context_tokens=700), seed=1, model="m")
    assert 40 <= short["calls"].sum() < plan_dialogues(passages, seed=1, model="m")["calls"].sum()
    assert plan_dialogues(passages, Process(max_context_tokens=256), seed=1, model="m").empty
    assert plan_dialogues([], seed=1, model="m").empty


def test_a_length_is_a_guess_until_there_are_enough_answers(tmp_path):
    ledger = Ledger(tmp_path / "l")
    for n in range(20):
        assert ("ru", "answer") not in learned_lengths(ledger, "m")
        request = ChatRequest(({"role": "user", "content": "x"},), {"task": "answer", "language": "ru"}, seed=n)
        ledger.record(request_key("m", request), "m", request, Completion("one two three", "m", "stop", 9, 50 + n % 2, 0, False))
    length = learned_lengths(ledger, "m")["ru", "answer"]
    assert (length.text, length.paid, length.spread, length.seen) == (3, 50.5, 0.5, 20)
    assert length.at(-1, 100) < 50.5 < length.at(1, 100) < length.at(1, 1)
    assert Length(10, 10).at(1, 9) == 20 and recorded_lengths()["ru", "answer"].paid > recorded_lengths()["en", "answer"].paid


def test_sifting_and_translation_are_planned_call_by_call(tmp_path):
    messages = [{"role": "user", "content": "Why is the sky blue in the daytime and red at night?"},
                {"role": "assistant", "content": "Air scatters blue light more than red light, so blue reaches us from above."}]
    source = {"dataset": "d", "parent_id": None, "document_id": None, "url": None, "license": "MIT"}
    samples = [{"id": f"s{n}", "language": "en", "kind": "chat_agnostic", "source": source, "messages": [
        {**message, "content": f"{n + 2} {message['content']}"} for message in messages]} for n in range(15)]
    ledger = Ledger(tmp_path / "l")
    score = {"score": 0, "evidence": ""}
    verdict = json.dumps({name: score for name in ("full_names", "code_or_formulas", "places", "conventions", "expressions",
                                                   "material_things", "organisations")})

    def answer(body, _):
        text = body["messages"][1]["content"]
        return counted(body, verdict if "<sample>" in text else text.split("<text>\n")[1].split("\n</text>")[0] + " et puis")

    with ChatServer(answer) as server:
        def model():
            return open_chat_model("m", base_url=server.url, ledger=ledger)

        sifting = plan_sifting(samples, seed=1, model="m", ledger=ledger)
        asyncio.run(sift(samples, model(), seed=1))
        assert sifting["calls"].sum() == len(server.requests) == 15
        assert plan_sifting(samples, seed=1, model="m", ledger=ledger)["calls"].sum() == 0
        asyncio.run(translate(samples[:11], model(), ["fr"], seed=1))
        before = paid(ledger)
        frame = plan_translation(samples, ["en", "fr"], seed=1, model="m", ledger=ledger, price=PRICE)
        asked = len(server.requests)
        asyncio.run(translate(samples, model(), ["en", "fr"], seed=1))
        assert frame["calls"].sum() == len(server.requests) - asked == 8
    real = {name: value - before[name] for name, value in paid(ledger).items()}
    assert total(frame)["prompt_tokens"][1] == pytest.approx(real["prompt_tokens"], rel=0.03)
    assert total(frame)["completion_tokens"][1] == pytest.approx(real["completion_tokens"], rel=0.1)
