"""The runner, on small notebooks of its own; the real ones run in test_demo.py."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from typer.testing import CliRunner

from ultralink_nb import cli, freshness, profiles, runs
from ultralink_nb.parameters import BadParameter
from ultralink_nb.run_lists import in_use

HEADER = "import os, pathlib\nfolder = pathlib.Path(run_dir) / 'data'\nfolder.mkdir(parents=True, exist_ok=True)\n"


def write_notebook(folder, name, body, parameters='run_dir = "r"  # folder\nseed = 1  # seed\n'):
    cells = [nbformat.v4.new_markdown_cell(f"# {name}\n\nWhat it is."), nbformat.v4.new_code_cell(parameters)]
    cells[1].metadata["tags"] = ["parameters"]
    cells += [nbformat.v4.new_markdown_cell("## A section"), nbformat.v4.new_code_cell(HEADER + body)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A repository with two notebooks: the first counts its executions, the second fails where the file `fail` lies."""
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "notebooks" / "profiles" / "demo.yaml").write_text("seed: 7\nthreshold: 0.5\n")
    first = "(folder / 'a.txt').write_text(str(seed))\nopen('count_1', 'a').write('x')\nprint('seed', seed)"
    second = "open('count_2', 'a').write('x')\nif os.path.exists('fail'): raise ValueError('no luck')"
    write_notebook(tmp_path, "01_first", first)
    write_notebook(tmp_path, "02_second", second)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def counts(folder):
    return tuple(len(path.read_text()) if (path := folder / f"count_{n}").exists() else 0 for n in (1, 2))


def test_a_run_writes_its_manifest_and_executed_notebooks(small):
    manifest = runs.run("demo", "one")
    on_disk = json.loads((small / "papermill_runs/one/manifest.json").read_text())
    assert on_disk == manifest and manifest["status"] == "ok"
    assert [entry["status"] for entry in manifest["notebooks"]] == ["ok", "ok"]
    assert manifest["parameters"] == {"seed": 7, "threshold": 0.5}
    assert manifest["notebooks"][0]["parameters"] == {"run_dir": "papermill_runs/one", "seed": 7}
    assert all(entry["seconds"] > 0 and entry["peak_memory_mib"] > 10 for entry in manifest["notebooks"])
    assert re.fullmatch(r"3\.\d+\.\d+", manifest["versions"]["python"]) and "faiss" in manifest["versions"]
    assert (small / "papermill_runs/one/data/a.txt").read_text() == "7"
    executed = nbformat.read(small / "papermill_runs/one/01_first.ipynb", as_version=4)
    assert "seed 7" in executed.cells[-1].outputs[0].text


def test_what_is_up_to_date_is_skipped_and_what_changed_is_not(small):
    runs.run("demo", "one")
    runs.run("demo", "one")
    assert counts(small) == (1, 1)
    runs.run("demo", "one", {"seed": 8})  # a parameter changed
    assert counts(small) == (2, 2)
    write_notebook(small, "02_second", "open('count_2', 'a').write('x')")  # a notebook changed
    runs.run("demo", "one", {"seed": 8})
    assert counts(small) == (2, 3)
    (small / "papermill_runs/one/data/a.txt").unlink()  # an output is gone
    runs.run("demo", "one", {"seed": 8})
    assert counts(small) == (3, 3)
    runs.run("demo", "one", {"seed": 8}, force=True)
    assert counts(small) == (4, 4)


def reasons(changes=None, **options):
    return [step.why for step in runs.plan(runs.Request("demo", "one", changes or {}, **options))]


def edit(small, name, old, new, kind):
    path = small / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new) if cell.cell_type == kind else cell.source
    nbformat.write(notebook, path)


