"""The rows of files that hold documents, in order and in the memory of one batch, whatever the file's size.

Nothing is judged here but the file: a row that cannot be read comes out as the reason why, and a file that is cut off or damaged
raises `DumpError` after the rows before that place.
"""

import bz2
import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ultralink_nb.dumps import DumpError

Layout = Literal["mediawiki", "parquet", "jsonl", "doc", "csv", "txt"]
Row = tuple[str, dict[str, Any] | str]  # its place, and its columns, or why it has none

HUB = "hub:"
COLUMNS = ("id", "title", "url", "license", "language", "revision", "revid", "text")
BATCH = 64  # rows of Parquet at a time
LONGEST_FIELD = 1 << 28  # characters of a CSV field: a quote that never closes must not read on for ever
PACKED = re.compile(r"\.(gz|bz2)$", re.I)

_UNPACKING = (EOFError, OSError, zlib.error)  # what reading a damaged file raises
_BY_SUFFIX: dict[str, Layout] = {
    ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".txt": "txt",
}
_DOC = re.compile(
    r'<doc id="(?P<id>.*?)"(?: revid="(?P<revid>.*?)")? url="(?P<url>.*?)" title="(?P<title>.*?)"'
    r'(?: language="[^"]*" revision="(?P<revision>[^"]*)")?>'
)  # WikiExtractor does not escape a quote in a title


class HubName(str):
    """A data set on the Hugging Face hub that is streamed: `hub:wikimedia/wikipedia/20231101.fr`, the configuration last.

    A data set without configurations has one called `default`. A local folder with the hub's README may stand for the name.
    """

    @property
    def dataset(self) -> str:
        return self.removeprefix(HUB).rpartition("/")[0]

    @property
    def config(self) -> str:
        return self.rpartition("/")[2]


def layout_of(path: str | Path) -> Layout:
    """The layout of a file: XML by its name, others by how they begin, else by their names.

    Raises FileNotFoundError, and `DumpError` for a file of no known layout or in UTF-16.
    """
    path = Path(path)
    name = PACKED.sub("", path.name)
    if ".xml" in name:
        return "mediawiki"
    with _opened(path) as stream:
        try:
            head = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        except _UNPACKING as error:
            raise DumpError(f"{path}: {_damage(error)} at its beginning: fetch the file again") from None
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DumpError(f"{path} is UTF-16: save it as UTF-8")
    if head.startswith(b"PAR1"):
        return "parquet"
    if re.match(rb"(<\?xml[^>]*>\s*)?<mediawiki\b", head):
        return "mediawiki"
    if head.startswith(b"<doc "):
        return "doc"
    if layout := _BY_SUFFIX.get(Path(name).suffix.lower()):
        return layout
    if head.startswith(b"{") or name.startswith("wiki_"):
        return "jsonl"
    raise DumpError(f"{path}: unknown layout: give it the ending of what it is ({', '.join(_BY_SUFFIX)}, .xml)")


def rows_of(source: str | Path, start: int = 0) -> Iterator[Row]:
    """The rows of a file or a `HubName` from number `start` on, those before unparsed. Errors as in `corpora.read_articles`."""
    if str(source).startswith(HUB):
        return _hub_rows(HubName(source), start)
    layout = layout_of(source)
    if layout == "mediawiki":
        raise DumpError(f"{source} is MediaWiki XML: its pages are not clean text yet")
    return _READERS[layout](Path(source), start)


def _damage(error: Exception) -> str:
    return "the file ends too early" if isinstance(error, EOFError) else f"damaged data ({error})"


def _cut_off(path: Path, place: str, what: str) -> DumpError:
    return DumpError(f"{path}, after {place}: {what}: fetch the file again, or set accept_broken_dump to use what is whole")


