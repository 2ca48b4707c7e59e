"""The bytes of a MediaWiki dump, in parts that several processes can share.

A dump may be plain, bz2 or gz; its first bytes say which, not its name. It is cut before a `<page>`. A part of a plain dump, or
of a bz2 of many streams such as Wikipedia's multistream dumps, is a range of the file that any process reads on its own; a bz2
of one stream and a gz can only be unpacked from the beginning, so whoever cuts them hands the bytes over. A part holds a few
megabytes, whatever the size of the dump.
"""

import bz2
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from mmap import ACCESS_READ, mmap
from pathlib import Path

from ultralink_nb.errors import KitError

PART = 4 << 20  # bytes of XML in a part, about
PACKED_PART = 1 << 20  # bytes of a bz2 of many streams in a part, about: packed text is a fourth to a fifth as long
LONGEST_PAGE = 64 << 20  # bytes; MediaWiki itself accepts pages of two million
CHUNK = 1 << 18
PAGE = b"<page>"

_STREAM = re.compile(rb"BZh[1-9]1AY&SY")  # how a bz2 stream begins: the header and the mark of its first block
UNPACKING = (EOFError, OSError, zlib.error)  # what reading a damaged file raises


class DumpError(KitError):
    """A dump that cannot be read; the message names the file, the place in it and what to do."""


@dataclass(frozen=True)
class Part:
    """A part of a dump: the pages that begin between two places of the file.

    start, stop: bytes of the file, or of the XML in it where `data` holds the part itself. packed: whether the range is one of a
    bz2. last: whether the dump ends with this part. failure: why unpacking stopped after `data`.
    """

    path: Path
    number: int
    start: int
    stop: int
    packed: bool = False
    last: bool = False
    data: bytes | None = None
    failure: str = ""

    def place(self, offset: int = 0) -> str:
        """Where the part, or a byte of its XML, lies, for a message."""
        return f"byte {self.start:,} of the bz2 file" if self.packed else f"byte {self.start + offset:,} of the XML"


def cut(path: Path) -> Iterator[Part]:
    """The parts of a dump, in order. A page belongs to the part in which its `<page>` begins.

    Beside a multistream dump its index may lie (`…-index.txt.bz2`, or unpacked): it saves looking for the streams. Raises
    `DumpError` for an index that does not fit.
    """
    size = path.stat().st_size
    kind = _kind(path)
    if kind == "plain" and size:
        edges = [*range(0, size, PART), size]
        for number, (start, stop) in enumerate(pairwise(edges)):
            yield Part(path, number, start, stop, last=stop == size)
    elif kind == "bz2" and len(streams := stream_offsets(path)) > 2:
        edges = [streams[0]]
        for offset in streams[1:]:
            if offset - edges[-1] >= PACKED_PART:
                edges.append(offset)
        for number, (start, stop) in enumerate(pairwise([*edges, size])):
            yield Part(path, number, start, stop, packed=True, last=stop == size)
    else:
        yield from _cut_in_order(path)


def _cut_in_order(path: Path) -> Iterator[Part]:
    number, start, held, failure = 0, 0, bytearray(), ""
    chunks = chunks_of(path)
    while True:
        try:
            chunk = next(chunks, b"")
        except UNPACKING as error:
            chunk, failure = b"", _reason(error)
        held += chunk
        if chunk and len(held) < PART:
            continue
        end = len(held) if not chunk or len(held) > LONGEST_PAGE else held.rfind(PAGE)
        if end > 0 or not chunk:
            yield Part(path, number, start, start + end, last=not chunk, data=bytes(held[:end]), failure=failure)
            number, start = number + 1, start + end
            del held[:end]
        if not chunk:
            return