def test_each_reason_to_run_is_said_and_prose_is_none(small):
    body = "(folder / 'a.txt').write_text('abc')\nfrom ultralink_nb import parameters"
    known = 'run_dir = "r"\nseed = 1\nsamples_path = None\nlabels_path = None\n'
    (small / "rows.jsonl").write_text("{}")
    write_notebook(small, "01_first", body, known)
    given = {"samples_path": "rows.jsonl"}
    assert reasons(given) == [["it has not run yet"]] * 2
    runs.run("demo", "one", given)
    assert reasons(given) == [[], []]
    edit(small, "01_first", "What it is", "What it will be", "markdown")
    assert reasons(given) == [[], []]
    assert reasons({"seed": 8, **given}) == [["seed changed 7 -> 8"], ["seed changed 7 -> 8"]]
    assert reasons({"threshold": 0.7, **given}) == [[], []]  # neither notebook knows it
    assert reasons(given, force=True) == [["--force asks for it"]] * 2
    (small / "rows.jsonl").write_text("{ }")
    assert reasons(given) == [["rows.jsonl changed"], []]
    assert reasons()[0] == ["samples_path changed rows.jsonl -> its default", "rows.jsonl is read no more"]
    (small / "rows.jsonl").write_text("{}")
    table = small / "papermill_runs/one/data/a.txt"
    table.write_text("abd")  # of the same size
    assert reasons(given) == [["data/a.txt changed"], []]
    table.unlink()
    assert reasons(given) == [["data/a.txt is gone"], []]
    table.write_text("abc")
    (table.parent / "labels.jsonl").write_text("")  # a person labelled pairs in notebook 04
    assert reasons(given) == [["data/labels.jsonl is a new input"], []]
    (table.parent / "labels.jsonl").unlink()
    edit(small, "02_second", "count_2", "count_3", "code")
    assert reasons(given) == [[], ["the notebook's code changed"]]


def test_a_notebook_depends_on_the_modules_that_it_imports_and_on_no_other(tmp_path, monkeypatch):
    package = tmp_path / "ultralink_nb"
    (package / "prompts").mkdir(parents=True)
    sources = {"__init__": "", "low": "x = 1", "high": "def f():\n    from ultralink_nb.low import x", "other": ""}
    for name, text in sources.items():
        (package / f"{name}.py").write_text(text)
    (package / "prompts" / "en.yaml").write_text("a: 1")
    monkeypatch.setattr(freshness, "PACKAGE", package)
    uses = ["import json\nfrom ultralink_nb import high"]
    first = freshness.package_of(uses)
    assert set(first) == {"__init__.py", "high.py", "low.py", "prompts/"}
    assert set(freshness.package_of(["%matplotlib inline"])) >= {"high.py", "low.py", "other.py"}  # not plain Python: everything
    (package / "low.py").write_text("x = 2")
    (package / "prompts" / "en.yaml").write_text("a: 2")
    then, now = ({"code": "", "parameters": {}, "inputs": {}, "before": {}, "package": one} for one in
                 (first, freshness.package_of(uses)))
    assert freshness.changes(then, now) == ["the package's code changed (low.py, prompts/)"]


def test_a_notebook_that_writes_the_same_again_makes_none_after_it_run(small):
    runs.run("demo", "one")
    runs.run("demo", "one", only=["1"])
    assert counts(small) == (2, 1)
    runs.run("demo", "one")
    assert counts(small) == (2, 1)
    said = []
    edit(small, "01_first", "str(seed)", "str(seed + 1)", "code")
    runs.run("demo", "one", say=said.append)
    assert counts(small) == (3, 2)
    assert said[2] == "[2/2] 02_second: running, since 01_first ran before it, with other results"


