"""Pages of a MediaWiki XML export, one at a time: a dump of any size is read in the memory of its longest page.

The file may be plain, bz2 (also of several streams, as Wikipedia's are) or gz; its first bytes say which, not its name.
"""

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from ultralink_nb.errors import KitError
from ultralink_nb.languages import get_language, language_of_file
from ultralink_nb.records import find_files

CHUNK = 1 << 18
SAMPLE_SITE = "UltraLink sample encyclopedia"


class DumpError(KitError):
    """A dump that cannot be read; the message names the file, the place in it and what to do."""


@dataclass(frozen=True)
class Site:
    """What a dump says about its wiki. The language is the dump's own: the address in a cut dump is often another wiki's."""

    language: str
    name: str = ""
    base: str = ""

    def url(self, title: str) -> str:
        """The address of a page: below the wiki's own, or on the language's Wikipedia where the dump names another."""
        host = urlsplit(self.base).hostname or ""
        path = quote(title.replace(" ", "_"), safe="/:,()!*'@;$~")
        if not host or host.endswith(".wikipedia.org"):
            return f"https://{self.language}.wikipedia.org/wiki/{path}"
        return self.base[: self.base.rfind("/") + 1] + path

    @property
    def license(self) -> str:
        """SPDX identifier of the texts' licence: Wikipedia's, that of the embedded sample, or "unknown"."""
        if self.name == SAMPLE_SITE:
            return "MIT"
        host = urlsplit(self.base).hostname or ""
        return "CC-BY-SA-4.0" if not host or host.endswith(".wikipedia.org") else "unknown"


@dataclass(frozen=True)
class Page:
    """A page in its latest revision. `id` and `revision` are MediaWiki's numbers, `namespace` 0 is that of articles."""

    title: str
    namespace: int
    id: int
    redirect: bool
    revision: str
    text: str
    model: str
    site: Site

    @property
    def key(self) -> str:
        """The id that the page's document gets: `zh:1003`."""
        return f"{self.site.language}:{self.id}"


def find_dumps(paths: str | Path | list[str | Path]) -> list[Path]:
    """Dumps that a parameter names: files, folders or globs, each once, sorted by name.

    In a folder, files with ".xml" in their names count (`…-pages-articles1.xml-p1p41242.bz2` too); a file named on its own
    always does. Raises FileNotFoundError where nothing is found.
    """
    found: dict[Path, None] = {}
    for one in [paths] if isinstance(paths, (str, Path)) else paths:
        files = find_files(one, (".xml", ".bz2", ".gz"))
        if Path(one).is_dir():
            files = [file for file in files if ".xml" in file.name]
            if not files:
                raise FileNotFoundError(f"{one}: no MediaWiki XML in this folder (names with .xml, also as bz2 or gz)")
        found.update(dict.fromkeys(files))
    return sorted(found, key=lambda file: (file.name, str(file)))


def language_of_dump(path: str | Path, otherwise: str | None = None) -> str:
    """The language that the file's name states, or `otherwise`; `DumpError` where neither tells. The header is never trusted."""
    language = language_of_file(path) or otherwise
    if not language:
        raise DumpError(
            f"{path}: the file name does not tell its language: rename it (for instance frwiki-{Path(path).name}) "
            "or set dump_language"
        )
    return get_language(language).code


def read_pages(path: str | Path, language: str | None = None) -> Iterator[Page]:
    """The pages of one dump, in its order; of a page with several revisions, the last.

    language: ISO 639-1; by default what the file name tells. Raises `DumpError` where a dump is cut off or damaged, after the
    pages that were whole before that place, and for a file that holds no page at all.
    """
    path = Path(path)
    language = get_language(language).code if language else language_of_dump(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    parser = ElementTree.XMLPullParser(events=("start", "end"))
    pages = _Pages(language)
    with open(path, "rb") as file:
        stream, kind = _decompressed(file)
        offset = 0
        try:
            while chunk := stream.read1(CHUNK):
                offset += len(chunk)
                parser.feed(chunk)
                yield from pages.take(parser)
            parser.close()
            yield from pages.take(parser)
        except (EOFError, OSError, zlib.error, lzma.LZMAError, ElementTree.ParseError) as error:
            yield from pages.take(parser)
            raise DumpError(_damage(path, kind, file, offset, pages, error)) from None
    if not pages.count:
        raise DumpError(f"{path} holds no <page>: it is not a MediaWiki XML export, or an empty one")


def _decompressed(file: BinaryIO) -> tuple[BinaryIO, str]:
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"BZh"):
        return bz2.open(file), "bz2"
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(file), "gz"
    if magic.startswith(b"7z\xbc\xaf") or magic.startswith(b"\x28\xb5\x2f\xfd") or magic.startswith(b"\xfd7zXZ"):
        raise DumpError(f"{file.name}: 7z, xz and zst are not read here: recompress it as bz2 or gz, or unpack it")
    return file, "plain XML"


def _damage(path: Path, kind: str, file: BinaryIO, offset: int, pages: "_Pages", error: Exception) -> str:
    where = f"byte {offset:,} of its XML"
    if kind != "plain XML":
        where += f" (byte {file.tell():,} of {path.stat().st_size:,} of the {kind} file)"
    if isinstance(error, ElementTree.ParseError):
        what = f"not well-formed XML at line {error.position[0]:,}, column {error.position[1] + 1:,}: {str(error).split(':')[0]}"
    else:
        what = "the file ends too early" if isinstance(error, EOFError) else f"damaged {kind} data ({error})"
    last = f"after {pages.count:,} whole pages, the last one {pages.last!r}" if pages.count else "before the first whole page"
    advice = "fetch the file again" + (", or set accept_broken_dump to use the pages before the damage" if pages.count else "")
    return f"{path}: {what}, near {where}, {last}: {advice}"


class _Pages:
    """Builds pages from XML events and frees each element behind it."""

    def __init__(self, language: str):
        self.site = Site(language)
        self.count, self.last = 0, ""
        self._root = None
        self._fields: dict[str, str] = {}
        self._path: list[str] = []

    def take(self, parser: ElementTree.XMLPullParser) -> Iterator[Page]:
        for event, element in parser.read_events():
            name = element.tag.rpartition("}")[2]
            if event == "start":
                if self._root is None:
                    self._root = element
                self._path.append(name)
                if name == "page":
                    self._fields = {}
                elif name == "revision":
                    for field in ("revision", "text", "model"):
                        self._fields.pop(field, None)
                continue
            self._path.pop()
            parent = self._path[-1] if self._path else ""
            if parent == "siteinfo" and name in ("sitename", "base"):
                given = {"sitename": "name", "base": "base"}[name]
                self.site = Site(**{**vars(self.site), given: (element.text or "").strip()})
            elif parent == "page" and name in ("title", "ns", "id", "redirect"):
                self._fields[name] = (element.text or "").strip()
            elif parent == "revision" and name in ("id", "text", "model"):
                self._fields["revision" if name == "id" else name] = element.text or ""
            elif name == "revision":
                element.clear()
            elif name == "page":
                yield self._page()
                self._root.clear()

    def _page(self) -> Page:
        fields = self._fields
        self.count += 1
        self.last = fields.get("title", "")
        return Page(
            title=self.last, namespace=_number(fields.get("ns"), 0), id=_number(fields.get("id"), 0),
            redirect="redirect" in fields, revision=fields.get("revision", "").strip(), text=fields.get("text", ""),
            model=fields.get("model", "") or "wikitext", site=self.site,
        )


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and re.fullmatch(r"-?\d+", text) else otherwise
