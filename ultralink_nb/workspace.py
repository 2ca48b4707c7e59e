"""Where a run's files lie: `papermill_runs/<run>/data` for tables, `figures/<run>` for figures.

Relative paths mean the folder that holds `notebooks/`. Papermill and the runner start there; JupyterLab starts a kernel in
`notebooks/` itself, so `open_run` steps up from it.
"""

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

SAMPLE = Path(__file__).parent / "sample"
AUTHORS = "replay (written by the kit's authors)"  # what a sample's generator says of texts that no model wrote


@dataclass(frozen=True)
class Run:
    """The folders of a run, made where they are missing."""

    folder: Path
    data: Path
    figures: Path

    @property
    def name(self) -> str:
        return self.folder.name


def open_run(run_dir: str) -> Run:
    """The run in `run_dir`; steps out of `notebooks/` first, so that a path means the same in JupyterLab and papermill."""
    if Path.cwd().name == "solutions" and Path("../profiles").is_dir():
        os.chdir("..")
    if Path.cwd().name == "notebooks" and Path("profiles").is_dir():
        os.chdir("..")
        print(f"working folder: {Path.cwd().name}/, the folder above notebooks/")
    folder = Path(run_dir)
    run = Run(folder, folder / "data", Path("figures") / folder.name)
    run.data.mkdir(parents=True, exist_ok=True)
    run.figures.mkdir(parents=True, exist_ok=True)
    return run


def print_versions(*modules: str) -> None:
    """Print the versions of Python and of some modules by import name: what a reader needs to repeat a notebook."""
    packages = importlib.metadata.packages_distributions()
    found = {name: importlib.metadata.version(packages.get(name, [name])[0]) for name in modules}
    print(", ".join([f"python {platform.python_version()}", *(f"{name} {version}" for name, version in found.items())]))
