"""What a record is: the schemas of every table that passes between notebooks, and how they are read and written.

A table is a Parquet file in a run's `data/` folder. Writing is atomic: a file is there whole or not at all. A row that does
not fit raises `BadRecord`, which names the file, the row and the column.
"""

import glob
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import dataset
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ultralink_nb.errors import KitError
from ultralink_nb.languages import get_language

TEXT, INT, REAL = pa.string(), pa.int64(), pa.float32()

MESSAGE = pa.struct([("role", TEXT), ("content", TEXT)])
SOURCE = pa.struct([(name, TEXT) for name in ("dataset", "parent_id", "document_id", "url", "license")])
GENERATOR = pa.struct([("model", TEXT), ("prompt_version", TEXT), ("seed", INT)])


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, type_) for name, type_ in columns.items()])


DOCUMENTS = _schema(
    id=TEXT, language=TEXT, title=TEXT, text=TEXT, url=TEXT, revision=TEXT, license=TEXT, source=TEXT, n_tokens=INT
)
PASSAGES = _schema(id=TEXT, document_id=TEXT, language=TEXT, title=TEXT, text=TEXT, n_tokens=INT)
SAMPLES = _schema(
    id=TEXT, language=TEXT, kind=TEXT, messages=pa.list_(MESSAGE), source=SOURCE, generator=GENERATOR, extra=TEXT
)
REJECTED = _schema(id=TEXT, language=TEXT, stage=TEXT, gate=TEXT, reason=TEXT, record=TEXT)
PAIRS = _schema(
    left_id=TEXT, right_id=TEXT, left_language=TEXT, right_language=TEXT, cosine=REAL, margin=REAL, probability=REAL
)
DUPLICATES = _schema(id=TEXT, language=TEXT, duplicate_of=TEXT, how=TEXT, similarity=REAL)
GROUPS = _schema(id=TEXT, group=INT, size=INT, representative=TEXT, duplicate_of=TEXT)
DROPPED = pa.schema([*SAMPLES, *_schema(kept_by=TEXT, probability=REAL, policy=TEXT, reason=TEXT, position=INT)])


_MISSING = "{} does not exist: run the notebook that writes it first, or name another file"


