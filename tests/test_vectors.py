"""Centring, and the raw cosine that comes back from it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb.vectors import BadVectors, centre, read_rows, row_dots

CODES = ("en", "zh", "ru")


def cones(n=200, d=24, seed=0):
    """Vectors that point away from the origin, each language in a cone of its own."""
    rng = np.random.default_rng(seed)
    languages = [CODES[row % 3] for row in range(n)]
    shift = dict(zip(CODES, rng.normal(size=(3, d)), strict=True))
    return np.stack([rng.normal(size=d) * 0.5 + shift[code] for code in languages]).astype(np.float32), languages


def test_the_languages_mean_goes_and_the_length_is_one():
    vectors, languages = cones(900)
    centred = centre(vectors, languages, shrink=0)
    assert np.allclose(np.linalg.norm(centred.vectors, axis=1), 1, atol=1e-5)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    before, after = ([np.linalg.norm(v[members].mean(axis=0)) for members in centred.members.values()]
                     for v in (unit, centred.vectors))
    assert max(after) < 0.2 * min(before)


def test_a_single_row_survives():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    centred = centre(vectors, ["en", "zh", "zh"])
    assert np.isfinite(centred.vectors).all() and centred.vectors[0] @ vectors[0] > 0.99


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(0, 1000), st.sampled_from([np.float16, np.float32, np.float64]), st.floats(0.1, 100))
def test_the_raw_cosine_comes_back(n, seed, dtype, scale):
    vectors, languages = cones(n, seed=seed)
    vectors = (vectors * scale).astype(dtype)
    centred = centre(vectors, languages)
    rng = np.random.default_rng(seed)
    left, right = rng.integers(n, size=(2, 50))
    exact = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    cosine = np.einsum("ij,ij->i", centred.vectors[left], centred.vectors[right])
    assert np.allclose(centred.raw_cosine(left, right, cosine), np.einsum("ij,ij->i", exact[left], exact[right]), atol=2e-3)


def test_on_disk_it_is_the_same_in_half_precision(tmp_path):
    vectors, languages = cones(500)
    np.save(tmp_path / "v.npy", vectors.astype(np.float16))
    centred = centre(np.load(tmp_path / "v.npy", mmap_mode="r"), languages, out=tmp_path / "c.npy")
    assert isinstance(centred.vectors, np.memmap) and centred.vectors.dtype == np.float16
    assert np.allclose(centred.vectors, centre(vectors, languages).vectors, atol=2e-3)


def test_a_zero_row_stays_zero_and_resembles_nothing():
    vectors, languages = cones(30)
    vectors[4] = 0
    centred = centre(vectors, languages)
    assert not centred.vectors[4].any() and centred.length[4] == 0
    assert centred.raw_cosine(np.array([4]), np.array([5]), np.array([0.0]))[0] == 0


def test_dots_of_listed_pairs():
    vectors, _ = cones(100)
    left, right = np.random.default_rng(1).integers(100, size=(2, 1000))
    expected = np.einsum("ij,ij->i", vectors[left], vectors[right])
    assert np.allclose(row_dots(vectors, left, right, block=64), expected, rtol=1e-4, atol=1e-4)
    assert np.allclose(row_dots(vectors.astype(np.float16), left, right), expected, rtol=1e-2, atol=2e-2)
    assert row_dots(vectors, left[:0], right[:0]).shape == (0,)
    assert np.array_equal(read_rows(vectors.astype(np.float16), left), vectors.astype(np.float16)[left].astype(np.float32))


@pytest.mark.parametrize(("vectors", "languages", "message"), [
    (np.array([[1, 0], [np.nan, 1]], np.float32), ["en", "zh"], "row 1 of the vectors holds a value that is not a finite number"),
    (np.array([[1, 0], [np.inf, 1]], np.float32), ["en", "zh"], "row 1 of the vectors"),
    (np.ones(3, np.float32), ["en"] * 3, "of shape"), (np.ones((2, 3), np.float32), ["en"], "2 vectors but 1 languages"),
    ([[1.0, 2.0], [3.0]], ["en", "zh"], "an array of floats"), (np.ones((1, 2), np.float32), [None], "row 0 has no language"),
])
def test_what_cannot_be_compared_is_named(vectors, languages, message):
    with pytest.raises(BadVectors, match=message):
        centre(vectors, languages)


def test_no_rows():
    centred = centre(np.zeros((0, 8), np.float32), [])
    assert len(centred) == 0 and centred.members == {}
