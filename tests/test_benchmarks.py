"""The benchmarks' metrics against plain counting; the peers themselves are measured, not tested."""

import itertools
import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import fit_calibration  # noqa: E402
import labelled  # noqa: E402
import localised  # noqa: E402
import peers  # noqa: E402
import quality  # noqa: E402

from ultralink_nb.calibration import LEAST, READ  # noqa: E402
from ultralink_nb.embedding import open_encoder  # noqa: E402
from ultralink_nb.redundancy import FEATURES, against_truth  # noqa: E402

# Sentences that differ by a word from many others, so that a screen leaves true and false pairs; people are names to exchange.
NAMES = ("Marta", "Viktor", "Olga")
FRAMES = {"en": "Last week my neighbour {} has {} {}.", "fr": "La semaine dernière, mon ami {} a {} {}.",
          "es": "La semana pasada, mi amigo {} ha {} {}."}
DEEDS = {"en": ("bought", "sold", "painted"), "fr": ("acheté", "vendu", "peint"), "es": ("comprado", "vendido", "pintado")}
THINGS = {"en": ("the red house", "the old boat", "a small chair"), "fr": ("la maison rouge", "le vieux bateau", "une chaise"),
          "es": ("la casa roja", "el viejo barco", "una silla pequeña")}


def parallel_rows() -> pd.DataFrame:
    """27 contents in three languages: id, language, kind, content, text."""
    rows = []
    for code, frame in FRAMES.items():
        for number, words in enumerate(itertools.product(NAMES, DEEDS[code], THINGS[code])):
            rows.append((f"{number}-{code}", code, "sentence", str(number), frame.format(*words)))
    return pd.DataFrame(rows, columns=["id", "language", "kind", "content", "text"])

rows = st.lists(st.tuples(st.sampled_from(["en", "zh", "ru"]), st.integers(0, 4)), max_size=25)
scored = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40)


@settings(deadline=None)
@given(rows)
def test_pairs_across_languages_are_counted_right(table):
    languages, labels = np.array([code for code, _ in table], dtype=str), np.array([label for _, label in table], dtype=int)
    expected = sum(a[0] != b[0] and a[1] == b[1] for a, b in itertools.combinations(table, 2))
    assert quality.pairs_across(labels, languages) == expected


@settings(deadline=None)
@given(scored, st.integers(0, 5))
def test_the_best_threshold_is_the_best_of_all(pairs, missed):
    score, same = np.array([s for s, _ in pairs]) / 7, np.array([s for _, s in pairs])
    true = int(same.sum()) + missed
    best = quality.best_threshold(score, same, true)
    everywhere = [quality.at_threshold(score, same, true, threshold) for threshold in np.unique(score)]
    assert best.f1 == max(found.f1 for found in everywhere)
    if same.any():
        assert best == quality.at_threshold(score, same, true, best.threshold)


def test_precision_and_recall_are_what_they_say():
    found = quality.at_threshold(np.array([0.9, 0.5, 0.4]), np.array([True, False, True]), 4, 0.5)
    assert found == (0.5, 2, 0.5, 0.25, 2 / 6)
    nothing = quality.best_threshold(np.array([0.9]), np.array([False]), 4)
    assert nothing.f1 == nothing.recall == nothing.found == 0


def test_reliability_in_bins_of_equal_mass():
    probability = np.array([0.1, 0.2, 0.3, 0.6, 0.8, 1.0])
    same = np.array([0, 0, 1, 1, 1, 1])
    table = quality.reliability(probability, same, bins=3)
    assert table["samples"].tolist() == [2, 2, 2]
    assert table["low"].tolist() == [0.1, 0.3, 0.8] and table["high"].tolist() == [0.2, 0.6, 1.0]
    assert table["probability"].tolist() == pytest.approx([0.15, 0.45, 0.9]) and table["same"].tolist() == [0, 1, 1]
    assert quality.expected_calibration_error(probability, same, bins=3) == pytest.approx((0.15 + 0.55 + 0.1) / 3)


def test_a_calibrated_probability_has_a_small_error_and_a_bold_one_a_large_one():
    rng = np.random.default_rng(0)
    probability = rng.random(20_000)
    same = rng.random(20_000) < probability
    assert quality.expected_calibration_error(probability, same) < 0.02
    bold = (probability > 0.5).astype(float)
    assert quality.expected_calibration_error(bold, same, bins=2) == pytest.approx(0.25, abs=0.01)


