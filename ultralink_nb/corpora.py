"""Documents that are clean text already: Wikipedia in the layouts it is passed on in, and a user's own files.

| layout | what it is | a document |
|---|---|---|
| `parquet` | columns as in `wikimedia/wikipedia` (id, url, title, text), or a user's own | a row |
| `jsonl` | objects of the same names; WikiExtractor's `--json` (`wiki_00`) too | a line |
| `doc` | WikiExtractor's `<doc id= url= title=> … </doc>` | such an element |
| `csv` | a header, then rows; separated by commas, semicolons or tabs | a row |
| `txt` | plain text, titled by the file's name | the file |

All but Parquet may be gz or bz2. A row needs a `text`; `id`, `title`, `url`, `license`, `language` and `revision` are used where
there are any. A row that does not fit comes out as `Bad`. Everything is read in order and in the memory of one batch of rows.
"""

import glob
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ultralink_nb.corpus_rows import COLUMNS, HUB, PACKED, HubName, Layout, layout_of, rows_of
from ultralink_nb.dumps import DumpError
from ultralink_nb.languages import LANGUAGES, get_language, language_of_file

__all__ = [
    "Article", "Bad", "HubName", "Layout", "find_corpora", "language_of_corpus", "layout_of", "plain_paragraphs", "read_articles"
]

_KNOWN = re.compile(r".*\.(jsonl|ndjson|csv|parquet|txt)|wiki_\d+|.*\.xml.*", re.I)
_LEFT_OUT = re.compile(r"\..*|.*(\.part|\.partial|\.tmp|\.crdownload|\.incomplete|~)|.*-index\d*\.txt(\.bz2|\.gz)?", re.I)
_FOLDER = re.compile(r"(?:\d{8}\.)?([a-z]{2,3}?)(?:wiki.*)?")  # 20231101.fr, fr, frwiki-20240101; not WikiExtractor's AA … DE …
_WIKIPEDIA = re.compile(r"https?://([\w-]+\.)*wikipedia\.org(?=[/?#:]|$)", re.I)
_ITEM = re.compile(r"[ \t]*[-*•][ \t]+(?=\S)")


@dataclass(frozen=True)
class Article:
    """A document. `text` is in the form of `plain_paragraphs` already; `id` is the row's own, else made of folder, file and row.

    url: "" where the row has none. license: the row's own, that of Wikipedia where `url` is there, else "unknown". source: the
    file's name, or the hub's for the data set.
    """

    id: str
    title: str
    language: str
    text: str
    url: str
    revision: str
    license: str
    source: str

    @property
    def key(self) -> str:
        """The id that its document gets: `fr:1003`."""
        return f"{self.language}:{self.id}"


@dataclass(frozen=True)
class Bad:
    """A row that does not fit: its place (file, line or row, column) and the reason."""

    place: str
    reason: str


def find_corpora(paths: str | Path | Sequence[str | Path]) -> list[Path | HubName]:
    """What a parameter names: files, folders, globs and names on the hub, or a list of them; each once, sorted.

    In a folder, at any depth, count files with a name of the layouts above and MediaWiki XML (`layout_of` tells them apart), but
    no hidden or partial ones and no index of a multistream dump. A glob finds other names too, and a file named on its own
    always counts. Raises FileNotFoundError where nothing is found, `DumpError` for a name on the hub without a configuration.
    """
    found: dict[Path | HubName, None] = {}
    for one in [paths] if isinstance(paths, (str, Path)) else paths:
        found.update(dict.fromkeys(_found(one)))
    return sorted(found, key=str)


def _found(one: str | Path) -> list[Path | HubName]:
    if str(one).startswith(HUB):
        name = HubName(one)
        if not (name.dataset and name.config):
            raise DumpError(f"{one}: a name on the hub ends in a configuration, as {HUB}wikimedia/wikipedia/20231101.fr does")
        return [name]
    if Path(one).is_file():
        return [Path(one)]
    roots = [Path(one)] if Path(one).is_dir() else [Path(name) for name in glob.glob(str(one), recursive=True)]
    files = [root for root in roots if root.is_file() and not _LEFT_OUT.fullmatch(root.name)]
    for root in roots:
        for file in root.rglob("*"):
            left_out = any(map(_LEFT_OUT.fullmatch, file.relative_to(root).parts))
            if not left_out and _KNOWN.fullmatch(PACKED.sub("", file.name)) and file.is_file():
                files.append(file)
    if not files:
        raise FileNotFoundError(f"{one}: no documents there (.xml, .parquet, .jsonl, .csv, .txt or WikiExtractor's wiki_00)")
    return files


