"""Neighbours, scores, calibration and groups."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb import calibration, neighbours, redundancy
from ultralink_nb.vectors import centre

CODES = ("en", "zh", "ru", "fr", "es")


def translated(contents: int, codes=CODES, noise=0.2, seed=0, d=32):
    """Vectors of `contents` things said once in each language, each language shifted by a mean of its own."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(contents, d))
    rows, languages, truth = [], [], []
    for code in codes:
        shift = rng.normal(size=d) * 0.7
        rows.append(meaning + shift + noise * rng.normal(size=(contents, d)))
        languages += [code] * contents
        truth += list(range(contents))
    vectors = np.concatenate(rows).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), languages, np.array(truth)


def test_candidates_are_what_brute_force_finds():
    vectors, languages, _ = translated(30)
    centred = centre(vectors, languages)
    found = redundancy.candidate_pairs(centred, k=3)
    similarity, codes = centred.vectors @ centred.vectors.T, np.array(languages)
    expected = set()
    for row in range(len(codes)):
        for code in set(codes) - {codes[row]}:
            others = np.flatnonzero(codes == code)
            for other in others[np.argsort(-similarity[row, others], kind="stable")[:3]]:
                expected.add(tuple(sorted((row, int(other)))))
    assert set(zip(found.left.tolist(), found.right.tolist(), strict=True)) == expected


def test_the_margin_is_the_papers_formula():
    vectors, languages, _ = translated(20, codes=("en", "fr"))
    centred = centre(vectors, languages, shrink=1e9)  # nothing is taken away, so that the margin's neighbours are the raw ones
    candidates = redundancy.candidate_pairs(centred, k=4)
    scores = redundancy.score_pairs(candidates, centred, ["text"] * 40)
    english, french = vectors[:20], vectors[20:]
    cosine = english @ french.T
    for number in range(0, len(scores), 7):
        x, y = candidates.left[number], candidates.right[number] - 20
        near_x, near_y = np.sort(cosine[x])[-4:].sum() / 8, np.sort(cosine[:, y])[-4:].sum() / 8
        assert scores["margin"][number] == pytest.approx(cosine[x, y] / (near_x + near_y), rel=1e-3)
        assert scores["cosine"][number] == pytest.approx(cosine[x, y], rel=1e-4)


def test_a_second_copy_of_a_text_is_no_other_neighbour():
    """Rows given twice: the copy of the true match must not close the gap to the next best."""
    vectors, languages, truth = translated(40, codes=("en", "fr"), noise=0.1)
    texts = [f"{code} {content}" for code, content in zip(languages, truth, strict=True)]
    vectors = centre(vectors, languages).vectors

    def gaps(vectors, languages, texts, labels, k):
        centred = centre(vectors, languages, shrink=1e9)
        pairs = redundancy.candidate_pairs(centred, k)
        return redundancy.score_pairs(pairs, centred, texts)["gap_worst"][labels[pairs.left] == labels[pairs.right]]

    alone = gaps(vectors, languages, texts, truth, 4)
    doubled = gaps(np.concatenate([vectors, vectors]), languages * 2, texts * 2, np.concatenate([truth, truth]), 8)
    assert len(doubled) == 4 * len(alone) and doubled.min() == pytest.approx(alone.min(), abs=1e-4) and alone.min() > 0


def test_a_slot_without_a_neighbour_counts_for_nothing():
    centred = centre(np.array([[1, 0], [0.8, 0.6]], np.float32), ["en", "fr"], shrink=1e9)
    near = {("en", "fr"): neighbours.Neighbours(np.array([[0.8, -1]], np.float32), np.array([[1, -1]]), np.array([0])),
            ("fr", "en"): neighbours.Neighbours(np.array([[0.8, -1]], np.float32), np.array([[0, -1]]), np.array([1]))}
    candidates = redundancy.Candidates(np.array([0]), np.array([1]), np.array([0.8], np.float32), near)
    scores = redundancy.score_pairs(candidates, centred, ["a", "b"])
    assert scores["gap_best"][0] == pytest.approx(0.8, abs=1e-5) and scores["margin"][0] == pytest.approx(1, abs=1e-5)


