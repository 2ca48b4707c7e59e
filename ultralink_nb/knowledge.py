"""Knowledge grounding: dumps of an encyclopedia become documents, and documents become passages.

A page passes a row of gates, the cheap ones first, so that most pages are refused before their markup is cleaned. Nothing is
refused silently: each refusal is a row with its gate and its reason. The choice of `max_documents` depends on a hash of the
document's id and the seed, so the order of files and pages does not matter. Source: UltraLink (Wang et al., ACL 2024,
arXiv 2402.04588), Section 3.1, whose documents have 1,000 to 10,000 tokens and whose passages have up to 2,000.
"""

import functools
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from ultralink_nb.dumps import DumpError, Page, find_dumps, language_of_dump, read_pages
from ultralink_nb.languages import detect_language, get_language
from ultralink_nb.records import rejected
from ultralink_nb.tokens import DEFAULT_TOKENIZER, count_tokens
from ultralink_nb.wikitext import clean

STAGE = "knowledge"
PAGE_GATES = ("namespace", "redirect", "disambiguation", "list_page")
TEXT_GATES = ("too_short", "too_long", "filter_words", "duplicate", "language")
LONGEST_IDENTIFIED = 10_000  # characters of a text that language identification looks at


class Grounding(NamedTuple):
    """What reading dumps gave.

    documents: rows in the shape of `records.DOCUMENTS`, by language and page id. rejected: rows in the shape of
    `records.REJECTED`. funnel: a frame of stage x language, the pages left after each stage, from all pages to documents.
    """

    documents: list[dict]
    rejected: list[dict]
    funnel: pd.DataFrame


def page_gate(page: Page) -> tuple[str, str] | None:
    """The gate that refuses a page before its text is cleaned, with the reason; None for an article."""
    entry = get_language(page.site.language)
    title = page.title.lower()
    if page.namespace != 0:
        return "namespace", f"namespace {page.namespace}, articles are in namespace 0"
    if page.model != "wikitext":
        return "namespace", f"content model {page.model}, articles are wikitext"
    words = "|".join(map(re.escape, ("redirect", *entry.redirect_words)))
    if page.redirect or re.match(rf"\s*#\s*(?:{words})\b", page.text, re.I):
        return "redirect", "the page only leads to another one"
    if suffix := next((suffix for suffix in entry.disambiguation_suffixes if title.endswith(suffix)), None):
        return "disambiguation", f"the title ends in {suffix}"
    if template := _disambiguation_template(entry.code).search(page.text):
        return "disambiguation", f"the page is marked {(template[1] or template[0]).strip()}"
    if prefix := next((prefix for prefix in entry.list_prefixes if title.startswith(prefix)), None):
        return "list_page", f"the title begins with {prefix!r}"
    if suffix := next((suffix for suffix in entry.list_suffixes if title.endswith(suffix)), None):
        return "list_page", f"the title ends in {suffix!r}"
    return None


@functools.cache
def _disambiguation_template(language: str) -> re.Pattern:
    names = "|".join(re.escape(name).replace(r"\ ", "[ _]") for name in get_language(language).disambiguation_templates)
    return re.compile(rf"\{{\{{\s*({names}|[\w ]+ disambiguation(?: page)?)\s*(?:\||\}}\}})|__DISAMBIG__", re.I)


def read_documents(
    paths: str | Path | Sequence[str | Path],
    languages: Sequence[str],
    *,
    dump_language: str | None = None,
    max_documents: int | None = None,
    min_document_tokens: int = 1000,
    max_document_tokens: int = 10_000,
    min_language_probability: float = 0.5,
    filter_words: Mapping[str, Sequence[str]] | None = None,
    tokenizer: str = DEFAULT_TOKENIZER,
    seed: int = 1,
    accept_broken_dump: bool = False,
) -> Grounding:
    """Documents of one or more dumps, the refused pages and the funnel between.

    paths: dumps as `find_dumps` understands them. languages: the run's; a dump of another language is refused as a whole.
    dump_language: for files whose name does not tell. max_documents: per language, None for all. Lengths are in tokens.
    min_language_probability: in [0, 1]; a text must be identified as its dump's language with at least this probability.
    filter_words: words per language that refuse a text, upper and lower case alike. accept_broken_dump: use the pages before the
    damage of a dump that is cut off, and count it as refused.

    Raises `DumpError` for a dump that cannot be read (file, place, what to do) and FileNotFoundError for no dump at all.
    """
    unwanted = {code: _any_word(words) for code, words in (filter_words or {}).items() if words}
    gates = _TextGates(min_document_tokens, max_document_tokens, unwanted, min_language_probability)
    reader = _Reader(languages, max_documents, seed)
    for path in find_dumps(paths):
        language = language_of_dump(path, dump_language)
        if language not in languages:
            reason = f"a dump of {language}; the languages of this run are {', '.join(languages)}"
            reader.rejected.append(rejected(path.name, language, STAGE, "dump_language", reason, {"title": path.name}))
            continue
        pages = tqdm(_pages(path, language, accept_broken_dump, reader), path.name, unit=" pages", disable=None)
        for batch in _batches(reader.articles(pages), 64):
            texts = [clean(page.text, language) for page in batch]
            for page, text, n_tokens in zip(batch, texts, count_tokens(texts, tokenizer), strict=True):
                if refusal := gates.refusal(text, n_tokens, language) or reader.seen(page, text) or gates.foreign(text, language):
                    reader.refuse(page, *refusal, text)
                else:
                    reader.keep(page, text, n_tokens, path)
    return reader.grounding()


