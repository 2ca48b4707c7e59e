"""The ledger: what is committed stays, whoever else writes, and whatever kills the process."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultralink_nb.chat import ChatRequest, Completion
from ultralink_nb.ledger import Ledger, LedgerError, open_ledger, request_key

MESSAGES = ({"role": "user", "content": "¿Qué es?"},)
ASK = ChatRequest(MESSAGES, {"task": "answer", "subject": "p1", "language": "es", "turn": 2, "passage": "a long text"})
ANSWER = Completion("Un registro.", "m-2024", "stop", 10, 5, 0.5, False)


def test_a_completion_comes_back_as_it_was(tmp_path):
    ledger = open_ledger(tmp_path / "cache")
    key = request_key("m", ASK)
    assert ledger.find(key) is None
    ledger.record(key, "m", ASK, ANSWER)
    assert Completion(**open_ledger(tmp_path / "cache").find(key), cached=False) == ANSWER
    assert (tmp_path / "cache" / "ledger.sqlite").is_file()


@pytest.mark.parametrize("change", [
    {"messages": ({"role": "user", "content": "¿Qué es ?"},)}, {"temperature": 0.0}, {"max_tokens": 9}, {"seed": 9},
    {"prompt_version": "2"},
])
def test_everything_that_decides_an_answer_is_in_the_key(change):
    fields = {"messages": ASK.messages, "about": ASK.about, "temperature": ASK.temperature, "max_tokens": ASK.max_tokens,
              "seed": ASK.seed, "prompt_version": ASK.prompt_version}
    assert request_key("m", ChatRequest(**{**fields, **change})) != request_key("m", ASK)
    assert request_key("other", ASK) != request_key("m", ASK)
    assert request_key("m", ChatRequest(**{**fields, "about": {}})) == request_key("m", ASK)


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_different_messages_have_different_keys(left, right):
    keys = [request_key("m", ChatRequest(tuple({"role": "user", "content": text} for text in texts))) for texts in (left, right)]
    assert (keys[0] == keys[1]) == (left == right)


def test_a_failure_gives_way_to_a_completion_and_never_replaces_one(tmp_path):
    ledger, key = Ledger(tmp_path / "l.sqlite"), request_key("m", ASK)
    ledger.record_failure(key, "m", ASK, "the server is down")
    assert ledger.find(key) is None and ledger.failures()[0]["cause"] == "the server is down"
    ledger.record(key, "m", ASK, ANSWER)
    ledger.record_failure(key, "m", ASK, "again")
    assert ledger.find(key)["text"] == ANSWER.text and ledger.failures() == []


def test_the_summary_counts_by_model_and_task(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    for seed in range(3):
        request = ChatRequest(MESSAGES, {"task": "question"}, seed=seed)
        ledger.record(request_key("m", request), "m", request, ANSWER)
    failed = ChatRequest(MESSAGES, {"task": "answer"}, seed=9)
    ledger.record_failure(request_key("m", failed), "m", failed, "no")
    ledger.find(request_key("m", ChatRequest(MESSAGES, {"task": "question"}, seed=0)))
    answers, questions = ledger.summary()
    assert (answers["task"], answers["answered"], answers["failed"]) == ("answer", 0, 1)
    assert (questions["answered"], questions["reused"], questions["prompt_tokens"], questions["seconds"]) == (3, 1, 30, 1.5)


def test_the_passage_is_not_written_down(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.record(request_key("m", ASK), "m", ASK, ANSWER)
    ledger.close()
    assert b"a long text" not in (tmp_path / "l.sqlite").read_bytes()


WRITER = textwrap.dedent("""
    import sys
    from ultralink_nb.chat import ChatRequest, Completion
    from ultralink_nb.ledger import Ledger, request_key

    ledger, first, count = Ledger(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for seed in range(first, first + count):
        request = ChatRequest(({"role": "user", "content": "x"},), {"task": "answer"}, seed=seed)
        ledger.record(request_key("m", request), "m", request, Completion(str(seed), "m", "stop", 1, 1, 0.0, False))
        print(seed, flush=True)
""")


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    path = tmp_path / "l.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first), "40"], stdout=subprocess.DEVNULL)
               for first in (0, 20, 100)]  # the first two share twenty requests
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    assert Ledger(path).summary()[0]["answered"] == 100


def test_what_was_committed_survives_sigkill(tmp_path):
    path = tmp_path / "l.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), "0", "1000000"], stdout=subprocess.PIPE, text=True)
    said = [int(next(writer.stdout)) for _ in range(50)]
    os.kill(writer.pid, signal.SIGKILL)
    said += [int(line) for line in writer.stdout if line.endswith("\n")]
    writer.wait()
    with sqlite3.connect(path) as db:
        found = {int(text) for (text,) in db.execute("SELECT text FROM completions")}
    assert set(said) <= found and len(found) <= len(said) + 1


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_text("this is a text and long enough to be no database " * 50)
    with pytest.raises(LedgerError, match=r"cannot open the ledger of completions .*ledger\.sqlite"):
        Ledger(path)
    assert path.read_text().startswith("this is a text")


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="another cache_dir"):
        open_ledger(tmp_path / "file" / "cache")


def test_another_version_of_the_schema_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "l.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="schema 99"):
        Ledger(tmp_path / "l.sqlite")


def test_a_full_disk_stops_with_a_clear_sentence(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.record(request_key("m", ASK), "m", ASK, ANSWER)
    ledger._written.execute("PRAGMA max_page_count = 1")  # SQLite then reports what a full disk reports
    big = Completion("x" * 100_000, "m", "stop", 1, 1, 0.0, False)
    other = ChatRequest(MESSAGES, {}, seed=2)
    with pytest.raises(LedgerError, match="free space"):
        ledger.record(request_key("m", other), "m", other, big)
    assert ledger.find(request_key("m", ASK))["text"] == ANSWER.text
