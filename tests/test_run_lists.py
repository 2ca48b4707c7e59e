"""Lists of runs and the status of one, on manifests written by hand."""

import json
import subprocess
import sys

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from tests import made_runs
from ultralink_nb import cli, run_lists, runs


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*words):
    return CliRunner().invoke(cli.app, list(words))


def test_all_runs_are_listed_the_latest_last(here):
    made_runs.run(runs.RUNS / "late", started="2026-03-02T08:00:00+00:00")
    entries = [made_runs.entry("01_a.ipynb"), made_runs.entry("02_b.ipynb", "failed")]
    folder = made_runs.run(runs.RUNS / "early", "failed", notebooks=entries)
    (folder / "data").mkdir()
    (folder / "data" / "x").write_bytes(b"12345" * 1000)
    (here / "figures" / "early").mkdir(parents=True)
    (here / "figures" / "early" / "f.png").write_bytes(b"1" * 200)
    (runs.RUNS / "no_run").mkdir()
    rows = run_lists.list_runs()
    assert [row["run"] for row in rows] == ["early", "late"]
    early = rows[0]
    assert early["status"] == "failed" and early["notebooks_ok"] == 1 and early["notebooks"] == 2 and early["seconds"] == 2.5
    assert early["bytes"] == 5200 + (folder / "manifest.json").stat().st_size
    assert json.loads(invoke("list", "--json").stdout) == rows
    shown = invoke("list").stdout.splitlines()
    assert len(shown) == 3 and "1 of 2 ok" in shown[1] and "kB" in shown[1] and "2 of 2 ok" in shown[2]


def test_no_run_yet_says_how_to_make_one(here):
    assert "ultralink-nb run demo" in invoke("list").stdout
    assert json.loads(invoke("list", "--json").stdout) == []


def test_a_manifest_that_cannot_be_read_does_not_hide_the_other_runs(here):
    made_runs.run(runs.RUNS / "good")
    (runs.RUNS / "bad").mkdir()
    (runs.RUNS / "bad" / "manifest.json").write_text("{")
    assert {row["run"]: row["status"] for row in run_lists.list_runs()} == {"bad": "unreadable", "good": "ok"}
    assert invoke("status", "bad").exit_code == 2


def test_killed_is_told_from_running_by_the_lock(here):
    entries = [made_runs.entry("01_a.ipynb"), made_runs.entry("02_b.ipynb", "running")]
    folder = made_runs.run(runs.RUNS / "one", "running", notebooks=entries, parameters={"threshold": 0.3})
    made_runs.notebook(folder, "02_b", "seed = 1  # seed")
    killed = run_lists.status_of(folder)
    assert killed["status"] == "interrupted" and not killed["in_use"] and not (folder / ".lock").exists()
    assert "ultralink-nb run demo --run one" in killed["next"]
    holder = ("import sys; from filelock import FileLock\nwith FileLock(sys.argv[1]):\n"
              "    print('held', flush=True); sys.stdin.readline()")
    process = subprocess.Popen([sys.executable, "-c", holder, str(folder / ".lock")], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        status = run_lists.status_of(folder)
        assert status["status"] == "running" and status["in_use"] and "in progress" in status["next"]
        assert status["notebooks"][1]["status"] == "running" and status["notebooks"][1]["seconds"] >= 0
        assert status["notebooks"][1]["cells"] == "1 of 2"
        assert "1 of 2 cells" in invoke("status", "one").stdout
    finally:
        process.communicate(b"\n", timeout=20)
    assert run_lists.status_of(folder)["status"] == "interrupted"
    with FileLock(folder / ".lock", timeout=0):  # looking has not kept the lock
        pass


def test_a_failed_run_names_its_error_and_the_command_that_resumes(here):
    (here / "notebooks" / "profiles").mkdir(parents=True)
    (here / "notebooks" / "profiles" / "demo.yaml").write_text("seed: 1\nthreshold: 0.5\n")
    failed = made_runs.entry("05_pruning.ipynb", "failed", seconds=1.0, error="ValueError: no luck")
    parameters = {"seed": 1, "threshold": 0.3, "languages": ["en", "fr"]}
    folder = made_runs.run(runs.RUNS / "one", "failed", notebooks=[failed], parameters=parameters)
    status = json.loads(invoke("status", "one", "--json").stdout)
    assert status["notebooks"][0]["error"] == "ValueError: no luck"
    command = """ultralink-nb run demo --run one -p threshold=0.3 -p 'languages=["en", "fr"]'"""
    assert status["next"].endswith(command) and "05_pruning.ipynb" in status["next"]
    assert runs.parse_value('["en", "fr"]') == parameters["languages"]
    shown = invoke("status", "one").stdout
    assert "no luck" in shown and command in shown
    gone = {"profile": "gone.yaml", "parameters": {"seed": 2}}
    assert run_lists.command_of(folder, gone) == "ultralink-nb run gone.yaml --run one"


def test_notes_say_what_is_still_to_run_and_what_was_taken_over(here):
    entries = [made_runs.entry("01_a.ipynb", why=["it has not run yet"]), made_runs.entry("02_b.ipynb", taken_from="other"),
               made_runs.entry("03_c.ipynb", "planned", why=["parameter seed changed"])]
    made_runs.run(runs.RUNS / "one", "interrupted", notebooks=entries)
    lines = invoke("status", "one").stdout.splitlines()
    assert lines[2].endswith("0 B") and lines[3].endswith("taken over from run other")
    assert lines[4].endswith("to run: parameter seed changed") and "resume where it stopped" in lines[5]


def test_what_is_no_run_says_which_there_are(here):
    made_runs.run(runs.RUNS / "one")
    result = invoke("status", "two")
    assert result.exit_code == 2 and "there are one" in result.stderr and len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (250_000, "250 kB"),
                                             (7_900_000, "7.9 MB"), (3.2e12, "3.2 TB")])
def test_sizes_are_readable(count, text):
    assert run_lists.readable_size(count) == text


def test_run_names_complete_in_the_shell(here):
    made_runs.run(runs.RUNS / "alpha")
    made_runs.run(runs.RUNS / "beta")
    assert cli._run_names("al") == ["alpha"] and cli._run_names("") == ["alpha", "beta"]


def test_every_command_teaches_with_an_example():
    from typer.main import get_command

    commands = get_command(cli.app).commands
    assert {"list", "status", "compare", "report", "doctor", "undo"} <= set(commands)
    for name in ("list", "status", "compare", "report", "doctor", "undo"):
        text = invoke(name, "--help").stdout
        assert f"ultralink-nb {name}" in text and "xample" in text, name
