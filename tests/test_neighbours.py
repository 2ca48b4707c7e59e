"""Neighbour search: what it finds against brute force, and inputs that could break it."""

import numpy as np
import pytest

from ultralink_nb.errors import KitError
from ultralink_nb.neighbours import recall_against_exact, search_between, search_within
from ultralink_nb.vectors import centre

CODES = ("en", "zh", "ru")


def translated(contents, codes=CODES, noise=0.3, seed=0, d=32):
    """Contents said once in each language, rows of the languages mixed."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(contents, d))
    vectors = np.concatenate([meaning + noise * rng.normal(size=(contents, d)) for _ in codes]).astype(np.float32)
    order = rng.permutation(len(vectors))
    return vectors[order], [codes[row // contents] for row in order]


def brute(centred, source, target, k, itself=True):
    queries, members = centred.members[source], centred.members[target]
    dots = centred.vectors[queries].astype(np.float32) @ centred.vectors[members].astype(np.float32).T
    if not itself:
        dots[queries[:, None] == members] = -np.inf
    best = np.argsort(-dots, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(dots, best, 1), members[best]


def test_exact_search_is_brute_force():
    centred = centre(*translated(60))
    for (source, target), found in search_between(centred, 3).items():
        similarity, rows = brute(centred, source, target, 3)
        assert np.array_equal(found.rows, rows) and np.allclose(found.similarity, similarity, atol=1e-5)
        assert np.array_equal(found.queries, centred.members[source])
    for code, found in search_within(centred, 3).items():
        similarity, rows = brute(centred, code, code, 3, itself=False)
        assert np.array_equal(found.rows, rows) and np.allclose(found.similarity, similarity, atol=1e-5)


def test_search_in_lists_finds_nearly_all_and_states_true_cosines():
    vectors, languages = translated(3000, d=64)
    centred = centre(vectors, languages)
    exact, lists = search_between(centred, 4, "exact"), search_between(centred, 4, "ivf")
    assert recall_against_exact(centred, exact) == 1.0
    found = np.mean([(lists[pair].rows[:, 0] == exact[pair].rows[:, 0]).mean() for pair in exact])
    assert found > 0.97 and abs(recall_against_exact(centred, lists) - found) < 0.02
    one = lists["en", "zh"]
    listed = one.rows >= 0
    assert listed.mean() > 0.99 and (np.diff(one.similarity, axis=1) <= 1e-6).all()
    dots = np.einsum("ij,ikj->ik", centred.vectors[one.queries], centred.vectors[np.maximum(one.rows, 0)])
    assert np.allclose(one.similarity[listed], dots[listed], atol=2e-3)


def test_the_same_again_and_from_disk(tmp_path):
    vectors, languages = translated(2000, d=64)
    first, second = (search_between(centre(vectors, languages), 4, "ivf") for _ in range(2))
    disk = search_between(centre(vectors, languages, out=tmp_path / "c.npy"), 4, "ivf")
    for pair in first:
        assert np.array_equal(first[pair].rows, second[pair].rows)
        assert (first[pair].rows[:, 0] == disk[pair].rows[:, 0]).mean() > 0.98


def test_recall_falls_when_the_best_is_missed():
    centred = centre(*translated(100))
    found = search_between(centred, 2)
    worse = {pair: type(hits)(hits.similarity[:, 1:], hits.rows[:, 1:], hits.queries) for pair, hits in found.items()}
    assert recall_against_exact(centred, worse) < 0.1


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_more_neighbours_than_rows(kind):
    vectors, languages = translated(400, codes=("en",))
    rng = np.random.default_rng(1)
    centred = centre(np.concatenate([vectors, rng.normal(size=(3, 32)).astype(np.float32)]), [*languages, "fr", "fr", "fr"])
    found = search_between(centred, 5, kind)
    rows = found["en", "fr"].rows
    assert (np.sort(rows[:, :3], axis=1) == [400, 401, 402]).all() and (rows[:, 3:] == -1).all()
    assert (found["en", "fr"].similarity[:, 3:] == -1).all() and (found["fr", "en"].rows >= 0).all()


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_zero_rows_find_nothing_and_are_not_found(kind):
    vectors, languages = translated(400)
    vectors[:5] = 0
    for found in search_between(centre(vectors, languages), 4, kind).values():
        assert not np.isin(found.rows, np.arange(5)).any()
        assert (found.rows[np.isin(found.queries, np.arange(5))] == -1).all()


@pytest.mark.parametrize("kind", ["auto", "ivf"])
def test_a_hundred_thousand_identical_rows(kind):
    centred = centre(np.ones((100_000, 8), np.float32), ["en", "zh"] * 50_000, shrink=1e9)
    found = search_between(centred, 4, kind)["en", "zh"]
    assert (found.rows == [1, 3, 5, 7]).all() and np.allclose(found.similarity, 1, atol=1e-3)
    within = search_within(centred, 2, kind)["en"]
    assert (within.rows[0] == [2, 4]).all() and (within.rows[5] == [0, 2]).all()


def test_only_chosen_rows_take_part():
    vectors, languages = translated(50)
    chosen = np.arange(0, 150, 2)
    for found in search_between(centre(vectors, languages), 3, rows=chosen).values():
        assert np.isin(found.queries, chosen).all() and np.isin(found.rows, chosen).all()


def test_one_language_or_none():
    assert search_between(centre(np.eye(3, dtype=np.float32), ["en"] * 3), 2) == {}
    assert search_between(centre(np.zeros((0, 3), np.float32), []), 2) == {}


def test_wrong_requests_are_named():
    centred = centre(np.eye(3, dtype=np.float32), ["en", "en", "zh"])
    with pytest.raises(KitError, match="unknown kind of search 'hnsw': choose auto, exact, ivf"):
        search_between(centred, 1, "hnsw")
    with pytest.raises(KitError, match="k is 0"):
        search_within(centred, 0)
