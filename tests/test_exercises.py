"""The exercises at the end of each notebook, and their solutions: every one is there, runs on the demo's data, and is true."""

import hashlib
import re
from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

from tests.conftest import ROOT
from ultralink_nb import sandbox

SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*_solutions.ipynb"))


def exercises(path: Path) -> list[str]:
    """The numbered exercises of a notebook, white space apart."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    text = next(source for source in cells if "## Exercises" in source).split("## Exercises")[1]
    items = re.findall(r"^\d+\. (.+(?:\n   .+)*)", text, re.M)
    return [" ".join(item.split()) for item in items]


def sections(path: Path) -> list[list[nbformat.NotebookNode]]:
    """The cells of each `## Exercise` of a solutions notebook, without the last two, which print versions."""
    found: list[list[nbformat.NotebookNode]] = []
    for cell in nbformat.read(path, as_version=4).cells[:-2]:
        if cell.cell_type == "markdown" and cell.source.startswith("## Exercise"):
            found.append([])
        if found:
            found[-1].append(cell)
    return found


def test_every_notebook_has_solutions():
    assert [path.name[:2] for path in SOLUTIONS] == [path.name[:2] for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_every_exercise_is_answered_in_code_that_asserts_and_in_prose(path):
    book = next((ROOT / "notebooks").glob(f"{path.name[:2]}_*.ipynb"))
    asked, answered = exercises(book), sections(path)
    assert 3 <= len(asked) <= 5
    assert f"solutions/{path.name}" in book.read_text(encoding="utf-8"), "the exercises must lead to their solutions"
    quoted = [" ".join(line.removeprefix("> ") for line in cells[0].source.splitlines()[2:]) for cells in answered]
    assert quoted == asked
    for number, cells in enumerate(answered, 1):
        assert cells[0].source.startswith(f"## Exercise {number}\n")
        assert any(re.search(r"^ *assert ", cell.source, re.M) for cell in cells if cell.cell_type == "code"), number
        assert cells[-1].cell_type == "markdown" and len(cells[-1].source) > 200, f"exercise {number} has no answer in prose"


@pytest.fixture(scope="module")
def kernel(demo, tmp_path_factory):
    """One kernel in the demo's workspace; each notebook gets an empty namespace, but what was imported need not load again."""
    connection = tmp_path_factory.mktemp("kernel") / "kernel.json"  # its sockets lie beside it
    manager = KernelManager(kernel_name="python3", transport="ipc", connection_file=str(connection))
    manager.start_kernel(cwd=str(demo), extra_arguments=["--log-level=50"])
    yield manager
    manager.shutdown_kernel(now=True)


def execute(path: Path, manager: KernelManager) -> nbformat.NotebookNode:
    """The notebook, executed as it is stored, from an empty namespace; raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    client = NotebookClient(notebook, km=manager, timeout=120)
    with client.setup_kernel(cleanup_kc=False):
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
    return notebook


def contents(folder: Path) -> dict[str, str]:
    return {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_the_solutions_hold_on_the_demo_and_leave_it_as_it_is(path, demo, kernel):
    if path.name.startswith("08"):  # its programs run in the sandbox or not at all
        try:
            sandbox.sandbox_mode()
        except sandbox.SandboxUnavailable as missing:
            pytest.skip(str(missing))
    before = contents(demo / "papermill_runs")
    executed = execute(path, kernel)
    shown = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert sum(output.output_type == "display_data" for output in shown) >= 3, "a solution shows what it found"
    assert not [output.text for output in shown if output.get("name") == "stderr" and "warning" in output.text.lower()]
    assert contents(demo / "papermill_runs") == before


def test_start_here_shows_the_map_and_finds_the_translations(demo, kernel):
    executed = execute(ROOT / "notebooks" / "00_start_here.ipynb", kernel)
    assert {"00_map", "00_cosines"} <= {path.stem for path in (demo / "figures/demo").glob("00_*.png")}
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert re.search(r"\d+ rows in \d+ groups: \d+ stay, \d+ can go", printed)


def test_start_here_explains_every_term_of_the_glossary_once_and_in_order():
    cells = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4).cells
    glossary = next(cell.source for cell in cells if cell.source.startswith("## Glossary"))
    terms = re.findall(r"^\| \*\*(.+?)\*\* \|", glossary, re.M)
    assert terms == sorted(set(terms), key=str.lower)
    wanted = ("document passage dialogue turn message sample SFT encoder embedding neighbour cosine margin calibration "
              "probability group policy kept dropped ledger profile run representative coverage language-specific "
              "language-agnostic").split()
    assert set(wanted) <= set(terms), set(wanted) - set(terms)
