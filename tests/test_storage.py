"""Object storage: a run to an S3 server on loopback and back, real HTTP; inputs by URL; papermill's outputs."""

import json
import threading
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import nbformat
import papermill
import pytest
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

from tests.conftest import command, make_workspace
from ultralink_nb import storage
from ultralink_nb.storage import StorageError, localise, pull, push

KEY = "dummy-key-51c7"


@pytest.fixture(scope="module")
def server():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch) -> str:
    host, port = server.get_host_and_port()
    for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": KEY,
                        "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/shelf", method="PUT")).close()
    return "s3://shelf/some/prefix"


@pytest.fixture
def run(tmp_path) -> tuple[Path, Path]:
    folder, figures = tmp_path / "papermill_runs" / "mine", tmp_path / "figures" / "mine"
    for path, text in {folder / "data" / "pairs.parquet": "pairs" * 1000, folder / "05.ipynb": "{}", folder / ".lock": "1",
                       folder / "manifest.json": '{"run": "mine"}', figures / "05_kept.png": "picture"}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder, figures


def contents(*folders: Path) -> dict[str, bytes]:
    return {f"{folder.parent.name}/{path.relative_to(folder)}": path.read_bytes() for folder in folders
            for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")}


def objects(url: str) -> list[str]:
    name, _, prefix = url.removeprefix("s3://").partition("/")
    store = S3Store(name, client_options={"allow_http": True})
    return sorted(item["path"].removeprefix(prefix + "/") for batch in store.list(prefix) for item in batch)


def test_a_run_is_pushed_changed_and_pulled_on_another_machine(bucket, run, tmp_path):
    everything = ["05.ipynb", "data/pairs.parquet", "figures/05_kept.png", "manifest.json"]
    assert push(*run, bucket) == everything, "the manifest goes last, the lock not at all"
    assert objects(bucket) == sorted(f"mine/{name}" for name in [*everything, "mirror.json"])
    assert push(*run, bucket) == []

    (run[0] / "data" / "pairs.parquet").write_text("other pairs")
    (run[0] / "manifest.json").write_text('{"run": "mine", "status": "ok"}')
    (run[1] / "05_kept.png").unlink()
    (run[1] / "05_new.png").write_text("a new picture")
    assert push(*run, bucket) == ["data/pairs.parquet", "figures/05_new.png", "manifest.json"]
    assert "mine/figures/05_kept.png" not in objects(bucket), "what is gone here is gone there"

    other = tmp_path / "elsewhere" / "papermill_runs" / "mine", tmp_path / "elsewhere" / "figures" / "mine"
    came = pull(bucket, *other)
    assert came[-1] == "manifest.json" and contents(*other) == contents(*run)
    assert pull(bucket, *other) == []
    (other[0] / "data" / "pairs.parquet").write_text("damaged")
    assert pull(bucket, *other) == ["data/pairs.parquet"] and contents(*other) == contents(*run)


def test_a_manifest_that_was_not_sent_is_sent_by_the_next_push(bucket, run):
    push(*run, bucket)
    S3Store("shelf", client_options={"allow_http": True}).delete("some/prefix/mine/manifest.json")
    assert push(*run, bucket) == ["manifest.json"]


def test_a_large_file_goes_up_and_down_in_pieces(bucket, run, tmp_path):
    large = run[0] / "data" / "vectors.npy"
    with large.open("wb") as file:
        for number in range(24):
            file.write(bytes([number]) * 2**20)
    push(*run, bucket)
    other = tmp_path / "far" / "mine", tmp_path / "far" / "figures" / "mine"
    pull(bucket, *other)
    assert (other[0] / "data" / "vectors.npy").read_bytes() == large.read_bytes()


def test_what_is_not_there_or_leads_elsewhere_is_refused(bucket, run, tmp_path):
    with pytest.raises(StorageError, match="holds no run: check the store"):
        pull(bucket, *run)
    with pytest.raises(StorageError, match="s3://no-such-bucket/x/mine.* check bucket|s3://no-such-bucket/x/mine"):
        push(*run, "s3://no-such-bucket/x")
    S3Store("shelf", client_options={"allow_http": True}).put("some/prefix/mine/mirror.json", b'{"../../evil": "0"}')
    with pytest.raises(StorageError, match="leads out of the run's folder"):
        pull(bucket, *run)
    assert not list(tmp_path.rglob("evil"))
    with pytest.raises(StorageError, match="put credentials into the environment") as refused:
        push(*run, "s3://name:secret@shelf/x")
    assert "secret" not in str(refused.value)


def test_a_server_that_goes_away_loses_nothing_here(run, tmp_path, monkeypatch):
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "dummy", "AWS_SECRET_ACCESS_KEY": KEY,
                        "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/shelf", method="PUT")).close()
    before, real, count = contents(*run), storage._hash, 0

    def hash_and_stop(path: Path) -> str:  # the server goes after the first file
        nonlocal count
        count += 1
        if count == 2:
            server.stop()
        return real(path)

    monkeypatch.setattr(storage, "_hash", hash_and_stop)
    with pytest.raises(StorageError, match=r"mine/data/pairs.parquet could not be written .* is the store reachable") as gone:
        push(*run, "s3://shelf/x")
    assert contents(*run) == before and KEY not in str(gone.value)


