r"""MGSM: school mathematics in many languages, scored by the number that an answer ends with (Shi et al., 2022).

Two scores say how lm-evaluation-harness would judge the same answer, so that numbers compare with others' (its task
`mgsm_native_cot_*`): `strict` wants the sentence that the prompt asks for, `flexible` takes the last thing that looks like a
number. Both then compare texts without punctuation, which has odd effects: 1,234.5 is 12345 there, -18 is 18, and 18.0 is not 18.
A third score, `value`, compares numbers as numbers in the way the language writes them, and it is the one to trust.
"""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from ultralink_nb.evaluation import EMBEDDED, Prompt, question_rows
from ultralink_nb.languages import get_language
from ultralink_nb.records import BadRecord

METRICS = ("value", "flexible", "strict")
INVALID = "[invalid]"  # what the harness puts where a pattern finds nothing
_LAST_NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Digits with marks between them; blanks, apostrophes and narrow blanks only before groups of three.
_NUMBER = re.compile(r"(?<![\d.,])[-−]?\d+(?:[.,]\d+|['’\u00a0\u202f\u2009 ]\d{3}(?!\d))*")


class Words(NamedTuple):
    """A language's words. task: what is asked for; final: the last sentence, `{}` for the number; question and steps: what MGSM
    puts before its exemplars; strict: the pattern by which the harness finds the number."""

    task: str
    final: str
    question: str
    steps: str
    strict: str


# The Russian steps are one word in MGSM itself.
WORDS = {
    "en": Words("Solve the problem step by step. Finish with the sentence: {}", "The answer is {}.", "Question:",
                "Step-by-Step Answer:", r"The answer is (\-?[0-9\.\,]+)"),
    "zh": Words("请逐步解题，最后用这句话结束：{}", "答案是 {}。", "问题：", "逐步解答：", r"答案是 (\-?[0-9\.\,]+)。"),
    "ru": Words("Решите задачу по шагам. Закончите ответ предложением: {}", "Ответ — {}.", "Задача:", "Пошаговоерешение:",
                r"Ответ — (\-?[0-9\.\,]+)"),
    "fr": Words("Résolvez le problème étape par étape. Terminez par la phrase : {}", "La réponse est {}.", "Question :",
                "Réponse étape par étape :", r"La réponse est (\-?[0-9\.\,]+)"),
    "es": Words("Resuelve el problema paso a paso. Termina con la frase: {}", "La respuesta es {}.", "Pregunta:",
                "Respuesta paso a paso:", r"La respuesta es (\-?[0-9\.\,]+)"),
    "de": Words("Löse die Aufgabe Schritt für Schritt. Schließe mit dem Satz: {}", "Die Antwort lautet {}.", "Frage:",
                "Schritt-für-Schritt-Antwort:", r"Die Antwort lautet (\-?[0-9\.\,]+)"),
}


@dataclass(frozen=True)
class Problem:
    """A question and its number, as text. solution: a worked answer, which an exemplar needs."""

    id: str
    language: str
    question: str
    answer: str
    solution: str = ""


def read_problems(path: str | Path | None, languages: Sequence[str], limit: int | None = None,
                  split: str = "test") -> list[Problem]:
    """Problems from `question_rows`: columns question and answer (the number), or MGSM's own question, answer and answer_number.

    path: None for the few that the kit's authors wrote. limit: problems a language. Raises `BadRecord` for a row without a
    number, and where there is no problem in one of the languages.
    """
    found: dict[str, list[Problem]] = {language: [] for language in languages}
    for place, language, row in question_rows(path or EMBEDDED / f"mgsm_{split}.jsonl", languages, split):
        number = row.get("answer_number") if row.get("answer_number") is not None else row.get("answer")
        solution = row.get("answer") if row.get("answer_number") is not None else row.get("solution")
        question = row.get("question")
        if not isinstance(question, str) or number_of(str(number), language) is None:
            raise BadRecord(f"{place}: a problem has a question and an answer that is a number, not {str(number)[:40]!r}")
        if limit is None or len(found[language]) < limit:
            words = WORDS.get(language, WORDS["en"])
            found[language].append(Problem(
                f"{language}-{len(found[language])}", language, question.removeprefix(words.question).strip(), str(number),
                str(solution or "").removeprefix(words.steps).removeprefix(words.steps[:-1] + ":").strip()))
    empty = [language for language, problems in found.items() if not problems]
    if empty:
        raise BadRecord(f"there is no problem in {', '.join(empty)}: name a file that has some, or leave the language out")
    return [problem for problems in found.values() for problem in problems]


