"""Sweeps over small notebooks of their own; a sweep over real data is in the notes of the runner's benchmark."""

import json

import pytest
from typer.testing import CliRunner

from tests.test_runs import write_notebook
from ultralink_nb import cli, runs, sweeps
from ultralink_nb.parameters import BadParameter
from ultralink_nb.runs import Request

COUNT = "open('count_{}', 'a').write('x')\n"


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """A repository with two notebooks: the first knows the seed, the second threshold and policy, and fails where `fail` lies."""
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    (tmp_path / "notebooks" / "profiles" / "demo.yaml").write_text("seed: 7\n")
    write_notebook(tmp_path, "01_first", COUNT.format(1) + "(folder / 'a.txt').write_text(str(seed))")
    second = (COUNT.format(2) + "(folder / 'b.txt').write_text((folder / 'a.txt').read_text() + str(threshold) + policy)\n"
              "if os.path.exists('fail') and threshold == 0.3: raise ValueError('no luck')")
    write_notebook(tmp_path, "02_second", second, 'run_dir = "r"\nthreshold = 0.5\npolicy = "balanced"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def counts(folder):
    return tuple(len(path.read_text()) if (path := folder / f"count_{n}").exists() else 0 for n in (1, 2))


def test_a_sweep_shares_what_does_not_depend_on_it_goes_on_after_a_failure_and_compares(swept):
    command = ["run", "demo", "--run", "s", "--sweep", "threshold=0.3,0.7"]
    (swept / "fail").touch()
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 1 and "1 of 2 runs did not finish" in result.stderr
    assert counts(swept) == (1, 2)  # the first notebook once, though the run that made it failed later
    assert "01_first: taken over from run s-threshold-0.3" in result.stdout
    (swept / "fail").unlink()
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    assert counts(swept) == (1, 3)
    for value in ("0.3", "0.7"):
        folder = swept / "papermill_runs" / f"s-threshold-{value}"
        assert (folder / "data/b.txt").read_text() == f"7{value}balanced"
        assert (folder / "01_first.ipynb").is_file() and (folder / "report.html").is_file()
        assert runs.read_manifest(folder)["status"] == "ok"
    taken = runs.read_manifest(swept / "papermill_runs/s-threshold-0.7")["notebooks"][0]
    assert taken["taken_from"] == "s-threshold-0.3" and list(taken["outputs"]) == ["papermill_runs/s-threshold-0.7/data/a.txt"]
    # what was taken over stands by itself: a change in one run is not seen in the other
    (swept / "papermill_runs/s-threshold-0.3/data/a.txt").write_text("9")
    assert (swept / "papermill_runs/s-threshold-0.7/data/a.txt").read_text() == "7"
    comparison = swept / "papermill_runs/s-sweep-threshold"
    assert {path.suffix for path in comparison.iterdir()} >= {".csv", ".html", ".png", ".svg"}
    rows = (comparison / "comparison.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows] == [["run", "threshold"], ["s-threshold-0.3", "0.3"], ["s-threshold-0.7", "0.7"]]


def test_what_is_not_from_the_same_is_not_taken_over(swept):
    runs.run("demo", "one")
    runs.run("demo", "two", {"seed": 8}, donors=["one"])
    assert counts(swept) == (2, 2)
    (swept / "papermill_runs/one/data/a.txt").write_text("5")  # changed since it was written
    runs.run("demo", "three", donors=["one"], end="01")
    assert counts(swept) == (3, 2) and (swept / "papermill_runs/three/data/a.txt").read_text() == "7"


def test_every_combination_is_a_run_of_its_own(swept):
    values = sweeps.read_sweeps(["threshold=0.3,0.7", "policy=paper,random"])
    requests = sweeps.siblings(Request("demo", "s", {"seed": 1}), values)
    assert [one.name for one in requests] == [
        "s-threshold-0.3-policy-paper", "s-threshold-0.3-policy-random", "s-threshold-0.7-policy-paper",
        "s-threshold-0.7-policy-random"]
    assert requests[1].changes == {"seed": 1, "threshold": 0.3, "policy": "random"}
    first, *others = sweeps.plan_sweep(requests, "s")
    assert [step.why for step in first] == [["it has not run yet"]] * 2
    assert all([step.taken_from for step in steps] == ["s-threshold-0.3-policy-paper", ""] for steps in others)


def test_values_may_be_lists_and_nothing(swept):
    assert sweeps.read_sweeps(["languages=[en, zh],[en, fr]"]) == {"languages": [["en", "zh"], ["en", "fr"]]}
    values = sweeps.read_sweeps(["threshold=null,0.5"])
    assert values == {"threshold": [None, 0.5]}
    assert [one.name for one in sweeps.siblings(Request("demo", "s", {}), values)] == ["s-threshold-none", "s-threshold-0.5"]


def test_what_the_run_itself_has_made_is_taken_over(swept):
    runs.run("demo", "s")
    requests = sweeps.siblings(Request("demo", "s", {}), {"threshold": [0.3, 0.7]})
    assert [[step.taken_from for step in steps] for steps in sweeps.plan_sweep(requests, "s")] == [["s", ""], ["s", ""]]
    assert sweeps.run_sweep(requests[:1], "s", print, print) == []
    assert counts(swept) == (1, 2)


def test_a_dry_run_of_a_sweep_touches_nothing(swept):
    result = CliRunner().invoke(cli.app, ["run", "demo", "--run", "s", "--sweep", "threshold=0.3,0.7", "--dry-run"])
    assert result.exit_code == 0
    assert "01_first: would be taken over from run s-threshold-0.3" in result.stdout
    assert counts(swept) == (0, 0) and not (swept / "papermill_runs").exists()


@pytest.mark.parametrize(("options", "message"), [
    (["--sweep", "treshold=0.3,0.7"], "unknown parameter treshold; did you mean threshold?"),
    (["--sweep", "threshold=0.3,7"], "threshold must be between 0 and 1, not 7"),
    (["--sweep", "threshold=0.3"], "two or more values"),
    (["--sweep", "threshold=0.3,0.3"], "all different"),
    (["--sweep", "threshold=0.3,0.7", "-p", "threshold=0.4"], "given by -p and by --sweep"),
    (["--sweep", "threshold=0.3,0.7", "--sweep", "threshold=0.1,0.2"], "names threshold twice"),
    (["--sweep", "budget=0.3,0.7"], "none of 01_first, 02_second knows it"),
    (["--sweep", "threshold=0.3,0.7", "--only", "01"], "leave out --from and --only"),
    (["--sweep", "threshold"], "--sweep takes name=value"),
    (["--sweep", "languages=[en,[zh"], "a list among the values"),
])
def test_what_cannot_be_swept_stops_before_any_work(swept, options, message):
    result = CliRunner().invoke(cli.app, ["run", "demo", *options])
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (swept / "papermill_runs").exists()


def test_the_runs_folder_cannot_be_swept():
    with pytest.raises(BadParameter, match="run_dir cannot be swept"):
        sweeps.read_sweeps(["run_dir=a,b"])


def test_a_manifest_says_why_each_notebook_ran(swept):
    runs.run("demo", "one", end="01")
    entry = json.loads((swept / "papermill_runs/one/manifest.json").read_text())["notebooks"][0]
    assert entry["why"] == ["it has not run yet"] and entry["basis"]["parameters"] == {"seed": 7}
