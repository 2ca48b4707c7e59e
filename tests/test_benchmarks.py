"""The benchmarks' metrics against plain counting; the peers themselves are measured, not tested."""

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import peers  # noqa: E402
import quality  # noqa: E402

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
