"""From scores to probabilities: fitting, files, the shipped calibrations, and labels that mend."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ultralink_nb import calibration
from ultralink_nb.calibration import READ, SHIPPED, Calibration, Calibrations, families, load_calibrations, read_calibration
from ultralink_nb.redundancy import FEATURES


def constant(probability: float, prior: float = 0.5) -> Calibration:
    """A calibration that gives every pair this probability."""
    bias = float(np.log(probability / (1 - probability)))
    return Calibration("test", ("cosine",), (0.0,), (1.0,), (0.0,), bias, "made up pairs", 10, prior)


def made(n: int, columns=FEATURES) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(n, len(columns))), columns=list(columns))


def test_a_calibration_is_fitted_saved_and_read_back(tmp_path):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = made(400)
    same = (scores["cosine"] + 0.2 * np.random.default_rng(1).normal(size=400) > 0).astype(int).to_numpy()
    fitted = calibration.fit_calibration(scores, same, "test", "made up pairs")
    fitted.save(tmp_path / "c.json")
    loaded = read_calibration(tmp_path / "c.json")
    assert loaded == fitted and loaded.prior == pytest.approx(same.mean())
    assert ((loaded.probability(scores) > 0.5) == same).mean() > 0.9
    # as calibrated as scikit-learn's own prediction, of which this is the portable form
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(scores.to_numpy(), same)
    assert np.allclose(loaded.probability(scores), reference.predict_proba(scores.to_numpy())[:, 1], atol=1e-4)


def test_only_the_features_named_count():
    scores = made(300, (*READ, "margin"))
    same = (scores["names_lacking"] < 0).astype(int).to_numpy()
    fitted = calibration.fit_calibration(scores, same, "test", "x", features=READ)
    assert fitted.features == READ and ((fitted.probability(scores) > 0.5) == same).mean() > 0.95
    blind = calibration.fit_calibration(scores, same, "test", "x")
    assert blind.features == FEATURES and ((blind.probability(scores) > 0.5) == same).mean() < 0.75


def file_of(**changes) -> str:
    fields = {"encoder": "e", "features": ["cosine"], "mean": [0.0], "scale": [1.0], "weight": [1.0], "bias": 0.0,
              "fitted_on": "x", "pairs": 1, "prior": 0.2}
    return json.dumps(fields | changes)


@pytest.mark.parametrize("content, complaint", [
    ('{"encoder": "use"}', "not a calibration file"), ("{", "not a calibration file"), ("[]", "not a calibration file"),
    (b"\xff\xfe", "not a calibration file"), (file_of(mean=1.0), "not a calibration file"),
    (file_of(features=["colour"]), r"do not fit this version of the kit \(colour\)"),
    (file_of(mean=[0.0, 1.0]), r"do not fit this version of the kit \(lengths\)"),
])
def test_a_bad_file_is_refused_by_name(tmp_path, content, complaint):
    path = tmp_path / "mine.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"mine.json.*{complaint}"):
        read_calibration(path)
    with pytest.raises(ValueError, match=f"mine.json.*{complaint}"):
        load_calibrations("use", str(path))


def test_what_cannot_be_fitted_or_found(tmp_path):
    with pytest.raises(ValueError, match="both kinds"):
        calibration.fit_calibration(made(3), np.ones(3), "use", "x")
    for name in ("none.json", "use.chat.json"):
        with pytest.raises(FileNotFoundError, match="no such calibration"):
            load_calibrations("use", str(tmp_path / name))


def test_both_ends_of_one_family():
    kinds = pd.Series(["chat_agnostic", "chat_specific", "math", "code", "", None, "chat"])
    left, right = np.array([0, 0, 2, 4, 5, 2, 6]), np.array([1, 2, 2, 4, 5, 3, 0])
    assert families(kinds, left, right).tolist() == ["chat", "", "math", "", "", "", "chat"]
    none = np.zeros(0, int)
    assert families(kinds, none, none).shape == families(kinds[:0], none, none).shape == (0,)
    assert families(kinds.astype("category"), left, right)[0] == "chat"


def test_each_pair_is_weighed_by_the_calibration_of_its_family():
    chosen = Calibrations(constant(0.5), {"": constant(0.2, 0.1), "chat": constant(0.7, 0.4), "math": constant(0.9, 0.6)})
    family = np.array(["math", "chat", "", "code", "chat"])
    scores = pd.DataFrame({"cosine": np.zeros(5)}, index=[9, 9, 3, 1, 0])  # positions count, not the index
    assert chosen.probability(scores, family) == pytest.approx([0.9, 0.7, 0.2, 0.2, 0.7])
    assert chosen.prior(family) == pytest.approx([0.6, 0.4, 0.1, 0.1, 0.4])
    assert chosen.probability(scores[:0], family[:0]).shape == chosen.prior(family[:0]).shape == (0,)


def test_the_family_decides_what_the_scores_are_worth():
    sensitive = replace(constant(0.5), weight=(4.0,))
    chosen = Calibrations(constant(0.5), {"": constant(0.5), "chat": sensitive})
    found = chosen.probability(pd.DataFrame({"cosine": [1.0, 1.0, -1.0]}), np.array(["chat", "news", "chat"]))
    assert found.tolist() == pytest.approx([1 / (1 + np.exp(-4)), 0.5, 1 / (1 + np.exp(4))])


def test_every_shipped_file_is_valid_and_says_what_it_was_fitted_on():
    shipped = {path.name: read_calibration(path) for path in SHIPPED.glob("use*.json")}
    assert set(shipped) == {"use.json", "use.screen.json", "use.chat.json", "use.math.json", "use.sentence.json"}
    for name, one in shipped.items():
        assert one.features == (FEATURES if name == "use.screen.json" else READ)
        assert one.encoder == "use" and one.fitted_on and one.pairs > 1000 and 0 < one.prior < 1
        assert np.isfinite([*one.mean, *one.scale, *one.weight, one.bias]).all() and min(one.scale) > 0
    assert "omgeval_chat" in shipped["use.chat.json"].fitted_on and "msvamp_math" in shipped["use.math.json"].fitted_on


def test_the_default_encoder_has_its_own():
    found, sentence = load_calibrations("use")
    assert found.screen == read_calibration(SHIPPED / "use.screen.json")
    assert found.by_kind == {kind: read_calibration(SHIPPED / (f"use.{kind}.json" if kind else "use.json"))
                             for kind in ("", "chat", "math", "sentence")}
    assert sentence.startswith("the kit's calibrations for use") and "NO calibration" not in sentence
    for kind, one in found.by_kind.items():
        assert f"for {kind or 'any other kind'} on {one.pairs:,} pairs of {one.fitted_on}" in sentence


@pytest.mark.parametrize("encoder", ["some/other-model", "a/potion", "", "..", "use.chat", "culture", "grounded", "us*"])
def test_an_encoder_without_its_own_borrows_the_defaults_and_is_told(encoder):
    """Files of the same folder that are no calibration of pairs are none for an encoder of that name."""
    found, sentence = load_calibrations(encoder)
    assert found == load_calibrations("use")[0]
    assert f"NO calibration for encoder {encoder}:" in sentence and "ranking only" in sentence


@pytest.mark.parametrize("encoder", ["use", "some/other-model"])
def test_a_calibration_of_the_users_own_is_for_every_kind(tmp_path, encoder):
    own = constant(0.25)
    own.save(tmp_path / "mine.json")
    found, sentence = load_calibrations(encoder, str(tmp_path / "mine.json"))
    assert found.by_kind == {"": own} and found.screen == read_calibration(SHIPPED / "use.screen.json")
    assert "mine.json" in sentence and "made up pairs" in sentence
    assert found.probability(pd.DataFrame({"cosine": [0.5, 0.5]}), np.array(["chat", ""])) == pytest.approx([0.25, 0.25])


def timid(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are far too low, and what is the case."""
    rng = np.random.default_rng(0)
    logit = 3 * rng.normal(size=n)
    return 1 / (1 + np.exp(4 - logit)), (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int)


