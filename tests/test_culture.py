import json

import numpy as np
import pytest

from ultralink_nb import culture
from ultralink_nb.culture import BadCulture, band, curve, edges, fit, labels_of, load_culture, read_culture, score
from ultralink_nb.sift_rules import FEATURES

NAMES = ("Ada Bell", "Tom Hardy Jones", "Mary Ann Poe", "Luis Marques", "Olga Petrova")
BOUND = [(f"Which {thing} did {name} bring from {place}?", "") for thing in ("song", "recipe") for name in NAMES
         for place in ("Texas", "Berlin", "Kenya")]
FREE = [(f"How does {process} work in {thing}?", "") for process in ("sleep", "rust", "friction", "growth", "light", "heat")
        for thing in ("plants", "metal", "water", "animals", "glass")]


class TwoWords:
    """An encoder whose vector says whether a text has a question word for a way or for a thing."""

    name, identity, dimension, window, workers = "two", "two words", 2, 2**31, 1

    def encode(self, texts):
        return np.array([[1.0, 0.2] if text.startswith("How") else [0.2, 1.0] for text in texts], np.float32)

    def lengths(self, texts):
        return np.full(len(texts), 5)


def fitted(tmp_path, encoder=None):
    return fit(BOUND + FREE, [1] * len(BOUND) + [0] * len(FREE), encoder, tmp_path)


@pytest.mark.parametrize("encoder", [None, TwoWords()])
def test_verdicts_make_a_classifier_that_ranks_and_survives_its_file(tmp_path, encoder):
    model = fitted(tmp_path, encoder)
    scores = score([*BOUND, *FREE], encoder or TwoWords(), tmp_path, model)
    assert scores[: len(BOUND)].min() > scores[len(BOUND) :].max() and 0 <= scores.min() <= scores.max() <= 1
    assert 0 < model.low <= model.high and model.rows == 60 and model.encoder == ("two" if encoder else "")
    model.save(tmp_path / "own.json")
    assert read_culture(tmp_path / "own.json") == model
    loaded, said = load_culture("two", tmp_path / "own.json")
    assert loaded == model and "60 rows of verdicts" in said


def test_shares_of_judges_are_labels_too(tmp_path):
    model = fit(BOUND + FREE, [0.75] * len(BOUND) + [0.25] * len(FREE), None, tmp_path)
    assert 0.5 < score(BOUND, TwoWords(), tmp_path, model).mean() < 0.9


@pytest.mark.parametrize("labels, said", [
    ([1] * 60, "at least 20 of each"), ([0.5], "one label"), ([2] * 60, "one label"), ([float("nan")] * 60, "one label"),
])
def test_labels_that_teach_nothing(tmp_path, labels, said):
    with pytest.raises(BadCulture, match=said):
        fit(BOUND + FREE, labels, None, tmp_path)


def test_labels_that_contradict_every_score(tmp_path):
    rng = np.random.default_rng(0)
    texts = [("Why?", "")] * 60
    with pytest.raises(BadCulture, match="say nothing"):
        fit(texts, rng.permutation([0, 1] * 30), None, tmp_path)


def test_the_shipped_classifiers_tell_plain_cases_apart(tmp_path):
    from ultralink_nb.embedding import open_encoder

    encoder = open_encoder("use")
    bound = ["What does Boris Johnson say about the BBC?", "Write a limerick about the Texas Rangers for Thanksgiving.",
             "Which songs by Dolly Parton were number one in Nashville?", "Where can I buy a $20 burger in New York?"]
    free = ["How do plants make sugar from light?", "Give me tips for sleeping better.", "How do I sort a list in Python?",
            "What is the difference between mass and weight?"]
    for name in ("use", "none such"):
        model, said = load_culture(name)
        scores = score([(text, "") for text in bound + free], encoder, tmp_path, model)
        assert scores[:4].min() > scores[4:].max(), said
        assert model.features == FEATURES and 0 < model.low < model.high <= 1


def test_the_curve_that_ships_is_a_curve():
    points = json.loads((culture.SHIPPED / "culture_curve.json").read_text())
    assert list(points) == ["low", "recall", "false_alarms", "saved"]
    assert all(np.diff(points["recall"]) >= 0) and all(np.diff(points["saved"]) <= 0)


def test_files_that_are_none(tmp_path):
    with pytest.raises(BadCulture, match="no such classifier"):
        read_culture(tmp_path / "none.json")
    path = tmp_path / "bad.json"
    shipped = json.loads((culture.SHIPPED / "culture.json").read_text())
    changed = [({"features": ["x"]}, "do not fit"), ({"encoder": "use"}, "do not fit"), ({"bias": "much"}, "finite"),
               ({"bias": float("nan")}, "finite")]
    for text, said in (*((text, "is not a classifier") for text in ("{", "[1]", '{"encoder": "use"}')),
                       *((json.dumps(shipped | change), said) for change, said in changed)):
        path.write_text(text)
        with pytest.raises(BadCulture, match=said):
            read_culture(path)


def test_vectors_of_another_encoder_are_refused(tmp_path):
    model = fitted(tmp_path, TwoWords())
    model.save(tmp_path / "two.json")
    with pytest.raises(BadCulture, match="fitted on vectors of encoder two, not use"):
        load_culture("use", tmp_path / "two.json")
    with pytest.raises(BadCulture, match="of 2 dimensions"):
        model.probability(np.zeros((1, len(FEATURES))), np.zeros((1, 512)))


def test_the_band_keeps_the_recall_and_the_precision_that_were_asked():
    rng = np.random.default_rng(3)
    bound = rng.random(4000) < 0.3
    scores = np.round(1 / (1 + np.exp(-rng.normal(np.where(bound, 1, -1.5), 1))), 3)
    low, high = edges(scores, bound)
    assert (scores[bound] >= low).mean() >= 0.95 and bound[scores >= high].mean() >= 0.9
    asked = band(scores, low, high)
    assert 0 < asked.mean() < 1 and not asked[scores >= high].any() and not asked[scores < low].any()
    found = curve(scores, bound)
    at = found[found["low"] == low].iloc[0]
    assert at["recall"] == pytest.approx((scores[bound] >= low).mean()) and at["saved"] == pytest.approx((scores < low).mean())
    assert found["recall"].is_monotonic_increasing and found["saved"].is_monotonic_decreasing
    assert edges(np.zeros(10), np.arange(10) < 5) == (0.0, 1.0)  # equal scores tell nothing: nobody is refused unseen
    assert edges(np.arange(30) / 30, np.arange(30) > 20)[1] == 1.0  # nine rows are too few to believe a precision
    assert band([0.0, 1.0], 0.0, 1.0).all()
    with pytest.raises(BadCulture, match="the band from 0.9 to 0.1"):
        band(scores, 0.9, 0.1)


def test_labels_come_from_the_judge_alone():
    rows = [{"id": "a", "score": 0, "by": "judge"}, {"id": "a", "score": 2, "by": "judge"},
            {"id": "b", "score": 0, "by": "judge"}, {"id": "c", "score": 5, "by": "rule"},
            {"id": "d", "score": 0, "by": "classifier"}, {"id": "e", "score": 1}]
    assert labels_of(rows) == {"a": 1.0, "b": 0.0, "e": 1.0}
