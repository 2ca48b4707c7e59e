import numpy as np
import pytest

from ultralink_nb.encoders import Encoder
from ultralink_nb.similarity import FEATURES, Dropped, check_similarity, fit_dropped, margins, measure_dropped, verify_similarity
from ultralink_nb.text_parts import Text
from ultralink_nb.verification import usual_lengths

NOUNS = "bread tea rain snow glass wool iron paper salt corn milk wood sand silk coal rice".split()
FRENCH = "pain thé pluie neige verre laine fer papier sel maïs lait bois sable soie charbon riz".split()


class Dictionary(Encoder):
    """An encoder that knows each noun in two languages: a text's vector is the sum of its nouns' axes."""

    name, identity, dimension = "dictionary", "dictionary", len(NOUNS) + 1

    def encode(self, texts):
        found = np.full((len(texts), self.dimension), 0.05, np.float32)
        for row, text in enumerate(texts):
            for axis, words in enumerate(zip(NOUNS, FRENCH, strict=True)):
                found[row, axis] += sum(word in text.lower().replace(".", " ").split() for word in words)
        return found


def pairs(count=60, seed=0):
    """English texts of two sentences on three nouns, and their translations."""
    rng = np.random.default_rng(seed)
    ours, theirs = [], []
    for _ in range(count):
        one, two, three = rng.choice(len(NOUNS), 3, replace=False)
        asked = f"Where does {NOUNS[one]} come from. Write about {NOUNS[two]} and then about {NOUNS[three]}."
        ours.append(Text(asked, "en", "math"))
        asked = f"Dites d'où vient {FRENCH[one]}. Parlez de {FRENCH[two]} et ensuite de {FRENCH[three]}."
        theirs.append(Text(asked, "fr", "math"))
    return ours, theirs


def test_the_margin_against_plain_counting():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30, 8)).astype(np.float32)
    found = margins(x, y, k=3)
    x, y = ((side - side.mean(0)) / np.linalg.norm(side - side.mean(0), axis=1, keepdims=True) for side in (x, y))
    cosine = x @ y.T
    for row in range(30):
        others = np.delete(np.arange(30), row)
        near = np.sort(cosine[row, others])[-3:].mean() + np.sort(cosine[others, row])[-3:].mean()
        assert found[row] == pytest.approx(cosine[row, row] - near / 2, abs=1e-5)
    assert margins(x[:1], y[:1]).tolist() == [0]


def test_swapped_translations_are_nearer_to_other_originals(tmp_path):
    ours, theirs = pairs()
    assert not any(check_similarity(ours, theirs, Dictionary(), tmp_path))
    theirs[3], theirs[4] = theirs[4], theirs[3]
    found = check_similarity(ours, theirs, Dictionary(), tmp_path)
    assert [row for row, refusals in enumerate(found) if refusals] == [3, 4]
    assert found[3][0].gate == "similarity" and "nearer to other originals" in found[3][0].reason


def test_few_or_short_texts_are_not_judged(tmp_path):
    ours, theirs = pairs(10)
    assert check_similarity(ours, theirs[::-1], Dictionary(), tmp_path) == [[]] * 10
    assert check_similarity([Text("Thanks!", "en")] * 30, [Text("Bois", "fr")] * 30, Dictionary(), tmp_path) == [[]] * 30


def test_a_dropped_sentence_is_found_by_weights_fitted_to_the_encoder(tmp_path):
    ours, theirs = pairs(120)
    halves = [Text(text.sentences[1], "fr", "math") for text in theirs]
    lengths, encoder = usual_lengths("en", "fr"), Dictionary()
    whole, worst = measure_dropped(ours, theirs, lengths, encoder, tmp_path)
    without, missing = measure_dropped(ours, halves, lengths, encoder, tmp_path)
    assert whole.shape == (120, len(FEATURES)) and [text.sentences[0] for text in ours] == missing
    fitted = fit_dropped(whole[:60], without[:60], np.ones(60, bool), refused=(0.02, 0.02))
    mixed = [*theirs[60:90], *halves[90:]]
    found = check_similarity(ours[60:], mixed, encoder, tmp_path, dropped=fitted)
    cut = [any(one.gate == "sentences" for one in refusals) for refusals in found]
    assert sum(cut[:30]) <= 3 and all(cut[30:])  # the bound lets two in a hundred right ones go
    assert found[-1][-1].gate == "sentences" and ours[-1].sentences[0] in found[-1][-1].reason


def test_math_has_a_bound_of_its_own():
    assert Dropped((1.0,) * 5, -1.0, 3.0, 0.5).log_odds(np.ones((2, 5))).tolist() == [4.0, 4.0]


def test_samples_go_by_language_kind_and_place_in_the_dialogue(tmp_path):
    ours, theirs = pairs()
    parents = [{"id": f"p{row}", "language": "en", "kind": "chat", "messages": [{"role": "user", "content": text.text}]}
               for row, text in enumerate(ours)]
    translated = [{"id": f"fr_p{row}", "language": "fr", "source": {"parent_id": f"p{row}"},
                   "messages": [{"role": "user", "content": text.text}]} for row, text in enumerate(theirs)]
    translated[0]["messages"], translated[1]["messages"] = translated[1]["messages"], translated[0]["messages"]
    passed, refused = verify_similarity(parents, translated, Dictionary(), tmp_path)
    assert [row["id"] for row in refused] == ["fr_p0", "fr_p1"] and passed == translated[2:]
    assert {row["gate"] for row in refused} == {"similarity"} and refused[0]["reason"].startswith("similarity: message 1")
