"""The pairs that say the same in two languages, from rows to probabilities."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest

from ultralink_nb import redundancy
from ultralink_nb.agreement import AGREEMENT, SURROUNDED, SURROUNDINGS, surroundings
from ultralink_nb.calibration import LEAST, READ, Calibration, Calibrations, load_calibrations
from ultralink_nb.embedding import embed, open_encoder
from ultralink_nb.repetition import find_pairs, read_scores
from ultralink_nb.vectors import centre
from ultralink_nb.workspace import SAMPLE

# Prompts of the kind that translators rewrite, and the same with another name or place in one language.
PROMPTS = {
    "speech": {
        "fr": "Écrivez un court discours que Marie Dupont pourrait tenir lors de l'ouverture de la bibliothèque.",
        "es": "Escribe un breve discurso que Marie Dupont podría dar en la inauguración de la biblioteca.",
        "ru": "Напишите короткую речь, которую Мари Дюпон могла бы произнести на открытии библиотеки.",
        "zh": "请写一篇简短的演讲稿，供玛丽·杜邦在图书馆开幕式上使用。",
    },
    "trip": {
        "fr": "Que peut-on visiter en trois jours au Portugal avec deux enfants ?",
        "es": "¿Qué se puede visitar en tres días en Portugal con dos niños?",
        "ru": "Что можно посмотреть за три дня в Португалии с двумя детьми?",
        "zh": "带两个孩子在葡萄牙玩三天，可以参观哪些地方？",
    },
}
EXCHANGED = {
    ("speech", "es"): "Escribe un breve discurso que Carmen Ortega podría dar en la inauguración de la biblioteca.",
    ("speech", "ru"): "Напишите короткую речь, которую Виктор Соколов мог бы произнести на открытии библиотеки.",
    ("trip", "es"): "¿Qué se puede visitar en tres días en Perú con dos niños?",
    ("trip", "ru"): "Что можно посмотреть за три дня в Карелии с двумя детьми?",
}


@pytest.fixture(scope="module")
def encode(tmp_path_factory):
    return partial(embed, encoder=open_encoder("use"), cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def questions() -> pd.DataFrame:
    """The questions of the embedded sample in four languages, which no calibration was fitted on."""
    rows = []
    for code in ("zh", "ru", "fr", "es"):
        for line in (SAMPLE / "sft" / "translations" / f"{code}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.append((code, row["id"].split("_")[0], row["id"], row["messages"][0]["content"]))
    return pd.DataFrame(rows, columns=["language", "kind", "content", "text"])


def found_in(rows: pd.DataFrame, encode) -> pd.DataFrame:
    """The pairs of `find_pairs`, and whether their contents are the same."""
    texts = rows["text"].tolist()
    centred = centre(encode(texts), rows["language"].tolist())
    candidates = redundancy.candidate_pairs(centred)
    pairs = find_pairs(rows, texts, centred, candidates, load_calibrations("use")[0], encode)
    assert pairs["left"].tolist() == candidates.left.tolist() and pairs["right"].tolist() == candidates.right.tolist()
    content = rows["content"].to_numpy()
    return pairs.assign(same=content[pairs["left"]] == content[pairs["right"]])


def test_translations_are_told_from_neighbours(questions, encode):
    pairs = found_in(questions, encode)
    assert list(pairs) == ["left", "right", "cosine", "margin", "probability", "same"]
    assert pairs["probability"].between(0, 1).all()
    worth = redundancy.against_truth(questions, questions["content"], pairs)
    assert worth["precision"] > 0.99 and worth["recall"] > 0.98
    chat = (questions["kind"] == "chat").to_numpy()[pairs["left"]]
    assert (pairs[chat & pairs["same"]]["probability"] >= 0.5).mean() > 0.97
    assert (pairs[~pairs["same"]]["probability"] < 0.5).all()


@pytest.fixture(scope="module")
def prompts(questions) -> pd.DataFrame:
    """The chat of the sample and `PROMPTS`."""
    more = [(code, "chat_specific", content, text) for content, texts in PROMPTS.items() for code, text in texts.items()]
    chat = questions[questions["kind"] == "chat"]
    return pd.concat([chat, pd.DataFrame(more, columns=questions.columns)], ignore_index=True)


@pytest.fixture(scope="module")
def true_prompts(prompts, encode) -> pd.DataFrame:
    return found_in(prompts, encode)


@pytest.mark.parametrize("content, language", EXCHANGED)
def test_an_exchanged_name_or_place_lowers_the_odds_of_its_row(prompts, true_prompts, encode, content, language):
    changed = prompts.copy()
    place = changed.index[(changed["content"] == content) & (changed["language"] == language)]
    changed.loc[place, "text"] = EXCHANGED[content, language]

    def odds(pairs: pd.DataFrame) -> pd.Series:
        same = pairs[pairs["same"]].set_index(["left", "right"])["probability"].clip(upper=1 - 1e-6)
        return same / (1 - same)

    before, after = odds(true_prompts), odds(found_in(changed, encode))
    touched = np.array([place[0] in pair for pair in before.index])
    assert touched.sum() == 3 and (before[touched] > 5).all()
    assert (after.reindex(before.index)[touched] < before[touched] / 5).all()
    other = (prompts["content"] != content).to_numpy()[before.index.get_level_values("left")]
    assert np.allclose(np.log(after.reindex(before.index)[other]), np.log(before[other]), atol=0.7)


def made(contents: int = 12, languages=("en", "fr", "zh")) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows with a text of two words each, and vectors that are alike where the content is."""
    rng = np.random.default_rng(2)
    meaning = rng.normal(size=(contents, 24))
    vectors = np.concatenate([meaning + 0.2 * rng.normal(size=meaning.shape) for _ in languages]).astype(np.float32)
    kinds = ["chat_x", "chat_y", "math"]
    rows = [(code, kinds[n % 3], f"{code}word{chr(97 + n)} thing") for code in languages for n in range(contents)]
    return pd.DataFrame(rows, columns=["language", "kind", "text"]), vectors


