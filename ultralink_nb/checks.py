"""Quality gates for generated dialogues: each is a small pure function with its threshold as an argument.

A gate looks at a question or an answer and returns None, or a `Refusal` with the gate's name, to count by, and a reason, to
read. The authors of UltraLink kept what the model wrote; a gate here costs no request, and what it refuses is written out, never
dropped in silence.

Texts of every language go through the same primitives: a unit is a word, or a single character where words are not separated by
spaces (Chinese); comparisons use n-grams of units or of characters.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ultralink_nb import grounded
from ultralink_nb.languages import detect_language
from ultralink_nb.obeying import obeyed, without_instructions
from ultralink_nb.prompts import DIALOGUE_TAGS, load_prompts, quoted

_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:['’][^\W\d_{_CJK}]+)*")
_SENTENCE_END = re.compile(r"[.!?…。！？；;][\"'»”’」』）)\]*_`]*\s*$|[\"»”」』]\s*$|```\s*$")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•–]|\d+[.)、]|\|)\s*\S")

GATES = ("language", "role_marker", "asks", "self_contained", "echo", "repeated_question", "refusal", "too_short", "truncated",
         "loop", "obeys", "grounding")


@dataclass(frozen=True)
class Refusal:
    """Why a turn was refused: the gate's name and a reason for a person."""

    gate: str
    reason: str


@dataclass(frozen=True)
class Gates:
    """Thresholds of the gates, all of them parameters of notebook 02 or constants stated here.

    min_answer_characters: shortest answer; Chinese says in one character what others say in about three, so its answers
    need a third of it. min_grounding: least support of an answer by its passage (`grounded.score`), 0 to 1.
    max_question_overlap: most overlap with an earlier question of the dialogue, 0 to 1. language_certainty: how sure language
    identification must be of another language, 0 to 1. max_repetition: share of an answer's 4-grams that occurred before in
    it. max_echo: longest run of words (Chinese: half as many characters again) that the prompt may have too. min_payload: share
    of what an instruction inside the passage asks to be said that makes an answer obey it, in (0, 1].
    """

    min_answer_characters: int = 60
    min_grounding: float = 0.1
    max_question_overlap: float = 0.6
    language_certainty: float = 0.8
    max_repetition: float = 0.3
    max_echo: int = 7
    min_payload: float = 0.5


def units(text: str) -> list[str]:
    """The words of a text in lower case; each Chinese character is a unit of its own."""
    return _UNIT.findall(text.lower())


def ngrams(sequence: Sequence[str] | str, n: int) -> list[tuple[str, ...] | str]:
    """All runs of n neighbours in a list of units (tuples) or in a string (substrings)."""
    pieces = [sequence[i : i + n] for i in range(len(sequence) - n + 1)]
    return pieces if isinstance(sequence, str) else [tuple(piece) for piece in pieces]


def overlap(left: str, right: str, n: int = 3) -> float:
    """Jaccard similarity of two texts' character n-grams, 0 (nothing shared) to 1; letters and digits only count."""
    sets = [set(ngrams(" ".join(units(text)), n)) for text in (left, right)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1]) if sets[0] and sets[1] else float(units(left) == units(right))


def repetition(text: str, n: int = 4) -> float:
    """Share of a text's n-grams of units that occurred earlier in it, 0 to 1; 0 for texts of fewer than 20 units."""
    grams = ngrams(units(text), n)
    return 1 - len(set(grams)) / len(grams) if len(grams) > 20 - n else 0.0


def check_language(text: str, expected: str, among: Sequence[str], certainty: float = 0.8) -> Refusal | None:
    """Refuse a text that is surely in another language; the run's languages and English compete."""
    found, probability = detect_language(text, sorted({*among, expected, "en"}))
    if found != expected and probability >= certainty:
        return Refusal("language", f"written in {found} (probability {probability:.2f}), not in {expected}")
    return None


def _matched(text: str, patterns: Sequence[str]) -> str | None:
    return next((match[0].strip() for pattern in patterns if (match := re.search(pattern, text, re.IGNORECASE))), None)


