"""The gates between a page of an encyclopedia and a document to ground on.

The cheap gates come first, so that most pages are refused before their markup is cleaned. Nothing is refused silently: each
refusal is a row with its gate and its reason. Whatever is decided here looks at one page alone, so that parts of a dump can be
worked on by several processes; duplicates are for `knowledge.py`, which sees all of them.
"""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice

import numpy as np

from ultralink_nb.chance import place_in_draw
from ultralink_nb.corpora import Article, Bad
from ultralink_nb.dumps import Damage, Page
from ultralink_nb.languages import detect_language, get_language
from ultralink_nb.minhash import Sketches, read_block
from ultralink_nb.records import rejected
from ultralink_nb.tokens import DEFAULT_TOKENIZER, count_tokens
from ultralink_nb.wikitext import clean

STAGE = "knowledge"
PAGE_GATES = ("row_language", "namespace", "redirect", "disambiguation", "list_page", "oversized")
TEXT_GATES = ("too_short", "too_long", "filter_words", "language")
LONGEST_IDENTIFIED = 2_000  # characters of a text that language identification looks at
LONGEST_MARKUP = 3_000_000  # characters; the longest pages of real wikis are about two million
BATCH = 64  # pages whose tokens are counted at once


@dataclass(frozen=True)
class Gates:
    """What a text must be; lengths in tokens of `tokenizer`.

    min_document_tokens, max_document_tokens: the paper has 1,000 to 10,000 (UltraLink, arXiv 2402.04588, Section 3.1).
    min_language_probability: in [0, 1]; a text must be identified as its source's language with at least this probability.
    filter_words: words per language that refuse a text, upper and lower case alike; whole words, in Chinese any occurrence.
    """

    min_document_tokens: int = 1000
    max_document_tokens: int = 10_000
    min_language_probability: float = 0.5
    filter_words: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tokenizer: str = DEFAULT_TOKENIZER

    def refusal(self, text: str, n_tokens: int, language: str) -> tuple[str, str] | None:
        """The gate that refuses a clean text, with the reason; None for a document."""
        if n_tokens < self.min_document_tokens:
            return "too_short", f"{n_tokens:,} tokens, fewer than {self.min_document_tokens:,}"
        if n_tokens > self.max_document_tokens:
            return "too_long", f"{n_tokens:,} tokens, more than {self.max_document_tokens:,}"
        words = tuple(self.filter_words.get(language, ()))
        if words and (word := _any_word(words).search(text)):
            return "filter_words", f"the text has {word[0]!r}"
        found, probability = detect_language(text[:LONGEST_IDENTIFIED])
        if found != language or probability < self.min_language_probability:
            return "language", f"identified as {found or 'nothing'} with probability {probability:.2f}"
        return None

    def as_dict(self) -> dict:
        return asdict(self)


@functools.cache
def _any_word(words: tuple[str, ...]) -> re.Pattern:
    def bounded(word: str) -> str:
        return re.escape(word) if re.search(r"[\u3040-\u9fff]", word) else rf"(?<!\w){re.escape(word)}(?!\w)"

    return re.compile("|".join(map(bounded, words)), re.I)


def page_gate(page: Page) -> tuple[str, str] | None:
    """The gate that refuses a page before its text is cleaned, with the reason; None for an article."""
    if page.namespace != 0:
        return "namespace", f"namespace {page.namespace}, articles are in namespace 0"
    if page.model != "wikitext":
        return "namespace", f"content model {page.model}, articles are wikitext"
    entry = get_language(page.site.language)
    words = "|".join(map(re.escape, ("redirect", *entry.redirect_words)))
    if page.redirect or re.match(rf"\s*#\s*(?:{words})\b", page.text, re.I):
        return "redirect", "the page only leads to another one"
    if refusal := title_gate(page.title, entry.code):
        return refusal
    if template := _disambiguation_template(entry.code).search(page.text):
        return "disambiguation", f"the page is marked {(template[1] or template[0]).strip()}"
    if len(page.text) > LONGEST_MARKUP:
        return "oversized", f"{len(page.text):,} characters of markup, more than {LONGEST_MARKUP:,}"
    return None


