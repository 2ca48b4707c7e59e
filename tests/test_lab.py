"""JupyterLab as `make lab` starts it, in a real browser: every notebook opens, runs and shows what it should, widgets included.

The notebooks are copies beside the finished demo's data, so each runs without the others. With ULTRALINK_SCREENSHOTS naming a
folder, what the browser shows is put there as pictures.
"""

import importlib.util
import itertools
import json
import os
import re
import shutil
import urllib.error
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect, sync_playwright

from tests.conftest import ROOT
from tests.lab_browser import CHROMIUM, PATIENCE, Notebook, Server, lab_server, open_notebook
from ultralink_nb import embedding, records

NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
ONLY_OPENED = "07"  # from here on the notebooks train and evaluate: their own tests run them
BY_HAND = "04_redundancy_analysis"  # its widgets are used in the last test, which runs it
LABELS = 24

pytestmark = pytest.mark.skipif(not CHROMIUM and not os.environ.get("ULTRALINK_REQUIRE_BROWSER"),
                                reason="no Chromium on this machine: install it as .ci/run does to test JupyterLab")


@pytest.fixture(scope="module")
def workspace(demo, tmp_path_factory) -> Path:
    """A copy of the finished demo with notebooks of its own, since JupyterLab saves what it runs."""
    folder = tmp_path_factory.mktemp("lab") / "workspace"
    shutil.copytree(demo, folder, ignore=shutil.ignore_patterns("notebooks", "*.html"))
    for name in ("notebooks", "jupyter"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    return folder


@pytest.fixture(scope="module")
def server(workspace, tmp_path_factory):
    with lab_server(ROOT / "Makefile", workspace, tmp_path_factory.mktemp("jupyter")) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert CHROMIUM, "ULTRALINK_REQUIRE_BROWSER is set, but there is no Chromium"
    home = tmp_path_factory.mktemp("browser")  # with the font of the figures, so that Chinese on a page is never boxes
    (home / "fonts").symlink_to(Path(importlib.util.find_spec("mplfonts").origin).parent / "fonts")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"],
                                             env={**os.environ, "XDG_DATA_HOME": str(home)})
        yield started
        started.close()


@pytest.fixture
def page(browser, server):
    """A page that fails its test if a script on it fails; the kernels that it leaves are ended."""
    opened, failures = browser.new_page(viewport={"width": 1440, "height": 1500}), []
    opened.set_default_timeout(PATIENCE * 1000)
    expect.set_options(timeout=PATIENCE * 1000)
    opened.on("pageerror", lambda error: failures.append(error))
    yield opened
    opened.close()
    for session in json.loads(server.ask("api/sessions")):
        server.ask(f"api/sessions/{session['id']}", "DELETE")
    assert not failures


def stored(workspace: Path, name: str) -> nbformat.NotebookNode:
    return nbformat.read(workspace / "notebooks" / f"{name}.ipynb", as_version=4)


def headings(notebook: nbformat.NotebookNode) -> list[tuple[int, str]]:
    """The headings of a notebook, level and text as it is read, marks of Markdown left out."""
    prose = [re.sub(r"```.*?```", "", cell.source, flags=re.S) for cell in notebook.cells if cell.cell_type == "markdown"]
    found = re.findall(r"^(#+) (.*)$", "\n".join(prose), re.M)
    return [(len(marks), re.sub(r"[`*]", "", text).strip()) for marks, text in found]


def opened(page, server: Server, workspace: Path, name: str) -> Notebook:
    """A notebook opened as it should be: nothing asks or warns, and the table of contents has its headings in order."""
    source = stored(workspace, name)
    levels = [level for level, _ in headings(source)]
    assert levels[0] == 1 and levels.count(1) == 1, "one title"
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels)), "a heading skips a level"
    notebook = open_notebook(page, server, f"{name}.ipynb", len(source.cells))
    assert notebook.table_of_contents() == [text for _, text in headings(source)]
    assert not page.locator(".jp-Dialog").count() and not page.locator(".Toastify__toast").count()
    return notebook