class BadRecord(KitError, ValueError):
    """A row that does not fit its table; the message names file, row and column."""


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class Source(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    dataset: str | None = None
    parent_id: str | None = None
    document_id: str | None = None
    url: str | None = None
    license: str | None = None


class Generator(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    model: str | None = None
    prompt_version: str | None = None
    seed: int | None = None


class Sample(BaseModel):
    """An SFT sample: a question alone or a dialogue, in one language.

    `kind` is open; the kit itself writes `chat_specific`, `chat_agnostic`, `math` and `code`. `extra` keeps, as JSON, the
    columns of a user's file that this schema has no name for.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    id: str = Field(min_length=1)
    language: str
    kind: str = "chat"
    messages: list[Message] = Field(min_length=1)
    source: Source = Source()
    generator: Generator = Generator()
    extra: str | None = None

    @field_validator("language")
    @classmethod
    def _known(cls, code: str) -> str:
        return get_language(code).code

    @field_validator("messages")
    @classmethod
    def _asks_something(cls, messages: list[Message]) -> list[Message]:
        if not any(message.role == "user" and message.content.strip() for message in messages):
            raise ValueError("no message of the user with a text")
        return messages


def parse_sample(row: Mapping[str, Any], place: str = "sample") -> Sample:
    """A `Sample` from a row of a user's file, columns that the schema does not name kept in `extra`.

    Raises `BadRecord` naming `place` (file and row) and the column.
    """
    known = {key: value for key, value in row.items() if key in Sample.model_fields and value is not None}
    unknown = {key: value for key, value in row.items() if key not in Sample.model_fields}
    if unknown:
        known["extra"] = json.dumps({**_extra(known.get("extra")), **unknown}, ensure_ascii=False, default=str)
    try:
        return Sample.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        column = ".".join(str(part) for part in first["loc"]) or "row"
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing" and len(first["loc"]) == 1:
            reason += f", and the row has {', '.join(map(str, row)) or 'no column'}"
            reason += "; SFT data in other layouts is read by notebook 03 (sft_path)" * (column == "messages")
        raise BadRecord(f"{place}, column {column}: {reason}") from None


def _extra(value: Any) -> dict[str, Any]:
    """What an `extra` column holds already: the JSON object that the kit wrote there, or a user's own column of that name."""
    try:
        held = json.loads(value) if value else {}
    except (TypeError, ValueError):
        held = None
    return held if isinstance(held, dict) else {"extra": value}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there takes its place on success and vanishes on an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_table(path: str | Path, rows: Iterable[Mapping[str, Any] | BaseModel], schema: pa.Schema) -> int:
    """Write rows to a Parquet file, a thousand at a time, and return how many there were.

    Raises `BadRecord` where a value does not fit its column.
    """
    count = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        batch: list[dict] = []

        def flush() -> None:
            nonlocal count
            for name in schema.names:
                try:
                    pa.array([row.get(name) for row in batch], schema.field(name).type)
                except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
                    where = f"rows {count + 1} to {count + len(batch)}"
                    raise BadRecord(f"{path}, {where}, column {name}: {error}") from None
            writer.write_table(pa.Table.from_pylist(batch, schema))
            count += len(batch)
            batch.clear()

        for row in rows:
            batch.append(row.model_dump() if isinstance(row, BaseModel) else dict(row))
            if len(batch) == 1000:
                flush()
        flush()
    return count


def write_frame(path: str | Path, frame: pd.DataFrame, schema: pa.Schema) -> int:
    """Write a data frame whose columns are those of `schema`; for tables of millions of rows. Returns the number of rows."""
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pandas(frame[schema.names], schema, preserve_index=False), temporary, compression="zstd")
    return len(frame)


def write_tables(path: str | Path, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write Arrow tables whose columns are those of `schema`, one after the other. Returns the number of rows."""
    count = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in tables:
            if len(table):
                writer.write_table(table.select(schema.names).cast(schema))
                count += len(table)
    return count


def iter_table(path: str | Path, schema: pa.Schema) -> Iterator[dict]:
    """The rows of a Parquet table, a thousand in memory at a time. Errors as in `read_table`."""
    if not Path(path).is_file():
        raise FileNotFoundError(_MISSING.format(path))
    try:
        file = pq.ParquetFile(path)
        missing = [name for name in schema.names if name not in file.schema_arrow.names]
        if missing:
            raise BadRecord(f"{path}: column {missing[0]} is missing (found {', '.join(file.schema_arrow.names)})")
        for batch in file.iter_batches(1000):
            yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadRecord(f"{path} is not a readable Parquet file: {error}") from None


def read_table(path: str | Path, schema: pa.Schema) -> list[dict]:
    """The rows of a Parquet table, checked for the columns of `schema` (further columns are kept)."""
    if not Path(path).is_file():
        raise FileNotFoundError(_MISSING.format(path))
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadRecord(f"{path} is not a readable Parquet file: {error}") from None
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise BadRecord(f"{path}: column {missing[0]} is missing (found {', '.join(table.column_names)})")
    return table.to_pylist()


def columns(schema: pa.Schema, *names: str) -> pa.Schema:
    """Some columns of a schema."""
    return pa.schema([schema.field(name) for name in names])


def read_frame(path: str | Path, schema: pa.Schema, ids: Sequence[str] | None = None) -> pd.DataFrame:
    """The columns of `schema` of a Parquet table as a data frame; for tables of millions of rows.

    ids: only rows with these ids, in the table's order; the rest is read a row group at a time. Errors as in `read_table`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(_MISSING.format(path))
    try:
        held = pq.read_schema(path).names
        missing = [name for name in schema.names if name not in held]
        if missing:
            raise BadRecord(f"{path}: column {missing[0]} is missing (found {', '.join(held)})")
        if ids is None:
            return pq.read_table(path, columns=schema.names).to_pandas()
        wanted = pc.field("id").isin(pa.array(ids, pa.string()))
        return dataset.dataset(path).to_table(columns=schema.names, filter=wanted, fragment_readahead=1).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise BadRecord(f"{path} is not a readable Parquet file: {error}") from None


def find_files(pattern: str | Path, suffixes: Sequence[str]) -> list[Path]:
    """Files that a parameter names: one file, a folder (its files with these suffixes), or a glob; sorted, never empty."""
    path = Path(pattern)
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.is_file() and file.name.endswith(tuple(suffixes))]
    else:
        named = [path] if path.is_file() else map(Path, glob.glob(str(pattern), recursive=True))
        found = [file for file in named if file.is_file()]
    if not found and (path.is_dir() or glob.has_magic(str(pattern))):
        raise FileNotFoundError(f"{pattern}: no file there with a name in {' '.join(suffixes)}")
    if not found:
        raise FileNotFoundError(_MISSING.format(path))
    return sorted(found)


def _decoded(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text file (plain, gz or bz2 by its name) with their numbers."""
    import bz2
    import gzip

    opener = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
    number = 0
    try:
        with opener(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise BadRecord(f"{path}, line {number}: not UTF-8 ({error.reason})") from None
    except (EOFError, OSError, zlib.error) as error:
        raise BadRecord(f"{path}, after line {number}: the file is cut off or damaged ({error})") from None


def read_rows(path: str | Path) -> Iterator[tuple[str, dict]]:
    """Rows of a JSONL, JSON (a list) or Parquet file, each with its place ("file, line N") for error messages."""
    path = Path(path)
    name = path.name.removesuffix(".gz").removesuffix(".bz2")
    if name.endswith(".parquet"):
        number = 0
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise BadRecord(f"{path} is not a readable Parquet file: {error}") from None
        for batch in file.iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
        return
    if name.endswith(".json"):
        text = "".join(line for _, line in _decoded(path))
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadRecord(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None
        if not isinstance(rows, list):
            raise BadRecord(f"{path}: a JSON file of samples is a list of rows, this is a {type(rows).__name__}")
        numbered: Iterable[tuple[str, Any]] = ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))
    else:
        numbered = _json_lines(path)
    for place, row in numbered:
        if not isinstance(row, dict):
            raise BadRecord(f"{place}: a row is an object with named columns, this is a {type(row).__name__}")
        yield place, row


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in _decoded(path):
        if line.strip():
            try:
                yield f"{path}, line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadRecord(f"{path}, line {number}: not valid JSON ({getattr(error, 'msg', error)})") from None


SAMPLE_SUFFIXES = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".jsonl.bz2")


def read_samples(
    pattern: str | Path | Sequence[str | Path], languages: Sequence[str] = (), name_source: bool = False
) -> list[dict]:
    """SFT samples of one or more files as dictionaries in the shape of `SAMPLES`.

    pattern: a file, a folder or a glob, or a list of them. languages: if given, any other language is an error. name_source: the
    file's name becomes the source of samples that state none.
    Raises `BadRecord` for the first row that does not fit, an id given twice or a language that the run does not have.
    """
    patterns = [pattern] if isinstance(pattern, (str, Path)) else list(pattern)
    samples: list[dict] = []
    seen: dict[str, str] = {}
    for file in (file for one in patterns for file in find_files(one, SAMPLE_SUFFIXES)):
        for place, row in read_rows(file):
            sample = parse_sample(row, place)
            if sample.id in seen:
                raise BadRecord(f"{place}, column id: {sample.id!r} stands already in {seen[sample.id]}")
            if languages and sample.language not in languages:
                raise BadRecord(
                    f"{place}, column language: {sample.language!r} is not one of this run's languages "
                    f"({', '.join(languages)}): add it to the parameter languages"
                )
            if name_source:
                sample.source.dataset = sample.source.dataset or file.name
            seen[sample.id] = place
            samples.append(sample.model_dump())
    return samples


def column_of(samples: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """The values, as text, of a column of the user's own file (kept in `extra`); a sample's id where it has none.

    Raises `BadRecord` if no sample has the column.
    """
    held = [_extra(sample["extra"]).get(name) for sample in samples]
    if all(value is None for value in held):
        raise BadRecord(f"no sample has a column {name}: look at the names in your file")
    return [sample["id"] if value is None else str(value) for sample, value in zip(samples, held, strict=True)]


def rejected(row_id: str, language: str, stage: str, gate: str, reason: str, record: Any) -> dict:
    """A row for a rejected table. `gate` is a short name to count by; `reason` is for a person; `record` is kept as JSON."""
    return {
        "id": row_id, "language": language, "stage": stage, "gate": gate, "reason": reason,
        "record": json.dumps(record, ensure_ascii=False, default=str),
    }
