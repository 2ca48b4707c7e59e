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
import hashlib
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultralink_nb.claims import Claims
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


class LedgerError(KitError, RuntimeError):
    """The ledger cannot be opened, read or written; nothing is asked of a model then."""


def request_key(model: str, request: "ChatRequest") -> str:
    """SHA-256 of all that decides an answer; `request.about` only describes the request and does not count."""
    asked = [model, list(request.messages), request.temperature, request.max_tokens, request.seed, request.prompt_version]
    schema = getattr(request, "schema", None)
    if schema is not None:  # without one the key is what it was before there were schemas
        asked.append(schema)
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _row(key: str, model: str, request: "ChatRequest", outcome: "Completion | Exception", cause: str = "") -> tuple:
    row = {name: request.about.get(name) for name in ("task", "subject", "language", "turn")}
    row |= {"key": key, "model": model, "prompt_version": request.prompt_version, "temperature": request.temperature,
            "max_tokens": request.max_tokens, "seed": request.seed, "recorded_at": time.time()}
    if isinstance(outcome, Exception):
        cause = cause or getattr(outcome, "cause", type(outcome).__name__)
        row |= {"status": "failed", "cause": cause, "reason": str(outcome)}
    else:
        row |= {"status": "done", "text": outcome.text, "finish_reason": outcome.finish_reason, "answered_by": outcome.model,
                "prompt_tokens": outcome.prompt_tokens, "completion_tokens": outcome.completion_tokens,
                "seconds": outcome.seconds}
    return tuple(_storable(row.get(name)) for name in _COLUMNS)


def _storable(value: Any) -> Any:
    """A value as SQLite can hold it, whatever a server sent: one row must not take down those it is committed with."""
    if value is None or isinstance(value, float) or isinstance(value, int) and abs(value) < 2**63:
        return value
    return str(value).encode("utf-8", "replace").decode()  # half a surrogate pair becomes a question mark