def test_from_runs_what_follows_and_says_what_must_run_first(small):
    first = r"01_first comes before 02_second .* ultralink-nb run demo --run one --to 01"
    with pytest.raises(runs.RunError, match=first) as error:
        runs.run("demo", "one", start="2")
    assert error.value.code == 2 and not (small / "papermill_runs").exists()
    assert CliRunner().invoke(cli.app, ["run", "demo", "--from", "2", "--dry-run"]).exit_code == 2
    runs.run("demo", "one", end="01")
    assert counts(small) == (1, 0)
    said = []
    runs.run("demo", "one", {"seed": 8}, start="02_second", say=said.append)
    assert counts(small) == (1, 1)
    assert said[0] == "note: 01_first is not up to date (seed changed 7 -> 8); what it wrote is used as it is"
    assert [entry["status"] for entry in runs.read_manifest(small / "papermill_runs/one")["notebooks"]] == ["ok", "ok"]


BOOKS = [Path(f"notebooks/{name}.ipynb") for name in ("01_first", "04_middle", "06_last", "07_tune", "08_evaluate")]


@pytest.mark.parametrize(("options", "numbers"), [
    ({}, "01 04 06"), ({"start": "4"}, "04 06"), ({"end": "07"}, "01 04 06 07"), ({"start": "07"}, "07 08"),
    ({"start": "07", "end": "07_tune.ipynb"}, "07"), ({"only": ["8", "01_first"]}, "01 08"),
    ({"start": "06", "end": "8"}, "06 07 08"),
])
def test_the_notebooks_chosen(options, numbers):
    assert [book.name[:2] for book in profiles.choose(BOOKS, **options)] == numbers.split()


def test_a_dry_run_says_what_and_touches_nothing(small):
    result = CliRunner().invoke(cli.app, ["run", "demo", "--dry-run", "-p", "seed=9"])
    assert result.exit_code == 0
    assert "01_first: would run, since it has not run yet\n    with seed=9" in result.stdout
    assert counts(small) == (0, 0) and not (small / "papermill_runs").exists()


def test_a_failed_run_says_where_and_resumes_there(small):
    (small / "fail").touch()
    with pytest.raises(runs.RunError, match="02_second failed: ValueError: no luck") as error:
        runs.run("demo", "one")
    assert error.value.code == 1
    manifest = runs.read_manifest(small / "papermill_runs/one")
    assert manifest["status"] == "failed" and manifest["notebooks"][1]["error"] == "ValueError: no luck"
    (small / "fail").unlink()
    assert runs.run("demo", "one")["status"] == "ok"
    assert counts(small) == (1, 2)


def wait_for(path, seconds=60):
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return path.read_text()


