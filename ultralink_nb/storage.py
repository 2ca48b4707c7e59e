"""Object storage through fsspec: a run mirrored to a bucket and back, inputs named by URL, papermill's outputs.

    push(Path("papermill_runs/demo"), Path("figures/demo"), "s3://bucket/prefix")   # what changed since the last push
    pull("s3://bucket/prefix", Path("papermill_runs/demo"), Path("figures/demo"))   # on another machine
    localise("s3://bucket/samples.jsonl", ".cache")                                 # a file of this machine

S3, Google Cloud Storage and Azure are spoken with obstore (the extra `storage`); any other scheme that fsspec knows works too
(`https://`, `memory://`). Credentials and endpoints come from the environment alone, by the names that the clouds' own tools use
(`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …). Files are moved in pieces, none is in memory as a whole.

In the store a run is `<store>/<run>/`: what is in its folder, its figures below `figures/`, and `mirror.json`, by which the next
push knows what is there. `manifest.json` goes last: a push that was cut off leaves the older manifest, so that the run, when
it is pulled, does what was not recorded again.
"""

import errno
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from ultralink_nb.errors import KitError
from ultralink_nb.records import atomic_path

CLOUDS = ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss")
INDEX, MANIFEST = "mirror.json", "manifest.json"
PIECE = 8 * 2**20  # bytes in memory at once
_VERSION = ("e_tag", "ETag", "etag", "version", "Content-MD5", "last_modified", "Last-Modified", "created", "mtime")


class StorageError(KitError, OSError):
    """A store that cannot be reached, an object that is not there, a scheme that nothing here speaks."""

    def __init__(self, message: str):
        super().__init__(message)


class NoSuchRun(StorageError):
    """A store without the run that is asked for."""


def is_url(value: object) -> bool:
    """Whether a parameter names what fsspec reads: `scheme://…`. `hub:…` is no URL."""
    return isinstance(value, str) and "://" in value


def shown(url: str) -> str:
    """A URL without what may be a secret in it: a query is how signed addresses carry their key."""
    return url.partition("?")[0]


