"""Texts compared word by word: what one says and the other does not, by vectors made for the test."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb.words import BAGS, HELD, MATCHED, NAME_WEIGHT, PAIRS, BadWords, WordVectors, is_unspaced, tokens

# Words of one meaning have one vector, up to a language's own direction; every other word has a direction of its own.
MEANINGS = {"cat": ("cat", "chat", "猫"), "milk": ("milk", "lait", "牛奶"), "drinks": ("drinks", "boit", "喝"),
            "the": ("the", "le", "la")}
MEANING = {word: number for number, words in enumerate(MEANINGS.values()) for word in words}


def encode(words: list[str]) -> np.ndarray:
    """(m, 256): almost orthogonal but for words of one meaning."""
    return np.stack([np.random.default_rng(MEANING.get(word, [9, *word.encode()])).normal(size=256) for word in words])


def compared(*texts: str, languages: str = "en fr", **options) -> tuple[float, float]:
    lacking, apart = WordVectors.of(texts, languages.split(), encode, **options).compare(np.array([0]), np.array([1]))
    assert lacking.dtype == apart.dtype == np.float32
    return float(lacking[0]), float(apart[0])


def missed(*texts: str, languages: str = "en fr") -> float:
    """The weight of what is not matched, in whole words: a word without a counterpart misses almost all of `MATCHED`."""
    return math.expm1(compared(*texts, languages=languages)[0]) / MATCHED


def test_a_translation_lacks_nothing():
    assert compared("the cat drinks the milk", "le chat boit le lait") == (0, 0)
    assert compared("the cat drinks milk", "猫喝牛奶", languages="en zh")[0] == pytest.approx(math.log1p(MATCHED), abs=0.2)  # the


def test_words_without_a_counterpart_count_once_each_on_either_side():
    assert missed("the cat drinks the milk", "le chat boit") == pytest.approx(1, abs=0.3)
    assert missed("cat milk tea tea", "chat lait bol") == pytest.approx(2, abs=0.5)
    lacking, apart = compared("cat milk tea tea", "chat lait bol")
    assert lacking == pytest.approx(math.log1p(2 * MATCHED), abs=0.2) and apart == pytest.approx(2 / 3 * MATCHED, abs=0.1)


def test_a_name_counts_more_where_it_is_missed_but_not_in_the_mean():
    plain, name = (compared(f"the cat drinks with {word}", "le chat boit") for word in ("tobias", "Tobias"))
    assert math.expm1(name[0]) > math.expm1(plain[0]) + (NAME_WEIGHT - 1.5) * MATCHED
    assert name[1] == pytest.approx(plain[1])
    first = compared("Tobias, the cat with drinks", "le chat boit")  # a capital that begins a sentence says nothing
    assert first[0] == pytest.approx(plain[0], abs=1e-6)


def test_numbers_count_in_unmatched_alone():
    words = WordVectors.of(["the cat 1,250", "le chat 1.250", "le chat 1.350 8"], ["en", "fr", "fr"], encode)
    left, right = np.array([0, 0]), np.array([1, 2])
    np.testing.assert_allclose(words.unmatched(left, right), [0, 3 * MATCHED], atol=1e-6)
    assert words.compare(left, right)[0].tolist() == [0, 0]
    assert words.compare(left, right)[1].tolist() == [0, 0]


def test_unmatched_is_what_compare_takes_the_logarithm_of():
    texts, languages = many(60)
    words = WordVectors.of([re.sub(r"[\d.]", "", text) for text in texts], languages, encode)
    left, right = np.random.default_rng(2).integers(60, size=(2, 200))
    np.testing.assert_allclose(np.log1p(words.unmatched(left, right)), words.compare(left, right)[0], rtol=1e-6)


def test_the_pieces_of_a_run_are_candidates_and_characters_are_matched_by_the_best():
    assert missed("milk", "牛奶", languages="en zh") == pytest.approx(0, abs=1e-6)  # neither 牛 nor 奶 means milk
    assert missed("cat", "猫狗", languages="en zh") == pytest.approx(1, abs=0.3)  # 狗 alone is left
    assert list(tokens("牛奶abc，猫", 3)) == [("牛奶", False), ("abc", False)]
    assert is_unspaced("猫x") and is_unspaced("ที่") and not is_unspaced("x猫") and not is_unspaced("кот")


def test_tokens_are_cut_at_the_number_asked_for():
    assert list(tokens("It isn't Tobias' 1.5 l! Then Ada", 5)) == [
        ("it", False), ("isn't", False), ("tobias", True), ("1.5", False), ("l", False)]
    assert list(tokens("猫在沙发上睡觉", 4)) == [("猫在沙发", False)]
    assert compared("cat tea tea jug", "chat", most_tokens=1) == (0, 0)


def many(n: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """n texts of known and unknown words in three languages, some without a word."""
    rng, codes = np.random.default_rng(seed), ["en", "fr", "zh"]
    words = {code: [meaning[column] for meaning in MEANINGS.values()] for column, code in enumerate(codes)}
    words["en"] += ["Tobias", "jug", "12"]
    words["fr"] += ["Zoé", "bol", "3.000"]
    words["zh"] += ["村", "龙舟", "12"]
    languages = [codes[row % 3] for row in range(n)]
    return [("" if code == "zh" else " ").join(rng.choice(words[code], rng.integers(0, 9))) for code in languages], languages


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_a_pair_is_the_same_whatever_is_asked_with_it_and_whichever_comes_first(seed):
    rng, (texts, languages) = np.random.default_rng(seed), many(30, seed)
    words, (left, right) = WordVectors.of(texts, languages, encode), rng.integers(30, size=(2, 50))
    lacking, apart = words.compare(left, right)
    some = rng.permutation(50)[:7]
    for whole, part in zip((lacking, apart), words.compare(left[some], right[some]), strict=True):
        assert (whole[some] == part).all()
    for there, back in zip((lacking, apart), words.compare(right, left), strict=True):
        np.testing.assert_allclose(back, there, atol=1e-5)
    assert (lacking >= 0).all() and (apart >= 0).all() and (apart <= 2 * MATCHED + 1e-6).all()


def test_only_the_words_of_the_rows_asked_for_are_encoded():
    asked: list[str] = []

    def noting(words: list[str]) -> np.ndarray:
        asked.extend(words)
        return encode(words)

    texts, languages = ["the cat", "le chat", "some tea", "du thé"], ["en", "fr"] * 2
    part = WordVectors.of(texts, languages, noting, rows=np.array([1, 0, 1]))
    assert sorted(asked) == ["cat", "chat", "le", "the"]
    assert part.compare(np.array([0, 2]), np.array([1, 1]))[0].tolist() == pytest.approx([0, math.log1p(2 * MATCHED)], abs=0.2)


def test_only_the_most_frequent_words_are_encoded():
    texts = ["cat jug", "cat tea", "cat", "chat", "chat"]
    words = WordVectors.of(texts, ["en"] * 3 + ["fr"] * 2, encode, most_words=1)
    assert len(words.vectors) == 2 and words.compare(np.array([0]), np.array([3]))[0] == 0


def test_texts_longer_than_what_is_read_in_place_and_more_pairs_than_a_block():
    long = " ".join(f"w{'abcdefghij'[number % 10]}{'x' * (number // 10)}" for number in range(HELD + 9))
    words = WordVectors.of([long, "le chat", "cat"], ["en", "fr", "en"], encode, most_tokens=HELD + 50)
    left, right = np.tile([0, 2], PAIRS), np.ones(2 * PAIRS, int)
    lacking, _ = words.compare(left, right)
    assert len(set(lacking[::2])) == len(set(lacking[1::2])) == 1
    assert math.expm1(lacking[0]) > 0.9 * HELD * MATCHED / 1.5 and lacking[1] < math.log1p(2 * MATCHED)
    assert words.bag.cache_info().maxsize == BAGS


def test_texts_without_words_and_no_pairs():
    words = WordVectors.of(["?!", "…", "the tea", "12"], ["en", "fr", "fr", "en"], encode)
    lacking, apart = words.compare(np.array([0, 0, 3]), np.array([1, 2, 1]))
    assert lacking[[0, 2]].tolist() == [0, 0] and apart[[0, 2]].tolist() == [0, 0]
    assert lacking[1] == pytest.approx(math.log1p(2 * MATCHED)) and apart[1] == pytest.approx(MATCHED)
    none = np.zeros(0, int)
    assert [len(part) for part in words.compare(none, none)] == [0, 0] and len(words.unmatched(none, none)) == 0
    assert WordVectors.of(["?", "!"], ["en", "fr"], encode).compare(np.array([0]), np.array([1]))[0] == 0
    assert len(WordVectors.of([], [], encode).compare(none, none)[0]) == 0


def test_texts_that_do_not_fit_their_languages_are_refused():
    with pytest.raises(BadWords, match="2 texts and 1 languages"):
        WordVectors.of(["a", "b"], ["en"], encode)
    with pytest.raises(BadWords, match="2 texts and 1 languages"):
        WordVectors.of(["a", "b"], ["en", None], encode)
