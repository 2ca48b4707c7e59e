"""The ledger: what is committed stays, whoever else writes, and whatever kills the process."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chat_server import ChatServer, Reply, completion
from ultralink_nb.chat import ChatError, ChatRequest, Completion, open_chat_model
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
    {"prompt_version": "2"}, {"schema": {"type": "object"}}, {"schema": {}},
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


def test_keys_of_ledgers_that_exist_stay_valid():
    assert request_key("m", ASK) == "1d06ac87300392d01bd47bd7dfcb5358e0e39ced8b18f87866e620fadf4d3e56"


def ask(number, **about):
    request = ChatRequest(MESSAGES, {"task": "answer", **about}, seed=number)
    return request_key("m", request), "m", request


def test_outcomes_that_arrive_together_share_a_commit(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    commits = []
    ledger._written.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)

    async def many():
        await asyncio.gather(*(ledger.record_async(*ask(n), ANSWER) for n in range(200)),
                             ledger.record_async(*ask(200), ChatError("answered 429", "http_429")))

    asyncio.run(many())
    assert ledger.summary()[0]["answered"] == 200 and len(commits) < 100
    assert [(row["cause"], row["reason"]) for row in ledger.failures()] == [("http_429", "answered 429")]
    assert ledger.causes() == [{"model": "m", "task": "answer", "cause": "http_429", "requests": 1}]


def test_an_answer_is_kept_whoever_stops_waiting_for_it(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")

    async def cancelled():
        waiting = asyncio.create_task(ledger.record_async(*ask(1), ANSWER))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await ledger.record_async(*ask(2), ANSWER)

    asyncio.run(cancelled())
    assert ledger.find(ask(1)[0]) and ledger.find(ask(2)[0])
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.record(*ask(3), ANSWER)


def test_many_outcomes_are_one_transaction(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    with pytest.raises(ZeroDivisionError):
        ledger.record_many((*ask(n), 1 / (9 - n) and ANSWER) for n in range(20))
    assert ledger.summary() == []
    ledger.record_many((*ask(n), ANSWER) for n in range(20))
    assert ledger.summary()[0]["answered"] == 20


def test_whatever_a_server_sends_can_be_kept(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    odd = Completion("half \ud83d and \x00", "m", "stop", 2**80, -1, float("nan"), False)
    key, _, request = ask(1, subject=["a", "list"])
    asyncio.run(ledger.record_async(key, "m", request, odd))
    assert ledger.find(key)["text"] == "half ? and \x00"
    assert request_key("m", ChatRequest(({"role": "user", "content": "\ud83d"},)))


def test_rows_are_read_page_by_page_in_their_order(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.record_many((*ask(n, language="es"), Completion(str(n), "m", "stop", 1, 1, 0.0, False)) for n in range(1203))
    assert [row["text"] for row in ledger.rows()] == [str(n) for n in range(1203)]
    assert [row["text"] for row in ledger.answers("m", 700)] == [str(n) for n in range(1202, 502, -1)]
    assert list(ledger.answers("other", 9)) == [] and list(ledger.rows(since=2e9)) == [] and ledger.span(2e9) is None


def test_answers_taken_from_the_ledger_are_counted_across_sessions(tmp_path):
    for _ in range(2):
        ledger = Ledger(tmp_path / "l.sqlite")
        ledger.record(*ask(1), ANSWER)
        for _ in range(150):
            ledger.find(ask(1)[0])
        ledger.find(ask(1)[0], reuse=False)
        ledger.close()
    (row,) = Ledger(tmp_path / "l.sqlite").reuses()
    assert row == {"model": "m", "task": "answer", "answers": 300, "prompt_tokens": 3000, "completion_tokens": 1500}


def test_a_claim_keeps_others_out_while_it_lasts(tmp_path):
    one, two = Ledger(tmp_path / "l.sqlite"), Ledger(tmp_path / "l.sqlite")
    order = []

    async def hold(ledger, name, key, seconds):
        async with ledger.claimed(key):
            order.append(name)
            await asyncio.sleep(seconds)
            order.append(name)

    async def all_at_once():
        await asyncio.gather(hold(one, "a", ask(1)[0], 0.2), hold(one, "b", ask(1)[0], 0), hold(two, "c", ask(1)[0], 0),
                             hold(two, "free", ask(2)[0], 0))

    asyncio.run(all_at_once())
    assert order[:4] == ["a", "free", "free", "a"] and sorted(order[4:]) == ["b", "b", "c", "c"]
    assert order[4] == order[5]


HOLDER = textwrap.dedent("""
    import asyncio, sys
    from ultralink_nb.ledger import Ledger

    async def hold():
        async with Ledger(sys.argv[1]).claimed(sys.argv[2]):
            print("held", flush=True)
            await asyncio.sleep(600)

    asyncio.run(hold())
