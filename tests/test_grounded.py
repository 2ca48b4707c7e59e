"""The grounded score on answers of six languages that are right, wrong in one thing, or about something else."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tests.conftest import ROOT
from ultralink_nb import grounded
from ultralink_nb.grounded import BadGrounding, Weights, measure, measure_rarity, read_weights, score, sentences, unsupported
from ultralink_nb.languages import UnknownLanguage

sys.path.insert(0, str(ROOT / "benchmarks"))

import grounding  # noqa: E402

# passage, question, answer in full sentences, answer in a word, an answer with a wrong year and a wrong name, another topic
EXAMPLES = {
    "en": (
        "The lighthouse of Cape Orrin was lit in 1891. Its keeper, Martha Dunmore, climbed 214 steps every evening. In 1934 an "
        "electric lamp replaced the oil burner, and the last keeper left the rock.",
        "Who kept the lighthouse of Cape Orrin, and how many steps did she climb?",
        "The keeper was Martha Dunmore. Every evening she climbed the 214 steps of the lighthouse.", "Martha Dunmore",
        "The keeper was Edwin Halloway. Every evening from 1907 he climbed the 377 steps of the lighthouse.",
        "Sourdough rises slowly because wild yeast grows less quickly than yeast from a bakery.", {"377", "1907", "Halloway"},
    ),
    "es": (
        "El faro del cabo Orrín se encendió en 1891. Su farera, Marta Dueñas, subía cada tarde 214 escalones. En 1934 una "
        "lámpara eléctrica sustituyó al quemador de aceite y el último farero dejó la roca.",
        "¿Quién cuidaba el faro del cabo Orrín y cuántos escalones subía?",
        "La farera era Marta Dueñas. Cada tarde subía los 214 escalones del faro.", "Marta Dueñas",
        "La farera era Elena Robledo. Desde 1907 subía cada tarde los 377 escalones del faro.",
        "La masa madre fermenta despacio porque la levadura silvestre crece menos que la comercial.", {"377", "1907", "Robledo"},
    ),
    "ru": (
        "Маяк на мысе Оррин зажгли в 1891 году. Смотрительница Марфа Дунаева каждый вечер поднималась на 214 ступеней. В 1934 "
        "году масляную горелку сменила электрическая лампа, и последний смотритель покинул скалу.",
        "Кто служил на маяке мыса Оррин и сколько там было ступеней?",
        "На маяке служила смотрительница Марфа Дунаева. Каждый вечер она проходила 214 ступеней.", "Марфой Дунаевой",
        "На маяке служила смотрительница Елена Рогозина. С 1907 года она каждый вечер проходила 377 ступеней.",
        "Закваска поднимается медленно, потому что дикие дрожжи растут слабее пекарских.", {"377", "1907", "Рогозина"},
    ),
    "zh": (
        "奥林角的灯塔于1891年点亮。守塔人杜玛莎每天傍晚要登上214级台阶。1934年，电灯取代了油灯，最后一位守塔人离开了礁石。",
        "谁看守奥林角的灯塔？塔里有多少级台阶？", "守塔人是杜玛莎。她每天傍晚登上灯塔的214级台阶。", "杜玛莎",
        "守塔人是罗以琳。她从1907年起每天傍晚登上灯塔的377级台阶。", "天然酵母生长得比面包房的酵母慢，所以面团发得也慢。",
        {"377", "1907", "罗以琳"},
    ),
    "fr": (
        "Le phare du cap Orrin fut allumé en 1891. Sa gardienne, Marthe Dunois, montait chaque soir 214 marches. En 1934, une "
        "lampe électrique remplaça le brûleur à huile et le dernier gardien quitta le rocher.",
        "Qui gardait le phare du cap Orrin, et combien de marches fallait-il monter ?",
        "La gardienne était Marthe Dunois. Chaque soir, elle montait les 214 marches du phare.", "Marthe Dunois",
        "La gardienne était Hélène Rocourt. Dès 1907, elle montait chaque soir les 377 marches du phare.",
        "Le levain pousse lentement, car les levures sauvages croissent moins vite que celles du commerce.",
        {"377", "1907", "Rocourt"},
    ),
    "de": (
        "Der Leuchtturm am Kap Orrin wurde 1891 entzündet. Die Wärterin Martha Dunkmann stieg jeden Abend 214 Stufen hinauf. "
        "1934 ersetzte eine elektrische Lampe den Ölbrenner, und der letzte Wärter verließ den Felsen.",
        "Wer hütete den Leuchtturm am Kap Orrin, und wie viele Stufen hatte er?",
        "Die Wärterin war Martha Dunkmann. Jeden Abend stieg sie die 214 Stufen des Leuchtturms hinauf.", "Martha Dunkmann",
        "Die Wärterin war Helene Rogowski. Seit 1907 stieg sie jeden Abend die 377 Stufen des Leuchtturms hinauf.",
        "Sauerteig geht langsam auf, weil wilde Hefen schwächer wachsen als gekaufte.", {"377", "1907", "Rogowski"},
    ),
}
RARITY = measure_rarity([example[0] for example in EXAMPLES.values()], list(EXAMPLES))


def scores(language, *answers, question=None):
    passage, asked = EXAMPLES[language][:2]
    n = len(answers)
    return score([asked if question is None else question] * n, answers, [passage] * n, [language] * n, rarity=RARITY).tolist()


def parts(answer, passage, language="en", question=""):
    return measure([question], [answer], [passage], [language]).iloc[0]


@pytest.mark.parametrize("language", EXAMPLES)
def test_a_right_answer_is_above_a_half_and_a_wrong_one_far_below(language):
    _, _, right, word, wrong, other, _ = EXAMPLES[language]
    of_right, of_word, of_wrong, of_other = scores(language, right, word, wrong, other)
    assert of_right > 0.5 and of_word > 0.5
    assert of_wrong < 0.2 and of_other < 0.2


@pytest.mark.parametrize("language", EXAMPLES)
def test_what_a_passage_lacks_is_shown(language):
    passage, _, right, word, wrong, _, lacking = EXAMPLES[language]
    shown = unsupported(wrong, passage, language)
    assert all(any(piece in one for one in shown) for piece in lacking)
    assert not {"214", "1891"} & set(shown)
    assert unsupported(word, passage, language) == []


@pytest.mark.parametrize("answer, passage, language", [
    ("1.250 Meter", "1250 Meter", "de"), ("1 250,5 метра", "1250,5 метра", "ru"), ("300万人", "3000000人", "zh"),
    ("3 millones", "3.000.000 de euros", "es"), ("12 hommes", "douze hommes", "fr"), ("at 3 pm", "at 15:00", "en"),
])
def test_numbers_agree_by_value_in_the_notation_of_the_language(answer, passage, language):
    assert parts(answer, passage, language)["numbers"] == 1
    assert parts(answer, "—", language)["numbers"] == 0


@pytest.mark.parametrize("language, answer, passage", [
    ("ru", "с Марфой Дунаевой", "Марфа Дунаева"), ("de", "den alten Leuchttürmen", "der alte Leuchtturm"),
    ("es", "las fareras antiguas", "la farera antigua"), ("fr", "les gardiennes anciennes", "la gardienne ancienne"),
])
def test_inflected_words_agree_in_part_and_others_do_not(language, answer, passage):
    assert 0.35 < parts(answer, passage, language)["words"] < 1
    assert parts(answer, "0", language)["words"] == 0


def test_traditional_characters_and_stress_marks_agree():
    assert parts("燈塔很舊", "灯塔很旧", "zh")["words"] == 1
    assert parts("мая\u0301к", "маяк", "ru")["words"] == 1


def test_names_are_capitals_within_a_sentence():
    passage = EXAMPLES["en"][0]
    assert parts("She was called Martha Dunmore.", passage)["names"] == 1
    assert parts("She was called Martha Halloway.", passage)["names"] == 0.5
    assert parts("Nobody was called anything.", passage)["names"] == 1


def test_one_wrong_sentence_among_right_ones_shows_in_the_weakest():
    passage = EXAMPLES["en"][0]
    right = "The keeper, Martha Dunmore, climbed 214 steps. An electric lamp replaced the oil burner."
    found = parts(f"{right} Sourdough rises slowly because wild yeast grows less quickly.", passage)
    assert found["words"] > 0.5 > found["weakest"]
    assert parts(right, passage)["weakest"] > 0.8


def test_the_turn_asks_for_question_and_answer_in_one_place():
    passage = "Anna Bell built the mill. It is made of granite. Its wheel broke. Carl Stone repaired the wheel."
    near = parts("Carl Stone", passage, question="Who repaired the wheel?")
    far = parts("Anna Bell", passage, question="Who repaired the wheel?")
    assert near["words"] == far["words"] == 1 and near["turn"] > far["turn"]


def test_sentences_of_each_script():
    assert sentences("One. “Two!” Three?\n\nFour") == ["One.", "“Two!", "Three?", "Four"]
    assert sentences("一。二！三") == ["一。", "二！", "三"]
    assert sentences(" \n") == [""]


def test_a_batch_in_any_order_and_block_is_each_one_alone(monkeypatch):
    rows = [(question, answer, passage, language) for language, (passage, question, *answers, _) in EXAMPLES.items()
            for answer in ("", *answers)]
    np.random.default_rng(1).shuffle(rows)
    rows = [tuple(map(str, row)) for row in rows]
    whole = measure(*zip(*rows, strict=True), rarity=RARITY)
    monkeypatch.setattr(grounded, "BLOCK", 1)
    again = measure(*zip(*rows, strict=True), rarity=RARITY)
    alone = np.vstack([measure(*([value] for value in row), rarity=RARITY).to_numpy() for row in rows])
    np.testing.assert_allclose(whole, again, atol=1e-6)
    np.testing.assert_allclose(whole, alone, atol=1e-6)


class Letters:
    """Counts a, b and the rest; notes what it was asked to encode."""

    name = identity = "letters"
    dimension, window, workers = 3, 2**31, 1

    def __init__(self):
        self.seen = []

    def encode(self, texts):
        self.seen += texts
        return np.array([[text.count("a"), text.count("b"), 1] for text in texts], dtype=np.float32)

    def lengths(self, texts):
        return np.array([len(text) for text in texts])


def test_similarity_is_that_of_the_nearest_place_and_a_sentence_is_encoded_once(tmp_path):
    encoder = Letters()
    passage = "aaa. bbb. ccc."
    found = measure(["", "", "aaa."], ["aaa.", "aaabbb", "bbb."], [passage] * 3, ["en"] * 3, encoder, tmp_path)
    assert found["similarity"].tolist() == pytest.approx([1, found["similarity"][1], found["similarity"][2]])
    assert found["similarity"].between(0.9, 1.0001).all()
    assert len(encoder.seen) == len(set(encoder.seen))
    with pytest.raises(BadGrounding, match="letters"):
        score([""], ["a"], ["a"], ["en"], encoder, tmp_path)
    weights = Weights("letters", {"words": 1.0, "similarity": 1.0}, -2.0, "nothing")
    assert score([""], ["aaa."], [passage], ["en"], encoder, tmp_path, weights=weights)[0] == pytest.approx(0.5, abs=0.01)


def test_weights_that_ship_never_punish_support():
    for name in (None, "use"):
        assert min(read_weights(name).weight.values()) > 0


def test_what_does_not_fit_is_said():
    with pytest.raises(BadGrounding, match="differ in number"):
        measure(["", ""], ["a"], ["a"], ["en"])
    with pytest.raises(UnknownLanguage):
        measure([""], ["a"], ["a"], ["xx"])
    with pytest.raises(BadGrounding, match="no rarity for de"):
        measure([""], ["a"], ["a"], ["de"], rarity={})
    assert len(score([], [], [], [])) == 0


texts = st.text(max_size=60)


@settings(deadline=None)
@given(texts, texts, texts, st.sampled_from(sorted(EXAMPLES)))
def test_any_text_stays_in_range(question, answer, passage, language):
    found = measure([question], [answer], [passage], [language])
    assert found.notna().all(axis=None) and found.ge(0).all(axis=None) and found.le(1.00001).all(axis=None)
    unsupported(answer, passage, language)


@settings(deadline=None)
@given(texts, st.sampled_from(sorted(EXAMPLES)))
def test_a_text_supports_itself(text, language):
    found = parts(text, text, language)
    assert found["numbers"] == found["names"] == 1 and found["words"] == pytest.approx(1)
    assert unsupported(text, text, language) == []


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_of_the_benchmark(rows):
    values, labels = (np.array(column) for column in zip(*rows, strict=True))
    if len(set(labels)) == 2:
        assert grounding.auc(values, labels) == pytest.approx(roc_auc_score(labels, values))