def one_feature(name: str, weight: float, bias: float, prior: float = 0.5) -> Calibration:
    return Calibration("test", (name,), (0.0,), (1.0,), (weight,), bias, "made up", 10, prior)


def test_what_the_screen_lets_go_is_not_read():
    rows, vectors = made()
    centred = centre(vectors, rows["language"].tolist())
    candidates = redundancy.candidate_pairs(centred)
    screen = one_feature("centred", 20.0, -14.0)
    asked: list[str] = []

    def encode(words: list[str]) -> np.ndarray:
        asked.extend(words)
        return np.ones((len(words), 8), np.float32)

    read_as = Calibrations(screen, {"": one_feature("centred", 0.0, 3.0), "math": one_feature("centred", 0.0, -3.0)})
    pairs = find_pairs(rows, rows["text"].tolist(), centred, candidates, read_as, encode)
    screened = screen.probability(redundancy.score_pairs(candidates, centred, rows["text"].tolist()))
    gone = screened < LEAST
    assert 0 < gone.sum() < len(gone)
    assert np.array_equal(pairs["probability"][gone], screened[gone])
    taking_part = np.unique(pairs.loc[~gone, ["left", "right"]])
    assert set(asked) == {word for row in taking_part for word in rows["text"][row].split()}
    left, right = pairs["left"], pairs["right"]
    math = ((rows["kind"] == "math").to_numpy()[left] & (rows["kind"] == "math").to_numpy()[right])[~gone]
    assert math.any() and (pairs["probability"][~gone][math] < 0.5).all()
    assert (pairs["probability"][~gone][~math] > 0.3).all()


def test_no_pair_to_read_and_no_pair_at_all():
    rows, vectors = made()
    nothing = Calibrations(one_feature("centred", 0.0, -9.0), {"": one_feature("centred", 0.0, 0.0)})

    def encode(words: list[str]) -> np.ndarray:
        raise AssertionError("no text is read")

    for part in (rows, rows[rows["language"] == "en"], rows[:0]):
        centred = centre(vectors[: len(part)], part["language"].tolist())
        candidates = redundancy.candidate_pairs(centred)
        pairs = find_pairs(part, part["text"].tolist(), centred, candidates, nothing, encode)
        assert len(pairs) == len(candidates) and (pairs["probability"] < LEAST).all()
        assert list(pairs) == ["left", "right", "cosine", "margin", "probability"]


def test_read_scores_have_every_column_in_the_order_of_the_pairs():
    rows, vectors = made()
    centred = centre(vectors, rows["language"].tolist())
    candidates = redundancy.candidate_pairs(centred)
    scores = redundancy.score_pairs(candidates, centred, None)
    chosen = np.arange(len(scores))[::3]
    pairs, screened = candidates.take(chosen), np.random.default_rng(0).random(len(chosen))
    agreement = pd.DataFrame(np.random.default_rng(1).random((len(chosen), len(AGREEMENT))), columns=list(AGREEMENT))
    known = read_scores(pairs, scores.iloc[chosen], screened, len(rows), agreement)
    assert set(READ) <= set(known) and len(known) == len(chosen) and np.isfinite(known.to_numpy()).all()
    assert known["centred"].tolist() == scores["centred"].to_numpy()[chosen].tolist()
    assert known["names_lacking"].tolist() == agreement["names_lacking"].tolist()
    expected = surroundings(len(rows), pairs.left, pairs.right, screened, known[list(SURROUNDED)])
    pd.testing.assert_frame_equal(known[list(SURROUNDINGS)], expected)