@contextmanager
def named(url: str, doing: str) -> Iterator[None]:
    """What goes wrong inside becomes a `StorageError` that names the object; the library's own text may hold a signed address."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError:
        raise StorageError(f"{shown(url)} is not there: check bucket and path") from None
    except PermissionError:
        raise StorageError(f"{shown(url)} may not be {doing} with the credentials in the environment") from None
    except Exception as error:
        if isinstance(error, OSError) and (error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)):
            raise  # a disk of this machine, which says itself what is wrong
        raise StorageError(f"{shown(url)} could not be {doing} ({type(error).__name__}): is the store reachable, and are the "
                           "endpoint and the credentials in the environment right?") from None


@functools.cache
def _filesystem(scheme: str, endpoint: str) -> fsspec.AbstractFileSystem:
    if scheme not in CLOUDS:
        try:
            return fsspec.filesystem(scheme)
        except (ValueError, ImportError):
            raise StorageError(f"{scheme}:// is no scheme that is known here: give s3://, gs://, az:// or https://, or install "
                               "the package of fsspec that speaks it") from None
    try:
        from obstore.fsspec import FsspecStore
    except ImportError:
        raise StorageError(f"{scheme}:// needs pip install 'ultralink-nb[storage]'") from None

    class Blocking(FsspecStore):
        """Small objects by calls that block: one that is awaited may still hold on to Python in a thread of the client when the
        process ends, and then aborts it now and then."""

        def cat_file(self, path: str, **_: Any) -> bytes:
            bucket, key = self._split_path(path)
            return bytes(self._construct_store(bucket).get(key).bytes())

        def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
            bucket, key = self._split_path(path)
            self._construct_store(bucket).put(key, value)

    return Blocking(
        scheme, client_options={"allow_http": endpoint.startswith("http://")}, skip_instance_cache=True,
        retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=30)},
    )


def open_store(url: str) -> fsspec.AbstractFileSystem:
    scheme, _, rest = url.partition("://")
    if "@" in rest.split("/")[0] and scheme not in ("abfs", "abfss"):
        raise StorageError(f"{scheme}://… carries a user or a password: put credentials into the environment")
    return _filesystem(scheme, os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", ""))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _local_files(run_folder: Path, figures_folder: Path) -> dict[str, Path]:
    """The files of a run by their name in the store; hidden ones (locks, half-written files) stay here."""
    found = {}
    for folder, prefix in ((run_folder, ""), (figures_folder, "figures/")):
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                found[prefix + inside.as_posix()] = path
    return found


def _read(store: fsspec.AbstractFileSystem, url: str) -> bytes:
    """A small object; empty where there is none."""
    with named(url, "read"):
        try:
            return store.cat_file(url)
        except FileNotFoundError:
            return b""


def push(run_folder: Path, figures_folder: Path, url: str) -> list[str]:
    """Mirror a run to `<url>/<name of its folder>/` and return the names of what was sent; only files that changed are.

    What is gone here goes there too, as far as a push had put it there. Raises `StorageError`; files of this machine are only
    read. A push that was cut off is made good by the next one.
    """
    store, root = open_store(url), f"{url.rstrip('/')}/{run_folder.name}"
    there: dict[str, str] = json.loads(_read(store, f"{root}/{INDEX}") or "{}")
    files, here, sent = _local_files(run_folder, figures_folder), {}, []
    manifest = files.pop(MANIFEST, None)
    last = manifest.read_bytes() if manifest else b""
    for name, path in files.items():
        here[name] = _hash(path)
        if there.get(name) != here[name]:
            with named(f"{root}/{name}", "written"):
                store.put_file(str(path), f"{root}/{name}")
            sent.append(name)
    if here != there:
        with named(f"{root}/{INDEX}", "written"):
            store.pipe_file(f"{root}/{INDEX}", json.dumps(here, indent=1).encode())
    if last and _read(store, f"{root}/{MANIFEST}") != last:
        with named(f"{root}/{MANIFEST}", "written"):
            store.pipe_file(f"{root}/{MANIFEST}", last)
        sent.append(MANIFEST)
    for name in sorted(there.keys() - here.keys()):
        with named(f"{root}/{name}", "removed"):
            if store.exists(f"{root}/{name}"):
                store.rm_file(f"{root}/{name}")
    return sent


def _fetch(store: fsspec.AbstractFileSystem, url: str, path: Path) -> None:
    with atomic_path(path) as temporary, named(url, "read"), store.open(url, "rb") as source, temporary.open("wb") as target:
        shutil.copyfileobj(source, target, PIECE)


def pull(url: str, run_folder: Path, figures_folder: Path) -> list[str]:
    """Bring the run of this name back from `<url>/<name>/` and return the names of what came; files that are the same stay.

    A file that is here and not in the store stays, too. The manifest comes last. Raises `StorageError` where the store has no
    such run or a name in it leads out of the run's folders.
    """
    store, root = open_store(url), f"{url.rstrip('/')}/{run_folder.name}"
    index: dict[str, str] = json.loads(_read(store, f"{root}/{INDEX}") or "{}")
    manifest, came = _read(store, f"{root}/{MANIFEST}"), []
    if not index and not manifest:
        raise NoSuchRun(f"{shown(root)} holds no run: check the store and the run's name")
    for name, expected in index.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or "\\" in name:
            raise StorageError(f"{shown(root)}: the name {name!r} leads out of the run's folder")
        path = figures_folder / inside.relative_to("figures") if inside.parts[0] == "figures" else run_folder / inside
        if not path.is_file() or _hash(path) != expected:
            _fetch(store, f"{root}/{name}", path)
            came.append(name)
    local = run_folder / MANIFEST
    if manifest and not (local.is_file() and local.read_bytes() == manifest):
        with atomic_path(local) as temporary:
            temporary.write_bytes(manifest)
        came.append(MANIFEST)
    return came


def localise(value: Any, cache_dir: str | Path = ".cache") -> Any:
    """A parameter with every URL in it replaced by the path of a file of this machine; anything else comes back as it is.

    value: a path, a list of them, or None. An object is fetched to `<cache_dir>/inputs/` once for each version of it, by its
    ETag or time of change; one whose server tells neither is fetched each time. The file keeps its name. Raises `StorageError`.
    """
    if isinstance(value, (list, tuple)):
        return [localise(one, cache_dir) for one in value]
    if not is_url(value):
        return value
    store = open_store(value)
    with named(value, "read"):
        store.invalidate_cache()  # another process may have written
        about = store.info(value)
    if about.get("type") == "directory":
        raise StorageError(f"{shown(value)} is a folder: name its files, as a list")
    version = [str(about[name]) for name in (*_VERSION, "size") if about.get(name)]
    key = hashlib.sha256("\0".join([value, *version]).encode()).hexdigest()[:16]
    path = Path(cache_dir) / "inputs" / key / PurePosixPath(shown(value)).name
    if not path.is_file() or not any(about.get(name) for name in _VERSION):
        _fetch(store, value, path)
    return str(path)