def title_gate(title: str, language: str) -> tuple[str, str] | None:
    """The gate that refuses a page by its title: a disambiguation or a list."""
    entry, title = get_language(language), title.lower()
    if suffix := next((suffix for suffix in entry.disambiguation_suffixes if title.endswith(suffix)), None):
        return "disambiguation", f"the title ends in {suffix}"
    if prefix := next((prefix for prefix in entry.list_prefixes if title.startswith(prefix)), None):
        return "list_page", f"the title begins with {prefix!r}"
    if suffix := next((suffix for suffix in entry.list_suffixes if title.endswith(suffix)), None):
        return "list_page", f"the title ends in {suffix!r}"
    return None


@functools.cache
def _disambiguation_template(language: str) -> re.Pattern:
    names = "|".join(re.escape(name).replace(r"\ ", "[ _]") for name in get_language(language).disambiguation_templates)
    return re.compile(rf"\{{\{{\s*({names}|[\w ]+ disambiguation(?: page)?)\s*(?:\||\}}\}})|__DISAMBIG__", re.I)


@dataclass
class Refined:
    """What a part became.

    damages: each with the number of whole pages before it and the title of the last. count: by language, the refused pages by
    gate, and all as "pages". sketches: those of the documents' texts.
    """

    documents: list[dict] = field(default_factory=list)
    rejected: list[dict] = field(default_factory=list)
    damages: list[tuple[Damage, int, str]] = field(default_factory=list)
    count: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    last_title: str = ""
    sketches: Sketches = field(default_factory=lambda: Sketches.empty(0))


def refine(
    items: Iterable[Page | Article | Damage | Bad],
    languages: Sequence[str],
    source: str,
    gates: Gates,
    draw: tuple[int, int] | None = None,
) -> Refined:
    """Pass a part's pages through the gates.

    languages: the run's; rows in another are refused. source: name of the file. draw: seed and bound of the draw; pages whose
    place lies behind the bound are put aside unread, as "not_drawn_early".
    """
    result = Refined()

    def refuse(language: str, key: str, gate: str, reason: str, record: dict) -> None:
        result.rejected.append(rejected(key, language, STAGE, gate, reason, record))
        result.count[language][gate] += 1

    def articles() -> Iterator[Page | Article]:
        for one in items:
            if isinstance(one, Damage):
                result.damages.append((one, sum(count["pages"] for count in result.count.values()), result.last_title))
                continue
            if isinstance(one, Bad):
                refuse("", one.place, "bad_row", one.reason, {"title": one.place})
                continue
            result.count[one.language]["pages"] += 1
            result.last_title = one.title
            if one.language not in languages:
                refusal = "row_language", f"a row of {one.language}; the languages of this run are {', '.join(languages)}"
            else:
                refusal = page_gate(one) if isinstance(one, Page) else title_gate(one.title, one.language)
            if refusal:
                refuse(one.language, one.key, *refusal, _record(one, one.text))
            elif draw and place_in_draw(one.key, draw[0]) > draw[1]:
                result.count[one.language]["not_drawn_early"] += 1
            else:
                yield one

    stream = articles()
    while batch := list(islice(stream, BATCH)):
        texts = [_text(one) for one in batch]
        for one, text, n_tokens in zip(batch, texts, count_tokens(texts, gates.tokenizer), strict=True):
            if refusal := gates.refusal(text, n_tokens, one.language):
                refuse(one.language, one.key, *refusal, _record(one, text))
            else:
                result.documents.append(_document(one, text, n_tokens, source))
    texts = [document["text"] for document in result.documents]
    result.sketches = Sketches.empty(len(texts))
    for row, document in enumerate(result.documents):  # one at a time: a block of long texts would take some hundred megabytes
        result.sketches.read(texts, np.array([row]), read_block(texts[row : row + 1], document["language"]))
    return result


def _record(one: Page | Article, text: str) -> dict:
    return {"title": one.title, "url": one.url, "text": text[:200]}


def _text(one: Page | Article) -> str:
    return clean(one.text, one.language) if isinstance(one, Page) else get_language(one.language).normalise(one.text)


def _document(one: Page | Article, text: str, n_tokens: int, source: str) -> dict:
    """A row in the shape of `records.DOCUMENTS`."""
    sample = isinstance(one, Page) and one.site.license == "MIT"
    return {
        "id": one.key, "language": one.language, "title": get_language(one.language).normalise(one.title), "text": text,
        "url": one.url, "revision": one.revision, "license": one.license, "source": one.site.name if sample else source,
        "n_tokens": n_tokens,
    }