COMMAND = [sys.executable, "-m", "ultralink_nb.cli", "run", "demo", "--run", "one"]
SLEEPS = "import time\nif os.path.exists('hold'):\n    open('kernel', 'w').write(str(os.getpid()))\n    time.sleep(60)"


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_stop_ends_its_kernel_and_says_how_to_go_on(small, number, code):
    write_notebook(small, "02_second", SLEEPS)
    (small / "hold").touch()
    process = subprocess.Popen([*COMMAND, "-p", "seed=9"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    kernel = int(wait_for(small / "kernel"))
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code and gone(kernel)
    assert errors.strip().splitlines()[-1].endswith("this resumes: ultralink-nb run demo --run one -p seed=9")
    assert len(errors.strip().splitlines()) == 1, errors
    manifest = runs.read_manifest(small / "papermill_runs/one")
    assert manifest["status"] == "interrupted"
    assert [entry["status"] for entry in manifest["notebooks"]] == ["ok", "interrupted"]
    assert reasons({"seed": 9}) == [[], ["it was interrupted"]]


def test_a_second_run_is_refused_and_a_killed_one_is_resumed_only_after_its_kernel_is_gone(small):
    write_notebook(small, "02_second", SLEEPS)
    (small / "hold").touch()
    process = subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kernel = int(wait_for(small / "kernel"))
    second = subprocess.run(COMMAND, capture_output=True, text=True)
    assert second.returncode == 3 and "in use by another run" in second.stderr and not gone(kernel)
    os.kill(kernel, signal.SIGSTOP)  # so that it cannot notice by itself that nobody is there any more
    process.kill()
    process.wait()
    assert in_use(small / "papermill_runs/one") and not gone(kernel)  # the kernel may still write: the lock is its
    (small / "hold").unlink()
    (small / "papermill_runs/one/data/.b.parquet.1a2b3c4d.part").touch()  # what a kill leaves of a table that it was writing
    assert reasons() == [[], ["it was killed half way"]]
    again = subprocess.run(COMMAND, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert "its kernel, which was still at work, was ended" in again.stdout and gone(kernel)
    assert "[1/2] 01_first: up to date, skipped" in again.stdout and counts(small)[0] == 1
    for line in again.stdout.strip().splitlines():  # without a terminal, lines of a log
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line), line
    assert again.stderr == ""
    assert {path.name for path in (small / "papermill_runs/one/data").iterdir()} == {"a.txt"}


def test_a_terminal_shows_cells_done_and_no_clock(small):
    theirs, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen([*COMMAND, "--to", "01"], stdout=ours, stderr=ours)
    os.close(ours)
    shown = b""
    while True:
        try:
            shown += os.read(theirs, 65536)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0
    text = shown.decode()
    assert re.search(r"\[1/1\] 01_first:.*\d/5 \[.*cell", text)  # the bar
    assert text.startswith("[1/1] 01_first: running, since it has not run yet")


def test_the_shell_completes_profiles_parameters_choices_notebooks_and_runs(small):
    (small / "papermill_runs/mine").mkdir(parents=True)
    (small / "papermill_runs/mine/manifest.json").write_text("{}")

    def complete(*words):
        environment = {"_ULTRALINK_NB_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["ultralink-nb", *words]),
                       "COMP_CWORD": str(len(words))}
        return CliRunner().invoke(cli.app, [], env=environment, prog_name="ultralink-nb").stdout.split()

    assert complete("run", "d") == ["demo"]
    assert complete("run", "demo", "-p", "thres") == ["threshold="]
    assert complete("run", "demo", "-p", "policy=b") == ["policy=balanced", "policy=by_language", "policy=by_quality"]
    assert complete("run", "--sweep", "thres") == ["threshold="]
    assert complete("run", "--only", "02") == ["02_second"]
    assert complete("run", "--run", "m") == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "demo", "-p", "treshold=0.4"], "unknown parameter treshold; did you mean threshold?"),
        (["run", "demo", "-p", "seed=1e6"], "seed must be of type int"),
        (["run", "demo", "-p", "languages=[en, no]"], "put it in quotes"),
        (["run", "demo", "-p", "samples_path=nothing/here.jsonl"], "samples_path: nothing/here.jsonl names no file"),
        (["run", "none"], "no profile none"),
        (["run", "demo", "-p", "seed"], "-p takes name=value"),
        (["run", "demo", "--run", "../up"], "a plain folder name"),
        (["run", "dmo"], "did you mean demo?"),
        (["run", "demo", "--only", "03"], "no notebook 03 (there are 01_first, 02_second)"),
        (["run", "demo", "--only", "secnd"], "did you mean 02_second?"),
        (["run", "demo", "--from", "02", "--to", "1"], "02_second comes after 01_first"),
        (["run", "demo", "--only", "02", "--to", "02"], "leave out --from and --to"),
        (["report", "nothing"], "is not a run"),
    ],
)
def test_wrong_usage_stops_before_any_work_with_one_sentence(small, arguments, message):
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert counts(small) == (0, 0) and not (small / "papermill_runs").exists()


