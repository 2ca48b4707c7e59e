"""What the texts of a pair agree on, and how the pair stands among the others of its two rows."""

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb.agreement import AGREEMENT, SHRINK, SURROUNDED, SURROUNDINGS, compare_texts, surroundings
from ultralink_nb.embedding import embed, open_encoder

LETTER = {
    "en": "Yesterday the teacher Marta read a letter aloud in France for 20 euros.",
    "fr": "Hier, l'enseignante Marta a lu une lettre à voix haute en France pour 20 euros.",
    "another name": "Hier, l'enseignante Sylvie a lu une lettre à voix haute en France pour 20 euros.",
    "another place": "Hier, l'enseignante Marta a lu une lettre à voix haute au Brésil pour 20 euros.",
    "another currency": "Hier, l'enseignante Marta a lu une lettre à voix haute en France pour 20 dollars.",
    "ru": "Вчера учительница Марта прочитала вслух письмо во Франции за 20 евро.",
    "zh": "昨天，老师玛尔塔在法国以20欧元的价格朗读了一封信。",
}
LANGUAGES = ["en", "fr", "fr", "fr", "fr", "ru", "zh"]


@pytest.fixture(scope="module")
def encode(tmp_path_factory):
    return partial(embed, encoder=open_encoder("use"), cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def letters(encode) -> pd.DataFrame:
    """The English letter beside each other one."""
    found = compare_texts(np.zeros(6, int), np.arange(1, 7), list(LETTER.values()), LANGUAGES, encode)
    return found.set_index(pd.Index(list(LETTER)[1:]))


@pytest.mark.parametrize("row, lacking", [
    ("fr", set()), ("zh", set()),
    ("ru", {"names_lacking"}),  # Франции is no spelling of France: places_lacking knows that they are one
    ("another name", {"names_lacking"}),
    ("another place", {"names_lacking", "places_lacking"}),  # a place is a name too
    ("another currency", {"currencies_lacking"}),
])
def test_what_was_exchanged_is_lacking_in_that_pair_alone(letters, row, lacking):
    columns = ["names_lacking", "places_lacking", "currencies_lacking"]
    assert {column for column in columns if letters.loc[row, column] > 0} == lacking


def test_a_translation_lacks_little_in_any_script(letters):
    assert list(letters) == list(AGREEMENT) and (letters.dtypes == np.float32).all()
    assert letters.loc["fr", "names_shared"] == pytest.approx(math.log1p(4))  # Marta and France, asked from either side
    assert (letters.loc[["ru", "zh"], "names_shared"] > 0).all()
    assert letters.loc["fr", "words_lacking"] < min(letters.loc[["another name", "another place"], "words_lacking"])
    assert letters.loc["fr", "words_apart"] < min(letters.loc[["another name", "another place"], "words_apart"])
    assert (letters.loc[["fr", "ru", "zh"], "words_apart"] < 0.2).all()


def test_another_statement_lacks_much(encode):
    texts = ["The cat sleeps on the warm stove.", "Le chat dort sur le poêle chaud.", "Il faut payer la facture avant samedi."]
    found = compare_texts(np.array([0, 0]), np.array([1, 2]), texts, ["en", "fr", "fr"], encode)
    assert found["words_lacking"][0] < 0.1 and found["words_lacking"][1] > 0.8
    assert found["words_apart"][0] < 0.05 and found["words_apart"][1] > 0.25
    assert not found[["names_lacking", "names_shared", "places_lacking", "currencies_lacking"]].to_numpy().any()


def test_which_end_is_left_and_the_order_of_pairs_do_not_matter(encode):
    texts, left, right = list(LETTER.values()), np.array([0, 0, 1, 5, 2]), np.array([1, 5, 6, 6, 5])
    found = compare_texts(left, right, texts, LANGUAGES, encode)
    pd.testing.assert_frame_equal(compare_texts(right, left, texts, LANGUAGES, encode), found, atol=1e-5)
    order = np.array([3, 0, 4, 2, 1])
    again = compare_texts(left[order], right[order], texts, LANGUAGES, encode)
    pd.testing.assert_frame_equal(again, found.iloc[order].reset_index(drop=True), atol=1e-5)


def test_only_the_words_of_rows_that_take_part_are_encoded():
    asked = []

    def encode(words: list[str]) -> np.ndarray:
        asked.extend(words)
        return np.eye(len(words), 16, dtype=np.float32)

    compare_texts(np.array([0]), np.array([2]), ["bread", "cheese", "pain", "beurre"], ["en", "en", "fr", "fr"], encode)
    assert sorted(asked) == ["bread", "pain"]


def test_no_pairs_no_rows():
    def encode(words: list[str]) -> np.ndarray:
        raise AssertionError("there is nothing to encode")

    none = np.zeros(0, np.int64)
    for texts in ([], ["a text", "un texte"]):
        found = compare_texts(none, none, texts, ["en", "fr"][: len(texts)], encode)
        assert found.shape == (0, len(AGREEMENT)) and list(found) == list(AGREEMENT) and (found.dtypes == np.float32).all()


def test_empty_texts_lack_nothing_and_the_other_lacks_all(encode):
    texts = ["", "", "Olga lit un journal.", "  \n"]
    found = compare_texts(np.array([0, 0, 3]), np.array([1, 2, 2]), texts, ["en", "fr", "fr", "zh"], encode)
    assert not found.iloc[0].any()
    assert (found["words_lacking"].to_numpy()[1:] > 0.5).all() and np.isfinite(found.to_numpy()).all()
    blank = compare_texts(np.array([0]), np.array([1]), texts, ["en", "fr", "fr", "zh"], encode)
    assert not blank.to_numpy().any()


def test_one_language_and_languages_that_nobody_knows(encode):
    one = compare_texts(np.array([0, 0]), np.array([1, 2]), ["We met Olga."] * 2 + ["We met Boris."], ["en"] * 3, encode)
    assert one["names_lacking"].tolist() == [0, pytest.approx(math.log1p(2))]
    assert one["words_lacking"][0] == pytest.approx(0, abs=1e-5) and one["words_lacking"][1] > 0.1
    texts = ["We met Olga in Rome.", "qo'noS Daq Olga wIghom"]
    strange = compare_texts(np.array([0]), np.array([1]), texts, ["en", "x-none"], encode)
    assert np.isfinite(strange.to_numpy()).all() and strange["names_shared"][0] > 0


def surrounded(n, links, **columns) -> pd.DataFrame:
    """Surroundings of links (left, right, probability, words_lacking); other columns of scores are 0 unless given."""
    left, right, probability, lacking = (np.array(column) for column in zip(*links, strict=True))
    scores = pd.DataFrame({**dict.fromkeys(SURROUNDED, 0.0), "words_lacking": lacking, **columns}, index=range(len(links)))
    return surroundings(n, left, right, probability, scores)


def test_surroundings_by_hand():
    """A content in three languages, rows 0, 1 and 2, and a second English row 3 that is linked to row 1 too."""
    found = surrounded(4, [(0, 1, 0.9, 2.0), (0, 2, 0.6, 1.0), (1, 2, 0.3, 5.0), (3, 1, 0.1, 8.0)])
    assert list(found) == list(SURROUNDINGS) and (found.dtypes == np.float32).all()
    at_0 = (0.6 * 1 + SHRINK * 2) / (0.6 + SHRINK)
    at_1 = (0.3 * 5 + 0.1 * 8 + SHRINK * 2) / (0.3 + 0.1 + SHRINK)
    assert found["words_lacking_more"][0] == pytest.approx(max(at_0, at_1))
    assert found["words_lacking_less"][0] == pytest.approx(min(at_0, at_1))
    alone_at_3, at_1 = 8, (0.9 * 2 + 0.3 * 5 + SHRINK * 8) / (1.2 + SHRINK)
    assert found["words_lacking_more"][3] == pytest.approx(alone_at_3) and found["words_lacking_less"][3] == pytest.approx(at_1)
    assert not found.drop(columns=["words_lacking_more", "words_lacking_less"]).to_numpy().any()


def test_every_score_has_its_own_surroundings():
    columns = {name: [number + 1.0, 2.0 * number] for number, name in enumerate(SURROUNDED)}
    found = surrounded(3, [(0, 1, 1.0, 0.0), (0, 2, 1.0, 0.0)], **columns)
    for number, name in enumerate(SURROUNDED):
        own, other = number + 1, 2 * number
        at_0 = (other + SHRINK * own) / (1 + SHRINK)
        assert found[f"{name}_more"][0] == pytest.approx(max(at_0, own))
        assert found[f"{name}_less"][0] == pytest.approx(min(at_0, own))


def test_a_pair_without_others_and_no_pairs():
    found = surrounded(9, [(2, 7, 0.4, 3.0), (1, 8, 1.0, 0.5)], centred=[0.25, 0.75])
    assert found["words_lacking_more"].tolist() == found["words_lacking_less"].tolist() == [3.0, 0.5]
    assert found["centred_more"].tolist() == found["centred_less"].tolist() == [0.25, 0.75]
    none = np.zeros(0, int)
    empty = surroundings(4, none, none, np.zeros(0), pd.DataFrame(columns=list(SURROUNDED), dtype=float))
    assert empty.shape == (0, len(SURROUNDINGS))


def test_a_neighbour_without_probability_says_nothing():
    alone = surrounded(3, [(0, 1, 0.9, 2.0)])
    beside = surrounded(3, [(0, 1, 0.9, 2.0), (0, 2, 0.0, 9.0)])
    assert np.allclose(beside.iloc[0], alone.iloc[0])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(5, 9), st.floats(0, 1), st.floats(0, 20)), min_size=1,
                unique_by=lambda link: link[:2]), st.randoms(use_true_random=False))
def test_surroundings_do_not_depend_on_order_or_sides(links, random):
    found = surrounded(10, links)
    order = random.sample(range(len(links)), len(links))
    shuffled = [links[n] for n in order]
    turned = [(b, a, *rest) if random.random() < 0.5 else (a, b, *rest) for a, b, *rest in shuffled]
    assert np.allclose(surrounded(10, turned), found.iloc[order], rtol=1e-4, atol=1e-4)
    more, less, values = found["words_lacking_more"], found["words_lacking_less"], [link[3] for link in links]
    assert (more >= less).all() and less.min() >= min(values) - 1e-4 and more.max() <= max(values) + 1e-4
