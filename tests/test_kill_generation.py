"""Generation killed with SIGKILL half way and run again: nothing that was answered is asked again, nothing that was paid is lost.

Once with the package's function in a script, once with notebook 02 under papermill, and once killed again and again
(`benchmarks/kill.py` does that at full size); against a real HTTP server in this process.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.chat_server import ChatServer
from tests.conftest import ROOT, make_workspace
from ultralink_nb.chat import open_chat_model
from ultralink_nb.dialogue_passes import drop_repeated_questions
from ultralink_nb.dialogues import generate_dialogues, passage_text
from ultralink_nb.grounded import measure_rarity
from ultralink_nb.ledger import Ledger
from ultralink_nb.records import SAMPLES, read_table

sys.path.insert(0, str(ROOT / "benchmarks"))
import kill  # noqa: E402

KEY = "sk-planted-secret-5f3a"
CONCURRENCY = 4
NAMES = "Orme Selby Tarn Hale Merrow Quill Harden Lowick Fenn Ashby Corran Doune Elsdon Garth Howick Ingram".split()


def write_passages(path):
    rows = []
    for n, name in enumerate(NAMES):
        text = (f"The bridge at {name} was built in {1801 + 7 * n} by the carpenter John {name}son. It is {90 + 11 * n} metres "
                f"long and rests on {3 + n} granite piers. Until {1890 + n} farmers of {name} paid a toll of two pence there.\n\n"
                f"A storm broke its middle pier in {1930 + n}, and the repair took {5 + n} months. Every June the people of "
                f"{name} walk across it with lanterns. Swifts nest below the deck, and lorries take the road to New {name}.")
        rows.append({"id": f"b{n}", "language": "en", "title": f"{name} Bridge", "text": text})
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return rows


def start(kind, folder, url, output):
    if kind == "script":
        command = [sys.executable, "-c", kill.SCRIPT, "passages.jsonl", url, "cache",
                   "papermill_runs/kill/data/samples_02.parquet", str(CONCURRENCY)]
    else:
        parameters = {"run_dir": "papermill_runs/kill", "passages_path": "passages.jsonl", "chat_model": "loopback",
                      "base_url": url, "cache_dir": "cache", "concurrency": CONCURRENCY}
        command = [sys.executable, "-m", "papermill", "notebooks/02_dialogue_generation.ipynb", output, "--no-progress-bar",
                   "-y", "languages: [en]", *(part for name, value in parameters.items() for part in ("-p", name, str(value)))]
    environment = {**os.environ, "OPENAI_API_KEY": KEY}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill_all(process):
    """SIGKILL for a process and all it started (papermill's kernel leads a session of its own)."""
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in family):
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["script", "notebook"])
def test_killed_half_way_and_run_again(kind, tmp_path):
    folder = make_workspace(tmp_path / "workspace")
    (folder / "papermill_runs" / "kill" / "data").mkdir(parents=True)
    passages = write_passages(folder / "passages.jsonl")

    with ChatServer() as server:  # what an undisturbed run makes, in this process and with a ledger of its own
        model = open_chat_model("loopback", base_url=server.url, ledger=Ledger(tmp_path / "other.sqlite"))
        rows = [{**row, "document_id": row["id"]} for row in passages]
        in_notebook = kind == "notebook"  # which knows the run's passages, and looks for questions asked twice in the end
        rarity = measure_rarity([passage_text(row) for row in rows], ["en"] * len(rows)) if in_notebook else None
        made = generate_dialogues(rows, model, seed=1, languages=["en"], dataset="passages.jsonl", rarity=rarity)
        undisturbed, _ = asyncio.run(made)
        undisturbed = drop_repeated_questions(undisturbed)[0] if in_notebook else undisturbed
        needed = {kill.key_of(body) for _, body in server.requests}
    assert len(needed) == len(server.requests) > 60

    with ChatServer(delay=0.03) as server:
        process = start(kind, folder, server.url, "first.ipynb")
        deadline = time.monotonic() + 120
        while len(server.requests) < len(needed) // 2:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        kill_all(process)
        time.sleep(0.2)
        asked_first = [kill.key_of(body) for _, body in server.requests]
        delivered = {kill.key_of(body) for body in server.delivered}
        ledger = Ledger(folder / "cache" / "ledger.sqlite")
        recorded = {key for key in asked_first if ledger.find(key)}
        ledger.close()

        again = start(kind, folder, server.url, "second.ipynb")
        _, errors = again.communicate(timeout=180)
        assert again.returncode == 0, errors
        asked_second = [kill.key_of(body) for _, body in server.requests[len(asked_first):]]
        assert set(server.keys) == {f"Bearer {KEY}"}

    assert len(set(asked_first)) == len(asked_first) and len(set(asked_second)) == len(asked_second)
    assert not recorded & set(asked_second), "what was in the ledger was asked again"
    assert len(set(asked_first) & set(asked_second)) <= CONCURRENCY, "more was asked twice than was in flight"
    assert len(delivered - recorded) <= CONCURRENCY, "a delivered answer that was not in flight is not in the ledger"
    assert set(asked_first) | set(asked_second) == needed

    samples = read_table(folder / "papermill_runs" / "kill" / "data" / "samples_02.parquet", SAMPLES)
    assert samples == undisturbed
    for path in folder.rglob("*"):
        if path.is_file() and "notebooks" not in path.parts:
            assert KEY.encode() not in path.read_bytes(), f"the key stands in {path}"


def test_killed_again_and_again(tmp_path):
    counts = kill.kill_and_resume(tmp_path, requests=180, kills=4, concurrency=8)
    assert {name: counts[name] for name in kill.FAULTS} == dict.fromkeys(kill.FAULTS, 0)
    assert counts["completions"] == counts["planned"] > 150 and counts["kills"] >= 3
    assert counts["in flight at a kill, most"] <= counts["dialogues at once"]
    assert counts["received"] == counts["planned"] + counts["received again"]
