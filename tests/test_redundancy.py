"""Candidate pairs, their scores, and what they tell each other."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb import neighbours, redundancy
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


@pytest.mark.parametrize("languages", [["en"] * 5, [], ["en", "zh", "zh", "zh"]])
def test_one_language_none_or_three_rows(languages):
    centred = centre(np.eye(max(1, len(languages)), 8, dtype=np.float32)[: len(languages)], languages)
    candidates = redundancy.candidate_pairs(centred, 4)
    scores = redundancy.score_pairs(candidates, centred, ["x"] * len(languages))
    assert len(scores) == (3 if len(set(languages)) > 1 else 0)
    assert np.isfinite(scores.to_numpy()).all()


def centred_rows(languages, zero=(), d=16, seed=0):
    """Random vectors, in which a pair's cosine is about 0, and zero vectors for the rows named."""
    vectors = np.random.default_rng(seed).normal(size=(len(languages), d)).astype(np.float32)
    vectors[list(zero)] = 0
    return centre(vectors, languages)


def some_are_likely(scores: pd.DataFrame) -> np.ndarray:
    """A probability from two scores, in (0, 1)."""
    return 1 / (1 + np.exp(-3 * scores["centred"].to_numpy() - 5 * scores["gap_worst"].to_numpy()))


SCREENED = {
    "three languages": (["en", "fr", "zh"] * 20, ()), "a small language": (["en", "fr"] * 15 + ["ru"] * 3, ()),
    "zero vectors": (["en", "fr", "zh"] * 10, (0, 1, 2, 9, 29)), "one language": (["en"] * 12, ()), "no rows": ([], ()),
}


@pytest.mark.parametrize("languages, zero", SCREENED.values(), ids=SCREENED.keys())
@pytest.mark.parametrize("least", [0.0, 0.35, 1.1])
@pytest.mark.parametrize("with_texts", [True, False])
def test_the_screen_keeps_what_all_scores_would_keep(languages, zero, least, with_texts):
    centred = centred_rows(languages, zero)
    texts = [f"{code} has {n % 7} of {'many ' * (n % 5)}things" for n, code in enumerate(languages)] if with_texts else None
    candidates = redundancy.candidate_pairs(centred, 3)
    scores = redundancy.score_pairs(candidates, centred, texts)
    kept = np.flatnonzero(some_are_likely(scores) >= least)
    if least == 0.35 and len(scores):
        assert 0 < len(kept) < len(scores)
    left, found = redundancy.screen_pairs(centred, candidates.between, texts, some_are_likely, least)
    assert left.left.tolist() == candidates.left[kept].tolist() and left.right.tolist() == candidates.right[kept].tolist()
    assert left.left.dtype == left.right.dtype == np.int32 and left.between is candidates.between
    assert np.array_equal(left.cosine, candidates.cosine[kept])
    pd.testing.assert_frame_equal(found, scores.iloc[kept].reset_index(drop=True))


def test_the_screen_scores_some_pairs_at_a_time(monkeypatch):
    """Only what is usual between the lengths of two languages is that of the pairs at hand."""
    languages = ["en", "fr", "zh"] * 20
    centred, texts = centred_rows(languages), [f"{code} has {n % 7} things" for n, code in enumerate(languages)]
    candidates = redundancy.candidate_pairs(centred, 3)
    whole = redundancy.screen_pairs(centred, candidates.between, texts, some_are_likely, 0.35)
    sizes: list[int] = []

    def watched(scores: pd.DataFrame) -> np.ndarray:
        sizes.append(len(scores))
        return some_are_likely(scores)

    monkeypatch.setattr(redundancy, "_STEP", 7)
    found = redundancy.screen_pairs(centred, candidates.between, texts, watched, 0.35)
    assert max(sizes) == 7 and sum(sizes) == len(candidates)
    assert np.array_equal(found[0].left, whole[0].left) and np.array_equal(found[0].right, whole[0].right)
    pd.testing.assert_frame_equal(found[1].drop(columns="length"), whole[1].drop(columns="length"))


def test_a_pair_of_the_least_probability_stays():
    centred = centred_rows(["en", "fr"] * 8)
    candidates = redundancy.candidate_pairs(centred, 3)
    left, _ = redundancy.screen_pairs(centred, candidates.between, None, lambda scores: np.full(len(scores), 0.25), 0.25)
    assert len(left) == len(candidates)