def _pages(path: Path, language: str, accept_broken: bool, reader: "_Reader") -> Iterator[Page]:
    seen = 0
    try:
        for page in read_pages(path, language):
            seen += 1
            yield page
    except DumpError as error:
        if not (accept_broken and seen):
            raise
        reader.rejected.append(rejected(path.name, language, STAGE, "broken_dump", str(error), {"title": path.name}))


def _batches(items: Iterable[Page], size: int) -> Iterator[list[Page]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _any_word(words: Sequence[str]) -> re.Pattern:
    """A pattern for any of the words; whole words in scripts that separate them, any occurrence in Chinese."""
    def bounded(word: str) -> str:
        return re.escape(word) if re.search(r"[\u3040-\u9fff]", word) else rf"(?<!\w){re.escape(word)}(?!\w)"

    return re.compile("|".join(map(bounded, words)), re.I)


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


@dataclass(frozen=True)
class _TextGates:
    """The gates for a cleaned text that look at this text alone; each refusal is a gate with its reason."""

    low: int
    high: int
    unwanted: Mapping[str, re.Pattern]
    min_probability: float

    def refusal(self, text: str, n_tokens: int, language: str) -> tuple[str, str] | None:
        if n_tokens < self.low:
            return "too_short", f"{n_tokens:,} tokens, fewer than {self.low:,}"
        if n_tokens > self.high:
            return "too_long", f"{n_tokens:,} tokens, more than {self.high:,}"
        if language in self.unwanted and (word := self.unwanted[language].search(text)):
            return "filter_words", f"the text has {word[0]!r}"
        return None

    def foreign(self, text: str, language: str) -> tuple[str, str] | None:
        found, probability = detect_language(text[:LONGEST_IDENTIFIED])
        if found != language or probability < self.min_probability:
            return "language", f"identified as {found or 'nothing'} with probability {probability:.2f}"
        return None


class _Reader:
    """The state of reading: what was kept and refused so far, and which documents the sample holds."""

    def __init__(self, languages: Sequence[str], max_documents: int | None, seed: int):
        self.languages, self.max_documents, self.seed = list(languages), max_documents, seed
        self.rejected: list[dict] = []
        self.count: Counter = Counter()  # (language, stage): pages that ended there; stage "pages": all
        self.drawn: dict[str, list[tuple[int, str, dict]]] = {code: [] for code in languages}  # heaps, the last in order on top
        self.ids: set[str] = set()
        self.texts: dict[bytes, str] = {}

    def order(self, document_id: str) -> int:
        """A document's place in the random order from which the first `max_documents` are drawn."""
        return int.from_bytes(blake2b(f"{self.seed}:{document_id}".encode(), digest_size=8).digest(), "big")

    def refuse(self, page: Page, gate: str, reason: str, text: str) -> None:
        record = {"title": page.title, "url": page.site.url(page.title), "text": text[:200]}
        self.rejected.append(rejected(page.key, page.site.language, STAGE, gate, reason, record))
        self.count[page.site.language, gate] += 1

    def articles(self, pages: Iterable[Page]) -> Iterator[Page]:
        """Pages that are articles and can still be drawn."""
        for page in pages:
            language = page.site.language
            self.count[language, "pages"] += 1
            heap = self.drawn[language]
            if refusal := page_gate(page):
                self.refuse(page, *refusal, page.text)
            elif len(heap) == self.max_documents and self.order(page.key) > -heap[0][0]:
                self.count[language, "not_drawn_early"] += 1  # its text need not be cleaned to know that it is not drawn
            else:
                yield page

    def seen(self, page: Page, text: str) -> tuple[str, str] | None:
        """The refusal of a page whose id or text was kept already."""
        if page.key in self.ids:
            return "duplicate", f"a page with the id {page.id} was read before"
        if other := self.texts.get(_digest(text)):
            return "duplicate", f"the same text as {other}"
        return None

    def keep(self, page: Page, text: str, n_tokens: int, path: Path) -> None:
        """Enter a document into the draw."""
        language = page.site.language
        self.ids.add(page.key)
        self.texts[_digest(text)] = page.key
        document = {
            "id": page.key, "language": language, "title": get_language(language).normalise(page.title), "text": text,
            "url": page.site.url(page.title), "revision": page.revision, "license": page.site.license,
            "source": page.site.name if page.site.license == "MIT" else path.name, "n_tokens": n_tokens,
        }
        heap = self.drawn[language]
        heapq.heappush(heap, (-self.order(page.key), page.key, document))
        if self.max_documents is not None and len(heap) > self.max_documents:
            heapq.heappop(heap)
            self.count[language, "not_drawn"] += 1

    def grounding(self) -> Grounding:
        documents = [document for code in self.languages for *_, document in
                     sorted(self.drawn[code], key=lambda drawn: int(drawn[1].partition(":")[2]))]
        return Grounding(documents, self.rejected, self._funnel())

    def _funnel(self) -> pd.DataFrame:
        left = {code: self.count[code, "pages"] for code in self.languages}
        rows = {"pages": dict(left)}
        for gate in (*PAGE_GATES, "not_drawn_early", *TEXT_GATES, "not_drawn"):
            for code in self.languages:
                left[code] -= self.count[code, gate]
            if not gate.startswith("not_drawn") or any(self.count[code, gate] for code in self.languages):
                rows[f"after {gate}"] = dict(left)
        return pd.DataFrame.from_dict(rows, orient="index", columns=self.languages)