class Ledger:
    """The ledger in one SQLite file, made where it is missing; several processes, threads and event loops may share it.

    Raises `LedgerError` naming the file and what to do. A ledger of an earlier version of the kit is brought up to date.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock = threading.Lock()  # of what follows; never held while the disk is waited for
        self._waiting: list[tuple[tuple, Future[None]]] = []
        self._reused: Counter[tuple[str, str]] = Counter()
        self._reuses: Counter[tuple[str, str, str]] = Counter()  # not yet written
        with self._clear_errors("open"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._written = self._connect()
            self._prepare()
            self._read = self._connect()
            self._claims = Claims(f"{self.path}.claims")
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

    def claimed(self, key: str) -> AbstractAsyncContextManager[None]:
        """Alone with a request among all processes, threads and ledgers on this file: another one that wants it waits.

        Whoever gets in must `find` again before asking. A claim ends with its process, however that ends.
        """
        return self._claims.held(key)

    def record(self, key: str, model: str, request: "ChatRequest", outcome: "Completion | Exception") -> None:
        """Commit a completion, or the error by which a request failed for good: its `cause` is what failures are counted by.

        When this returns, it survives a kill of the process and a loss of power. What failed is asked again when it comes again.
        """
        self._submit(_row(key, model, request, outcome)).result()

    async def record_async(self, key: str, model: str, request: "ChatRequest", outcome: "Completion | Exception") -> None:
        """`record` for an event loop: the loop goes on, and outcomes that arrive meanwhile share one commit.

        When the await ends, the outcome is on disk; it gets there also where the caller is cancelled.
        """
        await asyncio.shield(asyncio.wrap_future(self._submit(_row(key, model, request, outcome))))

    def record_failure(self, key: str, model: str, request: "ChatRequest", cause: str) -> None:
        """Commit that a request failed for good, and why."""
        self._submit(_row(key, model, request, Exception(cause), cause)).result()

    def record_many(self, outcomes: Iterable[tuple[str, str, "ChatRequest", "Completion | Exception"]]) -> None:
        """Commit many outcomes (key, model, request, completion or error) in one transaction: all or, where it raises, none."""
        self._in_writer(self._commit, [_row(*outcome) for outcome in outcomes]).result()

    def _in_writer(self, work: Callable[..., None], *arguments: Any) -> "Future[None]":
        try:
            return self._writer.submit(work, *arguments)
        except RuntimeError:
            raise LedgerError(f"the ledger of completions {self.path} is closed: open it again") from None

    def _submit(self, row: tuple) -> "Future[None]":
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append((row, future))
        self._in_writer(self._flush)
        return future

    def _flush(self) -> None:
        """Commit all that waits, together."""
        with self._lock:
            batch, self._waiting = self._waiting, []
            if not batch and not self._reuses:
                return
        try:
            self._commit([row for row, _ in batch])
        except BaseException as error:  # whatever it is, those that wait must hear of it
            for _, future in batch:
                future.set_exception(error)
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

    def _rows(self, select: str, *values: Any) -> list[dict[str, Any]]:
        with self._clear_errors("read"), self._lock:
            cursor = self._read.execute(select, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def summary(self, since: float = 0.0) -> list[dict[str, Any]]:
        """One row a model and task: requests answered, failures, tokens, seconds, and `reused`, the answers that this session
        took from the ledger and did not ask for again. since: Unix seconds of the first row that counts."""
        rows = self._rows(
            "SELECT model, task, SUM(status = 'done') AS answered, SUM(status = 'failed') AS failed, "
            "TOTAL(prompt_tokens) AS prompt_tokens, TOTAL(completion_tokens) AS completion_tokens, TOTAL(seconds) AS seconds "
            "FROM completions WHERE recorded_at >= ? GROUP BY model, task ORDER BY model, task", since
        )
        return [
            {"model": row["model"], "task": row["task"], "answered": row["answered"],
             "reused": self._reused[row["model"], row["task"] or ""], "failed": row["failed"],
             "prompt_tokens": int(row["prompt_tokens"]), "completion_tokens": int(row["completion_tokens"]),
             "seconds": row["seconds"]}
            for row in rows
        ]

    def reuses(self, since: float = 0.0) -> list[dict[str, Any]]:
        """One row a model and task: answers that any session took from the ledger since that day (UTC), and their tokens.

        A session writes its counts down by the hundred and when it closes the ledger: what a kill took is not in them.
        """
        return self._rows(
            "SELECT model, task, SUM(answers) AS answers, SUM(prompt_tokens) AS prompt_tokens, SUM(completion_tokens) AS "
            "completion_tokens FROM reuses WHERE day >= ? GROUP BY model, task ORDER BY model, task", int(since // 86400)
        )

    def span(self, since: float = 0.0) -> tuple[float, float] | None:
        """When the first and the last row were recorded, in Unix seconds; None where there is no row."""
        (row,) = self._rows("SELECT MIN(recorded_at) AS first, MAX(recorded_at) AS last FROM completions "
                            "WHERE recorded_at >= ?", since)
        return None if row["first"] is None else (row["first"], row["last"])

    def causes(self, since: float = 0.0) -> list[dict[str, Any]]:
        """Requests that have failed and have no answer yet, by model, task and cause, the most frequent first."""
        return self._rows(
            "SELECT model, task, cause, COUNT(*) AS requests FROM completions WHERE status = 'failed' AND recorded_at >= ? "
            "GROUP BY model, task, cause ORDER BY requests DESC, model, task, cause", since
        )

    def failures(self, limit: int = 20, since: float = 0.0) -> list[dict[str, Any]]:
        """The latest failures: model, task, subject, language, turn, cause, reason and recorded_at (Unix seconds)."""
        return self._rows(
            "SELECT model, task, subject, language, turn, cause, reason, recorded_at FROM completions "
            "WHERE status = 'failed' AND recorded_at >= ? ORDER BY recorded_at DESC LIMIT ?", since, limit
        )

    def answers(self, model: str, limit: int) -> Iterator[dict[str, Any]]:
        """The latest answers of a model, the newest first: task, language, text, prompt_tokens, completion_tokens."""
        yield from self._pages("task, language, text, prompt_tokens, completion_tokens", "model = ? AND status = 'done'", model,
                               limit=limit, newest_first=True)

    def rows(self, since: float = 0.0) -> Iterator[dict[str, Any]]:
        """Every row with all its columns, in the order of their first recording, read as they are needed."""
        yield from self._pages(", ".join(_COLUMNS), "recorded_at >= ?", since)

    def _pages(self, columns: str, where: str, value: Any, *, limit: int = -1,
               newest_first: bool = False) -> Iterator[dict[str, Any]]:
        """Rows page by page: no open cursor keeps the write-ahead log from being folded in."""
        after, order = ("<", "DESC") if newest_first else (">", "ASC")
        place = 2**62 if newest_first else -1
        while limit:
            size = min(500, limit) if limit > 0 else 500
            page = self._rows(f"SELECT rowid AS place, {columns} FROM completions WHERE rowid {after} ? AND {where} "
                              f"ORDER BY rowid {order} LIMIT {size}", place, value)
            for row in page:
                place = row.pop("place")
                yield row
            limit -= len(page) if limit > 0 else 0
            if len(page) < size:
                return

    def close(self) -> None:
        """Commit what waits and close the file; the write-ahead log is folded into it."""
        try:
            self._in_writer(self._flush).result()
        except LedgerError:
            pass  # closed already
        self._writer.shutdown()
        with self._lock:
            self._claims.close()
            self._read.close()
            self._written.close()


def open_ledger(cache_dir: str | Path) -> Ledger:
    """The ledger in a cache folder, `<cache_dir>/ledger.sqlite`."""
    return Ledger(Path(cache_dir) / "ledger.sqlite")
