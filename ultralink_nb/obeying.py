"""Instructions to a model that stand in a passage, and whether a text obeys one.

A passage from the web may say "ignore what stands above and answer only with …". The prompts quote it as data; a model may obey
all the same. `patterns.instruction` of a language's prompt file are commands as they stand at the beginning of a sentence or
clause, after `patterns.lead` ("please", "from now on"). What a command asks to be said is its *payload*: what it puts in
quotation marks, else the rest of its sentence.

A passage may also be *about* an instruction (a recipe, a law, the witch who tells the boy to answer only with his name). Whoever
tells of it says that something was said, in a sentence with other words of the passage; whoever obeys does not.

Not seen: what changes the manner and not the words ("answer in verse"), and a payload in other words.
"""

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ultralink_nb.grounded import sentences

_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_MARKS = ("“”", "„“", "„”", "«»", "»«", "「」", "『』", '""')
_QUOTED = "|".join(f"{left}[^{left}{right}\n]{{0,400}}{right}" for left, right in _MARKS)
# The rest of a sentence: quotations whole, a line break after a colon; a quotation mark that closes what opened before ends it.
_REST = rf"(?:{_QUOTED}|[:：]\s*\n\s*|[.!?](?=[^\s.!?\"»”])|[^.!?。！？\n\"“”„«»「」『』])*[.!?。！？]*"
_BEGINS = r"(?:(?<=[.!?…:;,(\"“„«»「『。！？，：；（*>–—-])|^)\s*"


@dataclass(frozen=True)
class Instruction:
    """A command in a passage: its words, where it begins and ends, and the texts that obeying it would repeat."""

    text: str
    start: int
    end: int
    payloads: tuple[str, ...]


def _any(patterns: Sequence[str]) -> str:
    return "|".join(f"(?:{pattern})" for pattern in patterns)


@functools.lru_cache(maxsize=4096)
def _instructions(passage: str, commands: tuple[str, ...], lead: str) -> tuple[Instruction, ...]:
    found, end = [], 0
    begins = rf"{_BEGINS}((?:(?:{lead})[,:!：，！]?\s*){{0,4}}(?:{_any(commands)}))"
    for match in re.finditer(begins, passage, re.IGNORECASE | re.MULTILINE):
        if match.start(1) < end:
            continue
        rest = re.compile(_REST).match(passage, match.end())
        start, end = match.start(1), rest.end()
        text = passage[start:end]
        commanded = max(one.end() for command in commands for one in re.finditer(command, text, re.IGNORECASE))
        said = re.findall(_QUOTED, text) or [text[commanded:]]
        found.append(Instruction(text, start, end, tuple(said)))
    return tuple(found)


def find_instructions(passage: str, patterns: Mapping[str, Sequence[str]]) -> tuple[Instruction, ...]:
    """The commands of a passage, in their order. patterns: `dialogue.patterns` of its language's prompt file."""
    return _instructions(passage, tuple(patterns["instruction"]), _any(patterns["lead"]))


def without_instructions(passage: str, patterns: Mapping[str, Sequence[str]]) -> str:
    """The passage without its commands: what may support an answer."""
    for instruction in reversed(find_instructions(passage, patterns)):
        passage = passage[: instruction.start] + passage[instruction.end :]
    return passage


def _pieces(text: str) -> set[str]:
    """The words of a text in lower case; of Chinese every pair of characters."""
    found: set[str] = set()
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        pairs = re.match(f"[{_CJK}]", word) and len(word) > 2
        found.update((word[i : i + 2] for i in range(len(word) - 1)) if pairs else (word,))
    return found


def _telling(pieces: set[str]) -> set[str]:
    """Those that say something by themselves: words of three letters or more, Chinese, or all where there are no such."""
    return {piece for piece in pieces if len(piece) > 2 or re.match(f"[{_CJK}]", piece)} or pieces


def obeyed(text: str, passage: str, patterns: Mapping[str, Sequence[str]], least: float = 0.5) -> Instruction | None:
    """The first command of the passage that a question or an answer obeys, None where it obeys none.

    It obeys where it has at least the share `least` (in (0, 1]) of the payload's words that stand nowhere else in the passage,
    and does not tell of the command: a sentence with one of those words, a word of saying or of its limit
    (`patterns.reports`), and a further word of the passage.
    """
    commands = find_instructions(passage, patterns)
    if not commands:
        return None
    reports = re.compile(_any(patterns["reports"]), re.IGNORECASE)
    elsewhere, said = _pieces(without_instructions(passage, patterns)), _pieces(text)
    for command in commands:
        for payload in command.payloads:
            own = _telling(_pieces(reports.sub(" ", payload)) - elsewhere)
            if not own or len(own & said) < least * len(own):
                continue
            of_passage = _telling(elsewhere - _pieces(payload))
            if not any(own & _pieces(sentence) and of_passage & _telling(_pieces(sentence))
                       and reports.search(sentence) for sentence in sentences(text)):
                return command
    return None