@settings(deadline=None)
@given(scored, st.randoms(use_true_random=False))
def test_reliability_does_not_depend_on_the_order_of_rows(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    tables = [
        quality.reliability(np.array([p / 6 for p, _ in some]), np.array([s for _, s in some])) for some in (pairs, shuffled)
    ]
    assert tables[0].equals(tables[1]) and tables[0]["samples"].sum() == len(pairs)
    assert tables[0]["samples"].max() - tables[0]["samples"].min() <= 1
    assert np.average(tables[0]["same"], weights=tables[0]["samples"]) == pytest.approx(np.mean([s for _, s in pairs]))


@pytest.mark.parametrize(("probability", "same"), [([], []), ([0.5, 1.2], [1, 1]), ([0.5], [1, 0]), ([np.nan], [1])])
def test_what_cannot_be_measured_is_refused(probability, same):
    with pytest.raises(ValueError, match="reliability needs"):
        quality.reliability(np.array(probability), np.array(same))


def test_the_best_neighbour_of_each_row_in_each_other_language():
    languages = np.array(["en", "en", "zh", "zh", "ru"])
    left, right = np.array([0, 0, 1, 0]), np.array([2, 3, 2, 4])
    best = quality.best_neighbours(left, right, np.array([0.9, 0.8, 0.7, 0.1]), languages)
    # row 0 in zh: pair 0, in ru: pair 3; row 1 in zh: 2; row 2 in en: 0; row 3 in en: 1; row 4 in en: 3
    assert sorted(best.tolist()) == [0, 0, 1, 2, 3, 3]
    assert len(quality.best_neighbours(left[:0], right[:0], np.zeros(0), languages)) == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=20))
def test_pairs_of_groups_are_all_pairs(labels):
    labels = np.array(labels, dtype=np.int64)
    left, right = peers.pairs_of_groups(labels)
    expected = {(a, b) for a, b in itertools.combinations(range(len(labels)), 2) if labels[a] == labels[b]}
    assert set(zip(left.tolist(), right.tolist(), strict=True)) == expected and len(left) == len(expected)


def test_cosines_ratio_margin_and_clusters_against_brute_force():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    languages, content = np.array(["en", "fr", "zh"] * 20), np.arange(60) // 3
    labelled = quality.LabelledSet("made", [], languages, content, vectors, quality.pairs_across(content, languages))
    cosine = vectors @ vectors.T

    score, same = quality.all_cosines(labelled)
    assert len(score) == 3 * 400 and same.sum() == labelled.true == 60

    margins = quality.ratio_margin(labelled, k=4)
    for a, b, margin in list(zip(*margins, strict=True))[::17]:
        near_a = np.sort(cosine[a, languages == languages[b]])[-4:].sum() / 8
        near_b = np.sort(cosine[b, languages == languages[a]])[-4:].sum() / 8
        assert margin == pytest.approx(cosine[a, b] / max(1e-3, near_a + near_b), rel=1e-4)

    one_cluster = peers.semdedup_pairs(vectors, n_clusters=1, threshold=0.3)
    expected = {(a, b) for a, b in itertools.combinations(range(60), 2) if cosine[a, b] >= 0.3}
    assert set(zip(one_cluster.left.tolist(), one_cluster.right.tolist(), strict=True)) == expected
    assert np.allclose(one_cluster.score, cosine[one_cluster.left, one_cluster.right], atol=1e-5)
    several = peers.semdedup_pairs(vectors, n_clusters=6, threshold=0.3)
    assert set(zip(several.left.tolist(), several.right.tolist(), strict=True)) < expected


