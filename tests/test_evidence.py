"""The evidence: it says that pruning hurts where it does, that it does not where it does not, and that it cannot tell."""

import argparse
import itertools
import json
import re
import sys
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from ultralink_nb import evidence, evidence_figures, plots, records, small_lm, tasks, verdict
from ultralink_nb.content import Plan
from ultralink_nb.evaluation import ANSWERS
from ultralink_nb.policies import POLICIES
from ultralink_nb.verdict import MEAN, BadEvidence, Scores, bootstrap, differences, outcome

sys.path.insert(0, str(ROOT / "benchmarks"))

import full_recipe  # noqa: E402

LANGUAGES = ["en", "zh", "ru"]


def weighed(shared, contents, seeds=(1, 2, 3), **rest):
    task, vectors = tasks.made_task(shared, contents, LANGUAGES, seed=2)
    return evidence.probe_evidence(task, vectors, ["by_language"], [0.2, 1.0], list(seeds), Plan(), 2.0, "balanced", **rest)


@pytest.fixture(scope="module")
def shared_languages():
    return weighed(True, 1500)


@pytest.fixture(scope="module")
def apart():
    return weighed(False, 1500)


def test_it_says_that_pruning_hurts_where_languages_share_nothing(apart):
    full, blind = apart.headline.to_dict("records")
    assert full["outcome"] == "hurts" and full["high"] < 0 and "pruning hurts here by" in full["verdict"]
    assert blind["outcome"] == "no loss"  # any third of these rows is as good as another
    own = apart.comparisons.query("family == 'curve' and policy == 'by_language' and asked.isna()")
    assert set(own["outcome"]) == {"hurts"} and (own["difference"] < -15).all()  # the other languages were never seen
    languages = apart.comparisons.query("family == 'languages' and policy == 'by_language' and reference == 'the full set'")
    assert languages.set_index("language")["difference"].idxmax() == "en"  # the language that stayed in full


def test_it_says_no_loss_where_a_translation_repeats(shared_languages):
    full = shared_languages.headline.iloc[0]
    assert full["outcome"] == "no loss" and full["low"] > -2 and full["kept_fraction"] == pytest.approx(1 / 3, abs=0.01)
    assert "no loss larger than the margin of 2 points could be seen" in full["verdict"]


def test_it_says_undecided_with_few_items():
    full = weighed(True, 50).headline.iloc[0]
    assert full["outcome"] == "undecided" and full["low"] < -2 < full["high"] and "undecided" in full["verdict"]


def test_the_same_call_gives_the_same_evidence(shared_languages):
    again = weighed(True, 1500)
    pd.testing.assert_frame_equal(again.comparisons, shared_languages.comparisons)
    pd.testing.assert_frame_equal(again.table, shared_languages.table)


def test_what_is_the_full_set_differs_from_it_by_nothing(shared_languages):
    whole = shared_languages.comparisons.query("asked == 1")
    assert len(whole) and (whole[["difference", "low", "high"]] == 0).all(axis=None)


def test_policies_keep_what_is_asked_and_the_control_as_many():
    task, _ = tasks.made_task(True, 80, LANGUAGES)
    n = len(task.train_rows)
    policies = [name for name in POLICIES if name != "random"]
    models = evidence.arms(task.content, policies, [0.1, 0.45, 1.0], [1, 2], Plan())
    for arm in models:
        if arm.asked is not None:
            assert (arm.keep.sum(axis=1) == round(arm.asked * n)).all(), arm.name
    by_name = {arm.name: arm for arm in models}
    controls = [arm for arm in models if arm.like]
    assert len(controls) == 5 * 4
    for arm in controls:
        assert (arm.keep.sum(axis=1) == by_name[arm.like].keep.sum(axis=1)).all(), arm.name
    blind = by_name["random of the size of balanced, own size"].keep
    assert (blind[0] != blind[1]).any() and (blind[0] != by_name["balanced, own size"].keep[0]).any()


def test_a_policys_own_size_is_what_notebook_05_keeps():
    from ultralink_nb import pruning

    task, _ = tasks.made_task(True, 60, LANGUAGES)
    train = task.rows[~task.test].reset_index(drop=True)
    label = task.contents[~task.test]
    groups = pd.DataFrame({"id": train["id"], "group": label})
    ends = [pair for content in np.unique(label) for pair in itertools.combinations(np.flatnonzero(label == content), 2)]
    pairs = pd.DataFrame(ends, columns=["left", "right"]).assign(probability=1.0)
    for policy in ("balanced", "paper", "coverage"):
        assert (evidence.subset(task.content, policy, Plan()) == pruning.prune(train, groups, pairs, policy).keep).all()