def test_scores_do_not_depend_on_the_order_of_rows():
    vectors, languages, truth = translated(15)
    texts = [f"{code} says {content}" for code, content in zip(languages, truth, strict=True)]
    order = np.random.default_rng(3).permutation(len(texts))

    def scored(rows):
        v, codes, t = vectors[rows], [languages[row] for row in rows], [texts[row] for row in rows]
        centred = centre(v, codes)
        candidates = redundancy.candidate_pairs(centred)
        frame = redundancy.score_pairs(candidates, centred, t).drop(columns=["others_left", "others_right"])  # these know a side
        names = [tuple(sorted((t[a], t[b]))) for a, b in zip(candidates.left, candidates.right, strict=True)]
        return frame.set_index(pd.MultiIndex.from_tuples(names)).sort_index()

    pd.testing.assert_frame_equal(scored(np.arange(len(texts))), scored(order), rtol=1e-3, atol=1e-4)


def test_numbers_are_compared_by_value():
    """The same number in two notations agrees, another one differs, and no number says nothing."""
    languages = ["en", "fr"] * 3
    texts = ["1,250.5 km", "1 250,5 km", "It costs 7", "Il coûte 8", "no number", "aucun nombre"]
    centred = centre(np.ones((6, 4), dtype=np.float32) / 2, languages, shrink=1e9)
    candidates = redundancy.candidate_pairs(centred, k=3)
    scores = redundancy.score_pairs(candidates, centred, texts)
    pairs = list(zip(candidates.left.tolist(), candidates.right.tolist(), strict=True))
    told = {pair: tuple(scores.loc[n, ["numbers_match", "numbers_clash", "numbers_differ"]]) for n, pair in enumerate(pairs)}
    assert told[0, 1] == (1, 0, 0) and told[2, 3] == (0, 1, 2) and told[4, 5] == (0, 0, 0) and told[2, 5] == (0, 1, 1)
    unread = redundancy.score_pairs(candidates, centred, None)
    assert not unread[["numbers_match", "numbers_clash", "numbers_differ", "numbers_agree"]].to_numpy().any()


def test_the_shipped_calibration_tells_translations_from_neighbours(tmp_path):
    """On the questions of the embedded sample in five languages, which the calibration was not fitted on."""
    from ultralink_nb import embedding
    from ultralink_nb.workspace import SAMPLE

    rows = []
    for code in CODES[1:]:
        for line in (SAMPLE / "sft" / "translations" / f"{code}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.append((code, row["id"], row["messages"][0]["content"]))
    languages, truth, texts = (list(column) for column in zip(*rows, strict=True))
    centred = centre(embedding.embed(texts, embedding.open_encoder("use"), tmp_path), languages)
    found = redundancy.candidate_pairs(centred)
    shipped, sentence = calibration.load_calibration("use")
    alone = shipped.probability(redundancy.score_pairs(found, centred, texts))
    pairs = pd.DataFrame({
        "left": found.left, "right": found.right,
        "probability": redundancy.corroborate(len(texts), found.left, found.right, centred.codes, alone, shipped.prior),
    })
    found = redundancy.against_truth(pd.DataFrame({"language": languages}), truth, pairs)
    assert found["precision"] > 0.95 and found["recall"] > 0.9
    assert "msvamp" in sentence
    assert "NO calibration" in calibration.load_calibration("some/other-model")[1]


def test_a_calibration_is_fitted_saved_and_read_back(tmp_path):
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.normal(size=(400, len(redundancy.FEATURES))), columns=list(redundancy.FEATURES))
    same = (scores["cosine"] + 0.2 * rng.normal(size=400) > 0).astype(int).to_numpy()
    fitted = calibration.fit_calibration(scores, same, "test", "made up pairs")
    fitted.save(tmp_path / "c.json")
    loaded = calibration.read_calibration(tmp_path / "c.json")
    assert loaded == fitted
    assert ((loaded.probability(scores) > 0.5) == same).mean() > 0.9
    # as calibrated as scikit-learn's own prediction, of which this is the portable form
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(scores.to_numpy(), same)
    assert np.allclose(loaded.probability(scores), reference.predict_proba(scores.to_numpy())[:, 1], atol=1e-4)