def test_rows_rewritten_for_another_culture(tmp_path, monkeypatch):
    """What no labelled set has enough of is made: the same twice, in its own words, never in English, without jieba."""
    monkeypatch.setitem(sys.modules, "jieba", None)  # a set without Chinese does not need it
    rows, encoder = parallel_rows(), open_encoder("use")
    before = rows.copy()
    made = localised.localise(rows, encoder, tmp_path)
    pd.testing.assert_frame_equal(rows, before)
    pd.testing.assert_frame_equal(localised.localise(rows, encoder, tmp_path), made)
    assert not localised.localise(rows, encoder, tmp_path, seed=8)["text"].equals(made["text"])
    changed = (made["text"] != rows["text"]).to_numpy()
    assert 10 < changed.sum() < 40 and not changed[rows["language"] == "en"].any()
    assert ((made["content"] != rows["content"]) == changed).all()
    assert made.loc[changed, "content"].is_unique and not set(made.loc[changed, "content"]) & set(rows["content"])
    assert made[["id", "language", "kind"]].equals(rows[["id", "language", "kind"]])
    rewritten = rows.loc[changed, "content"].nunique()
    assert rewritten < 20  # of 27; the others are as they were in every language
    for text, other in zip(rows.loc[changed, "text"], made.loc[changed, "text"], strict=True):
        names = [{name for name in NAMES if name in one} for one in (text, other)]
        assert names[0] != names[1] and len(names[1]) == 1  # the row names somebody, so another name took its place


def test_rows_that_cannot_be_rewritten_stay(tmp_path):
    encoder = open_encoder("use")
    none = localised.localise(parallel_rows()[:0], encoder, tmp_path)
    assert none.empty
    rows = pd.DataFrame({"language": ["fr"] * 4, "content": list("abcd"), "text": ["", "12 + 30", "ou", "Bonjour !"]})
    pd.testing.assert_frame_equal(localised.localise(rows, encoder, tmp_path), rows)


def test_chinese_rows_are_rewritten_by_words(tmp_path):
    pytest.importorskip("jieba")
    animals = ["小猫", "小狗", "老虎", "狮子", "兔子", "大象", "猴子", "山羊"]
    texts = [f"昨天我在公园里看见了一只{animal}。" for animal in animals]
    rows = pd.DataFrame({"language": "zh", "content": animals, "text": texts})
    made = localised.localise(rows, open_encoder("use"), tmp_path)
    changed = made["text"] != rows["text"]
    assert changed.any() and made.loc[changed, "text"].isin(texts).all()
    assert ((made["content"] != rows["content"]) == changed).all()