def run_all(notebook: Notebook, name: str, workspace: Path) -> None:
    """Run a notebook from top to bottom; it must end without error or warning and show each figure that it writes."""
    figures = workspace / "figures" / "demo"
    for path in figures.glob(f"{name[:3]}*.png"):
        path.unlink()
    notebook.run_all()
    assert notebook.errors().all_text_contents() == []
    assert not [text for text in notebook.said().all_text_contents() if "warning" in text.lower()]
    widths = notebook.pictures()
    assert 1 <= len(widths) == len(list(figures.glob(f"{name[:3]}*.png"))) and all(width > 300 for width in widths)
    assert not notebook.page.locator(".jp-Dialog").count() and not notebook.page.locator(".Toastify__toast").count()


def photograph(notebook: Notebook, name: str) -> None:
    if folder := os.environ.get("ULTRALINK_SCREENSHOTS"):
        notebook.photograph(Path(folder), name)


def test_without_the_token_nothing_is_shown(server, page):
    assert server.url.startswith("http://127.0.0.1:") and len(server.token) >= 32
    for path in ("api/contents", "api/kernels"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.ask(path, with_token=False)
        assert refused.value.code == 403, path
        assert server.ask(path), path
    for path in ("lab", "lab?token=wrong", "files/notebooks/01_knowledge_grounding.ipynb"):
        page.goto(server.url + path)
        assert page.url.startswith(f"{server.url}login"), path


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name != BY_HAND])
def test_a_notebook_opens_runs_and_shows_its_figures(name, page, server, workspace):
    notebook = opened(page, server, workspace, name)
    if name < ONLY_OPENED:
        run_all(notebook, name, workspace)
    photograph(notebook, name)


def content_by_text(workspace: Path) -> dict[str, str]:
    """Which content a sample's text has, by the ids of the recorded translations; texts as the form shows them."""
    samples = records.read_table(workspace / "papermill_runs/demo/data/samples.parquet", records.SAMPLES)
    return {embedding.sample_text(row, "question")[:1000].strip(): row["source"]["parent_id"] or row["id"] for row in samples}


def test_the_slider_moves_the_table_and_labels_mend_the_calibration(page, server, workspace):
    data = workspace / "papermill_runs/demo/data"
    notebook = opened(page, server, workspace, BY_HAND)
    run_all(notebook, BY_HAND, workspace)
    before = records.read_frame(data / "pairs.parquet", records.PAIRS)["probability"]

    handle = notebook.panel.get_by_role("slider")
    edge = notebook.panel.locator("table", has=page.locator("caption", has_text="pairs from"))
    text = edge.text_content()
    for key, threshold in (("ArrowRight", 0.55), ("ArrowRight", 0.6), ("Home", 0.05)):
        handle.press(key)
        expect(edge.locator("caption")).to_contain_text(f"{(before >= threshold).sum():,} pairs from {threshold:.2f} on")
        lowest = before[before >= threshold].min()
        expect(edge.locator("tbody td").first).to_have_text(f"{lowest:.3f}".rstrip("0"))
        assert edge.text_content() != text
        text = edge.text_content()

    content, labels = content_by_text(workspace), data / "labels.jsonl"
    given = []
    for count in range(1, LABELS + 1):
        left, right = notebook.panel.locator(".label-text").all_text_contents()
        given.append(content[left.strip()] == content[right.strip()])
        notebook.panel.get_by_role("button", name="same" if given[-1] else "different", exact=True).click()
        expect(notebook.panel.get_by_text(f"{count} labelled")).to_be_visible()
    assert [json.loads(line)["same"] for line in labels.read_text(encoding="utf-8").splitlines()] == given
    assert len(set(given)) == 2
    photograph(notebook, BY_HAND)

    notebook.run_all()
    assert notebook.errors().all_text_contents() == []
    expect(notebook.panel.get_by_text(f"mended by {LABELS} labels")).to_be_visible()
    expect(notebook.panel.get_by_text(f"{LABELS} labelled")).to_be_visible()
    after = records.read_frame(data / "pairs.parquet", records.PAIRS)["probability"]
    assert len(after) == len(before) and abs(after - before).max() > 0.001