def test_equal_training_rows_are_learnt_once():
    task, _ = tasks.made_task(True, 40, LANGUAGES)
    models = evidence.arms(task.content, ["by_language"], [1.0], [1, 2, 3], Plan())
    learnt = []
    nothing = np.zeros(task.test.sum())
    evidence.measure(task, models, [1, 2, 3], lambda rows, seed: learnt.append(rows.tobytes()) or nothing)
    assert len(learnt) == len(set(learnt)) < 3 * len(models)
    seeded = []
    evidence.measure(task, models, [1, 2, 3], lambda rows, seed: seeded.append(seed) or nothing, seeded=True)
    assert seeded.count(1) == seeded.count(3) > 1


def two_models(rng, contents, languages, agree=0.9, gap=0.0, seeds=1):
    """Scores of two models on `contents` problems, each the same in all languages up to some noise."""
    hard = rng.random(contents)
    rows = np.tile(hard, languages)
    right = rows[None, None] < np.array([0.7, 0.7 - gap])[:, None, None]
    flip = rng.random((2, seeds, rows.size)) > agree
    return Scores(("pruned", "full"), (right ^ flip).astype(float), np.repeat([f"l{k}" for k in range(languages)], contents),
                  np.tile(np.arange(contents), languages))


@pytest.mark.parametrize(("seeds", "most"), [(1, 0.985), (4, 1.0)])  # with several seeds it errs on the side of caution
def test_an_interval_holds_the_truth_about_as_often_as_it_says(seeds, most):
    rng, held, tried = np.random.default_rng(3), 0, 300
    for _ in range(tried):
        scores = two_models(rng, 60, 2, agree=0.8, seeds=seeds)  # alike on average: the true difference is 0
        row = differences(bootstrap(scores, 300, seed=int(rng.integers(1 << 30))), [("pruned", "full")]).iloc[0]
        held += row["low"] <= 0 <= row["high"]
    assert 0.91 <= held / tried <= most


def test_translations_of_a_problem_are_not_more_problems():
    rng = np.random.default_rng(1)
    one = two_models(rng, 100, 1, agree=0.85)
    languages = np.repeat([f"l{k}" for k in range(5)], 100)
    copied = Scores(one.models, np.tile(one.values, (1, 1, 5)), languages, np.tile(one.contents, 5))
    rows = [differences(bootstrap(scores, 4000), [("pruned", "full")]).iloc[0] for scores in (one, copied)]
    width = [row["high"] - row["low"] for row in rows]
    assert width[1] == pytest.approx(width[0], rel=0.1)


def test_the_difference_is_paired():
    scores = two_models(np.random.default_rng(4), 200, 1, agree=0.99)
    drawn = bootstrap(scores)
    alone = drawn.table().iloc[0]
    row = differences(drawn, [("pruned", "full")]).iloc[0]
    assert row["high"] - row["low"] < 0.6 * (alone["high"] - alone["low"])


def test_few_items_without_a_disagreement_do_not_pass_for_certainty():
    right = Scores(("pruned", "full"), np.ones((2, 3, 12)), np.array(["en"] * 12), np.arange(12))
    row = differences(bootstrap(right), [("pruned", "full")]).iloc[0]
    assert row["difference"] == 0 and row["low"] == pytest.approx(-100 * (1 - 0.025 ** (1 / 12)))
    assert outcome(row["low"], row["high"], 2.0) == "undecided"


def test_seeds_count_as_well_as_items():
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(1, 4, 1)) * 0.1
    values = np.concatenate([0.5 + np.repeat(noise, 200, axis=2), np.full((1, 4, 200), 0.5)])
    scores = Scores(("pruned", "full"), values, np.array(["en"] * 200), np.arange(200), unit=1.0)
    row = differences(bootstrap(scores, 4000), [("pruned", "full")]).iloc[0]
    standard_error = noise.std(ddof=1) / 2
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.96 * standard_error, rel=0.25)


def test_intervals_together_are_wider_than_each_alone():
    rng = np.random.default_rng(6)
    scores = Scores(tuple("abcdef"), (rng.random((6, 2, 300)) < 0.7).astype(float), np.array(["en", "zh"] * 150), np.arange(300))
    drawn, pairs = bootstrap(scores), [(name, "a") for name in "bcdef"]
    alone, together = (differences(drawn, pairs, scores.names, together=flag) for flag in (False, True))
    assert ((together["high"] - together["low"]) > (alone["high"] - alone["low"])).all()
    assert (together["difference"] == alone["difference"]).all()


@settings(deadline=None)
@given(st.floats(-20, 20), st.floats(0, 20), st.floats(0.1, 10))
def test_an_outcome_is_what_the_interval_says(low, width, margin):
    high, found = low + width, outcome(low, low + width, margin)
    assert (found in ("hurts", "small loss")) == (high < 0)
    assert (found == "helps") == (low > 0)
    if low > -margin:
        assert found in ("no loss", "small loss", "helps")
    elif high >= 0:
        assert found == "undecided"


