"""Plain papermill reads and writes notebooks in object storage: the entry points `papermill.io` of the package.

Papermill loads this module while it is itself being loaded, so nothing here imports papermill where obstore is installed.
"""

import importlib
import importlib.util

from ultralink_nb.storage import named, open_store, shown


class FsspecHandler:
    """Papermill's way to read and write notebooks at any URL that `storage.py` opens."""

    @classmethod
    def read(cls, path: str) -> str:
        with named(path, "read"):
            return open_store(path).cat_file(path).decode()

    @classmethod
    def write(cls, buf: str, path: str) -> None:
        with named(path, "written"):
            open_store(path).pipe_file(path, buf.encode())

    @classmethod
    def listdir(cls, path: str) -> list[str]:
        with named(path, "read"):
            return open_store(path).ls(path, detail=False)

    @classmethod
    def pretty_path(cls, path: str) -> str:
        return shown(path)


def _papermills_own(handler: str) -> object:
    return getattr(importlib.import_module("papermill.iorw"), handler)()


_HAS_OBSTORE = importlib.util.find_spec("obstore") is not None  # without it papermill's own handlers stay as they are
s3 = FsspecHandler() if _HAS_OBSTORE else _papermills_own("S3Handler")
gs = FsspecHandler() if _HAS_OBSTORE else _papermills_own("GCSHandler")
other = FsspecHandler()
