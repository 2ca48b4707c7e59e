"""The runner, on small notebooks of its own; the real ones run in test_demo.py."""

import json
import re
import subprocess
import sys
import time

import nbformat
import pytest
from typer.testing import CliRunner

from ultralink_nb import cli, runs
from ultralink_nb.parameters import BadParameter

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


def test_a_second_run_in_the_same_folder_is_refused(small):
    write_notebook(small, "01_first", "import time; open('started', 'w'); time.sleep(60)")
    command = [sys.executable, "-m", "ultralink_nb.cli", "run", "demo", "--run", "one"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (small / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        second = subprocess.run(command, capture_output=True, text=True)
        assert second.returncode == 3 and "in use by another run" in second.stderr
    finally:
        first.kill()
        first.wait()


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
        (["report", "nothing"], "is not a run"),
    ],
)
def test_wrong_usage_stops_before_any_work_with_one_sentence(small, arguments, message):
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert counts(small) == (0, 0) and not (small / "papermill_runs").exists()


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
