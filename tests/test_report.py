"""A run's page: complete, self-contained, small, and there for a run that failed, too."""

import base64
import io
import re

import numpy as np
import pytest
from nbformat.v4 import new_output
from PIL import Image

from tests import made_runs
from ultralink_nb import report, runs


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "papermill_runs/one/data/a.txt"
    output.parent.mkdir(parents=True)
    output.write_text("abc")
    entries = [made_runs.entry("04_redundancy_analysis.ipynb", outputs={"papermill_runs/one/data/a.txt": 3, "gone.txt": 1234})]
    entries += [made_runs.entry("05_pruning.ipynb", "failed", error="ValueError: <no> luck"),
                made_runs.entry("06_x.ipynb", "planned")]
    folder = made_runs.run(runs.RUNS / "one", "failed", notebooks=entries, parameters={"threshold": 0.5},
                           inputs={"my.jsonl": "ab12"})
    shown = [new_output("display_data", {"image/png": made_runs.png(), "text/plain": "<Figure>"}),
             new_output("display_data", {"text/html": "<table><tr><td>cell</td></tr></table>"})]
    made_runs.notebook(folder, "04_redundancy_analysis", "threshold = 0.5  # p", shown)
    made_runs.notebook(folder, "05_pruning", "policy = 'balanced'  # p",
                       [new_output("error", ename="ValueError", evalue="\x1b[31m<no> luck\x1b[0m", traceback=[])])
    return folder


def test_the_page_has_contents_results_settings_and_links(run):
    page = report.write_report(run).read_text(encoding="utf-8")
    targets = re.findall(r'href="#([^"]+)"', page)
    assert len(targets) >= 6 and all(page.count(f'id="{target}"') == 1 for target in targets)
    assert "What was <code>found</code></h3>" in page and "<td>cell</td>" in page and "secret_code" not in page
    assert 'href="04_redundancy_analysis.ipynb"' in page and 'href="data/a.txt"' in page and 'href="../gone.txt"' not in page
    assert "<td>threshold</td><td><code>0.5</code></td>" in re.sub(r"\n", "", page) and "two samples count as the same" in page
    assert "my.jsonl" in page and "ab12" in page and "3.11.7" in page and "1,234" in page
    assert not re.search(r"""(src|href)=["']https?:""", page)


def test_a_failed_run_shows_what_there_is_and_what_went_wrong(run):
    page = report.write_report(run).read_text(encoding="utf-8")
    assert "ValueError: &lt;no&gt; luck" in page and "\x1b" not in page and "<no>" not in page
    assert "planned" in page


def test_a_notebook_cut_off_while_it_was_saved_does_not_stop_the_page(run):
    path = run / "05_pruning.ipynb"
    path.write_text(path.read_text()[:200])
    page = report.write_report(run).read_text(encoding="utf-8")
    assert "cannot be read: run it again" in page and "<td>cell</td>" in page
    (run / "04_redundancy_analysis.ipynb").unlink()
    assert "<td>cell</td>" not in report.write_report(run).read_text(encoding="utf-8")


def test_pictures_are_smaller_and_look_the_same(run):
    page = report.write_report(run).read_text(encoding="utf-8")
    inside = base64.b64decode(re.search(r"base64,([^']+)'", page).group(1))
    before = base64.b64decode(made_runs.png())
    assert len(inside) < 0.8 * len(before)
    arrays = [np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"), dtype=int) for raw in (before, inside)]
    assert arrays[0].shape == arrays[1].shape and np.abs(arrays[0] - arrays[1]).mean() < 0.25


def test_a_photograph_and_what_is_no_picture_stay_as_they_are():
    noise = np.random.default_rng(1).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    assert report.smaller(buffer.getvalue()) == buffer.getvalue()
    assert report.smaller(b"no picture") == b"no picture"


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(runs.RunError, match="is not a run") as error:
        report.write_report(tmp_path)
    assert error.value.code == 2 and not list(tmp_path.iterdir())
