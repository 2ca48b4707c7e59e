"""Quality gates for generated dialogues: each is a small pure function with its threshold as an argument.

A gate looks at a question or an answer and returns None, or a `Refusal` with the gate's name, to count by, and a reason, to
read. The authors of UltraLink kept what the model wrote; a gate here costs no request, and what it refuses is written out, never
dropped in silence.

Texts of every language go through the same primitives: a unit is a word, or a single character where words are not separated by
spaces (Chinese); comparisons use n-grams of units or of characters.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ultralink_nb.languages import detect_language

_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:['’][^\W\d_{_CJK}]+)*")
_SENTENCE_END = re.compile(r"[.!?…。！？；;][\"'»”’」』）)\]*_`]*\s*$|[\"»”」』]\s*$|```\s*$")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•–]|\d+[.)、]|\|)\s*\S")
_NUMBER = re.compile(r"\d+(?:[.,\u00a0\u202f ]\d{3})*(?:[.,]\d+)?")
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_STARTS_SENTENCE = re.compile(r"(?:^|[.!?…:\n«„“\"(—–•*-]|\d[.)])\s*$")

GATES = ("language", "asks", "self_contained", "repeated_question", "refusal", "too_short", "truncated", "loop", "grounding")


@dataclass(frozen=True)
class Refusal:
    """Why a turn was refused: the gate's name and a reason for a person."""

    gate: str
    reason: str


@dataclass(frozen=True)
class Gates:
    """Thresholds of the gates, all of them parameters of notebook 02 or constants stated here.

    min_answer_characters: shortest answer; Chinese says in one character what others say in about three, so its answers
    need a third of it. min_grounding and max_question_overlap: 0 to 1. language_certainty: how sure language identification
    must be of another language, 0 to 1. max_repetition: share of an answer's 4-grams that occurred before in it.
    """

    min_answer_characters: int = 60
    min_grounding: float = 0.2
    max_question_overlap: float = 0.6
    language_certainty: float = 0.8
    max_repetition: float = 0.3


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


def _numbers(text: str) -> set[str]:
    return {re.sub(r"[.,\s]", "", number) for number in _NUMBER.findall(text)}


def _names(text: str) -> set[str]:
    """Capitalised words that do not begin a sentence; scripts without capitals have none."""
    found = set()
    for match in _WORD.finditer(text):
        if match[0][0].isupper() and not _STARTS_SENTENCE.search(text[max(0, match.start() - 4) : match.start()]):
            found.add(match[0].lower())
    return found


def _pairs(text: str) -> set[str]:
    return {pair for run in re.findall(rf"[{_CJK}]{{2,}}", text) for pair in ngrams(run, 2)}


def grounding(answer: str, passage: str) -> tuple[float, list[str]]:
    """How far a passage supports an answer, 0 to 1, and the numbers and names of the answer that the passage lacks.

    The score is the weighted share of what the answer states that the passage holds too: a number weighs 3, a name (a
    capitalised word inside a sentence) 2, another word of six letters or more 1 (shorter ones are mostly grammar); words agree
    when they begin alike, which forgives inflection. Chinese is held against the passage by its n pairs of neighbouring
    characters. Where the passage has k of them, n * (k / n) ** 0.6 count as held: a pair asks for two characters to agree where a
    word asks for one, and this exponent puts the languages on one scale. An answer that states nothing scores 1.

    This finds answers about something else and invented figures; a wrong statement made of the passage's own words passes it.
    """
    answer, passage = (text.replace("\u0301", "") for text in (answer, passage))  # stress marks of Russian encyclopedias
    whole = _numbers(passage) | {word.lower() for word in _WORD.findall(passage)}
    beginnings = {word[:length] for word in whole for length in (3, 4, 5, 6)}

    def held(item: str) -> bool:
        return item in whole or item[0].isalpha() and len(item) > 2 and item[: min(6, max(3, len(item) - 2))] in beginnings

    words = {word.lower() for word in _WORD.findall(answer) if len(word) >= 6 and not re.match(rf"[{_CJK}]", word)}
    weights = dict.fromkeys(words, 1) | dict.fromkeys(_names(answer), 2) | dict.fromkeys(_numbers(answer), 3)
    pairs = _pairs(answer)
    found = sum(weight for item, weight in weights.items() if held(item))
    found += len(pairs) ** 0.4 * len(pairs & _pairs(passage)) ** 0.6
    total = sum(weights.values()) + len(pairs)
    missing = sorted(item for item, weight in weights.items() if weight > 1 and not held(item))
    return (found / total if total else 1.0), missing


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


def check_grounded(answer: str, passage: str, min_grounding: float) -> Refusal | None:
    """Refuse an answer that the passage does not support (see `grounding`)."""
    score, missing = grounding(answer, passage)
    if score < min_grounding:
        return Refusal("grounding", f"support {score:.2f}; not in the passage: {', '.join(missing[:8]) or 'most of its words'}")
    return None


def check_turn(question: str, answer: str, *, passage: str, language: str, among: Sequence[str], earlier: Sequence[str],
               patterns: Mapping[str, Sequence[str]], gates: Gates, finish_reason: str = "stop") -> list[Refusal]:
    """Every gate over one turn of a dialogue; the empty list where it passes.

    passage: what the answer may draw on. among: codes of the run's languages. earlier: questions asked before. patterns: the
    `dialogue.patterns` of the language's prompt file. finish_reason: of the answer's completion.
    """
    found = (
        check_language(question, language, among, gates.language_certainty),
        check_asks(question, patterns["request"]),
        check_self_contained(question, patterns["refers_to_text"]),
        check_new(question, earlier, gates.max_question_overlap),
        check_language(answer, language, among, gates.language_certainty),
        check_no_refusal(answer, patterns["refusal"]),
        check_self_contained(answer, patterns["refers_to_text"]),
        check_length(answer, language, gates.min_answer_characters),
        check_complete(answer, finish_reason),
        check_no_loop(answer, gates.max_repetition),
        check_grounded(answer, passage, gates.min_grounding),
    )
    return [refusal for refusal in found if refusal]


def check_dialogue(turns: Sequence[tuple[str, str]], *, passage: str, language: str, among: Sequence[str],
                   patterns: Mapping[str, Sequence[str]], gates: Gates) -> tuple[int, list[Refusal]]:
    """A finished dialogue of (question, answer): how many of its first turns pass, and why the next one does not.

    What follows a refused turn builds on it, so the dialogue is cut there; 0 means that nothing of it is left.
    """
    for number, (question, answer) in enumerate(turns):
        refusals = check_turn(
            question, answer, passage=passage, language=language, among=among, patterns=patterns, gates=gates,
            earlier=[question for question, _ in turns[:number]],
        )
        if refusals:
            return number, refusals
    return len(turns), []
