"""Prices that the user states, the bill of a ledger, and the command that shows it."""

import asyncio
import json
from datetime import UTC, datetime

import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.chat_server import ChatServer, Reply, completion
from ultralink_nb import cli
from ultralink_nb.chat import ChatError, ChatRequest, Completion, open_chat_model
from ultralink_nb.costs import BadPrices, Price, bill, cost, price_of, read_prices, read_since
from ultralink_nb.ledger import open_ledger, request_key

KEY = "sk-planted-7c1f90aa"


def test_a_cost_is_tokens_times_price_and_unknown_without_one():
    assert cost(Price(0.5, 2.0), 1_000_000, 250_000) == pytest.approx(1.0)
    assert cost(None, 1, 1) is None and cost(Price(0, 0), 9, 9) == 0


def test_prices_come_from_a_file_or_from_two_parameters(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("a/b: {prompt: 0.05, completion: 0.2}\nfree: {prompt: 0, completion: 0}", encoding="utf-8")
    assert read_prices(path) == {"a/b": Price(0.05, 0.2), "free": Price(0, 0)}
    assert price_of("a/b", prices_path=path) == Price(0.05, 0.2) and price_of("other", prices_path=path) is None
    assert price_of("a/b", prices_path=path, price_prompt=1, price_completion=2.5) == Price(1, 2.5)
    assert price_of("a/b") is None
    with pytest.raises(BadPrices, match="give both"):
        price_of("a/b", price_prompt=1)


@pytest.mark.parametrize("text, wanted", [
    ("a: 1", "a must give prompt and completion"), ("a: {prompt: 1}", "a must give"), ("- a", "must hold lines"),
    ("a: {prompt: -1, completion: 2}", "a, prompt must be US dollars"), ("a: {prompt: x, completion: 2}", "a, prompt"),
    ("a: {prompt: .nan, completion: 2}", "a, prompt"), ("a: {prompt: 1, completion: true}", "a, completion"),
    ("a: {", "cannot read"), (None, "cannot read"),
])
def test_prices_that_make_no_sense_are_named(tmp_path, text, wanted):
    path = tmp_path / "prices.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(BadPrices, match=rf"prices\.yaml.*{wanted}|{wanted}.*prices\.yaml"):
        read_prices(path)


def filled(folder):
    ledger = open_ledger(folder)
    for model, count in (("a", 4), ("b", 2)):
        for n in range(count):
            request = ChatRequest(({"role": "user", "content": "x"},), {"task": "answer", "subject": f"p{n}", "turn": 1}, seed=n)
            key = request_key(model, request)
            failed = ChatError(f"{model} answered 429: slow down", "http_429")
            ledger.record(key, model, request, failed if n == 3 else Completion("ü", model, "stop", 1000, 500, 1.0, False))
            ledger.find(key)
    return ledger


def test_the_bill_counts_what_was_paid_and_what_was_saved(tmp_path):
    ledger = filled(tmp_path)
    ledger.close()
    table = bill(open_ledger(tmp_path), {"a": Price(1, 2)})
    a, b = table.to_dict("records")
    assert (a["answered"], a["failed"], a["prompt_tokens"], a["completion_tokens"], a["cached"]) == (3, 1, 3000, 1500, 3)
    assert a["cost"] == a["saved"] == pytest.approx(0.006) and b["answered"] == b["cached"] == 2
    assert pd.isna(b["cost"]) and pd.isna(b["saved"])
    assert bill(open_ledger(tmp_path / "new")).empty
    (reused,) = bill(open_ledger(tmp_path), {"a": Price(1, 2)}, since=0)["cached"][:1]
    assert reused == 3


def test_since():
    now = datetime(2026, 3, 10, 12, tzinfo=UTC)
    assert read_since("36h", now) == datetime(2026, 3, 9, 0, tzinfo=UTC).timestamp()
    assert read_since("90m", now) == datetime(2026, 3, 10, 10, 30, tzinfo=UTC).timestamp()
    assert read_since("7d", now) == datetime(2026, 3, 3, 12, tzinfo=UTC).timestamp()
    assert read_since("2026-03-01") == datetime(2026, 3, 1).timestamp()
    with pytest.raises(ValueError, match="is no time"):
        read_since("soon")


def command(*arguments):
    return CliRunner().invoke(cli.app, ["ledger", *map(str, arguments)])


def test_the_command_shows_calls_tokens_cost_and_failures(tmp_path):
    filled(tmp_path).close()
    (tmp_path / "prices.yaml").write_text("a: {prompt: 1, completion: 2}")
    shown = command("--cache-dir", tmp_path, "--prices", tmp_path / "prices.yaml", "--failures", 5)
    assert shown.exit_code == 0, shown.output
    assert "5 answers and 1 failures" in shown.output and "1 × http_429 (a, answer)" in shown.output
    assert "slow down" in shown.output and "0.0060" in shown.output and "unknown" in shown.output
    assert "together 0.0060 US dollars without b" in shown.output
    assert "US dollars" not in command("--cache-dir", tmp_path).output
    assert "no request since then" in command("--cache-dir", tmp_path, "--since", "2100-01-01").output
    everywhere = command("--cache-dir", tmp_path, "--price-prompt", 1, "--price-completion", 2).output
    assert "together 0.0100 US dollars\n" in everywhere


def test_the_command_exports_every_row(tmp_path):
    filled(tmp_path).close()
    assert "6 rows in" in command("--cache-dir", tmp_path, "--export", tmp_path / "out.jsonl").output
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["status"] for row in rows].count("failed") == 1 and rows[0]["text"] == "ü"
    assert datetime.fromisoformat(rows[0]["recorded_at"]).tzinfo and sorted(tmp_path.glob("*.part")) == []


def test_the_command_stops_with_a_sentence(tmp_path):
    absent = command("--cache-dir", tmp_path)
    assert absent.exit_code == 1 and "no ledger of completions" in absent.output and not list(tmp_path.iterdir())
    filled(tmp_path).close()
    for wrong in (["--since", "soon"], ["--price-prompt", "1"], ["--prices", str(tmp_path / "none.yaml")]):
        stopped = command("--cache-dir", tmp_path, *wrong)
        assert stopped.exit_code == 2 and "ultralink-nb: " in stopped.output
    (tmp_path / "ledger.sqlite").write_text("no database, but long enough to be taken for one " * 50)
    assert command("--cache-dir", tmp_path).exit_code == 1


def test_the_key_is_in_neither_ledger_export_nor_output(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    failing = Reply(401, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode())
    with ChatServer(lambda _, number: Reply(body=completion("yes")) if number else failing) as server:
        for seed in range(2):
            model = open_chat_model("m", base_url=server.url, ledger=open_ledger(tmp_path), max_retries=0)
            request = ChatRequest(({"role": "user", "content": "x"},), {"task": "answer"}, seed=seed)
            try:
                asyncio.run(model.complete(request))
            except ChatError:
                pass
        assert server.keys == [f"Bearer {KEY}"] * 2
    shown = command("--cache-dir", tmp_path, "--failures", 5).output
    shown += command("--cache-dir", tmp_path, "--export", tmp_path / "out.jsonl").output
    assert "401" in shown and KEY not in shown
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"ledger.sqlite", "out.jsonl"} <= {path.name for path in files}
    assert all(KEY.encode() not in path.read_bytes() for path in files)
