"""The parts of sources, refined by several processes: what came of each is a file, and a part that has one is not read again.

A file is written whole or not at all, so whoever is killed loses the parts that were being read. What a file holds does not
depend on how many processes there are nor on which ended first.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from heapq import nsmallest
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from ultralink_nb import corpora, corpus_rows, dump_files, dumps, languages, minhash, wikibrackets, wikitemplates, wikitext
from ultralink_nb import gates as gates_module
from ultralink_nb.chance import place_in_draw
from ultralink_nb.corpora import HubName
from ultralink_nb.gates import Gates, refine
from ultralink_nb.processes import in_order
from ultralink_nb.records import DOCUMENTS, REJECTED, atomic_path, write_table

LAG = 64  # parts: how far ahead of the draw that bounds it a part may be read, whatever the number of processes
ROWS = 500  # of clean text that one process works on at a time
SMALL = 16 << 20  # bytes of sources below which further processes cost more than they bring
SKETCH = pa.schema([("digest", pa.uint64()), ("keys", pa.binary()), ("minima", pa.binary())])


@dataclass(frozen=True)
class Source:
    """A file of documents, or a dataset by name. `language` None: its rows state theirs."""

    path: Path | HubName
    language: str | None
    dump: bool

    @property
    def name(self) -> str:
        return self.path.name if isinstance(self.path, Path) else str(self.path)

    def identity(self) -> list:
        """What tells a file from another without reading it."""
        if not isinstance(self.path, Path):
            return [str(self.path)]
        state = self.path.stat()
        return [self.name, state.st_size, state.st_mtime_ns]

    def parts(self) -> Iterator[dumps.Part | list]:
        """What one process works on at a time: parts of a dump, or rows."""
        if self.dump:
            yield from dumps.cut(self.path)
            return
        rows = (article for _, article in corpora.read_articles(self.path, self.language))
        while batch := list(islice(rows, ROWS)):
            yield batch


@dataclass(frozen=True)
class _Task:
    """A part, and what it is to be measured against."""

    source: Source
    site: dumps.Site | None
    part: dumps.Part | list
    languages: tuple[str, ...]
    gates: Gates
    draw: tuple[int, int] | None
    out: Path


def refine_sources(
    sources: Sequence[Source], languages: Sequence[str], gates: Gates, limit: int | None, seed: int, cache: Path, workers: int
) -> dict[Source, list[Path]]:
    """The files of all parts of all sources, in order; those that are not there yet are made.

    limit, seed: of the draw in each language: once its first parts are known, pages that it cannot reach are put aside unread.
    """
    found: dict[Source, list[Path]] = {source: [] for source in sources}
    size = sum(source.path.stat().st_size if isinstance(source.path, Path) else SMALL for source in sources)
    bounds = {code: _Bound(limit if code else None, seed) for code in {source.language for source in sources}}
    identities: dict[str | None, list] = defaultdict(list)

    def tasks() -> Iterator[_Task]:
        for source in sources:
            before = identities[source.language]
            before.append(source.identity())
            drawn = (before, seed, limit) if limit else (before[-1:],)  # a draw looks at the files before, too
            folder = cache / f"{source.language or 'all'}-{_key(gates, languages, *drawn)}"
            site = dumps.read_site(source.path, source.language) if source.dump else None
            for number, part in enumerate(source.parts()):
                out = folder / f"{number:06d}.parquet"
                yield _Task(source, site, part, tuple(languages), gates, bounds[source.language].draw(), out)

    with tqdm(desc="pages", unit=" pages", disable=None) as bar:
        for source, path, pages in in_order(_work, tasks(), workers if size > SMALL else 1, min(2 * workers, LAG)):
            found[source].append(path)
            bounds[source.language].files.append(path)
            bar.update(pages)
    return found


def _key(*settings: object) -> str:
    """A hash of all that decides what becomes of a part, the code of cleaning and of the gates included."""
    modules = (corpora, corpus_rows, dump_files, dumps, gates_module, languages, minhash, wikibrackets, wikitemplates, wikitext)
    code = [Path(module.__file__).read_bytes() for module in modules]
    plain = [one.as_dict() if isinstance(one, Gates) else one for one in settings]
    return blake2b(b"\0".join([*code, json.dumps(plain, sort_keys=True).encode()]), digest_size=10).hexdigest()


class _Bound:
    """How far the draw of a language can reach, known from the parts refined so far.

    For each part the bound is that of the parts at least `LAG` before it, so that it does not depend on which ended first.
    """

    def __init__(self, limit: int | None, seed: int):
        self.limit, self.seed = limit, seed
        self.files: list[Path] = []  # of the parts that are done, in order
        self._lowest: dict[int, int] = {}  # digest: place, of the documents in the draw so far
        self._parts = self._seen = 0

    def draw(self) -> tuple[int, int] | None:
        """Seed and bound for the part that comes next."""
        if self.limit is None:
            return None
        slack = self.limit + self.limit // 10 + 10  # near-duplicates among those drawn are still to go
        while self._seen <= self._parts - LAG:
            table = pq.read_table(self.files[self._seen], columns=["digest", "id"])
            for digest, one in zip(table["digest"].to_pylist(), table["id"].to_pylist(), strict=True):
                place = place_in_draw(one, self.seed)
                self._lowest[digest] = min(place, self._lowest.get(digest, place))
            if len(self._lowest) > slack:
                self._lowest = dict(nsmallest(slack, self._lowest.items(), key=lambda item: item[1]))
            self._seen += 1
        self._parts += 1
        return (self.seed, max(self._lowest.values())) if len(self._lowest) >= slack else None


def _work(task: _Task) -> tuple[Source, Path, int]:
    """Refine a part and write what came of it, unless that is done: the documents come last. Returns its file and its pages."""
    if not task.out.is_file():
        _refine(task)
    return task.source, task.out, sum(count.get("pages", 0) for count in about(task.out)["count"].values())


def _refine(task: _Task) -> None:
    items = dumps.pages_of(task.part, task.site) if task.source.dump else task.part
    result = refine(items, task.languages, task.source.name, task.gates, task.draw)
    write_table(rejected_beside(task.out), result.rejected, REJECTED)
    summary = {
        "count": result.count, "last_title": result.last_title,
        "damages": [[damage.place, damage.what, before, title] for damage, before, title in result.damages],
    }
    table = pa.Table.from_pylist(result.documents, DOCUMENTS)
    for name, rows in zip(SKETCH.names, (result.sketches.digest, *map(_packed, (result.sketches.keys, result.sketches.minima))),
                          strict=True):
        table = table.append_column(SKETCH.field(name), pa.array(rows, SKETCH.field(name).type))
    with atomic_path(task.out) as temporary:
        pq.write_table(table.replace_schema_metadata({"about": json.dumps(summary)}), temporary, compression="zstd")


def _packed(rows: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in rows]


def rejected_beside(path: Path) -> Path:
    """Where the refused pages of a part lie."""
    return path.with_suffix(".rejected.parquet")


def about(path: Path) -> dict:
    """What is known of a part: `count` by language and gate, `last_title`, `damages`: place, what, pages before, title."""
    return json.loads(pq.read_schema(path).metadata[b"about"])