def language_of_corpus(source: str | Path, otherwise: str | None = None) -> str | None:
    """The language of a source by its name, else by the two folders around it (`20231101.fr`, `fr`, `frwiki`), else `otherwise`.

    The name of a .txt is a title, so only an ending such as `.fr.txt` or `_fr.txt` counts there. None stands for a file whose
    rows state their language, of which the first does. `DumpError` where nothing tells.
    """
    if str(source).startswith(HUB):
        told, folders = None, [HubName(source).config]
    else:
        path = Path(source)
        name = PACKED.sub("", path.name).lower()
        ending = re.search(r"[._]([a-z]{2})\.txt$", name)
        told = language_of_file(name) if not name.endswith(".txt") else ending and ending[1]
        folders = [folder.name for folder in list(path.parents)[:2]]
    codes = [told, *(match[1] for folder in folders if (match := _FOLDER.fullmatch(folder)))]
    if language := next((code for code in codes if code in LANGUAGES), None):
        return language
    if otherwise:
        return get_language(otherwise).code
    if not str(source).startswith(HUB) and layout_of(source) in ("parquet", "jsonl", "csv"):
        _, row = next(rows_of(source), ("", ""))
        if isinstance(row, dict) and row.get("language"):
            return None
    raise DumpError(
        f"{source}: neither its name nor its folder tells a language that the kit knows ({', '.join(LANGUAGES)}): rename it (for "
        "instance fr.jsonl, or in a folder fr), give the rows a column language, or set dump_language"
    )


def read_articles(source: str | Path, language: str | None, start: int = 0) -> Iterator[tuple[int, Article | Bad]]:
    """The documents of a source in its order, each with its number from 0, from number `start` on.

    source: a file or a `HubName`. language: of rows that state none. start: what comes before is passed over unparsed: whole row
    groups of Parquet, lines, whole batches from the hub (which still sends them).

    Raises FileNotFoundError, and `DumpError` for a file that is cut off or damaged (after the rows before that place), for one
    without a column text or without any row, and for MediaWiki XML, which `dumps` reads.
    """
    if str(source).startswith(HUB):
        origin = key = str(source).removeprefix(HUB)
    else:
        origin, key = Path(source).name, "/".join(Path(source).absolute().parts[-2:])
    number = None
    for number, (place, row) in enumerate(rows_of(source, start), start):
        if isinstance(row, str):
            yield number, Bad(place, row)
        else:
            yield number, _article(row, place, language, origin, f"{key}:{number + 1}")
    if number is None and not start:
        raise DumpError(f"{source} holds no document: it is empty")


def _article(row: Mapping[str, Any], place: str, language: str | None, source: str, otherwise_id: str) -> Article | Bad:
    values: dict[str, str] = {}
    for column in COLUMNS:
        value = row.get(column)
        if isinstance(value, int) and not isinstance(value, bool) and column != "text":
            value = str(value)
        if value is not None and not isinstance(value, str):
            return Bad(f"{place}, column {column}", f"not a text but {type(value).__name__}")
        values[column] = (value or "").replace("\x00", "").strip()
        try:
            values[column].encode()
        except UnicodeEncodeError as error:
            undecoded = "\udc80" <= values[column][error.start] <= "\udcff"
            return Bad(f"{place}, column {column}", "not UTF-8" if undecoded else "half of a character (a lone surrogate)")
    code = values["language"] or language
    if code not in LANGUAGES:
        reason = f"unknown language {code!r}, the kit knows {', '.join(LANGUAGES)}" if code else "missing: or set dump_language"
        return Bad(f"{place}, column language", reason)
    title, text = values["title"], values["text"]
    if "revid" in row or source.startswith("wiki_"):  # WikiExtractor's, which writes &lt; for <
        title, text = html.unescape(title), html.unescape(text)
    wikipedia = bool(_WIKIPEDIA.match(values["url"]))
    text = plain_paragraphs(text, wrapped=not wikipedia)
    if not text:
        return Bad(f"{place}, column text", "missing" if row.get("text") is None else "empty")
    return Article(
        id=values["id"] or otherwise_id, title=title, language=code, text=text, url=values["url"],
        revision=values["revision"] or values["revid"], source=source,
        license=values["license"] or ("CC-BY-SA-4.0" if wikipedia else "unknown"),
    )


def plain_paragraphs(text: str, wrapped: bool = False) -> str:
    """Clean text in the kit's form: paragraphs and headings separated by one blank line, list items as lines with "- ".

    Every line is a paragraph, as WikiExtractor and `wikimedia/wikipedia` mean it, but lines that begin with "- ", "* " or "• "
    are one list, and so are neighbouring lines indented by one space, which is what `wikimedia/wikipedia` leaves of a list.
    wrapped: where a text has blank lines, these alone separate paragraphs, and the lines between them stay as they are.
    """
    text = "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")).strip()
    if wrapped and "\n\n" in text:
        return re.sub(r"\n{3,}", "\n\n", text)
    blocks: list[str] = []
    for kind, group in groupby(text.split("\n"), _kind_of_line):
        lines = list(group)
        if kind == "item" or (kind == "indented" and len(lines) > 1 and not wrapped):
            blocks.append("\n".join("- " + _ITEM.sub("", line, count=1).strip() for line in lines))
        else:
            blocks += filter(None, map(str.strip, lines))
    return "\n\n".join(blocks)


def _kind_of_line(line: str) -> str:
    if _ITEM.match(line):
        return "item"
    return "indented" if line[:1] == " " and line[1:2].strip() else "prose"