def test_scores_go_with_their_pair_in_any_order_of_candidates():
    languages = ["en", "fr", "zh", "ru"] * 12
    centred = centred_rows(languages)
    texts = [f"{code} has {n % 5} of {'many ' * (n % 6)}things" for n, code in enumerate(languages)]
    candidates = redundancy.candidate_pairs(centred, 4)
    scores = redundancy.score_pairs(candidates, centred, texts)
    order = np.random.default_rng(1).permutation(len(candidates))
    shuffled = redundancy.score_pairs(candidates.take(order), centred, texts)
    pd.testing.assert_frame_equal(shuffled, scores.iloc[order].reset_index(drop=True))
    assert list(scores) == list(redundancy.SCORES) and len(set(scores["numbers_differ"])) > 1


def test_without_texts_all_but_length_and_numbers_is_known():
    vectors, languages, _ = translated(25, codes=("en", "fr", "zh"))
    texts = [f"{code} {n} {'x' * (n % 9)}" for n, code in enumerate(languages)]  # no two alike
    centred = centre(vectors, languages)
    candidates = redundancy.candidate_pairs(centred)
    read, unread = (redundancy.score_pairs(candidates, centred, some) for some in (texts, None))
    of_texts = ["length", "numbers_clash", "numbers_differ", "numbers_match", "numbers_agree"]
    assert not unread[of_texts].to_numpy().any() and read["length"].any()
    pd.testing.assert_frame_equal(unread.drop(columns=of_texts), read.drop(columns=of_texts))


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
    assert alone[0] == pytest.approx(0.4)
    assert backed[0] / (1 - backed[0]) == pytest.approx(0.4 / 0.6 * np.exp(0.5 * 0.8), rel=1e-4)  # the weaker of the two links
    half = together([(0, 2, 0.4), (0, 4, 0.9)])
    assert half[0] == pytest.approx(alone[0], abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda pair: pair[0] < pair[1]),
                       st.sampled_from([0.001, 0.01, 0.03, 0.2, 0.5, 0.9, 0.99]), min_size=1))
def test_the_best_third_row_of_all_speaks(links):
    """Every row in a language of its own, so that none competes: what the odds rise by is the third row's word alone."""
    found = together([(*pair, p) for pair, p in links.items()], 8, range(8), weight=1.0)

    def linked(a, b):
        return links.get((min(a, b), max(a, b)), 0.0)

    for (a, b), p, after in zip(links, links.values(), found, strict=True):
        weakest = max(min(linked(a, z), linked(z, b)) for z in range(8))
        expected = np.log(p / (1 - p)) + (weakest if weakest >= 0.02 and p >= 0.005 else 0)
        assert np.log(after / (1 - after)) == pytest.approx(expected, abs=1e-3)


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


def test_one_prior_for_each_pair_or_one_for_all():
    rng = np.random.default_rng(4)
    links = [(int(a), 900 + int(b), float(p)) for a, b, p in zip(rng.permutation(900), rng.permutation(900), rng.random(900),
                                                                 strict=True)]
    languages = np.repeat([0, 1], 900)
    assert np.array_equal(together(links, 1800, languages, np.full(900, 0.3)), together(links, 1800, languages, 0.3))


def test_the_pairs_of_each_prior_are_shifted_on_their_own():
    """Two kinds of data in one: in the first nearly everything is true, in the second hardly anything; 600 pairs of each."""
    def kind(start, sure, prior):
        rows = np.arange(start, start + 600)
        return [(int(row), int(row) + 2000, 0.5 if row - start < 100 else sure) for row in rows], np.full(600, prior)

    languages = np.repeat([0, 1], 2000)
    (true, of_true), (false, of_false) = kind(0, 0.99, 0.4), kind(700, 0.01, 0.2)
    both = together(true + false, 4000, languages, np.concatenate([of_true, of_false]))
    assert np.allclose(both[:600], together(true, 4000, languages, 0.4), atol=1e-6)
    assert np.allclose(both[600:], together(false, 4000, languages, 0.2), atol=1e-6)
    assert both[0] > 0.6 and both[600] < 0.4
    mixed = together(true + false, 4000, languages, 0.3)  # seen as one, the doubtful pairs of both are worth the same
    assert mixed[0] == pytest.approx(mixed[600], abs=1e-6)


def test_too_few_pairs_of_a_prior_are_left_as_they_are():
    languages, many = np.repeat([0, 1], 2000), [(n, 2000 + n, 0.99) for n in range(600)]
    few = [(n, 2000 + n, 0.5) for n in range(600, 1099)]
    found = together(many + few, 4000, languages, np.repeat([0.4, 0.2], [600, 499]))
    assert np.allclose(found[600:], 0.5, atol=1e-6)
    assert np.allclose(found[:600], together(many, 4000, languages, 0.4), atol=1e-6)