@pytest.mark.parametrize(("known", "given", "message"), [
    ("min_document_tokens = 100\nmax_document_tokens = 900\n", {"min_document_tokens": 1000}, "no document has both"),
    ('chat_model = "replay"\nbase_url = None\n', {"base_url": "http://127.0.0.1:1/v1"}, "leave base_url empty"),
    ("price_prompt = None\nprice_completion = None\n", {"price_prompt": 1}, "belong together"),
    ('languages = ["en", "zh"]\nlanguage_order = None\n', {"language_order": ["zh", "fr"]}, "language_order names fr"),
    ('languages = ["zh", "fr"]\npolicy = "balanced"\nsource_language = "en"\n', {"policy": "paper"}, "source_language en"),
])
def test_parameters_that_contradict_one_another(small, known, given, message):
    write_notebook(small, "01_first", "", 'run_dir = "r"\n' + known)
    with pytest.raises(BadParameter, match=message):
        runs.run("demo", "one", given)
    assert not (small / "papermill_runs").exists()


def test_a_profile_that_is_not_a_flat_mapping(small):
    (small / "broken.yaml").write_text("seed: 1\n  threshold: [\n")
    with pytest.raises(BadParameter, match="broken.yaml, line 2: not valid YAML"):
        runs.read_profile("broken.yaml")
    (small / "list.yaml").write_text("- seed\n")
    with pytest.raises(BadParameter, match="one flat mapping"):
        runs.read_profile("list.yaml")
    (small / "dir.yaml").write_text("run_dir: here\n")
    with pytest.raises(BadParameter, match="--run names the run"):
        runs.read_profile("dir.yaml")


def test_the_report_is_one_page_without_code(small):
    result = CliRunner().invoke(cli.app, ["run", "demo", "--run", "one"])
    assert result.exit_code == 0, result.output
    page = (small / "papermill_runs/one/report.html").read_text()
    assert "seed 7" in page and "A section" in page and 'href="01_first.ipynb"' in page
    assert "¶" not in page and "pathlib" not in page and not re.search(r"""(src|href)=["']https?:""", page)


def test_a_reply_whose_wake_up_is_lost_is_found_all_the_same():
    """What asyncio does when a message is sent while another is waited for: a poll without an end never returns."""
    import asyncio
    from queue import Empty

    import zmq.asyncio
    from jupyter_client.session import Session

    from ultralink_nb.running import RunKernelClient

    async def lost() -> tuple[dict, float]:
        context = zmq.asyncio.Context()
        socket, peer = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        peer.connect(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
        channel = RunKernelClient.shell_channel_class.default_value(socket, Session(key=b"k"))
        poll = socket.poll

        async def deaf(timeout: int | None = None, flags: int = zmq.POLLIN) -> int:
            await asyncio.sleep(3600 if timeout is None else timeout / 1000)
            return await poll(0, flags)

        socket.poll = deaf
        started = time.monotonic()
        with pytest.raises(Empty):
            await channel.get_msg(timeout=0.2)
        Session(key=b"k").send(peer, "execute_reply", {"status": "ok"})
        reply = await asyncio.wait_for(channel.get_msg(), 10)
        context.destroy(linger=0)
        return reply, time.monotonic() - started

    reply, seconds = asyncio.run(lost())
    assert reply["msg_type"] == "execute_reply" and seconds < 5


def test_what_undo_changed_is_not_taken_for_what_the_notebook_wrote(small):
    """Someone changes a table by hand; the next notebook alone is run on it; then all: nothing may stay of the changed table."""
    read = "(folder / 'b.txt').write_text((folder / 'a.txt').read_text())"
    write_notebook(small, "02_second", read)
    runs.run("demo", "one")
    table, copy = (small / "papermill_runs/one/data" / name for name in ("a.txt", "b.txt"))
    table.write_text("taken back")
    runs.run("demo", "one", only=["02"])
    assert copy.read_text() == "taken back"
    said = []
    runs.run("demo", "one", {"seed": 8}, only=["01"], say=said.append)
    assert said[-1].startswith("note: 02_second is from before (") and said[-1].endswith("--from 02 renews it")
    runs.run("demo", "one")
    assert table.read_text() == copy.read_text() == "7"
    said = []
    runs.run("demo", "one", say=said.append)
    assert sum("up to date, skipped" in line for line in said) == 2