def check_self_contained(text: str, refers_to_text: Sequence[str]) -> Refusal | None:
    """Refuse a message that speaks of a text which its reader cannot see ("according to the passage")."""
    found = _matched(text, refers_to_text)
    return Refusal("self_contained", f"speaks of a text that the reader cannot see: “{found}”") if found else None


def check_asks(question: str, request: Sequence[str]) -> Refusal | None:
    """Refuse a message that neither asks (a question mark) nor requests (a clause that begins with one of the patterns)."""
    starts = [rf"(?:^|[.!…:;,—¡¿。！，：；]\s*)(?:{pattern})" for pattern in request]
    if re.search(r"[?？]", question) or _matched(question, starts):
        return None
    return Refusal("asks", "neither a question nor a request")


def check_complete(text: str, finish_reason: str = "stop") -> Refusal | None:
    """Refuse a text that was cut: at the token limit, or without an end mark (a list's last item needs none)."""
    if finish_reason == "length":
        return Refusal("truncated", "cut at the token limit")
    last = text.rstrip().rsplit("\n", 1)[-1]
    if _SENTENCE_END.search(text) or _LIST_ITEM.match(last):
        return None
    return Refusal("truncated", f"ends without an end mark: “…{last[-40:]}”")


def check_no_refusal(answer: str, refusal: Sequence[str]) -> Refusal | None:
    """Refuse an answer whose first 200 characters decline to answer."""
    found = _matched(answer[:200], refusal)
    return Refusal("refusal", f"declines to answer: “{found}”") if found else None


def check_length(answer: str, language: str, min_characters: int) -> Refusal | None:
    """Refuse an answer shorter than `min_characters`, a third of that in Chinese."""
    least = min_characters // 3 if language == "zh" else min_characters
    length = len(answer.strip())
    return Refusal("too_short", f"{length} characters, at least {least} are asked") if length < least else None


def check_no_loop(answer: str, max_repetition: float) -> Refusal | None:
    """Refuse an answer that says the same over and over."""
    share = repetition(answer)
    return Refusal("loop", f"{share:.0%} of its 4-grams repeat") if share > max_repetition else None


def check_new(question: str, earlier: Sequence[str], max_overlap: float) -> Refusal | None:
    """Refuse a near-copy of an earlier question of the dialogue."""
    for number, other in enumerate(earlier, 1):
        share = overlap(question, other)
        if share > max_overlap:
            return Refusal("repeated_question", f"overlap {share:.2f} with question {number}: “{other[:80]}”")
    return None


def check_no_role(text: str, roles: Sequence[str]) -> Refusal | None:
    """Refuse a message that writes a turn of its own: a role and a colon at the beginning of a line, a token of a chat template.

    roles: `patterns.roles` of the language; the English ones hold everywhere, because models fall back on them.
    """
    names = "|".join([*roles, *load_prompts("en")["dialogue"]["patterns"]["roles"]])
    found = _matched(text, [rf"(?m)^[\W_]*(?:{names})[*_\s]*[:：]", r"(?m)^\s*#{2,}\s*\w+\s*[:：]", r"\[/?INST\]"])
    if not found and quoted(text) != text:
        found = "a token of a chat template"
    return Refusal("role_marker", f"writes a turn of its own: “{found}”") if found else None


@functools.lru_cache(maxsize=64)
def _prompt_runs(language: str, n: int) -> frozenset[tuple[str, ...]]:
    texts = [text for text in load_prompts(language)["dialogue"].values() if isinstance(text, str)]
    return frozenset(run for text in texts for line in text.split("\n\n") for run in ngrams(units(line), n))