def _opened(path: Path) -> BinaryIO:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic.startswith((b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")):
        raise DumpError(f"{path}: 7z, xz and zst are not read here: recompress it as bz2 or gz, or unpack it")
    return (bz2.open if magic.startswith(b"BZh") else gzip.open if magic.startswith(b"\x1f\x8b") else open)(path, "rb")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1; bytes that are not UTF-8 become surrogates, which `_article` refuses."""
    number = 0
    try:
        with _opened(path) as stream:
            for number, line in enumerate(stream, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
    except _UNPACKING as error:
        raise _cut_off(path, f"line {number:,}", _damage(error)) from None


def _json_rows(path: Path, start: int) -> Iterator[Row]:
    filled = ((number, line) for number, line in _lines(path) if line.strip())
    for number, line in islice(filled, start, None):
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield place, f"not valid JSON ({getattr(error, 'msg', error)})"
        else:
            yield place, row if isinstance(row, dict) else f"not an object with named columns but {type(row).__name__}"


def _doc_rows(path: Path, start: int) -> Iterator[Row]:
    for number, (first, *body), closed in islice(_elements(path), start, None):
        place, match = f"{path}, line {number}", _DOC.fullmatch(first)
        if not (match and closed):
            yield place, "<doc> without </doc>" if match else 'does not begin as <doc id="…" url="…" title="…">'
            continue
        row = match.groupdict()
        if body and body[0] == row["title"]:
            del body[0]
        yield place, {**row, "text": "\n".join(body)}


def _elements(path: Path) -> Iterator[tuple[int, list[str], bool]]:
    """What stands between one `<doc …>` or `</doc>` and the next: its line, its lines, whether it was closed."""
    begun, lines = 0, []
    for number, line in _lines(path):
        line = line.rstrip("\r\n")
        if line.startswith("<doc ") and lines:
            yield begun, lines, False
            lines = []
        if line == "</doc>" and lines:
            yield begun, lines, True
            lines = []
        elif lines or line.strip():
            begun = begun if lines else number
            lines.append(line)
    if lines:
        raise _cut_off(path, f"line {begun - 1:,}", "the file ends inside a document")


def _csv_rows(path: Path, start: int) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)  # the module knows only one limit for all
    lines = (line for _, line in _lines(path))
    first = next(lines, "")
    records = _records(csv.reader(chain([first], lines), delimiter=max(",;\t", key=first.count), strict=True))
    _, header = next(records, (1, []))
    if first and not (isinstance(header, list) and "text" in header):
        raise _no_text(path, header)
    for number, cells in islice(records, start, None):
        if isinstance(cells, list):
            fits = len(cells) == len(header)
            cells = dict(zip(header, cells, strict=True)) if fits else f"{len(cells)} fields, the header has {len(header)}"
        yield f"{path}, line {number}", cells


def _records(reader: Any) -> Iterator[tuple[int, list[str] | str]]:
    """Records of a CSV reader with the line each begins on, or what is wrong there; blank lines are none."""
    cells: list[str] | str | None = []
    while cells is not None:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            cells = f"not valid CSV ({error})"
        if cells:
            yield number, cells


def _no_text(path: Path, found: list[str] | str) -> DumpError:
    found = found if isinstance(found, str) else f"found {', '.join(found)}"
    return DumpError(f"{path}: column text is missing ({found}): rename the column that holds the documents")


def _parquet_rows(path: Path, start: int) -> Iterator[Row]:
    number = start
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:  # so that no row group is held as a whole
            if "text" not in file.schema_arrow.names:
                raise _no_text(path, file.schema_arrow.names)
            ends = list(accumulate(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)))
            groups = [group for group, end in enumerate(ends) if end > start]
            skipped = ends[groups[0] - 1] if groups and groups[0] else 0
            columns = [name for name in file.schema_arrow.names if name in COLUMNS]
            for batch in file.iter_batches(BATCH, row_groups=groups, columns=columns):
                before, skipped = skipped, skipped + len(batch)
                batch = batch.slice(min(len(batch), max(0, start - before)))
                for values in zip(*map(_cells, batch.columns), strict=True):
                    number += 1
                    yield f"{path}, row {number}", dict(zip(columns, values, strict=True))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _cut_off(path, f"row {number:,}", f"not readable as Parquet ({error})") from None


def _cells(column: pa.Array) -> list:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):  # Arrow does not check that they are UTF-8
        cells = column.cast(pa.large_binary()).to_pylist()
        return [cell if cell is None else cell.decode("utf-8", "surrogateescape") for cell in cells]
    return column.to_pylist()


def _text_rows(path: Path, start: int) -> Iterator[Row]:
    if not start:
        title = Path(PACKED.sub("", path.name)).stem
        text = "".join(line for _, line in _lines(path))
        yield str(path), {"id": f"{path.absolute().parent.name}/{path.name}", "title": title, "text": text}


def _hub_rows(name: HubName, start: int) -> Iterator[Row]:
    from datasets import load_dataset

    number = start
    try:
        rows = load_dataset(name.dataset, name.config, split="train", streaming=True)
        if "text" not in (rows.column_names or ["text"]):
            raise _no_text(Path(name), rows.column_names)
        for number, row in enumerate(rows.skip(start), start + 1):
            yield f"{name}, row {number}", row
    except DumpError:
        raise
    except Exception as error:  # whatever the network, the hub or a file there raises: the reader's place in it must be told
        raise DumpError(
            f"{name}, after row {number:,}: {type(error).__name__}: {error}: look at the name and the network, or fetch the data "
            "set and name its folder"
        ) from error


_READERS: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "parquet": _parquet_rows, "jsonl": _json_rows, "doc": _doc_rows, "csv": _csv_rows, "txt": _text_rows,
}
