"""Pages of a MediaWiki XML export, one at a time or part by part (dump_files.py), in the memory of one part.

Damage costs the page it stands in: what is whole before and after it is read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from ultralink_nb.dump_files import LONGEST_PAGE, PAGE, UNPACKING, DumpError, Part, chunks_of, content, cut, is_index
from ultralink_nb.languages import get_language, language_of_file
from ultralink_nb.records import find_files

__all__ = [
    "Damage", "DumpError", "Page", "Part", "Site", "cut", "describe", "find_dumps", "is_dump", "language_of_dump", "pages_of",
    "read_pages", "read_site",
]
SAMPLE_SITE = "UltraLink sample encyclopedia"


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
        return f"{self.language}:{self.id}"

    @property
    def language(self) -> str:
        return self.site.language

    @property
    def url(self) -> str:
        return self.site.url(self.title)

    @property
    def license(self) -> str:
        return self.site.license


@dataclass(frozen=True)
class Damage:
    """A place of a dump that cannot be read: where it is, in words, and what is wrong there."""

    place: str
    what: str


def is_dump(path: Path) -> bool:
    """Whether a file is MediaWiki XML, by its name (".xml" in it) or by how it begins."""
    if ".xml" in path.name:
        return True
    try:
        return next(chunks_of(path), b"").lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<mediawiki", b"<?xml"))
    except UNPACKING:
        return False


def find_dumps(paths: str | Path | list[str | Path]) -> list[Path]:
    """Dumps that a parameter names: files, folders or globs, each once, sorted by name.

    In a folder, files with ".xml" in their names count (`…-pages-articles1.xml-p1p41242.bz2` too); a file named on its own
    always does, and the index of a multistream dump never. Raises FileNotFoundError where nothing is found.
    """
    found: dict[Path, None] = {}
    for one in [paths] if isinstance(paths, (str, Path)) else paths:
        files = [file for file in find_files(one, (".xml", ".bz2", ".gz")) if not is_index(file)]
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
    site, count, title = read_site(path, language), 0, ""
    for part in cut(path):
        for page in pages_of(part, site):
            if isinstance(page, Damage):
                raise DumpError(describe(path, page, count, title))
            yield page
            count, title = count + 1, page.title
    if not count:
        raise DumpError(no_pages(path))


def describe(path: Path, damage: Damage, count: int, title: str = "") -> str:
    """One sentence on a damaged dump, for a person."""
    last = f", the last one {title!r}" if title else ""
    before = f"after {count:,} whole pages{last}" if count else "before the first whole page"
    advice = "fetch the file again" + (", or set accept_broken_dump to use its whole pages" if count else "")
    return f"{path}, {damage.place}: {damage.what}, {before}; {advice}"


def no_pages(path: Path) -> str:
    return f"{path} holds no <page>: it is not a MediaWiki XML export, or an empty one"


def read_site(path: Path, language: str) -> Site:
    """What stands before a dump's first page. Raises FileNotFoundError, or `DumpError` for a file packed in another way."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    head = b""
    try:
        for chunk in chunks_of(path):
            head += chunk
            if PAGE in head or len(head) > LONGEST_PAGE:
                break
    except UNPACKING:
        pass  # whoever reads the pages will say so, with the place
    head = head.partition(PAGE)[0].decode("utf-8", "replace")
    found = (re.search(rf"<{tag}>([^<]*)</{tag}>", head) for tag in ("sitename", "base"))
    return Site(language, *(unescape(match[1]).strip() if match else "" for match in found))


def pages_of(part: Part, site: Site) -> Iterator[Page | Damage]:
    """The pages of a part in order, and a `Damage` in the place of each that is not whole."""
    data, ended, failure = content(part)
    _, *pieces = data.split(PAGE)
    whole = _parsed(pieces)
    offset = max(0, data.find(PAGE))
    for number, piece in enumerate(pieces):
        body, closed, tail = piece.partition(b"</page>")
        last = ended and number == len(pieces) - 1
        if not closed:
            yield Damage(part.place(offset), "the file ends too early" if last else "a page that does not end")
        else:
            try:
                yield _page(whole[number] if whole else ElementTree.fromstring(PAGE + body + closed), site)
            except ElementTree.ParseError as error:
                reason = str(error).split(":")[0]
                yield Damage(part.place(offset), f"not well-formed XML ({reason}) in the page that begins there")
            if not re.fullmatch(rb"\s*(?:</mediawiki>.*)?", tail, re.S):
                yield Damage(part.place(offset), "bytes that are no XML of a dump after the page that begins there")
            elif last and not failure and b"</mediawiki>" not in tail:
                yield Damage(part.place(offset), "the file ends too early")
        offset += len(PAGE) + len(piece)
    if failure:
        yield Damage(part.place(), failure)


def _parsed(pieces: list[bytes]) -> list[ElementTree.Element]:
    """All pages at once, or none where one of them is not well-formed."""
    try:
        pages = (PAGE + piece.partition(b"</page>")[0] + b"</page>" for piece in pieces)
        root = ElementTree.fromstring(b"".join([b"<m>", *pages, b"</m>"]))
    except ElementTree.ParseError:
        return []
    return list(root) if len(root) == len(pieces) else []


def _page(element: ElementTree.Element, site: Site) -> Page:
    revision = element.findall("revision")[-1:] or [ElementTree.Element("revision")]
    return Page(
        title=element.findtext("title", "").strip(), namespace=_number(element.findtext("ns"), 0),
        id=_number(element.findtext("id"), 0), redirect=element.find("redirect") is not None,
        revision=revision[0].findtext("id", "").strip(), text=revision[0].findtext("text") or "",
        model=revision[0].findtext("model") or "wikitext", site=site,
    )


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and re.fullmatch(r"\s*-?\d+\s*", text) else otherwise