def check_no_echo(text: str, language: str, max_run: int) -> Refusal | None:
    """Refuse a message with a tag of the prompt, or with more than `max_run` words in a row that the prompt's own text has."""
    n = 1 + (max_run * 3 // 2 if language == "zh" else max_run)
    run = next((run for run in ngrams(units(text), n) if run in _prompt_runs(language, n)), None)
    found = run and ("" if language == "zh" else " ").join(run)
    if quoted(text, *DIALOGUE_TAGS) != quoted(text):
        found = "a tag of its quoting"
    return Refusal("echo", f"repeats its prompt: “{found}”") if found else None


def check_obeys(text: str, passage: str, patterns: Mapping[str, Sequence[str]], min_payload: float = 0.5) -> Refusal | None:
    """Refuse a message that does what an instruction inside the passage says (see `obeying.obeyed`)."""
    found = obeyed(text, passage, patterns, min_payload)
    return Refusal("obeys", f"does what the passage says: “{found.text[:120]}”") if found else None


def grounding(answer: str, passage: str, language: str = "en", question: str = "",
              rarity: Mapping[str, np.ndarray] | None = None) -> tuple[float, list[str]]:
    """How far a passage supports an answer, 0 to 1 (`grounded.score`), and which of its numbers, names and words that lacks."""
    score = grounded.score([question], [answer], [passage], [language], rarity=rarity)[0]
    return float(score), grounded.unsupported(answer, passage, language)


def check_grounded(question: str, answer: str, passage: str, language: str, min_grounding: float,
                   rarity: Mapping[str, np.ndarray] | None = None) -> Refusal | None:
    """Refuse an answer that the passage does not support (see `grounding`). rarity: of the run's passages."""
    score, missing = grounding(answer, passage, language, question, rarity)
    if score < min_grounding:
        return Refusal("grounding", f"support {score:.2f}; not in the passage: {', '.join(missing[:8]) or 'most of its words'}")
    return None


def check_turn(question: str, answer: str, *, passage: str, language: str, among: Sequence[str], earlier: Sequence[str],
               gates: Gates, patterns: Mapping[str, Sequence[str]] | None = None, finish_reason: str = "stop",
               rarity: Mapping[str, np.ndarray] | None = None) -> list[Refusal]:
    """Every gate over one turn of a dialogue; the empty list where it passes.

    passage: what the answer may draw on; instructions in it support nothing. among: codes of the run's languages. earlier:
    questions asked before. patterns: `dialogue.patterns` of a prompt file, by default the language's. finish_reason: `length`
    where the question or the answer was cut at the token limit. rarity: of `grounded.measure_rarity` over the run's passages.
    """
    patterns = patterns or load_prompts(language)["dialogue"]["patterns"]
    found = [
        check_asks(question, patterns["request"]),
        check_new(question, earlier, gates.max_question_overlap),
        check_no_refusal(answer, patterns["refusal"]),
        check_length(answer, language, gates.min_answer_characters),
        check_complete(answer, finish_reason),
        check_no_loop(answer, gates.max_repetition),
        check_grounded(question, answer, without_instructions(passage, patterns), language, gates.min_grounding, rarity),
    ]
    for text in (question, answer):
        found += [
            check_language(text, language, among, gates.language_certainty),
            check_no_role(text, patterns["roles"]),
            check_self_contained(text, patterns["refers_to_text"]),
            check_no_echo(text, language, gates.max_echo),
            check_obeys(text, passage, patterns, gates.min_payload),
        ]
    return sorted(filter(None, found), key=lambda refusal: GATES.index(refusal.gate))


def check_dialogue(turns: Sequence[tuple[str, str]], *, passage: str, language: str, among: Sequence[str], gates: Gates,
                   patterns: Mapping[str, Sequence[str]] | None = None,
                   rarity: Mapping[str, np.ndarray] | None = None) -> tuple[int, list[Refusal]]:
    """A finished dialogue of (question, answer): how many of its first turns pass, and why the next one does not.

    What follows a refused turn builds on it, so the dialogue is cut there; 0 means that nothing of it is left.
    """
    for number, (question, answer) in enumerate(turns):
        refusals = check_turn(
            question, answer, passage=passage, language=language, among=among, patterns=patterns, gates=gates, rarity=rarity,
            earlier=[question for question, _ in turns[:number]],
        )
        if refusals:
            return number, refusals
    return len(turns), []
