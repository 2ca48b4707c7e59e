"""Every answer that was paid for, on disk before it is used: one SQLite file, one row a request.

A request is known by a hash of what the server saw (model, messages, sampling, seed, prompt version, schema), so a run that was
killed asks again only for what was in flight. A failure is a row too, with its cause; the next run asks it again. The replay
model's recordings are on disk already and never come here.

How a model uses it, so that nothing is asked twice, by however many processes at once:

    if found := ledger.find(key): ...                     # answered before
    async with ledger.claimed(key):                       # alone with this request among all processes
        if found := ledger.find(key): ...                 # another one answered it meanwhile
        await ledger.record_async(key, name, request, await model.complete(request))

Answers that arrive together are committed together (group commit): one thread writes, and while it waits for the disk the
next batch gathers. SQLite runs with a write-ahead log (WAL) and `synchronous = FULL`: a commit is an fsync, and what was
committed survives a kill and a loss of power. Readers never wait for the writer.
"""

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import sqlite3
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultralink_nb.errors import KitError

if TYPE_CHECKING:
    from ultralink_nb.chat import ChatRequest, Completion

SCHEMA_VERSION = 2
_COLUMNS = (
    "key", "model", "task", "subject", "language", "turn", "prompt_version", "temperature", "max_tokens", "seed", "status",
    "cause", "text", "finish_reason", "answered_by", "prompt_tokens", "completion_tokens", "seconds", "recorded_at", "reason",
)
_TABLES = """
CREATE TABLE IF NOT EXISTS completions (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, task TEXT, subject TEXT, language TEXT, turn INTEGER,
    prompt_version TEXT, temperature REAL, max_tokens INTEGER, seed INTEGER,
    status TEXT NOT NULL CHECK (status IN ('done', 'failed')), cause TEXT, text TEXT, finish_reason TEXT, answered_by TEXT,
    prompt_tokens INTEGER, completion_tokens INTEGER, seconds REAL, recorded_at REAL NOT NULL, reason TEXT
);
CREATE TABLE IF NOT EXISTS reuses (
    day INTEGER, model TEXT, task TEXT, answers INTEGER, prompt_tokens INTEGER, completion_tokens INTEGER,
    PRIMARY KEY (day, model, task)
)
"""
_FROM_1 = """
ALTER TABLE completions ADD COLUMN reason TEXT;
UPDATE completions SET reason = cause, cause = 'not named' WHERE status = 'failed'
"""
# A completion is never overwritten: neither by a failure nor by a second process that asked the same at the same time.
_RECORD = (
    f"INSERT INTO completions ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])} "
    "WHERE completions.status = 'failed'"
)
_REUSE = (
    "INSERT INTO reuses VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET answers = answers + excluded.answers, "
    "prompt_tokens = prompt_tokens + excluded.prompt_tokens, completion_tokens = completion_tokens + excluded.completion_tokens"
)
_REUSES_AT_ONCE = 100  # answers taken from the ledger are counted in memory and written this many at a time
_POLL = 0.05  # seconds between two looks at a request that another process is asking


class LedgerError(KitError, RuntimeError):
    """The ledger cannot be opened, read or written; nothing is asked of a model then."""


def request_key(model: str, request: "ChatRequest") -> str:
    """SHA-256 of all that decides an answer; `request.about` only describes the request and does not count."""
    asked = [model, list(request.messages), request.temperature, request.max_tokens, request.seed, request.prompt_version]
    schema = getattr(request, "schema", None)
    if schema is not None:  # without one the key is what it was before there were schemas
        asked.append(schema)
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def row_of(key: str, model: str, request: "ChatRequest", **outcome: Any) -> tuple:
    """A row for `Ledger.record_many`. outcome: `status` (done or failed) and further columns of the table."""
    about = {name: request.about.get(name) for name in ("task", "subject", "language", "turn")}
    row = {
        "key": key, "model": model, **about, "prompt_version": request.prompt_version, "temperature": request.temperature,
        "max_tokens": request.max_tokens, "seed": request.seed, "recorded_at": time.time(), **outcome,
    }
    values = (row.get(name) for name in _COLUMNS)  # half a surrogate pair is no text that a file can hold
    return tuple(value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in values)


def completion_row(key: str, model: str, request: "ChatRequest", completion: "Completion") -> tuple:
    """The row of an answer, for `Ledger.record_many`."""
    return row_of(key, model, request, status="done", text=completion.text, finish_reason=completion.finish_reason,
                  answered_by=completion.model, prompt_tokens=completion.prompt_tokens,
                  completion_tokens=completion.completion_tokens, seconds=completion.seconds)