def test_bad_input_gets_one_sentence():
    with pytest.raises(BadEvidence, match="margin must be above 0"):
        outcome(-1, 1, 0)
    with pytest.raises(BadEvidence, match="no training part or no test part"):
        tasks.split_by_column(["train", "train"])
    with pytest.raises(BadEvidence, match="says 'later'"):
        tasks.split_by_column(["train", "test", "later"])
    with pytest.raises(BadEvidence, match="not finite"):
        bootstrap(Scores(("a",), np.full((1, 1, 2), np.nan), np.array(["en", "en"]), np.arange(2)))
    task, _ = tasks.made_task(True, 30, LANGUAGES)
    with pytest.raises(BadEvidence, match="two targets or more"):
        repeated = tasks.Repetition(pd.DataFrame(), pd.DataFrame(), pd.DataFrame())
        tasks.make_task("x", task.rows, ["one"] * len(task.rows), task.test, task.contents, repeated)


def test_a_split_by_content_keeps_translations_together():
    task, _ = tasks.made_task(True, 200, LANGUAGES, test_share=0.3)
    assert task.leaked == 0 and 0.2 < task.test.mean() < 0.4
    assert replace(task, test=np.arange(len(task.rows)) % 3 == 0).leaked > 0


def test_tables_and_figures_say_what_was_found(apart, tmp_path):
    evidence.write_evidence(tmp_path, [apart])
    table = records.read_frame(tmp_path / "evidence.parquet", evidence.EVIDENCE)
    means = table[table["seed"].isna()]
    assert ((means["low"] <= means["value"]) & (means["value"] <= means["high"])).all()
    assert set(table["seed"].dropna()) == {1, 2, 3}
    assert set(table["language"]) == {MEAN, *LANGUAGES} and set(table["policy"]) == {"full", "balanced", "by_language", "random"}
    told = json.loads((tmp_path / "evidence_verdict.json").read_text(encoding="utf-8"))[0]
    assert told["verdict"] == apart.headline["verdict"].tolist() and "max-t" in told["multiplicity"]
    plots.use_theme()
    fig = evidence_figures.curves(apart)
    assert "pruning hurts here" in fig.get_suptitle() and len(fig.axes) == 6
    assert len(evidence_figures.forest(apart).axes) == 2