def test_a_few_hundred_labels_mend_a_timid_probability():
    probability, same = timid()
    labelled = np.random.default_rng(1).choice(len(same), 300, replace=False)
    mended = calibration.recalibrated(probability, labelled, same[labelled])
    assert mended.dtype == np.float32 and mended.shape == probability.shape
    assert calibration.expected_calibration_error(probability, same) > 0.2
    assert calibration.expected_calibration_error(mended, same) < 0.05
    assert (np.diff(mended[np.argsort(probability)]) >= 0).all()  # none overtakes another


def test_labels_of_a_sound_probability_change_little():
    probability, same = timid()
    sound = 1 / (1 + np.exp(-(np.log(probability / (1 - probability)) + 4)))
    assert np.abs(calibration.recalibrated(sound, np.arange(2000), same[:2000]) - sound).mean() < 0.02


def test_certainty_can_be_mended_too():
    mended = calibration.recalibrated(np.array([0.0, 1.0, 1.0, 0.0, 0.5]), np.arange(4), np.array([0, 1, 1, 0]))
    assert np.isfinite(mended).all() and mended[0] < 0.1 and mended[1] > 0.9 and ((mended >= 0) & (mended <= 1)).all()


def test_labels_that_cannot_mend_are_refused():
    probability, same = timid(400)
    with pytest.raises(ValueError, match="contradict"):
        calibration.recalibrated(probability, np.arange(300), 1 - same[:300])
    for one in (0, 1):
        with pytest.raises(ValueError, match="both kinds"):
            calibration.recalibrated(probability, np.arange(9), np.full(9, one))
    with pytest.raises(ValueError, match="both kinds"):
        calibration.recalibrated(probability, np.zeros(0, int), np.zeros(0, int))
