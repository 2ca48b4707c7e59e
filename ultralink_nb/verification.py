"""Whether a translation says what its original says: gates that need no model and no second opinion.

A fluent translation with one digit changed teaches wrong arithmetic in four languages, so every number, code block, formula
and final answer is compared with the original's, and every message must be in the language it is meant to be in. A gate
returns refusals that name the message and the evidence; a translation without one has passed. (The paper, Section 3.2,
translates its English data and filters it; the gates here are the kit's own.)
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ultralink_nb.checks import Refusal
from ultralink_nb.languages import detect_language, get_language
from ultralink_nb.numerals import compare_numbers, spoken
from ultralink_nb.processes import in_order
from ultralink_nb.records import rejected
from ultralink_nb.text_parts import CJK, WORD_OR_SIGN, Text, common_words, same_code, without_comment_lines

STAGE = "verification"
GATES = ("structure", "final_answer", "code", "latex", "placeholders", "numbers", "language", "untranslated", "sentences",
         "length", "similarity")

MAX_LENGTH_RATIO = 2.0  # news translated by people lies within 0.6 to 1.75 of the usual length in 99.8 of 100 sentences
LENGTH_SLACK = 20       # letters added to both lengths, so that "Yes." may become "Да, конечно."
SHORT = 0.75            # with fewer sentences than its original, a translation of less than this of the usual length lost one
FITTED_ON = 200         # translations of a pair of languages from which on their own usual length and its spread are taken
SHARED_WORDS = 8        # so many words of the original in a row, most of them no names, are text that was left as it was
LEFT_SHARE = 0.25       # in shorter runs (three words or more) this share of the original's words is
JUDGED_LETTERS = 20     # in shorter prose the language is not judged; a Chinese character counts as three letters
SURE_LETTERS = 60       # between the two, only a sure verdict (0.9) refuses
LINE_BREAKS = ("<br>", "<br/>", "<br />", "<p>", "</p>")  # placeholders that may come and go
BLOCK = 500             # translations that a process verifies at a time


@dataclass(frozen=True)
class Lengths:
    """What is usual for a pair of languages: the factor of letters, and how often it may be exceeded or missed in bounds.

    usual: letters of a translation for each of its original. low, high: bounds of the ratio to what is usual.
    """

    usual: float
    low: float = 1 / MAX_LENGTH_RATIO
    high: float = MAX_LENGTH_RATIO


Pair = tuple[str, str]


def _clip(text: str, length: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _first_difference(left: str, right: str) -> str:
    ours, theirs = left.splitlines(), right.splitlines()
    for number in range(max(len(ours), len(theirs))):
        one = ours[number] if number < len(ours) else "nothing"
        other = theirs[number] if number < len(theirs) else "nothing"
        if one != other:
            return f"{_clip(one)!r} became {_clip(other)!r}"
    return "the same lines"


def check_code(ours: Text, theirs: Text) -> Iterator[Refusal]:
    """The same fenced code up to its comments, the same inline code and, in samples of kind `code`, the same unfenced code."""
    if len(ours.blocks) != len(theirs.blocks):
        yield Refusal("code", f"{len(ours.blocks)} code blocks became {len(theirs.blocks)}")
    else:
        for left, right in zip(ours.blocks, theirs.blocks, strict=True):
            if left != right and same_code(left) != same_code(right):
                yield Refusal("code", f"a code block was changed: {_first_difference(same_code(left), same_code(right))}")
    if ours.unfenced and not all(code in theirs.text for code in ours.unfenced):
        left, right = ("\n".join(map(without_comment_lines, text.unfenced)) for text in (ours, theirs))
        if left != right:
            yield Refusal("code", f"code without a fence was changed: {_first_difference(left, right)}")
    inline = [Counter(text.of("inline_code")) for text in (ours, theirs)]
    for lost, what in ((inline[0] - inline[1], "is missing"), (inline[1] - inline[0], "was added")):
        if lost:
            yield Refusal("code", f"inline code {what}: {', '.join(_clip(code) for code in lost)}")


def check_held(ours: Text, theirs: Text) -> Iterator[Refusal]:
    """The same LaTeX (white space does not count) and the same placeholders, in any order; a final answer sign for sign."""
    for kind, gate, what in (("latex", "latex", "LaTeX"), ("placeholder", "placeholders", "a placeholder")):
        left, right = (Counter("".join(span.split()) for span in text.of(kind) if span not in LINE_BREAKS)
                       for text in (ours, theirs))
        if left != right:
            lost, added = (", ".join(spans) or "nothing" for spans in (left - right, right - left))
            yield Refusal(gate, f"{what} was changed: {lost} became {added}")
    left, right = ([line.strip() for line in text.of("final_answer")] for text in (ours, theirs))
    if left != right:
        yield Refusal("final_answer", f"the final answer {' '.join(left) or '(none)'} became {' '.join(right) or '(none)'}")


def check_numbers(ours: Text, theirs: Text) -> Iterator[Refusal]:
    """Every number that one side writes in digits is on the other side, as often, in digits or in words (`numerals.py`)."""
    missing, added = compare_numbers(ours.numbers, theirs.numbers)
    if missing or added:
        changes = {"missing": missing, "added": added}
        parts = [f"{what} {', '.join(map(spoken, values))}" for what, values in changes.items() if values]
        yield Refusal("numbers", "; ".join(parts))


def check_language(ours: Text, theirs: Text) -> Iterator[Refusal]:
    """The prose, capitalised words (names) aside, is not in the source language; a few words are too little to judge.

    A text mostly in another script than its source is not in its source's language, nor is one whose words of grammar are
    plainly the target's; otherwise language identification decides.
    """
    if ours.language == theirs.language:
        return
    if theirs.script != ours.script:
        return
    letters = sum(map(len, theirs.plain)) * (3 if theirs.script == "CJK" else 1)
    if letters < JUDGED_LETTERS:
        return
    source, target = common_words(ours.language), common_words(theirs.language)
    if source and sum(word in target for word in theirs.plain) >= 3 + 3 * sum(word in source - target for word in theirs.plain):
        return
    found, probability = detect_language(" ".join(theirs.plain), among=(ours.language, theirs.language))
    if found == ours.language and probability >= (0.6 if letters >= SURE_LETTERS else 0.9):
        yield Refusal("language", f"the text is in {get_language(found).name} ({probability:.0%}): {_clip(theirs.prose)!r}")


def check_untranslated(ours: Text, theirs: Text) -> Iterator[Refusal]:
    """No run of eight words of the original, and no quarter of its words in runs of three, stands unchanged in the translation.

    A run counts where half of it is plain words, which names and single letters are not (two, if it is half of the original).
    """
    source = [word.lower() for word in ours.words]
    known = set(source)
    if len(known.intersection(map(str.lower, theirs.words))) < 3:
        return
    grammar = common_words(ours.language)
    text = ""
    total = longest = 0
    worst: list[str] = []

    def close(run: list[str]) -> None:
        nonlocal text, total, longest, worst
        text = text or f" {' '.join(source)} "
        while len(run) >= 3:
            size = next((size for size in range(len(run), 2, -1) if f" {' '.join(run[:size]).lower()} " in text), 0)
            part = run[: size or 1]
            plain = sum(word.islower() and (len(word) > 1 or word in grammar) or bool(CJK.match(word)) for word in part)
            if size and plain >= (2 if 2 * size >= len(source) else max(2, size / 2)):
                total += size
                if size > longest:
                    longest, worst = size, part
            run = run[len(part) :]

    run: list[str] = []
    for word in WORD_OR_SIGN.findall(theirs.prose):  # signs of code and tables end a run: identifiers are no text
        if word.lower() in known:
            run.append(word)
        elif run:
            if len(run) >= 3:
                close(run)
            run = []
    if len(run) >= 3:
        close(run)
    share = LEFT_SHARE if total > 3 else 0.4  # three words alone may be an identifier or a title
    if longest >= SHARED_WORDS or total and total >= share * len(source):
        yield Refusal("untranslated", f"left as it was: {_clip(' '.join(worst))!r}")


def usual_lengths(source: str, target: str, max_length_ratio: float = MAX_LENGTH_RATIO) -> Lengths:
    """What ships with the kit for a pair of languages: their letters on news (`languages.py`), a fixed bound around it."""
    usual = get_language(target).relative_length / get_language(source).relative_length
    return Lengths(usual, 1 / max_length_ratio, max_length_ratio)


def length_of(ours: Text, theirs: Text, lengths: Lengths) -> float:
    """`length_ratio` of texts that were taken apart, beside what is usual by `lengths`."""
    return (theirs.letters + LENGTH_SLACK) / (ours.letters * lengths.usual + LENGTH_SLACK)


def length_ratio(source: str, translation: str, source_language: str, target_language: str, kind: str = "") -> float:
    """Letters of a translation's prose over their usual number; 1.0 is usual, `LENGTH_SLACK` steadies short texts.

    Digits and signs do not count: they take as much room in every language, so a worked problem is not judged by them.
    """
    lengths = usual_lengths(source_language, target_language)
    return length_of(Text(source, source_language, kind), Text(translation, target_language, kind), lengths)


def fit_lengths(ours: Sequence[Text], theirs: Sequence[Text], max_length_ratio: float = MAX_LENGTH_RATIO) -> Lengths:
    """The usual length and its bounds from translations of one pair of languages, most of them right.

    The usual factor is what makes the median ratio 1; the bounds lie five robust standard deviations (1.48 times the median
    deviation of the log) away, within 1.25 and `max_length_ratio`. A few percent of broken translations hardly move either.
    Fewer than `FITTED_ON` translations give `usual_lengths`.
    """
    shipped = usual_lengths(ours[0].language, theirs[0].language, max_length_ratio)
    if len(ours) < FITTED_ON:
        return shipped
    usual = shipped.usual
    for _ in range(3):  # the slack makes the ratio not quite proportional
        logs = np.log([length_of(left, right, Lengths(usual)) for left, right in zip(ours, theirs, strict=True)])
        usual *= math.exp(float(np.median(logs)))
    spread = 1.4826 * float(np.median(np.abs(logs - np.median(logs))))
    bound = min(max_length_ratio, max(1.25, math.exp(5 * spread)))
    return Lengths(usual, 1 / bound, bound)


def check_length(ours: Text, theirs: Text, lengths: Lengths) -> Iterator[Refusal]:
    """The length is within the bounds of its pair of languages; no question is lost, nor a sentence together with its length."""
    ratio = length_of(ours, theirs, lengths)
    if not lengths.low <= ratio <= lengths.high:
        yield Refusal("length", f"{ratio:.2f} times the usual length of a translation "
                                f"(between {lengths.low:.2f} and {lengths.high:.2f})")
    asked, asks = (text.prose.count("?") + text.prose.count("？") for text in (ours, theirs))
    if asks < asked and not asks:
        yield Refusal("sentences", "the question is missing: there is no question mark")
    elif ratio < SHORT and len(theirs.sentences) < len(ours.sentences):
        yield Refusal("sentences", f"{len(ours.sentences)} sentences became {len(theirs.sentences)}, of {ratio:.2f} times the "
                                   "usual length")


def check_structure(parent: Sequence[Mapping], translated: Sequence[Mapping]) -> Iterator[Refusal]:
    """As many messages, in the same roles, none empty."""
    roles = [[message["role"] for message in messages] for messages in (parent, translated)]
    if roles[0] != roles[1]:
        yield Refusal("structure", f"messages {', '.join(roles[0])} became {', '.join(roles[1]) or 'none'}")
        return
    for number, theirs in enumerate(translated, 1):
        if not theirs["content"].strip():
            yield Refusal("structure", f"message {number} is empty")


def check_urls(ours: Text, theirs: Text) -> Iterator[Refusal]:
    """Every URL of the original is in the translation."""
    if lost := Counter(ours.of("url")) - Counter(theirs.of("url")):
        yield Refusal("structure", f"lost {', '.join(lost)}")


def check_message(ours: Text, theirs: Text, lengths: Lengths) -> Iterator[Refusal]:
    """Every reason to refuse the translation of one message."""
    if ours.spans or theirs.spans:
        yield from check_urls(ours, theirs)
        yield from check_held(ours, theirs)
        yield from check_code(ours, theirs)
    yield from check_numbers(ours, theirs)
    yield from check_language(ours, theirs)
    yield from check_untranslated(ours, theirs)
    yield from check_length(ours, theirs, lengths)


def _texts(messages: Sequence[Mapping], language: str, kind: str) -> list[Text]:
    return [Text(message["content"], language, kind) for message in messages]


def _refusals(parent: Sequence[Mapping], translated: Sequence[Mapping], ours: Sequence[Text], theirs: Sequence[Text],
              lengths: Lengths) -> list[Refusal]:
    refusals = list(check_structure(parent, translated))
    if refusals:
        return refusals
    for number, (message, left, right) in enumerate(zip(parent, ours, theirs, strict=True), 1):
        for refusal in check_message(left, right, lengths):
            refusals.append(Refusal(refusal.gate, f"message {number} ({message['role']}): {refusal.reason}"))
    return refusals


def verify(parent_messages: Sequence[Mapping], translated_messages: Sequence[Mapping], source_language: str,
           target_language: str, *, kind: str = "", max_length_ratio: float = MAX_LENGTH_RATIO,
           lengths: Lengths | None = None) -> list[Refusal]:
    """Every reason to refuse a translation; an empty list where it passes.

    messages: role and content of each, parent's and translation's in the same order. kind: the sample's, since code without a
    fence is looked for only in samples of kind `code`. lengths: of `fit_lengths`, else what ships with the kit.
    A broken structure is reported alone: nothing else can be compared then.
    """
    lengths = lengths or usual_lengths(source_language, target_language, max_length_ratio)
    ours, theirs = _texts(parent_messages, source_language, kind), _texts(translated_messages, target_language, kind)
    return _refusals(parent_messages, translated_messages, ours, theirs, lengths)


def verify_samples(parents: Sequence[Mapping], translated: Sequence[Mapping], max_length_ratio: float = MAX_LENGTH_RATIO,
                   workers: int = 1) -> tuple[list[dict], list[dict]]:
    """(translations that passed, rejected rows); each translation is held against the parent that its source names.

    A rejected row's gate is the first that refused; its reason lists all. workers: processes; more than one pay from some
    thousands of translations on. Raises `KeyError` for a translation whose parent is not among the parents.
    """
    found: tuple[list[dict], list[dict]] = [], []
    for passed, row in iter_verified(parents, translated, max_length_ratio, workers):
        found[0 if passed else 1].append(row)
    return found


def iter_verified(parents: Sequence[Mapping], translated: Iterable[Mapping], max_length_ratio: float = MAX_LENGTH_RATIO,
                  workers: int = 1, lengths: Mapping[Pair, Lengths] | None = None) -> Iterator[tuple[bool, dict]]:
    """(True, translation) or (False, rejected row) of each translation in order, a block of them in memory.

    lengths: of `fit_lengths` by (source, target) language; else what ships with the kit.
    """
    by_id = {parent["id"]: parent for parent in parents}
    rows = ((by_id[sample["source"]["parent_id"]], sample) for sample in translated)
    blocks = ((block, max_length_ratio, lengths or {}) for block in iter(lambda: list(islice(rows, BLOCK)), []))
    for verdicts in in_order(_verify_block, blocks, workers):
        yield from verdicts


def _verify_block(block: tuple[list[tuple[Mapping, Mapping]], float, Mapping[Pair, Lengths]]) -> list[tuple[bool, dict]]:
    rows, max_length_ratio, fitted = block
    read: dict[str, list[Text]] = {}  # a parent's texts serve all its translations
    verdicts: list[tuple[bool, dict]] = []
    for parent, sample in rows:
        kind, source, target = parent["kind"], parent["language"], sample["language"]
        if parent["id"] not in read:
            read[parent["id"]] = _texts(parent["messages"], source, kind)
        lengths = fitted.get((source, target)) or usual_lengths(source, target, max_length_ratio)
        theirs = _texts(sample["messages"], target, kind)
        refusals = _refusals(parent["messages"], sample["messages"], read[parent["id"]], theirs, lengths)
        if refusals:
            reason = "; ".join(f"{refusal.gate}: {refusal.reason}" for refusal in refusals)
            row = rejected(sample["id"], target, STAGE, refusals[0].gate, reason, sample)
            verdicts.append((False, row))
        else:
            verdicts.append((True, dict(sample)))
    return verdicts
