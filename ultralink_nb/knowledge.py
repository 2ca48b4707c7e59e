"""Knowledge grounding: encyclopedias become documents, in parts, by several processes, so that a kill loses no more than a part.

Each part of a source (dumps.py, corpora.py) passes the gates on its own (gates.py), and what came of it is a file in
`<cache_dir>/knowledge/` (refining.py); a second run begins where the first one ended. Once all parts are there, those of a
language are looked at together (drawing.py). Whatever the number of processes, the order in which they end and how often they
are killed, the same documents come out, byte for byte. Source: UltraLink (Wang et al., ACL 2024, arXiv 2402.04588), Section 3.1.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ultralink_nb import corpora, dumps
from ultralink_nb.drawing import Drawn, draw
from ultralink_nb.dumps import Damage, DumpError
from ultralink_nb.gates import PAGE_GATES, STAGE, TEXT_GATES, Gates
from ultralink_nb.records import DOCUMENTS, REJECTED, rejected, write_tables
from ultralink_nb.refining import Source, about, refine_sources, rejected_beside

ALWAYS_SHOWN = ("namespace", "redirect", "disambiguation", "list_page", *TEXT_GATES, "duplicate")  # in the funnel


class Grounding(NamedTuple):
    """What came of the sources: how many documents, rows in `rejected_01.parquet`, and the pages left after each gate.

    funnel: a frame of stage x language, from all pages to documents.
    """

    documents: int
    rejected: int
    funnel: pd.DataFrame


def find_sources(paths: str | Path | Sequence[str | Path], language: str | None = None) -> list[Source]:
    """The sources that a parameter names: MediaWiki XML and every layout of `corpora`, each in its language.

    Raises FileNotFoundError for none at all, `DumpError` where neither the name nor `language` tells a source's language.
    """
    found = []
    for path in corpora.find_corpora(paths):
        dump = isinstance(path, Path) and dumps.is_dump(path)
        code = dumps.language_of_dump(path, language) if dump else corpora.language_of_corpus(path, language)
        found.append(Source(path, code, dump))
    return found


def ground(
    paths: str | Path | Sequence[str | Path],
    languages: Sequence[str],
    out: str | Path,
    gates: Gates | None = None,
    *,
    source_language: str | None = None,
    max_documents: int | None = None,
    near_duplicate: float | None = 0.8,
    seed: int = 1,
    accept_broken_dump: bool = False,
    cache_dir: str | Path = ".cache",
    workers: int | None = None,
) -> Grounding:
    """Write `documents.parquet` and `rejected_01.parquet` into the folder `out`.

    paths: as `find_sources` understands them. languages: the run's; a source in another is refused as a whole. gates: what a text
    must be, by default as in the paper. source_language: for sources whose name does not tell. max_documents: to draw per
    language, None for all. near_duplicate: in [0, 1]; a document whose shingles have at least this Jaccard similarity with an
    earlier one's, as estimated from 63 hash functions (standard error 0.05), is refused; None: only equal ones are.
    accept_broken_dump: go on with the whole pages of a dump that is damaged; they are written in any case. workers: processes,
    None for one a core.

    Raises `DumpError` for a source that is damaged (file, place, what to do) or holds nothing, and FileNotFoundError for no
    source at all. What was read before an error, or before the process was killed, is not read again.
    """
    gates, out = gates or Gates(), Path(out)
    sources, refused = [], []
    for source in find_sources(paths, source_language):
        if source.language in (None, *languages):
            sources.append(source)
        else:
            reason = f"a source of {source.language}; the languages of this run are {', '.join(languages)}"
            refused.append(_refused(source, "source_language", reason))
    cache = Path(cache_dir) / "knowledge"
    read = refine_sources(sources, languages, gates, max_documents, seed, cache, workers or os.cpu_count() or 1)
    count: dict[str, Counter] = defaultdict(Counter)
    broken = []
    for source, files in read.items():
        for reason in _damages(source, files, count):
            broken.append(reason)
            refused.append(_refused(source, "broken_dump", reason))
    draws = []
    for code in languages:
        files = [file for source in sources if source.language in (code, None) for file in read[source]]
        drawn = draw(files, code, max_documents, near_duplicate, seed)
        count[code]["duplicate"] = sum(map(len, drawn.duplicates.values()))
        count[code]["not_drawn"] = drawn.not_drawn
        draws.append(drawn)
    documents = write_tables(out / "documents.parquet", _documents(draws), DOCUMENTS)
    files = [file for source in sources for file in read[source]]
    n_rejected = write_tables(out / "rejected_01.parquet", _rejected(refused, files, draws), REJECTED)
    if broken and not accept_broken_dump:
        more = f" ({len(broken) - 1:,} further places are in rejected_01.parquet)" if len(broken) > 1 else ""
        raise DumpError(broken[0] + more)
    return Grounding(documents, n_rejected, _funnel({code: count[code] for code in languages}))


def _refused(source: Source, gate: str, reason: str) -> dict:
    return rejected(source.name, source.language or "", STAGE, gate, reason, {"title": source.name})


def _damages(source: Source, files: Sequence[Path], count: dict[str, Counter]) -> list[str]:
    """What is wrong with a source, a sentence for each place; adds what its parts counted to `count`.

    Raises `DumpError` for a source without a single page.
    """
    pages, title, damages = 0, "", []
    for file in files:
        one = about(file)
        for place, what, before, last in one["damages"]:
            damages.append(dumps.describe(source.path, Damage(place, what), pages + before, last or title))
        for code, gates in one["count"].items():
            count[code].update(gates)
            pages += gates.get("pages", 0)
        title = one["last_title"] or title
    if not pages and source.dump:
        raise DumpError(damages[0] if damages else dumps.no_pages(source.path))
    return damages


def _documents(draws: Iterable[Drawn]) -> Iterator[pa.Table]:
    for drawn in draws:
        for file, kept in drawn.kept.items():
            if kept.any():
                yield pq.read_table(file, columns=DOCUMENTS.names).filter(pa.array(kept))


def _rejected(refused: list[dict], files: Iterable[Path], draws: Sequence[Drawn]) -> Iterator[pa.Table]:
    yield pa.Table.from_pylist(refused, REJECTED)
    for file in files:
        yield pq.read_table(rejected_beside(file))
        for drawn in draws:
            if doubles := drawn.duplicates.get(file):
                rows = pq.read_table(file, columns=DOCUMENTS.names).take([row for row, _ in doubles]).to_pylist()
                yield pa.Table.from_pylist([
                    rejected(row["id"], row["language"], STAGE, "duplicate", reason,
                             {"title": row["title"], "url": row["url"], "text": row["text"][:200]})
                    for row, (_, reason) in zip(rows, doubles, strict=True)
                ], REJECTED)


def _funnel(count: dict[str, Counter]) -> pd.DataFrame:
    left = {code: gates["pages"] for code, gates in count.items()}
    rows = {"pages": dict(left)}
    for gate in (*PAGE_GATES, "not_drawn_early", *TEXT_GATES, "duplicate", "not_drawn"):
        for code in count:
            left[code] -= count[code][gate]
        if gate in ALWAYS_SHOWN or any(count[code][gate] for code in count):
            rows[f"after {gate}"] = dict(left)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(count))