def test_inputs_by_url_become_files_of_this_machine(bucket, tmp_path):
    store = S3Store("shelf", client_options={"allow_http": True})
    store.put("in/my.jsonl", b'{"a": 1}\n')
    first = localise("s3://shelf/in/my.jsonl", tmp_path)
    assert Path(first).name == "my.jsonl" and Path(first).read_bytes() == b'{"a": 1}\n'
    written = Path(first).stat().st_mtime_ns
    assert localise("s3://shelf/in/my.jsonl", tmp_path) == first and Path(first).stat().st_mtime_ns == written
    store.put("in/my.jsonl", b'{"a": 2}\n')
    changed = localise(["s3://shelf/in/my.jsonl", "here.jsonl"], tmp_path)
    assert Path(changed[0]).read_bytes() == b'{"a": 2}\n' and changed[1] == "here.jsonl"
    assert localise(None, tmp_path) is None and localise("hub:openai/gsm8k/main", tmp_path) == "hub:openai/gsm8k/main"
    with pytest.raises(StorageError, match="s3://shelf/in/none.jsonl is not there: check bucket and path"):
        localise("s3://shelf/in/none.jsonl", tmp_path)
    with pytest.raises(StorageError, match="nosuch:// is no scheme that is known here"):
        localise("nosuch://a/b", tmp_path)
    with pytest.raises(StorageError, match="is a folder: name its files"):
        localise("s3://shelf/in", tmp_path)


def test_inputs_over_http_and_from_memory(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "some.jsonl").write_text("over http")
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(tmp_path / "web"))) as web:
        threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{web.server_port}"
        try:
            assert Path(localise(f"{address}/some.jsonl?signature=secret", tmp_path)).read_text() == "over http"
            with pytest.raises(StorageError, match="is not there") as missing:
                localise(f"{address}/none.jsonl?signature=secret", tmp_path)
            assert "secret" not in str(missing.value)
        finally:
            web.shutdown()
    fsspec.filesystem("memory").pipe("/shelf/a.txt", b"from memory")
    assert Path(localise("memory://shelf/a.txt", tmp_path)).read_text() == "from memory"


def test_the_run_command_mirrors_and_another_machine_goes_on(bucket, tmp_path):
    first, second = (make_workspace(tmp_path / name) for name in ("first", "second"))
    words = "ultralink_nb.cli", "run", "demo", "--run", "one", "--to", "01", "--store", bucket
    done = command(*words, cwd=first)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"one/manifest.json", "one/report.html", "one/01_knowledge_grounding.ipynb"} <= set(objects(bucket))
    again = command(*words, cwd=second)
    assert "files of run one from its store" in again.stdout and "up to date, skipped" in again.stdout, again.stdout
    third = make_workspace(tmp_path / "third")
    pulled = command("ultralink_nb.cli", "pull", bucket, "one", cwd=third)
    assert pulled.returncode == 0 and (third / "papermill_runs" / "one" / "manifest.json").is_file(), pulled.stderr
    assert not any(KEY.encode() in path.read_bytes() for path in first.joinpath("papermill_runs").rglob("*") if path.is_file())


def test_plain_papermill_writes_to_a_bucket(bucket, tmp_path):
    parameters = nbformat.v4.new_code_cell("a = 1", metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell("print(a + 1)")],
                                    metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}})
    nbformat.write(book, tmp_path / "in.ipynb")
    words = ("papermill", "--no-progress-bar", "in.ipynb", f"{bucket}/out.ipynb", "-p", "a", "41")
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    executed = nbformat.reads(papermill.iorw.papermill_io.read(f"{bucket}/out.ipynb"), as_version=4)
    assert executed.cells[-1].outputs[0].text == "42\n"
    assert KEY not in json.dumps(executed)
