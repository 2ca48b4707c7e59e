"""What the cleaning of wikitext leaves in and what it leaves out, beside WikiExtractor.

    python benchmarks/fidelity.py FOLDER [--peers-python PYTHON] [--lost 30] [--language ru]

FOLDER holds MediaWiki dumps whose names tell their language. Two figures are printed, ours and WikiExtractor's:

- left-over markup per 100,000 characters of clean text, by kind of mark (WikiExtractor writes & < > as entities unless it is told
  not to: they have a row of their own, "&amp;", and do not count);
- the share of prose sentences kept, with pandoc's MediaWiki reader as the reference: the text of its paragraphs and list items
  without notes, pictures, formulas and tables. A sentence counts as kept if its letters and digits stand in the clean text in the
  same order with no other between them (pandoc runs words together around italics, so spaces cannot be compared). pandoc expands
  no templates, so a sentence with a template in it is left out of the count, and so are sections of notes, sources and links,
  that the kit leaves out by contract. `--lost` prints sentences that ours lost.

PYTHON is an interpreter that has wikiextractor==3.1.0; without it only ours is measured. pandoc has to be installed.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from dump_speed import articles, peer_cleaned  # noqa: E402

from ultralink_nb.dumps import find_dumps  # noqa: E402
from ultralink_nb.languages import Language, get_language, to_simplified_chinese  # noqa: E402
from ultralink_nb.wikitext import clean  # noqa: E402

PANDOC_SECONDS = 120  # a page
LEAST_LETTERS = {"zh": 10}  # of a sentence that counts as prose; in other languages 25
HOLE = "\ue000"  # where pandoc has something whose text it does not know
TEMPLATE = re.compile(rf"{HOLE}|\{{\{{|\}}\}}|-\{{")
PICTURE = re.compile(r"\.(?:jpe?g|png|svg|gif|tiff?|webm|og[gv])\|", re.I)  # pandoc reads galleries as paragraphs
MARKS = {
    "{{ }}": r"\{\{|\}\}", "[[ ]]": r"\[\[|\]\]", "[http": r"\[(?:https?:)?//", "<ref": r"<\s*/?\s*ref(?:erences)?\b",
    "<tag": r"</?(?!ref)[a-z]+[1-6]?(?:\s[^<>]*)?/?>|<!--|-->", "thumb|": r"\b(?:thumb|thumbnail|mini|vignette|miniatura|мини)\|",
    "&nbsp;": r"&(?!(?:amp|lt|gt);)(?:[a-z]+|#\d+|#x[0-9a-f]+);", "&amp;": r"&(?:amp|lt|gt);",
    "==": r"^==+|==+$", "'''": r"''+", "{|": r"\{\||\|\}", "|-": r"^\|[-+}]?|\|\||^!", "__TOC__": r"__[A-Z]{3,}__",
    "style=": r"\b(?:style|colspan|rowspan|align|bgcolor|class|width|cellpadding)\s*=\s*[\"'\w]", "-{ }-": r"-\{|\}-",
    "File:": r"\b(?:File|Image|Fichier|Archivo|Datei|Файл|文件):\S", "*#": r"^[*#:;]+",
}


def left_over(text: str) -> Counter:
    """How often each kind of mark stands in a clean text."""
    return Counter({name: len(re.findall(pattern, text, re.M | re.I)) for name, pattern in MARKS.items()})


def reference(wikitext: str, language: Language) -> tuple[list[tuple[str, str]], int]:
    """Prose of a page as pandoc reads it, ("paragraph" or "list item", text), and how many characters it could not read.

    A page that stops pandoc is given to it section by section.
    """
    blocks, unread = _blocks(wikitext), 0
    if blocks is None:
        blocks = []
        for section in re.split(r"^(?===[^=])", wikitext, flags=re.M):
            found = _blocks(section)
            unread += len(section) if found is None else 0
            blocks += found or []
    prose: list[tuple[str, str]] = []
    skipped = 9  # the level of the section of apparatus that is being left out
    for block in blocks:
        if block["t"] == "Header":
            level, _, inlines = block["c"]
            if level <= skipped:
                title = _text(inlines, language).strip(" :\u00a0").lower()
                skipped = level if level <= 2 and title in language.apparatus_headings else 9
        elif skipped == 9:
            prose += _prose(block, language, "paragraph")
    return prose, unread


def _blocks(wikitext: str) -> list[dict] | None:
    command = ["pandoc", "--from", "mediawiki", "--to", "json"]
    try:
        read = subprocess.run(command, input=wikitext.encode(), capture_output=True, timeout=PANDOC_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return json.loads(read.stdout)["blocks"]


def _prose(block: dict, language: Language, kind: str) -> Iterator[tuple[str, str]]:
    match block["t"], block.get("c"):
        case ("Para" | "Plain"), inlines:
            yield kind, _text(inlines, language)
        case "BlockQuote", blocks:
            yield from (one for inner in blocks for one in _prose(inner, language, kind))
        case "Div", [_, blocks]:
            yield from (one for inner in blocks for one in _prose(inner, language, kind))
        case "BulletList", items:
            yield from (one for item in items for inner in item for one in _prose(inner, language, "list item"))
        case "OrderedList", [_, items]:
            yield from (one for item in items for inner in item for one in _prose(inner, language, "list item"))
        case "DefinitionList", pairs:
            for term, definitions in pairs:
                yield "list item", _text(term, language)
                yield from (one for blocks in definitions for inner in blocks for one in _prose(inner, language, "list item"))


def _text(inlines: list[dict], language: Language) -> str:
    return "".join(_inline(one, language) for one in inlines)


def _inline(inline: dict, language: Language) -> str:
    match inline["t"], inline.get("c"):
        case "Str", text:
            return text
        case ("Space" | "SoftBreak"), _:
            return " "
        case "LineBreak", _:
            return "\n"
        case "Code", [_, text]:
            return text
        case "Quoted", [_, inner]:
            return _text(inner, language)
        case "Span", [_, inner]:
            return _text(inner, language)
        case "Link", [_, inner, [target, _]]:
            prefix, colon, _ = target.partition(":")
            spaces = ("file", "image", "category", *language.file_words, *language.category_words)
            unseen = colon and (prefix.lower() in spaces or re.fullmatch(r"[a-z]{2,3}(-[a-z]+)*|simple", prefix))
            return "" if unseen else _text(inner, language)
        case ("Note" | "Image" | "Math"), _:
            return ""
        case "RawInline", [_, raw]:
            return "" if raw.startswith("<") else HOLE
        case _, list(inner):
            return _text(inner, language)
    return ""


def sentences(prose: Iterable[tuple[str, str]], language: str) -> Iterator[tuple[str, str]]:
    """The sentences of a page with their kind; what pandoc takes for prose and is not has a kind of its own."""
    for kind, text in prose:
        for sentence in re.split(r"(?<=[.!?…])[\"'”»)\]]*\s+|(?<=[。！？])[”」』)）]*|\n", unescape(text)):
            if len(re.findall(r"\w", sentence)) >= LEAST_LETTERS.get(language, 25):
                odd = "with a template" if TEMPLATE.search(sentence) else "of a gallery" if PICTURE.search(sentence) else ""
                yield odd or kind, sentence


def letters(text: str, language: str) -> str:
    """The letters and digits of a text in the form in which texts are compared."""
    plain = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one)).lower()
    return "".join(re.findall(r"[^\W_]", to_simplified_chinese(plain) if language == "zh" else plain))


def measure(pages: list[tuple[str, str]], cleaned: dict[str, list[str]], language: str) -> tuple[list[dict], list[str]]:
    """A row for each page, kind of sentence and cleaner, and the sentences that ours lost."""
    entry, rows, lost = get_language(language), [], []
    with ThreadPoolExecutor(2) as threads:
        references = list(threads.map(lambda page: reference(page[1], entry), pages))
    for index, ((title, wikitext), (prose, unread)) in enumerate(zip(pages, references, strict=True)):
        texts = {cleaner: letters(outputs[index], language) for cleaner, outputs in cleaned.items()}
        counted = list(sentences(prose, language))
        about = {"language": language, "title": title, "characters": len(wikitext), "unread": unread}
        rows.append({**about, "kind": "page", "cleaner": "ours", "sentences": 0, "kept": 0})
        for kind in ("paragraph", "list item", "with a template", "of a gallery"):
            found = [sentence for one, sentence in counted if one == kind]
            for cleaner, text in texts.items():
                missing = [one for one in found if letters(one, language) not in text]
                kept = len(found) - len(missing)
                rows.append({**about, "kind": kind, "cleaner": cleaner, "sentences": len(found), "kept": kept})
                if cleaner == "ours" and kind in ("paragraph", "list item"):
                    lost += [f"{language} | {title} | {kind} | {one}" for one in missing]
    return rows, lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--language", help="only dumps of this language")
    parser.add_argument("--lost", type=int, default=0, help="print so many of the sentences that ours lost, drawn at random")
    options = parser.parse_args()
    marks, characters, rows, lost = {}, Counter(), [], []
    for path in find_dumps(options.folder):
        language, pages = articles(path)
        if options.language not in (None, language) or not pages:
            continue
        texts = [text for _, text in pages]
        cleaned = {"ours": [clean(text, language) for text in texts]}
        if (peer := peer_cleaned("WikiExtractor", texts, options.peers_python)) is not None:
            cleaned["WikiExtractor"] = peer
        for cleaner, outputs in cleaned.items():
            characters[cleaner] += sum(map(len, outputs))
            marks[cleaner] = sum(map(left_over, outputs), marks.get(cleaner, Counter()))
        more, also = measure(pages, cleaned, language)
        rows, lost = rows + more, lost + also
    table = pd.DataFrame({cleaner: found for cleaner, found in marks.items()}, index=list(MARKS)).fillna(0)
    table.loc["all but &amp;"] = table.drop(index="&amp;").sum()
    print("left-over markup per 100,000 characters")
    print((table / pd.Series(characters) * 1e5).round(2).to_string(), "\n")
    kept = pd.DataFrame(rows)
    pages = kept[kept["kind"] == "page"].groupby("language").agg(
        pages=("title", "size"), characters=("characters", "sum"), unread=("unread", "sum"))
    print("pages, and characters that pandoc could not read\n" + pages.to_string(), "\n")
    sums = kept[kept["kind"] != "page"].groupby(["language", "kind", "cleaner"])[["sentences", "kept"]].sum().unstack("cleaner")
    counts = sums["sentences"]["ours"].unstack("kind")
    shares = (sums["kept"] / sums["sentences"]).loc[(slice(None), ["paragraph", "list item"]), :]
    print("sentences; only those of paragraphs and list items count\n" + counts.to_string(), "\n")
    print("share of sentences kept\n" + shares.unstack("kind").round(4).to_string(), "\n")
    for one in random.Random(1).sample(lost, min(options.lost, len(lost))):
        print(one)


if __name__ == "__main__":
    main()