def test_bad_calibrations_are_refused(tmp_path):
    scores = pd.DataFrame(0.0, index=range(3), columns=list(redundancy.FEATURES))
    with pytest.raises(ValueError, match="both kinds"):
        calibration.fit_calibration(scores, np.ones(3), "use", "x")
    (tmp_path / "c.json").write_text('{"encoder": "use"}')
    with pytest.raises(ValueError, match="not a calibration file"):
        calibration.read_calibration(tmp_path / "c.json")
    with pytest.raises(FileNotFoundError, match="no such calibration"):
        calibration.read_calibration(tmp_path / "none.json")


@pytest.mark.parametrize("languages", [["en"] * 5, [], ["en", "zh", "zh", "zh"]])
def test_one_language_none_or_three_rows(languages):
    centred = centre(np.eye(max(1, len(languages)), 8, dtype=np.float32)[: len(languages)], languages)
    candidates = redundancy.candidate_pairs(centred, 4)
    scores = redundancy.score_pairs(candidates, centred, ["x"] * len(languages))
    assert len(scores) == (3 if len(set(languages)) > 1 else 0)
    assert np.isfinite(scores.to_numpy()).all()


def test_truth_counts_pairs_across_languages_only():
    rows = pd.DataFrame({"id": list("abcd"), "language": ["en", "zh", "zh", "ru"]})
    pairs = pd.DataFrame([(0, 1, 0.9), (0, 3, 0.9), (0, 2, 0.2)], columns=["left", "right", "probability"])
    found = redundancy.against_truth(rows, ["x", "x", "x", "y"], pairs)
    assert (found["true pairs"], found["found"], found["right"]) == (2, 2, 1)
    assert found["precision"] == 0.5 and found["recall"] == 0.5 and found["F1"] == 0.5


def together(links, n=6, languages=(0, 0, 1, 1, 2, 2), prior=0.2, **options):
    left, right, probability = (np.array(column) for column in zip(*links, strict=True))
    return redundancy.corroborate(n, left, right, np.array(languages), probability, prior, **options)


def test_a_third_language_speaks_for_a_pair():
    alone = together([(0, 2, 0.4)])
    backed = together([(0, 2, 0.4), (0, 4, 0.9), (2, 4, 0.8)])
    assert alone[0] == pytest.approx(0.4) and backed[0] > alone[0] + 0.2
    half = together([(0, 2, 0.4), (0, 4, 0.9)])
    assert half[0] == pytest.approx(alone[0], abs=1e-6)


def test_rows_of_one_language_compete():
    found = together([(0, 2, 0.9), (0, 3, 0.9), (1, 4, 0.9)])
    assert found[0] == pytest.approx(found[1]) and found[0] + found[1] <= 1 and found[2] > found[0] + 0.3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(6, 11), st.floats(0, 1)), min_size=1, unique_by=lambda t: t[:2]),
       st.randoms(use_true_random=False))
def test_corroborated_probabilities_are_probabilities_whatever_the_order(links, random):
    languages = [0] * 6 + [1] * 3 + [2] * 3
    found = together(links, 12, languages)
    assert ((found >= 0) & (found <= 1)).all()
    for row in range(6):
        for code in (1, 2):
            chosen = [p for (a, b, _), p in zip(links, found, strict=True) if a == row and languages[b] == code]
            assert sum(chosen) <= 1 + 1e-5
    order = random.sample(range(len(links)), len(links))
    assert np.allclose(together([links[n] for n in order], 12, languages), found[order], atol=1e-5)


def test_the_share_of_true_pairs_is_that_of_the_data():
    """A thousand middling pairs: few in a data set where everything else is different, many where everything is the same."""
    doubtful = [(n, 3000 + n, 0.5) for n in range(1000)]
    rest = [(n, 3000 + n, 0.001) for n in range(1000, 3000)]
    sure = [(n, 3000 + n, 0.999) for n in range(1000, 3000)]
    languages = np.repeat([0, 1], 3000)
    few, many = together(doubtful + rest, 6000, languages), together(doubtful + sure, 6000, languages)
    assert many[0] > few[0] + 0.2


def test_no_pairs_no_probabilities():
    none = np.zeros(0, int)
    assert redundancy.corroborate(3, none, none, np.zeros(3, int), np.zeros(0), 0.2).shape == (0,)
