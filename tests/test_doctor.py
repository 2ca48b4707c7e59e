"""What the doctor finds, on this machine and on machines with a fault each."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from ultralink_nb import cli, doctor, sandbox


def level(findings, area):
    return {finding.level for finding in findings if finding.area == area}


def test_this_machine_can_run_the_kit_and_no_key_is_shown(root):
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "ultralink_nb.cli", "doctor", "--json"], cwd=root, capture_output=True,
                          text=True, env={**os.environ, "OPENAI_API_KEY": "planted-key-77"})
    assert time.monotonic() - begun < 60
    findings = json.loads(done.stdout)
    assert done.returncode == (1 if any(finding["level"] == "problem" for finding in findings) else 0)
    assert {"python", "packages", "kernel", "faiss", "encoder", "chat model", "sandbox", "disk", "memory", "fonts", "folder",
            "git"} <= {finding["area"] for finding in findings}
    assert all(finding["level"] in ("ok", "note", "problem") and finding["says"] for finding in findings)
    assert all(finding["advice"] for finding in findings if finding["level"] == "problem")
    assert {finding["level"] for finding in findings if finding["area"] in ("python", "packages", "faiss", "encoder")} == {"ok"}
    chat = next(finding["says"] for finding in findings if finding["area"] == "chat model")
    assert "OPENAI_API_KEY is set" in chat and "planted-key-77" not in done.stdout + done.stderr


def test_a_missing_package_and_one_out_of_range_are_problems(monkeypatch):
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: {"papermill": None, "numpy": "1.26.0"}.get(name, real(name)))
    found = next(doctor._packages())
    assert found.level == "problem" and "papermill is missing" in found.says and "numpy is 1.26.0, not >=2.0" in found.says
    assert "pip install" in found.advice


def test_two_packages_with_one_modules_name_are_a_problem(monkeypatch):
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: "1.15" if name.startswith("faiss") else real(name))
    assert any(finding.level == "problem" and "faiss-cpu" in finding.says for finding in doctor._packages())


def test_versions_are_held_against_the_constraints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(doctor._pins()) == []
    torch = doctor.installed("torch").split("+")[0]
    (tmp_path / "constraints.txt").write_text(f"# pins\nnumpy==1.0.0\ntorch=={torch}\nnot-installed-here==1\n")
    (found,) = doctor._pins()
    assert found.level == "note" and "numpy" in found.says and "torch" not in found.says
    (tmp_path / "constraints.txt").write_text(f"torch=={torch}\n")
    assert [finding.level for finding in doctor._pins()] == ["ok"]


def test_extras_are_notes_with_the_command_that_brings_them(monkeypatch):
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "ray" else "9" if name == "peft" else real(name))
    extras = {finding.area: finding for finding in doctor._extras()}
    assert extras["extra ray"].level == "note" and "'.[ray]'" in extras["extra ray"].advice
    assert "peft 9" in extras["extra train"].says or extras["extra train"].level == "note"
    assert "extra test" not in extras


@pytest.mark.parametrize(("parameters", "expected", "words"), [
    ({}, "ok", "recorded answers"),
    ({"chat_model": "m"}, "problem", "no base_url"),
    ({"chat_model": "llama:none.gguf"}, "problem", "no such file"),
    ({"chat_model": "transformers:owner/model"}, "note", "fetched if the hub has it"),
])
def test_the_chat_model_of_a_profile(parameters, expected, words):
    (found,) = doctor._chat(parameters)
    assert found.level == expected and words in found.says + found.advice


def test_a_server_is_looked_for_and_its_key_never_read_out(monkeypatch):
    monkeypatch.setenv("MY_KEY", "planted-key-78")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        parameters = {"chat_model": "m", "base_url": address, "api_key_variable": "MY_KEY"}
        (found,) = doctor._chat(parameters)
        assert found.level == "ok" and "MY_KEY is set" in found.says and "planted" not in found.says
    (found,) = doctor._chat({**parameters, "api_key_variable": "NOT_THERE"})
    assert found.level == "note" and "NOT_THERE is not set" in found.says and "start the server" in found.advice


def test_encoders_of_a_profile(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--owner--name").mkdir()
    assert "owner/name" in [finding.says for finding in doctor._encoder({})][-1]
    assert level(doctor._encoder({"encoder": "owner/name"}), "encoder") == {"ok"}
    assert level(doctor._encoder({"encoder": str(tmp_path)}), "encoder") == {"ok"}
    assert "note" in level(doctor._encoder({"encoder": "owner/other"}), "encoder")
    monkeypatch.setattr(doctor, "installed", lambda name: None)
    assert level(doctor._encoder({"encoder": "use"}), "encoder") == {"problem"}


def test_inputs_that_are_not_there(tmp_path):
    (tmp_path / "a.xml").touch()
    good = {"dump_path": [str(tmp_path / "*.xml"), "hub:wikimedia/wikipedia/20231101.fr"], "samples_path": None}
    assert list(doctor._inputs(good)) == []
    assert [finding.level for finding in doctor._inputs({"dump_path": str(tmp_path / "*.bz2")})] == ["problem"]


def test_a_folder_that_is_no_repository_or_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [finding.level for finding in doctor._folders()] == ["problem", "ok"]
    assert list(tmp_path.iterdir()) == []

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    assert "papermill_runs (Permission denied)" in [finding.says for finding in doctor._folders()][-1]


def test_a_full_disk_no_sandbox_no_browser_no_font(monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=10**8))
    assert level(doctor._machine(), "disk") == {"problem"}
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert level(doctor._browser(), "browser") == {"note"}
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert level(doctor._fonts(), "fonts") == {"problem"}

    def none():
        raise sandbox.SandboxUnavailable("install bubblewrap")

    monkeypatch.setattr(doctor.sandbox, "sandbox_mode", none)
    (found,) = doctor._sandbox()
    assert found.level == "note" and "install bubblewrap" in found.advice


def test_a_package_that_does_not_import_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "_said", lambda *command: (False, "ImportError: libcuda"))
    monkeypatch.setattr(doctor, "installed", lambda name: "2.13.0+cu129")
    assert [finding.level for finding in doctor._gpu()] == ["problem"] and [f.level for f in doctor._faiss()] == ["problem"]
    monkeypatch.setattr(doctor, "_said", lambda *command: (True, "1 NVIDIA H100") if "torch" in command[-1] else (True, "1 1.15"))
    assert "sees 1 NVIDIA H100" in next(doctor._gpu()).says and "sees 1 GPU" in next(doctor._faiss()).says


def test_exit_codes_follow_the_findings(monkeypatch, root):
    monkeypatch.chdir(root)
    for level_, code in (("ok", 0), ("note", 0), ("problem", 1)):
        monkeypatch.setattr(doctor, "examine", lambda profile, level_=level_: [doctor.Finding("x", level_, "says", "do this")])
        result = CliRunner().invoke(cli.app, ["doctor"])
        assert result.exit_code == code and "do this" in result.stdout
    monkeypatch.undo()
    monkeypatch.chdir(root)
    result = CliRunner().invoke(cli.app, ["doctor", "nothing"])
    assert result.exit_code == 2 and "no profile nothing" in result.stderr


def test_a_program_that_hangs_or_is_not_there_ends(monkeypatch):
    monkeypatch.setattr(doctor, "_TIME", 1)
    assert doctor._said(sys.executable, "-c", "import time; time.sleep(30)") == (False, "TimeoutExpired")
    assert doctor._said("no-such-program")[0] is False
    assert doctor._said(sys.executable, "-c", "print('a'); print('b')") == (True, "b")
