"""Every answer that was paid for, on disk before it is used: one SQLite file, one row a request.

A request is known by a hash of what the server saw (model, messages, sampling, prompt version), so a run that was killed asks
again only for what was in flight. A failure is a row too, with its cause; the next run asks it again. The replay model's
recordings are on disk already and never come here.
"""

import hashlib
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultralink_nb.errors import KitError

if TYPE_CHECKING:
    from ultralink_nb.chat import ChatRequest, Completion

SCHEMA_VERSION = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS completions (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, task TEXT, subject TEXT, language TEXT, turn INTEGER,
    prompt_version TEXT, temperature REAL, max_tokens INTEGER, seed INTEGER,
    status TEXT NOT NULL CHECK (status IN ('done', 'failed')), cause TEXT, text TEXT, finish_reason TEXT, answered_by TEXT,
    prompt_tokens INTEGER, completion_tokens INTEGER, seconds REAL, recorded_at REAL NOT NULL
)
"""
_COLUMNS = (
    "key", "model", "task", "subject", "language", "turn", "prompt_version", "temperature", "max_tokens", "seed", "status",
    "cause", "text", "finish_reason", "answered_by", "prompt_tokens", "completion_tokens", "seconds", "recorded_at",
)
# A completion is never overwritten: neither by a failure nor by a second process that asked the same at the same time.
_RECORD = (
    f"INSERT INTO completions ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])} "
    "WHERE completions.status = 'failed'"
)


class LedgerError(KitError, RuntimeError):
    """The ledger cannot be opened, read or written; nothing is asked of a model then."""


def request_key(model: str, request: "ChatRequest") -> str:
    """SHA-256 of all that decides an answer; `request.about` only describes the request and does not count."""
    asked = [model, list(request.messages), request.temperature, request.max_tokens, request.seed, request.prompt_version]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


class Ledger:
    """The ledger in one SQLite file, made where it is missing; several processes and threads may share it.

    `summary()` tells what was asked and what it cost. Raises `LedgerError` naming the file and what to do.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock = threading.Lock()
        self._reused: Counter[tuple[str, str]] = Counter()
        with self._clear_errors("open"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA busy_timeout = 60000")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._create()

    def _create(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")  # two processes that start at once create the table one after the other
        try:
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA_VERSION):
                raise LedgerError(
                    f"{self.path} was written by another version of the kit (schema {version}, this one has {SCHEMA_VERSION}): "
                    "name another cache_dir, or move the file away"
                )
            self._db.execute(_TABLE)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        finally:
            self._db.execute("COMMIT")

    @contextmanager
    def _clear_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(
                f"cannot {what} the ledger of completions {self.path}: {error}; free space, mend the file's permissions or name "
                "another cache_dir, then run again (what was recorded is not lost)"
            ) from None

    def find(self, key: str) -> dict[str, Any] | None:
        """The completion recorded for a request as the fields of a `Completion` (but `cached`), None where there is none."""
        with self._clear_errors("read"), self._lock:
            row = self._db.execute(
                "SELECT text, answered_by, finish_reason, prompt_tokens, completion_tokens, seconds, model, task "
                "FROM completions WHERE key = ? AND status = 'done'", (key,)
            ).fetchone()
            if row is None:
                return None
            self._reused[row[6], row[7]] += 1
        return dict(zip(("text", "model", "finish_reason", "prompt_tokens", "completion_tokens", "seconds"), row, strict=False))

    def record(self, key: str, model: str, request: "ChatRequest", completion: "Completion") -> None:
        """Commit a completion. When this returns, it survives a kill of the process and a loss of power."""
        self._write(key, model, request, status="done", text=completion.text, finish_reason=completion.finish_reason,
                    answered_by=completion.model, prompt_tokens=completion.prompt_tokens,
                    completion_tokens=completion.completion_tokens, seconds=completion.seconds)

    def record_failure(self, key: str, model: str, request: "ChatRequest", cause: str) -> None:
        """Commit that a request failed for good, and why; it will be asked again when it comes again."""
        self._write(key, model, request, status="failed", cause=cause)

    def _write(self, key: str, model: str, request: "ChatRequest", **outcome: Any) -> None:
        about = {name: request.about.get(name) for name in ("task", "subject", "language", "turn")}
        row = {
            "key": key, "model": model, **about, "prompt_version": request.prompt_version, "temperature": request.temperature,
            "max_tokens": request.max_tokens, "seed": request.seed, "recorded_at": time.time(), **outcome,
        }
        with self._clear_errors("write"), self._lock:
            self._db.execute(_RECORD, tuple(row.get(name) for name in _COLUMNS))

    def summary(self) -> list[dict[str, Any]]:
        """One row a model and task: requests answered, failures, tokens, seconds, and `reused`, the answers that this session
        took from the ledger and did not ask for again."""
        with self._clear_errors("read"), self._lock:
            rows = self._db.execute(
                "SELECT model, task, SUM(status = 'done'), SUM(status = 'failed'), SUM(prompt_tokens), SUM(completion_tokens), "
                "SUM(seconds) FROM completions GROUP BY model, task ORDER BY model, task"
            ).fetchall()
        return [
            {"model": model, "task": task, "answered": done, "reused": self._reused[model, task], "failed": failed,
             "prompt_tokens": prompt or 0, "completion_tokens": completion or 0, "seconds": seconds or 0.0}
            for model, task, done, failed, prompt, completion, seconds in rows
        ]

    def failures(self, limit: int = 20) -> list[dict[str, Any]]:
        """The latest failures: model, task, subject, turn and cause."""
        with self._clear_errors("read"), self._lock:
            rows = self._db.execute(
                "SELECT model, task, subject, turn, cause FROM completions WHERE status = 'failed' "
                "ORDER BY recorded_at DESC LIMIT ?", (limit,)
            ).fetchall()
        return [dict(zip(("model", "task", "subject", "turn", "cause"), row, strict=True)) for row in rows]

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        with self._lock:
            self._db.close()


def open_ledger(cache_dir: str | Path) -> Ledger:
    """The ledger in a cache folder, `<cache_dir>/ledger.sqlite`."""
    return Ledger(Path(cache_dir) / "ledger.sqlite")