def prompts(problems: Sequence[Problem], exemplars: Sequence[Problem] = (), shots: int = 0) -> list[Prompt]:
    """The problems as a chat, after `shots` exemplars in the same language, each a question and its worked answer.

    Raises `BadRecord` where a language has fewer exemplars than shots.
    """
    by_language: dict[str, list[Problem]] = {}
    for exemplar in exemplars:
        if exemplar.solution:
            by_language.setdefault(exemplar.language, []).append(exemplar)
    asked = []
    for problem in problems:
        words = WORDS.get(problem.language, WORDS["en"])
        earlier = by_language.get(problem.language, [])[:shots]
        if len(earlier) < shots:
            raise BadRecord(f"{shots} exemplars are asked for and {problem.language} has {len(earlier)} with a worked answer: "
                            "lower shots, or name a file with more in exemplars_path")
        task = words.task.format(words.final.format("N"))
        messages = []
        for shot in [*earlier, problem]:
            messages.append({"role": "user", "content": f"{words.question} {shot.question}\n{task}"})
            messages.append({"role": "assistant", "content": shot.solution})
        messages.pop()  # the problem's own solution is what the model is asked for
        asked.append(Prompt(problem.id, problem.language, tuple(messages)))
    return asked


def strict(text: str, language: str) -> str:
    """The number in the first sentence of the form asked for, as the harness's `strict-match`; `INVALID` where there is none."""
    found = re.findall(WORDS.get(language, WORDS["en"]).strict, text)
    return found[0].strip() if found else INVALID


def flexible(text: str) -> str:
    """The last thing that looks like a number, as the harness's `flexible-extract`; `INVALID` where there is none."""
    found = _LAST_NUMBER.findall(text)
    return next(group for group in found[-1] if group).strip() if found else INVALID


def harness_match(extracted: str, answer: str) -> bool:
    """Whether two texts are equal without case and ASCII punctuation: the harness's `exact_match` with MGSM's options."""
    return extracted.lower().translate(_PUNCTUATION) == answer.lower().translate(_PUNCTUATION)


def number_of(token: str, language: str) -> Fraction | None:
    """The value of a written number, or None. Of two kinds of marks the later is the decimal one; a mark that repeats, or that
    stands before exactly three digits, groups them (answers are whole numbers, as a rule); any other is the decimal mark."""
    text = re.sub(r"['’\s\u00a0\u202f\u2009]", "", token.strip().strip("$€£¥₽").rstrip(".,")).replace("−", "-")
    if not re.fullmatch(r"-?\d+(?:[.,]\d+)*", text):
        return None
    marks = [mark for mark in text if mark in ".,"]
    if len(set(marks)) == 2:
        decimal = marks[-1] if marks.count(marks[-1]) == 1 else ""
    else:
        decimal = marks[0] if len(marks) == 1 and (len(text.rpartition(marks[0])[2]) != 3 or text.lstrip("-")[0] == "0") else ""
    whole = text.translate(str.maketrans("", "", {".": ",", ",": "."}.get(decimal, ".,")))
    return Fraction(whole.replace(decimal, ".") if decimal else whole)


def last_number(text: str, language: str) -> Fraction | None:
    """The value an answer ends with: the first number after the last sentence of the form asked for, else the last of all."""
    opening = WORDS.get(language, WORDS["en"]).final.partition("{}")[0].strip()
    _, said, after = text.rpartition(opening)
    found = _NUMBER.findall(after)
    if said and found:
        return number_of(found[0], language)
    found = _NUMBER.findall(text)
    return number_of(found[-1], language) if found else None


def score(text: str, problem: Problem) -> dict[str, bool]:
    """Whether an answer is right by each of `METRICS`."""
    get_language(problem.language)
    return {
        "value": last_number(text, problem.language) == number_of(problem.answer, problem.language),
        "flexible": harness_match(flexible(text), problem.answer),
        "strict": harness_match(strict(text, problem.language), problem.answer),
    }