class Ledger:
    """The ledger in one SQLite file, made where it is missing; several processes, threads and event loops may share it.

    Raises `LedgerError` naming the file and what to do. A ledger of an earlier version of the kit is brought up to date.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock = threading.Lock()  # of what follows; never held while the disk is waited for
        self._waiting: list[tuple[tuple, Future[None]]] = []
        self._claimed: set[str] = set()
        self._reused: Counter[tuple[str, str]] = Counter()
        self._reuses: Counter[tuple[str, str, str]] = Counter()  # not yet written
        with self._clear_errors("open"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._written = self._connect()
            self._prepare()
            self._read = self._connect()
            self._claims = open(f"{self.path}.claims", "ab")  # noqa: SIM115 (open as long as the ledger is)
        self._writer = ThreadPoolExecutor(1, "ledger")

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        return db

    def _prepare(self) -> None:
        if self._written.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
            return
        with self._transaction():  # two processes that start at once make the tables one after the other
            version = self._written.execute("PRAGMA user_version").fetchone()[0]
            if version not in range(SCHEMA_VERSION + 1):
                raise LedgerError(
                    f"{self.path} was written by a later version of the kit (schema {version}, this one has {SCHEMA_VERSION}): "
                    "name another cache_dir, or move the file away"
                )
            for statement in [*(_FROM_1.split(";") if version == 1 else []), *_TABLES.split(";")]:
                self._written.execute(statement)
            self._written.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._written.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._written.execute("COMMIT")
        except BaseException:
            if self._written.in_transaction:
                self._written.execute("ROLLBACK")
            raise

    @contextmanager
    def _clear_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
            raise LedgerError(
                f"cannot {what} the ledger of completions {self.path}: {error}; free space, mend the file's permissions or name "
                "another cache_dir, then run again (what was recorded is not lost)"
            ) from None

    def find(self, key: str, *, reuse: bool = True) -> dict[str, Any] | None:
        """The completion recorded for a request as the fields of a `Completion` (but `cached`), None where there is none.

        reuse: count it among the answers that were not asked for again; False just to look.
        """
        with self._clear_errors("read"), self._lock:
            row = self._read.execute(
                "SELECT text, answered_by, finish_reason, prompt_tokens, completion_tokens, seconds, model, task "
                "FROM completions WHERE key = ? AND status = 'done'", (key,)
            ).fetchone()
            if row is None:
                return None
            if reuse:
                model, task = row[6], row[7] or ""
                self._reused[model, task] += 1
                self._reuses.update({(model, task, "answers"): 1, (model, task, "prompt"): row[3] or 0,
                                     (model, task, "completion"): row[4] or 0})
                if self._reused.total() % _REUSES_AT_ONCE == 0:
                    self._writer.submit(self._flush)
        return dict(zip(("text", "model", "finish_reason", "prompt_tokens", "completion_tokens", "seconds"), row, strict=False))

    @asynccontextmanager
    async def claimed(self, key: str) -> AsyncIterator[None]:
        """Alone with a request among all processes, threads and ledgers on this file: another one that wants it waits here.

        Whoever gets in must `find` again before asking. A claim ends with its process, however that ends.
        """
        while not self._claim(key):
            await asyncio.sleep(_POLL)
        try:
            yield
        finally:
            self._release(key)

    def _claim(self, key: str) -> bool:
        with self._lock:
            if key in self._claimed:
                return False
            try:
                _lock_byte(self._claims.fileno(), key, fcntl.F_WRLCK)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return False  # any other error: a file system without locks, where processes are not kept apart
            self._claimed.add(key)
            return True

    def _release(self, key: str) -> None:
        with self._lock:
            self._claimed.discard(key)
            if not self._claims.closed:
                try:
                    _lock_byte(self._claims.fileno(), key, fcntl.F_UNLCK)
                except OSError:
                    pass

    def record(self, key: str, model: str, request: "ChatRequest", completion: "Completion") -> None:
        """Commit a completion. When this returns, it survives a kill of the process and a loss of power."""
        self._submit(completion_row(key, model, request, completion)).result()

    async def record_async(self, key: str, model: str, request: "ChatRequest", completion: "Completion") -> None:
        """`record` for an event loop: the loop goes on, and completions that arrive meanwhile share one commit.

        When the await ends, the completion is on disk; it gets there also where the caller is cancelled.
        """
        await self._submitted(completion_row(key, model, request, completion))

    def record_failure(self, key: str, model: str, request: "ChatRequest", cause: str, reason: str = "") -> None:
        """Commit that a request failed for good: a short `cause` to count by, and the `reason`, a sentence.

        It will be asked again when it comes again."""
        self._submit(row_of(key, model, request, status="failed", cause=cause, reason=reason or cause)).result()

    async def record_failure_async(self, key: str, model: str, request: "ChatRequest", cause: str, reason: str = "") -> None:
        """`record_failure` for an event loop."""
        await self._submitted(row_of(key, model, request, status="failed", cause=cause, reason=reason or cause))

    def record_many(self, rows: Sequence[tuple]) -> None:
        """Commit rows of `completion_row` or `row_of` in one transaction: all of them or, where it raises, none."""
        self._commit(rows)

    def _submit(self, row: tuple) -> "Future[None]":
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append((row, future))
        try:
            self._writer.submit(self._flush)
        except RuntimeError:
            raise LedgerError(f"the ledger of completions {self.path} is closed: open it again") from None
        return future

    async def _submitted(self, row: tuple) -> None:
        await asyncio.shield(asyncio.wrap_future(self._submit(row)))

    def _flush(self) -> None:
        """In the writer's thread: commit all that waits, together; where that fails, each alone, so that no row takes others along."""
        with self._lock:
            batch, self._waiting = self._waiting, []
            if not batch and not self._reuses:
                return
        try:
            self._commit([row for row, _ in batch])
        except LedgerError as error:
            for row, future in batch:
                try:
                    if len(batch) == 1:
                        raise error
                    self._commit([row])
                    future.set_result(None)
                except Exception as alone:  # whatever it is, the one that waits must hear of it
                    future.set_exception(alone)
        else:
            for _, future in batch:
                future.set_result(None)

    def _commit(self, rows: Sequence[tuple]) -> None:
        with self._lock:
            reuses, self._reuses = self._reuses, Counter()
        day = int(time.time() // 86400)
        counted = [(day, model, task, *(reuses[model, task, what] for what in ("answers", "prompt", "completion")))
                   for model, task in {(model, task) for model, task, _ in reuses}]
        with self._clear_errors("write"), self._transaction():
            self._written.executemany(_RECORD, rows)
            self._written.executemany(_REUSE, counted)
