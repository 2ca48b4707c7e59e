"""Whether a translation says what its original says: gates that need no model and no second opinion.

A fluent translation with one digit changed teaches wrong arithmetic in four languages, so every number, code block, formula
and final answer is compared with the original's, and every message must be in the language it is meant to be in. A gate
returns refusals that name the message and the evidence; a translation without one has passed. (The paper, Section 3.2,
translates its English data and filters it; the gates here are the kit's own.)
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from ultralink_nb.checks import Refusal
from ultralink_nb.languages import detect_language, get_language
from ultralink_nb.numerals import compare_numbers, read_numbers, spoken
from ultralink_nb.protection import Span, prose, protected_spans
from ultralink_nb.records import rejected

STAGE = "verification"
GATES = ("structure", "final_answer", "code", "latex", "numbers", "language", "untranslated", "length")

MAX_LENGTH_RATIO = 2.0  # news translated by people lies within 0.6 to 1.75 of the usual length in 99.8 of 100 sentences
LENGTH_SLACK = 20       # letters added to both lengths, so that "Yes." may become "Да, конечно."
SHARED_WORDS = 8        # so many words of the original in a row, most of them no names, are text that was left as it was
JUDGED_LETTERS = 20     # in shorter prose the language is not judged; a Chinese character counts as three letters
SURE_LETTERS = 60       # between the two, only a sure verdict (0.9) refuses
_WORD = re.compile(r"[一-鿿]|[^\W\d_一-鿿]+")
_CJK = re.compile(r"[一-鿿]")


def _clip(text: str, length: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _same_code(block: str) -> str:
    """A fenced block without comments (pygments decides what they are) and without space at the ends of lines."""
    from pygments.lexers import get_lexer_by_name
    from pygments.token import Comment
    from pygments.util import ClassNotFound

    first, _, body = block.strip().partition("\n")
    name = first.strip("`~ \t").split(" ")[0]
    try:
        tokens = list(get_lexer_by_name(name).get_tokens(body)) if name else []
    except ClassNotFound:
        tokens = []
    kept = (Comment.Preproc, Comment.PreprocFile, Comment.Hashbang)
    code = "".join(text for kind, text in tokens if kind not in Comment or any(kind in one for one in kept)) or body
    return "\n".join(line.rstrip() for line in f"{name}\n{code}".splitlines() if line.strip())


def _spans(text: str, sample_kind: str, kind: str) -> list[str]:
    return [span.text for span in protected_spans(text, sample_kind) if span.kind == kind]


def _first_difference(left: str, right: str) -> str:
    ours, theirs = left.splitlines(), right.splitlines()
    for number in range(max(len(ours), len(theirs))):
        one = ours[number] if number < len(ours) else "nothing"
        other = theirs[number] if number < len(theirs) else "nothing"
        if one != other:
            return f"{_clip(one)!r} became {_clip(other)!r}"
    return "the same lines"


def check_code(source: str, translation: str, kind: str = "") -> Iterator[Refusal]:
    """The same fenced code up to its comments, the same inline code and, in samples of kind `code`, the same unfenced code."""
    def is_fenced(span: Span) -> bool:
        return span.kind == "code" and span.text.lstrip().startswith(("```", "~~~"))

    blocks = [[span.text for span in protected_spans(text, kind) if is_fenced(span)] for text in (source, translation)]
    if len(blocks[0]) != len(blocks[1]):
        yield Refusal("code", f"{len(blocks[0])} code blocks became {len(blocks[1])}")
    else:
        for left, right in zip(*blocks, strict=True):
            ours, theirs = _same_code(left), _same_code(right)
            if ours != theirs:
                yield Refusal("code", f"a code block was changed: {_first_difference(ours, theirs)}")
    unfenced = [span.text for span in protected_spans(source, kind) if span.kind == "code" and not is_fenced(span)]
    for code in unfenced:
        if code not in translation:
            yield Refusal("code", f"code without a fence was changed: {_clip(code)!r}")
    inline = [Counter(_spans(text, kind, "inline_code")) for text in (source, translation)]
    for lost, what in ((inline[0] - inline[1], "is missing"), (inline[1] - inline[0], "was added")):
        if lost:
            yield Refusal("code", f"inline code {what}: {', '.join(_clip(code) for code in lost)}")


def check_latex(source: str, translation: str, kind: str = "") -> Iterator[Refusal]:
    """The same LaTeX, in any order; white space does not count."""
    left, right = (Counter(re.sub(r"\s+", "", span) for span in _spans(text, kind, "latex")) for text in (source, translation))
    if left != right:
        ours, theirs = (", ".join(spans) or "nothing" for spans in (left - right, right - left))
        yield Refusal("latex", f"LaTeX was changed: {ours} became {theirs}")


def check_final_answer(source: str, translation: str, kind: str = "") -> Iterator[Refusal]:
    """The `####` line at the end is the same, sign for sign."""
    ours, theirs = ([line.strip() for line in _spans(text.rstrip(), kind, "final_answer")] for text in (source, translation))
    if ours != theirs:
        yield Refusal("final_answer", f"the final answer {' '.join(ours) or '(none)'} became {' '.join(theirs) or '(none)'}")


def check_numbers(source: str, translation: str, source_language: str, target_language: str,
                  kind: str = "") -> Iterator[Refusal]:
    """Every number that one side writes in digits is on the other side, as often, in digits or in words (`numerals.py`)."""
    missing, added = compare_numbers(
        read_numbers(prose(source, kind), source_language), read_numbers(prose(translation, kind), target_language)
    )
    if missing or added:
        changes = {"missing": missing, "added": added}
        parts = [f"{what} {', '.join(map(spoken, values))}" for what, values in changes.items() if values]
        yield Refusal("numbers", "; ".join(parts))


def _script(text: str) -> str:
    """The script of most letters, by the first word of their Unicode names: LATIN, CYRILLIC, CJK; empty without letters."""
    scripts = Counter(unicodedata.name(char, "").partition(" ")[0] for char in text if char.isalpha())
    return scripts.most_common(1)[0][0] if scripts else ""


def check_language(source: str, translation: str, source_language: str, target_language: str,
                   kind: str = "") -> Iterator[Refusal]:
    """The prose, capitalised words (names) aside, is not in the source language; a few words are too little to judge.

    A text mostly in another script than its source is not in its source's language; otherwise language identification decides.
    """
    text, original = (
        _WORD.sub(lambda word: " " if word[0][0].isupper() else word[0], prose(one, kind)) for one in (translation, source)
    )
    letters = sum(char.isalpha() for char in text) + 2 * len(_CJK.findall(text))
    if letters < JUDGED_LETTERS or _script(text) != _script(original):
        return
    found, probability = detect_language(text, among=(source_language, target_language))
    if found == source_language and probability >= (0.6 if letters >= SURE_LETTERS else 0.9):
        name = get_language(source_language).name
        yield Refusal("language", f"the text is in {name} ({probability:.0%}): {_clip(prose(translation, kind))!r}")


def check_untranslated(source: str, translation: str, kind: str = "", words: int = SHARED_WORDS) -> Iterator[Refusal]:
    """No run of `words` words of the original stands unchanged in the translation, unless most are names or single letters."""
    ours, theirs = (_WORD.findall(prose(text, kind)) for text in (source, translation))
    known = {tuple(word.lower() for word in ours[i : i + words]) for i in range(len(ours) - words + 1)}
    for i in range(len(theirs) - words + 1):
        run = theirs[i : i + words]
        plain = sum(word.islower() and len(word) > 2 or bool(_CJK.match(word)) for word in run)
        if tuple(word.lower() for word in run) in known and plain > words // 2:
            yield Refusal("untranslated", f"left as it was: {_clip(' '.join(run))!r}")
            return


def length_ratio(source: str, translation: str, source_language: str, target_language: str, kind: str = "") -> float:
    """Letters of a translation's prose over their usual number; 1.0 is usual, `LENGTH_SLACK` steadies short texts.

    Digits and signs do not count: they take as much room in every language, so a worked problem is not judged by them.
    """
    usual = get_language(target_language).relative_length / get_language(source_language).relative_length
    ours, theirs = (sum(char.isalpha() for char in prose(text, kind)) for text in (source, translation))
    return (theirs + LENGTH_SLACK) / (ours * usual + LENGTH_SLACK)


def check_length(source: str, translation: str, source_language: str, target_language: str, kind: str = "",
                 max_length_ratio: float = MAX_LENGTH_RATIO) -> Iterator[Refusal]:
    """The translation is at most `max_length_ratio` times longer or shorter than usual for its pair of languages."""
    ratio = length_ratio(source, translation, source_language, target_language, kind)
    if not 1 / max_length_ratio <= ratio <= max_length_ratio:
        yield Refusal("length", f"{ratio:.2f} times the usual length of a translation (at most {max_length_ratio:g} times off)")


def check_structure(parent: Sequence[Mapping], translated: Sequence[Mapping]) -> Iterator[Refusal]:
    """As many messages, in the same roles, none empty, with the same URLs."""
    roles = [[message["role"] for message in messages] for messages in (parent, translated)]
    if roles[0] != roles[1]:
        yield Refusal("structure", f"messages {', '.join(roles[0])} became {', '.join(roles[1]) or 'none'}")
        return
    for number, (ours, theirs) in enumerate(zip(parent, translated, strict=True), 1):
        if not theirs["content"].strip():
            yield Refusal("structure", f"message {number} is empty")
        lost = Counter(_spans(ours["content"], "", "url")) - Counter(_spans(theirs["content"], "", "url"))
        if lost:
            yield Refusal("structure", f"message {number} lost {', '.join(lost)}")


def verify(parent_messages: Sequence[Mapping], translated_messages: Sequence[Mapping], source_language: str,
           target_language: str, *, kind: str = "", max_length_ratio: float = MAX_LENGTH_RATIO) -> list[Refusal]:
    """Every reason to refuse a translation; an empty list where it passes.

    messages: role and content of each, parent's and translation's in the same order. kind: the sample's, since code without a
    fence is looked for only in samples of kind `code`. A broken structure is reported alone: nothing else can be compared then.
    """
    refusals = list(check_structure(parent_messages, translated_messages))
    if refusals:
        return refusals
    languages = {"source_language": source_language, "target_language": target_language}
    gates: tuple[Callable[..., Iterator[Refusal]], ...] = (
        check_final_answer, check_code, check_latex, partial(check_numbers, **languages), partial(check_language, **languages),
        check_untranslated, partial(check_length, max_length_ratio=max_length_ratio, **languages),
    )
    for number, (ours, theirs) in enumerate(zip(parent_messages, translated_messages, strict=True), 1):
        for gate in gates:
            for refusal in gate(ours["content"], theirs["content"], kind=kind):
                refusals.append(Refusal(refusal.gate, f"message {number} ({ours['role']}): {refusal.reason}"))
    return refusals


def verify_samples(parents: Sequence[Mapping], translated: Sequence[Mapping],
                   max_length_ratio: float = MAX_LENGTH_RATIO) -> tuple[list[dict], list[dict]]:
    """(translations that passed, rejected rows); each translation is held against the parent that its source names.

    A rejected row's gate is the first that refused; its reason lists all.
    """
    by_id = {parent["id"]: parent for parent in parents}
    passed, refused = [], []
    for sample in translated:
        parent = by_id[sample["source"]["parent_id"]]
        refusals = verify(parent["messages"], sample["messages"], parent["language"], sample["language"],
                          kind=parent["kind"], max_length_ratio=max_length_ratio)
        if refusals:
            reason = "; ".join(f"{refusal.gate}: {refusal.reason}" for refusal in refusals)
            refused.append(rejected(sample["id"], sample["language"], STAGE, refusals[0].gate, reason, sample))
        else:
            passed.append(dict(sample))
    return passed, refused