""")


def test_a_claim_ends_with_its_process(tmp_path):
    ledger, key = Ledger(tmp_path / "l.sqlite"), ask(1)[0]
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(ledger.path), key], stdout=subprocess.PIPE, text=True)
    assert next(holder.stdout) == "held\n"

    async def claim():
        async with ledger.claimed(key):
            pass

    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(claim(), 0.2))
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    asyncio.run(asyncio.wait_for(claim(), 10))


ASKER = textwrap.dedent("""
    import asyncio, sys
    from ultralink_nb.chat import ChatRequest, open_chat_model
    from ultralink_nb.ledger import Ledger

    async def ask():
        model = open_chat_model("m", base_url=sys.argv[2], ledger=Ledger(sys.argv[1]), concurrency=8)
        asked = [model.complete(ChatRequest(({"role": "user", "content": "x"},), seed=seed)) for seed in range(60)]
        print(len({answer.text for answer in await asyncio.gather(*asked)}))

    asyncio.run(ask())
""")


def test_processes_that_ask_at_once_pay_once(tmp_path):
    with ChatServer(lambda body, _: Reply(body=completion(f"answer {body['seed']}"), delay=0.05)) as server:
        askers = [subprocess.Popen([sys.executable, "-c", ASKER, str(tmp_path / "l.sqlite"), server.url],
                                   stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [asker.communicate(timeout=120)[0] for asker in askers] == ["60\n"] * 2
        assert sorted(body["seed"] for _, body in server.requests) == list(range(60))


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


def test_a_later_version_of_the_schema_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "l.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="schema 99"):
        Ledger(tmp_path / "l.sqlite")


def test_a_ledger_of_the_first_version_is_brought_up_to_date(tmp_path):
    path = tmp_path / "l.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript("""
            CREATE TABLE completions (
                key TEXT PRIMARY KEY, model TEXT NOT NULL, task TEXT, subject TEXT, language TEXT, turn INTEGER,
                prompt_version TEXT, temperature REAL, max_tokens INTEGER, seed INTEGER,
                status TEXT NOT NULL CHECK (status IN ('done', 'failed')), cause TEXT, text TEXT, finish_reason TEXT,
                answered_by TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, seconds REAL, recorded_at REAL NOT NULL);
            PRAGMA user_version = 1""")
        columns = "(key, model, status, cause, text, answered_by, recorded_at)"
        db.execute(f"INSERT INTO completions {columns} VALUES (?, 'm', 'done', NULL, 'old', 'm', 1)", (ask(1)[0],))
        db.execute(f"INSERT INTO completions {columns} VALUES (?, 'm', 'failed', 'm answered 500', NULL, NULL, 2)", (ask(2)[0],))
    ledger = Ledger(path)
    assert ledger.find(ask(1)[0])["text"] == "old"
    assert [(row["cause"], row["reason"]) for row in ledger.failures()] == [("not named", "m answered 500")]
    ledger.record(*ask(2), ANSWER)
    assert Ledger(path).failures() == [] and Ledger(path).span()[0] == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 KiB; mounting one takes root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_with_a_clear_sentence_and_spoils_nothing(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 150_000)
    ledger = open_ledger(small_disk / "cache")

    async def run(count):
        model = open_chat_model("m", base_url=server.url, ledger=ledger, concurrency=4, max_retries=0)
        requests = [ChatRequest(MESSAGES, {"task": "answer"}, seed=seed) for seed in range(count)]
        return [await model.complete(request) for request in requests]

    with ChatServer(lambda body, _: Reply(body=completion(f"{body['seed']} " + "word " * 2000))) as server:
        with pytest.raises(LedgerError, match="(full|disk I/O error).*free space"):
            asyncio.run(run(30))
        kept = ledger.summary()[0]["answered"]
        assert 0 < kept == len(server.requests) - 1, "all but the one that met the full disk"
        assert all(ledger.find(request_key("m", ChatRequest(MESSAGES, seed=seed))) for seed in range(kept))
        with pytest.raises(LedgerError):  # still full: nothing is asked for what is there, and the next one stops it again
            asyncio.run(run(30))
        assert len(server.requests) == kept + 2

        ballast.unlink()
        assert len(asyncio.run(run(kept + 3))) == kept + 3, "the ledger that met the full disk goes on"
        assert len(server.requests) == kept + 2 + 3
    ledger.close()
    with sqlite3.connect(small_disk / "cache" / "ledger.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT COUNT(*) FROM completions WHERE status = 'done'").fetchone() == (kept + 3,)


def test_a_database_that_may_not_grow_stops_with_a_clear_sentence(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.record(request_key("m", ASK), "m", ASK, ANSWER)
    ledger._written.execute("PRAGMA max_page_count = 1")  # SQLite then reports what a full disk reports
    with pytest.raises(LedgerError, match="free space"):
        ledger.record(*ask(2), Completion("x" * 100_000, "m", "stop", 1, 1, 0.0, False))
    assert ledger.find(request_key("m", ASK))["text"] == ANSWER.text
