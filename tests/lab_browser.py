"""JupyterLab as a person has it: the server that `make lab` starts, and a notebook in a page of a real browser."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 240  # seconds that a notebook may take: the machine may be busy with other work


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: its address, which ends in a slash, and its token."""

    url: str
    token: str

    def ask(self, path: str, method: str = "GET", with_token: bool = True) -> bytes:
        """What the server answers; raises `urllib.error.HTTPError` where it refuses."""
        headers = {"Authorization": f"token {self.token}"} if with_token else {}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()


@contextmanager
def lab_server(makefile: Path, workspace: Path, state: Path) -> Iterator[Server]:
    """`make lab` in a workspace, its set-up taken as done, with Jupyter's own files in `state` and not in the user's home."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "JUPYTER_PREFER_ENV_PATH": "1",
                   **{f"JUPYTER_{name.upper()}_DIR": str(state / name) for name in ("config", "data", "runtime")}}
    command = ["make", "-f", str(makefile), "-o", "setup", "lab", f"BIN={Path(sys.executable).parent}",
               "LAB_ARGS=--no-browser --allow-root --port=0"]
    with open(state / "log", "wb") as log:
        made = subprocess.Popen(command, cwd=workspace, env=environment, stdout=log, stderr=log)
    until = time.monotonic() + 120
    while not (found := list((state / "runtime").glob("jpserver-*[0-9].json"))):
        assert made.poll() is None and time.monotonic() < until, (state / "log").read_text()
        time.sleep(0.2)
    info = json.loads(found[0].read_text())
    try:
        yield Server(info["url"], info["token"])
    finally:
        os.kill(info["pid"], signal.SIGTERM)  # the server ends its kernels and then itself
        made.wait(60)


@dataclass(frozen=True)
class Notebook:
    """A notebook that is open in a page."""

    page: Page
    panel: Locator

    def cells(self, kind: str = "") -> Locator:
        return self.panel.locator(f".jp-Notebook .jp-{kind}Cell")

    def run_all(self) -> None:
        """Run > Run All Cells, and wait until the last one has run or one has failed."""
        before = self._last_count()
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        until = time.monotonic() + PATIENCE
        while self._last_count() <= before and not self.errors().count():
            assert time.monotonic() < until, f"still running after {PATIENCE} s"
            self.page.wait_for_timeout(200)
        self.page.wait_for_timeout(500)  # what the last cell shows may still be on its way

    def _last_count(self) -> int:
        """The execution count of the last cell of code, 0 before it has run."""
        digits = [c for c in self.cells("Code").last.locator(".jp-InputArea-prompt").text_content() or "" if c.isdigit()]
        return int("".join(digits) or 0)

    def said(self) -> Locator:
        """What cells wrote to the error stream; JupyterLab shows a cell's exception as such a text, too."""
        return self.panel.locator("[data-mime-type='application/vnd.jupyter.stderr']")

    def errors(self) -> Locator:
        return self.said().filter(has=self.page.locator(".ansi-red-fg"))  # the colour of a traceback's first line

    def table_of_contents(self) -> list[str]:
        """The headings that the side bar's table of contents shows, from top to bottom."""
        self.page.locator(".lm-TabBar-tab[data-id='table-of-contents']").click()
        entries = self.page.locator("#table-of-contents .jp-tocItem-content")
        expect(entries).not_to_have_count(0)
        return [text.strip() for text in entries.all_text_contents()]

    def pictures(self) -> list[int]:
        """The width of each picture among the outputs, in pixels; 0 for one that the browser cannot show."""
        return self.panel.locator(".jp-OutputArea-output img").evaluate_all(
            "images => Promise.all(images.map(i => i.decode().then(() => i.naturalWidth, () => 0)))")

    def photograph(self, folder: Path, name: str) -> None:
        """The whole notebook as pictures of one screen each, from top to bottom."""
        folder.mkdir(parents=True, exist_ok=True)
        outer, last = self.panel.locator(".jp-WindowedPanel-outer"), self.cells().last
        for screen in range(60):
            outer.evaluate("(e, n) => { e.scrollTop = n * (e.clientHeight - 60) }", screen)
            self.page.wait_for_timeout(300)
            self.page.screenshot(path=folder / f"{name}_{screen:02}.png")
            box = last.bounding_box()
            if box and box["y"] + box["height"] < self.page.viewport_size["height"]:
                break


def open_notebook(page: Page, server: Server, name: str, cells: int) -> Notebook:
    """Open a notebook of so many cells by its address, in a JupyterLab without other tabs; wait for cells and kernel."""
    page.goto(f"{server.url}lab/tree/notebooks/{name}?reset&token={server.token}")
    notebook = Notebook(page, page.locator(".jp-NotebookPanel"))
    expect(notebook.cells()).to_have_count(cells)
    kernel = notebook.panel.locator(".jp-Notebook-ExecutionIndicator")
    expect(kernel).to_have_attribute("data-status", "idle")
    return notebook
