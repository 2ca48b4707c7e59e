"""Fixtures: the repository's root, a workspace of its own for each test, public data where a variable names it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time, so that nobody's change fails on another's luck; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


def make_workspace(folder: Path) -> Path:
    """A folder in which the kit's commands work: the real notebooks, but runs and figures of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    return folder


def command(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m words` in a folder, without a network and with further variables of environment."""
    return subprocess.run([sys.executable, "-m", *words], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1", **environment})


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """A workspace in which the demo has run; a key is planted in the environment to see where it turns up."""
    folder = make_workspace(tmp_path_factory.mktemp("demo") / "workspace")
    result = command("ultralink_nb.cli", "run", "demo", cwd=folder, OPENAI_API_KEY="planted-key-8f3a")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_workspace(tmp_path / "workspace")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets that ULTRALINK_SHARED_DATA names; a test that needs it is skipped without."""
    folder = os.environ.get("ULTRALINK_SHARED_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ULTRALINK_SHARED_DATA does not name a folder of public data sets")
    return Path(folder)