def test_labelled_rows_and_documents_are_read(tmp_path):
    message = [{"role": "user", "content": "Why?"}]
    (tmp_path / "set.jsonl").write_text("\n".join(json.dumps(row) for row in [
        {"id": "a", "language": "en", "kind": "chat", "group": 7, "messages": message},
        {"id": "b", "language": "fr", "group": 7, "messages": message, "localised": True},
    ]), encoding="utf-8")
    rows = labelled.read_rows(tmp_path / "set.jsonl")
    assert rows["content"].tolist() == ["7", "b"] and rows["kind"].tolist() == ["chat", ""]
    assert rows["text"].tolist() == ["Why?"] * 2
    for code in ("eng", "fra"):
        (tmp_path / f"ntrex_{code}.txt").write_text(f"{code} one\n{code} two\n", encoding="utf-8")
    question = {"data": [{"paragraphs": [{"qas": [{"id": "q1", "question": "Who?"}]}]}]}
    (tmp_path / "xquad.en.json").write_text(json.dumps(question), encoding="utf-8")
    found = labelled.read_documents(tmp_path)
    assert found["ntrex"]["content"].tolist() == ["0", "1"] * 2 and set(found["ntrex"]["language"]) == {"en", "fr"}
    assert found["xquad"].iloc[0].tolist() == ["q1_en", "en", "reading", "q1", "Who?"]
    assert labelled.read_documents(tmp_path / "nowhere") == {}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two labelled sets and a set of documents, all of the sentences above, scored and read."""
    folder, documents = tmp_path_factory.mktemp("sets"), tmp_path_factory.mktemp("documents")
    rows = parallel_rows()
    for name, kind in (("tatoeba_sentence", "sentence"), ("other", "chat_agnostic")):
        (folder / f"{name}.jsonl").write_text("\n".join(
            json.dumps({"id": row.id, "language": row.language, "kind": kind, "group": row.content,
                        "messages": [{"role": "user", "content": row.text}]}) for row in rows.itertuples()
        ), encoding="utf-8")
    for code, name in (("en", "eng"), ("fr", "fra"), ("es", "spa")):
        (documents / f"ntrex_{name}.txt").write_text("\n".join(rows.loc[rows["language"] == code, "text"]), encoding="utf-8")
    return fit_calibration.read_sets(folder, documents, open_encoder("use"), str(tmp_path_factory.mktemp("cache")))


def test_sets_are_read_where_a_screen_leaves_them(sets):
    of_all, measured = sets
    assert measured == ["other", "tatoeba_sentence"] and set(of_all) == {*measured, "ntrex"}
    assert set(of_all["ntrex"]) == {"whole", "thinned", "rewritten"} and set(of_all["other"]) == {"whole", "thinned"}
    whole, part = of_all["other"]["whole"], of_all["other"]["thinned"]
    assert len(whole.rows) == 81 and 30 < len(part.rows) < 70 and whole.true == 81 and part.true < 81
    assert len(whole.agreement) == len(whole.chosen) <= len(whole.candidates) and (np.diff(whole.chosen) > 0).all()
    rewritten = of_all["ntrex"]["rewritten"]
    assert rewritten.true < 81 and rewritten.true == labelled.true_pairs(rewritten.rows)


def test_calibrations_are_fitted_by_kind_and_carry_over(sets):
    of_all, measured = sets
    fitted = fit_calibration.fit(of_all, list(of_all), "use")
    assert fitted.screen.features == FEATURES and fitted.screen.fitted_on == "other, tatoeba_sentence, ntrex"
    about = {kind: one.fitted_on for kind, one in fitted.by_kind.items()}
    assert about == {"": "tatoeba_sentence, ntrex", "sentence": "tatoeba_sentence", "chat": "ntrex, rewritten"}
    assert all(one.features == READ and 0 < one.prior < 1 for one in fitted.by_kind.values())
    whole = of_all["other"]["whole"]
    chosen, scores, same = fit_calibration.known(whole, fitted.screen)
    assert set(READ) <= set(scores) and len(scores) == len(chosen) == len(same)
    screened = fitted.screen.probability(whole.scores)
    found = fit_calibration.probability(fitted, whole)
    assert (screened[chosen] >= LEAST).all() and np.array_equal(np.delete(found, chosen), np.delete(screened, chosen))
    pairs = pd.DataFrame({"left": whole.candidates.left, "right": whole.candidates.right, "probability": found})
    worth, counted = fit_calibration.worth(whole, found), against_truth(whole.rows, whole.rows["content"], pairs)
    for measure in ("true pairs", "precision", "recall", "F1"):
        assert worth[measure] == pytest.approx(counted[measure])
    for name in measured:
        for found in (fit_calibration.left_out(of_all, name, "use"), fit_calibration.in_folds(of_all, name, measured, "use")):
            assert ((found >= 0) & (found <= 1)).all()
            assert fit_calibration.worth(of_all[name]["whole"], found)["F1"] > 0.85


def test_rows_that_are_left_out_have_no_part_in_a_fit(sets):
    of_all, _ = sets
    name = "tatoeba_sentence"
    rows = of_all[name]["whole"].rows
    without = rows["id"][rows["content"].astype(int) < 9]

    def fitted(spoil_left_out: bool, spoil_others: bool):
        changed = {}
        for variant, part in of_all[name].items():
            out = part.rows["id"].isin(without).to_numpy()
            touched = out[part.candidates.left] | out[part.candidates.right]
            spoilt = np.where(touched, spoil_left_out, spoil_others)
            changed[variant] = replace(part, same=np.where(spoilt, 1 - part.same, part.same))
        return fit_calibration.fit({**of_all, name: changed}, [name, "ntrex"], "use", {name: without})

    assert fitted(True, False) == fitted(False, False) != fitted(False, True)


def test_specificity_reads_what_the_pairs_need(tmp_path):
    import specificity

    said = [("en", 1, "Bake bread"), ("fr", 1, "Faire du pain"), ("en", 2, "Name a river"), ("fr", 2, "Nomme un fleuve")]
    samples = [{"id": f"{code}{group}", "language": code, "kind": "chat", "group": group,
                "messages": [{"role": "user", "content": text}]} for code, group, text in said]
    (tmp_path / "made.jsonl").write_text("\n".join(map(json.dumps, samples)), encoding="utf-8")
    rows = specificity.read_rows(tmp_path / "made.jsonl")

    def encode(texts):
        return np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)

    scores = dict(specificity.pair_scores(encode(rows["text"]), rows, "use", encode))
    assert set(scores) == {"best ratio margin", "probability"} and all(np.isfinite(found).all() for found in scores.values())
