"""Prompts, one YAML file a language, written in that language: a model answers best in the language it is addressed in.

A file has a `version` and the sections `dialogue` and `translation`; `en.yaml` also has `sifting`, because what is sifted is
English. `translation.rules` goes to the model together with `translation.system`. Texts that a prompt quotes stand between tags.
"""

import functools
import re
import string
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ultralink_nb.languages import get_language

# Every text of a file with the placeholders it must have, no more and no less; PATTERNS are lists of regular expressions.
TEXTS: dict[str, set[str]] = {
    "dialogue.system_question": set(),
    "dialogue.first_question": {"passage"},
    "dialogue.depth_question": {"passage", "dialogue"},
    "dialogue.width_question": {"passage", "dialogue"},
    "dialogue.answer": {"passage"},
    "dialogue.answer_alone": set(),
    "translation.system": set(),
    "translation.translate": {"source_language", "text"},
    "translation.rules": set(),
    "translation.again": {"reason"},
}
SIFTING = {"sifting.system": set(), "sifting.judge": {"sample"}}
PATTERNS = tuple(f"dialogue.patterns.{name}"
                 for name in ("refers_to_text", "refusal", "request", "roles", "lead", "instruction", "reports"))

# What a passage, or a model's earlier answer, must not be able to say: the tags of its quoting, a turn of a chat template.
DIALOGUE_TAGS = ("passage", "dialogue", "question", "answer")
TEMPLATE_TAGS = ("|", "s>", "bos>", "eos>", "sys>", "start_of_turn", "end_of_turn", "begin_of_text", "end_of_text")
_BRACKET = re.compile(r"[<＜﹤‹〈⟨]|&(?:amp;)*(?:lt|#0*60|#x0*3c);?", re.IGNORECASE)
_LOOK_ALIKE = str.maketrans("аеорсухіѕԁɡոαορνι", "aeopcyxisdgnaopvi")  # Cyrillic, Greek, Armenian, phonetic


class BadPrompts(ValueError):
    """A prompt file that is missing or does not fit; the message names the file and the key."""


def _begins_tag(text: str, start: int, tags: Sequence[str]) -> bool:
    """Whether the text reads on as a tag, once case, width, accents, look-alikes, slashes and what is not seen are put aside."""
    read = ""
    for position in range(start, len(text)):
        for char in unicodedata.normalize("NFKD", text[position]).casefold().translate(_LOOK_ALIKE):
            if unicodedata.category(char)[0] in "ZCM" or (not read and char in "/⁄∕⧸\\"):
                continue
            read += char
            if read in tags:
                return True
            if not any(tag.startswith(read) for tag in tags):
                return False
    return False


def quoted(text: str, *tags: str) -> str:
    """A text as it may stand between `<tag>` and `</tag>`: it can open or close none of the tags, so what it says stays data.

    Only the bracket that would begin a tag changes, into `&lt;`, however the tag is written (`< /Passage >`, `＜passage＞`, with
    Cyrillic letters or signs of no width between); an entity that stands for it (`&lt;/passage&gt;`) becomes `&amp;lt;…`. The
    tags of chat templates (`<|im_start|>`) are treated alike: servers read them as turns wherever they stand.
    """
    tags = (*tags, *TEMPLATE_TAGS)

    def escaped(match: re.Match) -> str:
        if not _begins_tag(text, match.end(), tags):
            return match[0]
        return f"&amp;{match[0][1:]}" if match[0][0] == "&" else "&lt;"

    return _BRACKET.sub(escaped, text)


def _at(prompts: Any, key: str, path: Path) -> Any:
    for part in key.split("."):
        if not isinstance(prompts, dict) or part not in prompts:
            raise BadPrompts(f"{path}: {key} is missing; another language's file shows what it says")
        prompts = prompts[part]
    return prompts


def _keys(prompts: dict, prefix: str = "") -> set[str]:
    nested = {f"{prefix}{key}": value for key, value in prompts.items()}
    return {leaf for key, value in nested.items() for leaf in (_keys(value, f"{key}.") if isinstance(value, dict) else {key})}


def read_prompts(path: str | Path) -> dict[str, Any]:
    """The prompts of one file, checked: every key there and none unknown, the placeholders right, the patterns compilable.

    Raises `BadPrompts` naming the file and the key.
    """
    path = Path(path)
    if not path.is_file():
        raise BadPrompts(f"{path} does not exist: copy en.yaml, translate it and keep its keys and placeholders")
    try:
        prompts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadPrompts(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(prompts, dict):
        raise BadPrompts(f"{path} holds no sections; another language's file shows them")
    texts = TEXTS | (SIFTING if "sifting" in prompts else {})
    if not isinstance(_at(prompts, "version", path), str):
        raise BadPrompts(f"{path}: version must be a text in quotes")
    for key, wanted in texts.items():
        text = _at(prompts, key, path)
        if not isinstance(text, str) or not text.strip():
            raise BadPrompts(f"{path}: {key} must be a text")
        try:
            found = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        except ValueError as error:
            raise BadPrompts(f"{path}: {key}: {error}; a brace that is meant is written twice") from None
        if found != wanted:
            raise BadPrompts(f"{path}: {key} must have the placeholders {sorted(wanted)}, it has {sorted(found)}")
    for key in PATTERNS:
        patterns = _at(prompts, key, path)
        if not isinstance(patterns, list) or not patterns:
            raise BadPrompts(f"{path}: {key} must be a list of regular expressions")
        for pattern in patterns:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise BadPrompts(f"{path}: {key}: {pattern!r} is not a regular expression ({error})") from None
    unknown = _keys(prompts) - {"version", *texts, *PATTERNS}
    if unknown:
        raise BadPrompts(f"{path}: {sorted(unknown)[0]} is not a key that the kit knows")
    return prompts


@functools.cache
def load_prompts(language: str) -> dict[str, Any]:
    """The kit's prompts for a language code, as nested dictionaries. Raises `UnknownLanguage` or `BadPrompts`."""
    return read_prompts(Path(__file__).parent / f"{get_language(language).code}.yaml")
