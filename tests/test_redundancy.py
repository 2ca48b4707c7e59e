"""Neighbours, scores, calibration and groups."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb import calibration, neighbours, redundancy

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


def test_centring_takes_the_languages_mean_away():
    vectors, languages, truth = translated(200)
    centred = redundancy.centre(vectors, languages)
    assert np.allclose(np.linalg.norm(centred, axis=1), 1, atol=1e-5)
    codes = np.array(languages)

    def means(v):
        return np.array([v[codes == code].mean(axis=0) for code in CODES])

    assert np.linalg.norm(means(centred), axis=1).max() < 0.35 * np.linalg.norm(means(vectors), axis=1).min()


def test_a_single_row_survives_centring():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    centred = redundancy.centre(vectors, ["en", "zh", "zh"])
    assert np.isfinite(centred).all() and centred[0] @ vectors[0] > 0.99


def test_candidates_are_what_brute_force_finds():
    vectors, languages, _ = translated(30)
    found = redundancy.candidate_pairs(vectors, languages, k=3)
    similarity, codes = vectors @ vectors.T, np.array(languages)
    expected = set()
    for row in range(len(codes)):
        for code in set(codes) - {codes[row]}:
            others = np.flatnonzero(codes == code)
            for other in others[np.argsort(-similarity[row, others], kind="stable")[:3]]:
                expected.add(tuple(sorted((row, int(other)))))
    assert set(zip(found.left.tolist(), found.right.tolist(), strict=True)) == expected


def test_an_inverted_file_finds_nearly_what_exact_search_finds():
    vectors, languages, _ = translated(3000, codes=("en", "fr"), noise=0.1, d=64)
    approximate = neighbours.search_between(vectors, languages, 4, "ivf")
    exact = neighbours.search_between(vectors, languages, 4, "exact")
    assert neighbours.recall_against_exact(vectors, languages, exact) == 1.0
    recall = neighbours.recall_against_exact(vectors, languages, approximate)
    best = np.mean([(approximate[pair].rows[:, 0] == exact[pair].rows[:, 0]).mean() for pair in exact])
    assert recall > 0.95 and abs(recall - best) < 0.03


def test_the_margin_is_the_papers_formula():
    vectors, languages, _ = translated(20, codes=("en", "fr"))
    candidates = redundancy.candidate_pairs(vectors, languages, k=4)
    scores = redundancy.score_pairs(candidates, vectors, languages, ["text"] * 40)
    english, french = vectors[:20], vectors[20:]
    cosine = english @ french.T
    for number in range(0, len(scores), 7):
        x, y = candidates.left[number], candidates.right[number] - 20
        near_x, near_y = np.sort(cosine[x])[-4:].sum() / 8, np.sort(cosine[:, y])[-4:].sum() / 8
        assert scores["margin"][number] == pytest.approx(cosine[x, y] / (near_x + near_y), rel=1e-4)
        assert scores["cosine"][number] == pytest.approx(cosine[x, y], rel=1e-4)


def test_a_second_copy_of_a_text_is_no_other_neighbour():
    """Rows given twice: the copy of the true match must not close the gap to the next best."""
    vectors, languages, truth = translated(40, codes=("en", "fr"), noise=0.1)
    texts = [f"{code} {content}" for code, content in zip(languages, truth, strict=True)]
    vectors = redundancy.centre(vectors, languages)
    once = redundancy.candidate_pairs(vectors, languages)
    alone = redundancy.score_pairs(once, vectors, languages, texts)["gap_worst"][truth[once.left] == truth[once.right]]
    twice, labels = np.concatenate([vectors, vectors]), np.concatenate([truth, truth])
    doubled = redundancy.candidate_pairs(twice, languages * 2, k=8)
    same = labels[doubled.left] == labels[doubled.right]
    gaps = redundancy.score_pairs(doubled, twice, languages * 2, texts * 2)["gap_worst"][same]
    assert len(gaps) == 4 * len(alone) and gaps.min() == pytest.approx(alone.min(), abs=1e-4) and alone.min() > 0


def test_a_slot_without_a_neighbour_counts_for_nothing():
    near = {("en", "fr"): neighbours.Neighbours(np.array([[0.8, -3.4e38]], np.float32), np.array([[1, -1]])),
            ("fr", "en"): neighbours.Neighbours(np.array([[0.8, -3.4e38]], np.float32), np.array([[0, -1]]))}
    candidates = redundancy.Candidates(np.array([0]), np.array([1]), near)
    vectors = np.array([[1, 0], [0.8, 0.6]], np.float32)
    scores = redundancy.score_pairs(candidates, vectors, ["en", "fr"], ["a", "b"])
    assert scores["gap_best"][0] == pytest.approx(0.8, abs=1e-5) and scores["margin"][0] == pytest.approx(1, abs=1e-5)


def test_scores_do_not_depend_on_the_order_of_rows():
    vectors, languages, truth = translated(15)
    texts = [f"{code} says {content}" for code, content in zip(languages, truth, strict=True)]
    order = np.random.default_rng(3).permutation(len(texts))

    def scored(rows):
        v, codes, t = vectors[rows], [languages[row] for row in rows], [texts[row] for row in rows]
        candidates = redundancy.candidate_pairs(v, codes)
        frame = redundancy.score_pairs(candidates, v, codes, t)
        names = [tuple(sorted((t[a], t[b]))) for a, b in zip(candidates.left, candidates.right, strict=True)]
        return frame.set_index(pd.MultiIndex.from_tuples(names)).sort_index()

    pd.testing.assert_frame_equal(scored(np.arange(len(texts))), scored(order), rtol=1e-3, atol=1e-4)


def test_numbers_are_compared_by_value():
    """The same number in two notations agrees, another one differs, and no number says nothing."""
    vectors = np.ones((6, 4), dtype=np.float32) / 2
    languages = ["en", "fr"] * 3
    texts = ["1,250.5 km", "1 250,5 km", "It costs 7", "Il coûte 8", "no number", "aucun nombre"]
    candidates = redundancy.candidate_pairs(vectors, languages, k=3)
    scores = redundancy.score_pairs(candidates, vectors, languages, texts)
    pairs = list(zip(candidates.left.tolist(), candidates.right.tolist(), strict=True))
    told = {pair: (scores["numbers_agree"][n], scores["numbers_differ"][n]) for n, pair in enumerate(pairs)}
    assert told[0, 1] == (1, 0) and told[2, 3] == (0, 1) and told[4, 5] == (0, 0) and told[2, 5] == (0, 1)


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
    raw = embedding.embed(texts, embedding.open_encoder("use"), tmp_path)
    vectors = redundancy.centre(raw, languages)
    candidates = redundancy.candidate_pairs(vectors, languages)
    shipped, sentence = calibration.load_calibration("use")
    ids = [f"{code} {row}" for code, row in zip(languages, truth, strict=True)]
    pairs = pd.DataFrame({
        "left_id": np.array(ids, dtype=object)[candidates.left], "right_id": np.array(ids, dtype=object)[candidates.right],
        "probability": shipped.probability(redundancy.score_pairs(candidates, vectors, languages, texts, raw)),
    })
    found = redundancy.against_truth(ids, languages, truth, pairs)
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


def pair_frame(pairs):
    return pd.DataFrame(pairs, columns=["left_id", "right_id", "probability"])


def test_groups_do_not_chain():
    ids, codes = ["e", "z", "r"], ["en", "zh", "ru"]
    chain = pair_frame([("e", "z", 0.9), ("z", "r", 0.8)])
    assert redundancy.group_pairs(ids, codes, chain)["size"].tolist() == [2, 2, 1]
    closed = pair_frame([("e", "z", 0.9), ("z", "r", 0.8), ("e", "r", 0.3)])  # plausible, though below the threshold
    groups = redundancy.group_pairs(ids, codes, closed)
    assert groups["size"].tolist() == [3, 3, 3] and set(groups["representative"]) == {"z"}


def test_translations_in_five_languages_end_up_together():
    ids = [f"{code}{content}" for content in range(4) for code in CODES]
    codes = [row[:2] for row in ids]
    pairs = pair_frame([(a, b, 0.9) for a, b in itertools.combinations(ids, 2) if a[2:] == b[2:]])
    groups = redundancy.group_pairs(ids, codes, pairs)
    assert groups["group"].tolist() == [content for content in range(4) for _ in CODES]


names = st.lists(st.tuples(st.sampled_from(CODES), st.integers(0, 8)), min_size=1, max_size=25, unique=True)


@settings(max_examples=60, deadline=None)
@given(names, st.randoms(use_true_random=False), st.floats(0.2, 0.95))
def test_group_properties(rows, random, threshold):
    ids, codes = [f"{code}{number}" for code, number in rows], [code for code, _ in rows]
    all_pairs = [pair for pair in itertools.combinations(ids, 2) if pair[0][:2] != pair[1][:2]]
    pairs = [(a, b, round(random.random(), 3)) for a, b in all_pairs if random.random() < 0.6]
    groups = redundancy.group_pairs(ids, codes, pair_frame(pairs), threshold)
    assert groups["id"].tolist() == ids
    known = {frozenset((a, b)): p for a, b, p in pairs}
    for _, members in groups.groupby("group"):
        inside = members["id"].tolist()
        assert len({row[:2] for row in inside}) == len(inside) == members["size"].iloc[0]
        assert members["representative"].nunique() == 1 and members["representative"].iloc[0] in inside
        assert all(known.get(frozenset(pair), 0) >= min(0.2, threshold) for pair in itertools.combinations(inside, 2))
        assert len(inside) == 1 or max(known[frozenset(pair)] for pair in itertools.combinations(inside, 2)) >= threshold
    shuffled = random.sample(range(len(ids)), len(ids))
    other = redundancy.group_pairs(
        [ids[n] for n in shuffled], [codes[n] for n in shuffled], pair_frame(random.sample(pairs, len(pairs))), threshold
    )
    assert {frozenset(g["id"]) for _, g in groups.groupby("group")} == {frozenset(g["id"]) for _, g in other.groupby("group")}
    assert dict(zip(groups["id"], groups["representative"], strict=True)) == dict(
        zip(other["id"], other["representative"], strict=True))


@pytest.mark.parametrize("languages", [["en"] * 5, [], ["en", "zh", "zh", "zh"]])
def test_one_language_none_or_three_rows(languages):
    vectors = np.eye(max(1, len(languages)), 8, dtype=np.float32)[: len(languages)]
    centred = redundancy.centre(vectors, languages) if languages else vectors
    candidates = redundancy.candidate_pairs(centred, languages, k=4)
    scores = redundancy.score_pairs(candidates, centred, languages, ["x"] * len(languages))
    assert len(scores) == (3 if len(set(languages)) > 1 else 0)
    assert np.isfinite(scores.to_numpy()).all()
    ids = [str(n) for n in range(len(languages))]
    assert redundancy.group_pairs(ids, languages, pair_frame([]))["size"].tolist() == [1] * len(languages)


def test_counterparts_and_matrix():
    ids, codes = ["e1", "e2", "z1", "z2"], ["en", "en", "zh", "zh"]
    pairs = pair_frame([("e1", "z1", 0.9), ("e2", "z1", 0.4)])
    assert redundancy.best_counterpart(ids, pairs).tolist() == pytest.approx([0.9, 0.4, 0.9, 0.0])
    matrix = redundancy.redundancy_matrix(ids, codes, pairs)
    assert matrix.loc["en", "zh"] == 0.5 and matrix.loc["zh", "en"] == 0.5 and np.isnan(matrix.loc["en", "en"])


def test_truth_counts_pairs_across_languages_only():
    ids, codes, truth = ["a", "b", "c", "d"], ["en", "zh", "zh", "ru"], ["x", "x", "x", "y"]
    pairs = pair_frame([("a", "b", 0.9), ("a", "d", 0.9), ("a", "c", 0.2)])
    found = redundancy.against_truth(ids, codes, truth, pairs)
    assert (found["true pairs"], found["found"], found["right"]) == (2, 2, 1)
    assert found["precision"] == 0.5 and found["recall"] == 0.5 and found["F1"] == 0.5
