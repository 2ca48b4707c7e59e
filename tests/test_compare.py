"""Runs compared, on small tables written by hand."""

import json
import re

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests import made_runs
from ultralink_nb import cli, compare, runs

ROWS = [("a", "en", "t1"), ("b", "fr", "t1"), ("c", "zh", "t1"), ("d", "en", "t2"), ("e", "fr", "t2"), ("f", "zh", "t3")]


def made(name, threshold, dropped, **parameters):
    folder = made_runs.run(runs.RUNS / name, parameters={**({"threshold": threshold} if threshold else {}), **parameters})
    made_runs.notebook(folder, "04_redundancy_analysis", 'run_dir = "x"  # folder\nthreshold = 0.5  # p\nencoder = "use"  # e')
    made_runs.notebook(folder, "05_pruning", "threshold = None  # p\npolicy = 'balanced'  # p")
    made_runs.tables(folder, [made_runs.sample(*row) for row in ROWS], dropped)
    return folder


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Two right drops; three right drops; and three of which one is wrong."""
    monkeypatch.chdir(tmp_path)
    truth = {"truth_column": "topic"}
    return [made("half", None, {"b": "a", "c": "a"}, **truth), made("low", 0.1, {"b": "a", "c": "a", "e": "d"}, **truth),
            made("odd", 0.7, {"b": "a", "c": "a", "f": "d"}, **truth, policy="paper")]


def test_a_row_a_run_with_what_differs_and_what_came_of_it(three):
    table = compare.compare_runs(three)
    assert list(table.columns) == ["run", "threshold", "policy", "samples", "pairs", "groups", "kept", "dropped", "kept share",
                                   "kept en", "kept zh", "kept fr", "precision", "recall", "seconds"]
    assert table["threshold"].tolist() == [0.5, 0.1, 0.7]  # the first is the notebook's default, which its manifest does not hold
    assert table["policy"].tolist() == ["balanced", "balanced", "paper"]
    assert table["pairs"].tolist() == [2, 3, 1] and table["kept"].tolist() == [4, 3, 3]
    assert table["groups"].tolist() == [4, 3, 3]
    assert table["kept share"].tolist() == [pytest.approx(4 / 6), 0.5, 0.5]
    assert table[["kept en", "kept fr", "kept zh"]].values.tolist() == [[2, 1, 1], [2, 0, 1], [2, 1, 0]]
    assert table["precision"].tolist() == [1.0, 1.0, pytest.approx(2 / 3)]
    assert table["recall"].tolist() == [pytest.approx(2 / 3), 1.0, pytest.approx(2 / 3)]
    assert table["seconds"].tolist() == [5.0] * 3


def test_a_default_that_is_also_given_is_no_difference(three):
    same = made("same", 0.5, {"b": "a"}, truth_column="topic")
    assert compare.compare_runs([three[0], same]).attrs["differing"] == []


def test_a_run_that_has_no_tables_yet_has_empty_cells(three):
    bare = made_runs.run(runs.RUNS / "bare", "failed", notebooks=[made_runs.entry("04_x.ipynb", "failed")])
    broken = made("broken", 0.2, {"b": "a"})
    (broken / "data" / "kept.parquet").write_bytes(b"cut off")
    table = compare.compare_runs([three[0], bare, broken])
    assert table["kept"].isna().tolist() == [False, True, True] and table["kept en"].isna().tolist() == [False, True, True]
    assert table["samples"].tolist()[::2] == [6, 6]
    paths = compare.write_comparison([bare, broken], runs.RUNS / "compared" / "bare")
    assert all(path.stat().st_size for path in paths)
    second = made_runs.run(runs.RUNS / "bare2", "failed", notebooks=[])
    paths = compare.write_comparison([bare, second], runs.RUNS / "compared" / "nothing")
    assert pd.read_csv(paths[0])["run"].tolist() == ["bare", "bare2"]


def test_the_figures_titles_state_what_the_tables_say(three):
    table = compare.compare_runs(three[:2])
    fig = compare.draw(table)
    left, right = (ax.get_title(loc="left") for ax in fig.axes[:2])
    assert left == "threshold 0.1 keeps least (50.0%), threshold 0.5 most (66.7%)"
    assert right.startswith("threshold 0.1 serves precision (1.00)") and "recall (1.00)" in right
    equal = compare.compare_runs([three[1], three[2]])
    assert compare.finding(equal, compare.labels(equal), "run") == "All keep the same share of the rows (50.0%)"


def test_written_as_table_page_and_figure(three):
    target = runs.RUNS / "compared" / "all"
    paths = compare.write_comparison(three, target)
    assert [path.name for path in paths] == ["comparison.csv", "comparison.html", "comparison.png", "comparison.svg"]
    assert sorted(path.name for path in target.iterdir()) == sorted(path.name for path in paths)
    table = pd.read_csv(paths[0])
    assert table["run"].tolist() == ["half", "low", "odd"] and table["kept"].tolist() == [4, 3, 3]
    with Image.open(paths[2]) as picture:
        assert picture.info["dpi"][0] == pytest.approx(150, abs=0.1)
    page = paths[1].read_text(encoding="utf-8")
    assert "data:image/png;base64," in page and not re.search(r"""(src|href)=["']https?:""", page)
    assert "truth_column" in page and "<td>encoder</td><td>use</td>" in page and "href" not in page
    (three[0] / "report.html").write_text("x")
    compare.write_comparison(three, target)
    link = re.search(r'href="([^"]+)"', paths[1].read_text(encoding="utf-8")).group(1)
    assert (target / link).resolve() == (three[0] / "report.html").resolve()


def test_the_command_prints_the_table_and_says_where_the_files_are(three):
    result = CliRunner().invoke(cli.app, ["compare", "half", "low"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["run", "threshold", "samples"] and lines[1].split()[:3] == ["half", "0.5", "6"]
    assert lines[-1].startswith("in papermill_runs/compared/half_low: comparison.csv")
    assert "compared" not in [row["run"] for row in json.loads(CliRunner().invoke(cli.app, ["list", "--json"]).stdout)]


@pytest.mark.parametrize(("names", "message"), [(["half"], "two runs or more"), (["half", "half"], "two runs or more"),
                                                (["half", "none"], "none has no manifest.json")])
def test_what_cannot_be_compared_is_said_in_one_sentence(three, names, message):
    result = CliRunner().invoke(cli.app, ["compare", *names])
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (runs.RUNS / "compared").exists()


def test_values_that_could_be_markup_stay_text(three):
    odd = made("odd2", 0.5, {"b": "a"}, truth_column="topic", encoder="<b>model</b>")
    page = compare.write_comparison([three[0], odd], runs.RUNS / "compared" / "x")[1].read_text(encoding="utf-8")
    assert "<b>model</b>" not in page and "&lt;b&gt;model" in page
