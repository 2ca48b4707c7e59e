"""Prompts, one YAML file a language, written in that language: a model answers best in the language it is addressed in.

A file has a `version` and the sections `dialogue` and `translation`; `en.yaml` also has `sifting`, because what is sifted is
English. `translation.rules` goes to the model together with `translation.system`. Texts that a prompt quotes stand between tags.
"""

import functools
import re
import string
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
}
SIFTING = {"sifting.system": set(), "sifting.judge": {"sample"}}
PATTERNS = ("dialogue.patterns.refers_to_text", "dialogue.patterns.refusal", "dialogue.patterns.request")


class BadPrompts(ValueError):
    """A prompt file that is missing or does not fit; the message names the file and the key."""


def quoted(text: str, tag: str) -> str:
    """A text as it may stand between `<tag>` and `</tag>`: it cannot close the tag, so what it says stays data."""
    return re.sub(rf"<(?=\s*/?\s*{tag}\b)", "&lt;", text, flags=re.IGNORECASE)


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