def ran(workspace, root, run="own", **parameters):
    """The executed notebook 09 and what its cells said."""
    parameters = {"run_dir": f"papermill_runs/{run}", "cache_dir": str(root / ".cache"), "evidence_seeds": 2,
                  "kept_fractions": [0.3, 1.0], "evidence_policies": [], "bootstrap_draws": 300, **parameters}
    (workspace / "papermill_runs" / run).mkdir(parents=True, exist_ok=True)
    notebook = papermill.execute_notebook("notebooks/09_pruning_evidence.ipynb", f"papermill_runs/{run}/09.ipynb", parameters,
                                          progress_bar=False)
    outputs = [output for cell in nbformat.from_dict(notebook).cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_the_notebook_learns_what_a_file_says_and_prunes_only_the_training_part(workspace, root, shared_data):
    lines = (shared_data / "redundancy" / "msvamp_math.jsonl").read_text(encoding="utf-8").splitlines()[:1000]
    (workspace / "my.jsonl").write_text("\n".join(lines), encoding="utf-8")
    said = ran(workspace, root, samples_path="my.jsonl", target_column="operation", split_column="split", truth_column="group")
    rows = [json.loads(line) for line in lines]
    train = [row for row in rows if row["split"] == "train" and row["operation"]]
    assert f"{len(train):,} training rows" in said and "0 of them with their content in the training part" in said
    table = records.read_frame(workspace / "papermill_runs/own/data/evidence.parquet", evidence.EVIDENCE)
    full = table[(table["policy"] == "full") & table["seed"].isna() & (table["language"] == MEAN)].iloc[0]
    assert full["n_train"] == len(train) and 35 < full["value"] < 90
    for name in ("09_curves", "09_differences"):
        assert (workspace / f"figures/own/{name}.png").is_file() and (workspace / f"figures/own/{name}.svg").is_file()


def test_samples_of_one_kind_are_no_task_and_stop_no_run(workspace, root):
    rows = [{"id": f"q{k}{code}", "language": code, "messages": [{"role": "user", "content": f"{word} {k}?"}]}
            for k in range(20) for code, word in (("en", "How far is house number"), ("fr", "Où est la maison numéro"))]
    (workspace / "one.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    said = ran(workspace, root, samples_path="one.jsonl")
    assert "name a target_column with several values" in said and "made data instead" in said
    told = json.loads((workspace / "papermill_runs/own/data/evidence_verdict.json").read_text(encoding="utf-8"))[0]
    assert told["task"].startswith("made data")


def test_a_random_policy_is_refused(workspace, root):
    with pytest.raises(papermill.PapermillExecutionError, match="is the control of every policy"):
        ran(workspace, root, policy="random")


def test_words_tell_a_policy_from_a_control():
    assert verdict.in_words(-4, -6, -3, 2) == "pruning hurts here by 4.00 points [-6.00, -3.00]"
    assert verdict.in_words(-1, -1.5, -0.5, 2).endswith("less than the margin of 2")
    control = "random pruning at equal size"
    assert verdict.in_words(3, 1, 5, 2, control).startswith(f"better than {control} by 3.00")


@pytest.fixture(scope="module")
def tiny_texts():
    """Two languages whose word for the answer stands in the text: what a very small model can learn."""
    words = {"en": ("red", "blue"), "fr": ("rouge", "bleu")}
    rows = [(code, words[code][k % 2], k % 2) for k in range(120) for code in words]
    return [f"{code} {word} {word}" for code, word, _ in rows], np.array([target for _, _, target in rows])


def test_a_small_model_learns_and_its_loss_falls(tiny_texts):
    texts, target = tiny_texts
    train, test = np.arange(200), np.arange(200, 240)
    plan = small_lm.LmPlan(width=32, layers=1, heads=2, vocabulary=300, max_tokens=32, batch=16, epochs=6, rate=1e-2)
    data = small_lm.encode(texts, target, 2, train, plan)
    learnt, again = (small_lm.train_and_test(data, train, test, len(train), plan, seed=1) for _ in range(2))
    none = small_lm.train_and_test(data, train, test, len(train), replace(plan, rate=1e-9), seed=1)
    assert learnt.right.mean() > 0.9 and learnt.loss.mean() < 0.5 * none.loss.mean()
    assert (learnt.loss == again.loss).all() and (learnt.right == again.right).all()
    assert learnt.updates == 75 and learnt.tokens > 75 * 16 * 4


def test_equal_steps_and_equal_epochs():
    plan = small_lm.LmPlan(batch=10, epochs=3)
    assert [plan.updates(rows, 100) for rows in (100, 20)] == [30, 30]
    assert [replace(plan, match="epochs").updates(rows, 100) for rows in (100, 20)] == [30, 6]


def test_the_full_recipe_prints_what_it_would_run(workspace, monkeypatch, capsys):
    words = "full_recipe my.jsonl --base-model tiny --seeds 2 --policies balanced paper --train max_steps=5 --dry-run"
    monkeypatch.setattr(sys, "argv", words.split())
    assert full_recipe.main() == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "papermill" in line and not line.startswith("#")]
    numbers = [re.search(r"(0\d)\.ipynb", line).group(1) for line in lines]
    assert numbers.count("04") == 1 and numbers.count("05") == 8 and numbers.count("07") == numbers.count("08") == 10
    assert sum("policy random" in line and "keeps>" in line for line in lines) == 4
    assert all("max_steps 5" in line for line, number in zip(lines, numbers, strict=True) if number == "07")
    assert not (workspace / "papermill_runs").exists()


def test_the_full_recipe_compares_the_answers_of_its_models(tmp_path):
    rng = np.random.default_rng(2)
    models = full_recipe.arms(["balanced"], seeds=2)
    sample = {"language": "en", "kind": "math", "messages": [{"role": "user", "content": "1 + 1?"}]}
    rows = [{"id": str(number), **sample} for number in range(30)]
    records.write_table(tmp_path / "base/data/samples.parquet", rows, records.SAMPLES)
    for arm in models:
        data, kept = tmp_path / arm.name / "data", 30 if arm.policy == "full" else 10
        records.write_table(data / "kept.parquet", rows[:kept], records.SAMPLES)
        records.write_table(data / "dropped.parquet", rows[kept:], records.DROPPED)
        right = 0.9 if arm.policy == "full" else 0.5
        records.write_table(data / "evaluation" / "answers.parquet", [
            {"benchmark": "mgsm", "id": f"mgsm_{code}_{k}", "language": code, "model": arm.name, "sample": 0,
             "score": float(rng.random() < right)} for k in range(150) for code in ("en", "zh")], ANSWERS)
    args = argparse.Namespace(runs=tmp_path, seeds=2, margin=2.0, policies=["balanced"])
    found = full_recipe.collect(models, args)
    assert [one.task for one in found] == ["mgsm"] and found[0].level == "c"
    full = found[0].headline.iloc[0]
    assert full["outcome"] == "hurts" and full["difference"] == pytest.approx(-40, abs=8)
    assert full["kept_fraction"] == pytest.approx(1 / 3)
    (tmp_path / models[0].name / "data" / "evaluation" / "answers.parquet").unlink()
    with pytest.raises(BadEvidence, match="no answers"):
        full_recipe.collect(models, args)