def content(part: Part) -> tuple[bytes, bool, str]:
    """The XML from a part's first byte to its last page's end, whether the dump ends with it, and what unpacking met with."""
    if part.data is not None:
        return part.data, part.last, part.failure
    unpack = _Unpacker() if part.packed else bytes
    with open(part.path, "rb") as file:
        file.seek(part.start)
        data = bytearray(unpack(file.read(part.stop - part.start)))
        boundary, ended = len(data), False

        def reached(length: int) -> bool:
            """Read on, into the next part, until `data` has this length or the file ends."""
            nonlocal ended
            while len(data) < length and not ended:
                chunk = file.read(CHUNK)
                data.extend(unpack(chunk))
                ended = not chunk
            return len(data) >= length

        reached(boundary + len(PAGE) - 1)  # a tag that begins in this part may end in the next
        if data.find(PAGE, 0, boundary + len(PAGE) - 1) < 0:
            return b"", False, unpack.failure if part.packed else ""
        looked = boundary
        while (end := data.find(PAGE, looked)) < 0 and len(data) - boundary < LONGEST_PAGE and not ended:
            looked = max(boundary, len(data) - len(PAGE) + 1)
            reached(len(data) + 1)
    ended = ended and end < 0
    failure = "" if not part.packed else unpack.finish() if ended else unpack.failure
    return bytes(data[: end if end >= 0 else len(data)]), ended, failure


class _Unpacker:
    """Unpacks bz2 streams; one that is damaged is left out from there on, and `failure` says so."""

    def __init__(self):
        self.failure = ""
        self._stream, self._fresh = bz2.BZ2Decompressor(), True

    def __call__(self, packed: bytes) -> bytes:
        found = []
        while packed:
            try:
                self._fresh = False
                found.append(self._stream.decompress(packed))
                if not self._stream.eof:
                    break
                rest = self._stream.unused_data
            except OSError as error:
                self.failure = self.failure or _reason(error)
                following = _STREAM.search(packed, 10)
                rest = packed[following.start() :] if following else b""
            packed, self._stream, self._fresh = rest, bz2.BZ2Decompressor(), True
        return b"".join(found)

    def finish(self) -> str:
        """What went wrong, a stream that the end of the file cuts off included."""
        return self.failure or ("" if self._fresh else "the file ends too early")


def stream_offsets(path: Path) -> list[int]:
    """Where the streams of a bz2 begin, by its index if there is one beside it. Raises `DumpError` for one that does not fit."""
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as packed:
        index = _index_of(path)
        if index is None:
            return [match.start() for match in _STREAM.finditer(packed)]
        offsets = [0]
        for number, line in enumerate(bz2.open(index) if index.suffix == ".bz2" else open(index, "rb"), 1):
            digits = line.partition(b":")[0]
            offset = int(digits) if digits.isdigit() else -1
            if offset == offsets[-1]:
                continue
            if offset < offsets[-1] or not _STREAM.match(packed, offset):
                said = digits.decode("utf-8", "replace")[:20]
                raise DumpError(
                    f"{index}, line {number:,}: no stream of {path.name} begins at byte {said}: the index belongs to another "
                    "dump; fetch the right one, or remove it, since it only saves a moment"
                )
            offsets.append(offset)
        return offsets


def is_index(path: Path) -> bool:
    """Whether a file is, by its name, the index of a multistream dump."""
    return bool(re.search(r"-index\d*\.txt", path.name))


def _index_of(path: Path) -> Path | None:
    name = re.sub(r"(multistream)(\d*)\.xml", r"\1-index\2.txt", path.name)
    beside = (path.with_name(name), path.with_name(name.removesuffix(".bz2")))
    return next((file for file in beside if name != path.name and file.is_file()), None)


def _reason(error: Exception) -> str:
    return "the file ends too early" if isinstance(error, EOFError) else f"damaged bz2 or gz data ({error})"


def _kind(path: Path) -> str:
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic.startswith((b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")):
        raise DumpError(f"{path}: 7z, xz and zst are not read here: recompress it as bz2 or gz, or unpack it")
    return "bz2" if magic.startswith(b"BZh") else "gz" if magic.startswith(b"\x1f\x8b") else "plain"


def chunks_of(path: Path) -> Iterator[bytes]:
    """A dump's XML, unpacked, a chunk at a time. Raises one of `UNPACKING` where it is damaged."""
    opener = {"bz2": bz2.open, "gz": gzip.open, "plain": open}[_kind(path)]
    with opener(path, "rb") as file:
        while chunk := file.read1(CHUNK):
            yield chunk
