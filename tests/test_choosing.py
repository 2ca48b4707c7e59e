"""Choosing what to ground on: specificity, topics, and budgets that do not depend on the order of rows."""

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb.chance import places_in_draw
from ultralink_nb.choosing import BadChoice, choose, cover_topics, find_topics, specificity, topic_words
from ultralink_nb.embedding import embed, open_encoder
from ultralink_nb.vectors import BadVectors

# The last text of each language is known there alone; the others say the same in all three.
TEXTS = {
    "en": ["The cat sleeps on the sofa.", "Water boils at 100 degrees.", "How do I learn to play the guitar?",
           "The baker of Little Wexham rings his bell every Tuesday."],
    "fr": ["Le chat dort sur le canapé.", "L'eau bout à 100 degrés.", "Comment apprendre à jouer de la guitare ?",
           "La fête du potiron remplit les rues de notre village d'Auvergne."],
    "zh": ["猫在沙发上睡觉。", "水在100度沸腾。", "我怎样学习弹吉他？", "端午节那天，我们村里的人都去看赛龙舟。"],
}


@pytest.fixture(scope="module")
def encode(tmp_path_factory):
    return partial(embed, encoder=open_encoder("use"), cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def documents():
    return [(code, text) for code, texts in TEXTS.items() for text in texts]


def parallel(n: int, codes: str = "abc", noise: float = 0.2, seed: int = 0):
    """n contents in each language, vectors of 16 dimensions, by language."""
    rng = np.random.default_rng(seed)
    content = rng.normal(size=(n, 16))
    vectors = np.concatenate([content + noise * rng.normal(size=content.shape) for _ in codes])
    return vectors.astype(np.float32), np.repeat(list(codes), n)


def test_what_only_one_language_says_is_the_most_specific_there(documents, encode):
    languages, texts = zip(*documents, strict=True)
    found = specificity(encode(texts), languages, texts, encode)
    for code in TEXTS:
        own = found[np.array(languages) == code]["specificity"].to_numpy()
        assert own.argmax() == 3 and own[3] > 2 * own[:3].max()
    assert found["specificity"].between(0, 1).all()


def test_a_changed_name_is_noticed_where_the_sentence_stays(encode):
    texts = ["In which year did the actress Penelope Cruz make her first film?", "Where can I buy good bread in Lyon?",
             "¿En qué año hizo su primera película la actriz Penelope Cruz?", "¿Dónde puedo comprar buen pan en Lyon?"]
    other = texts[:2] + ["¿En qué año hizo su primera película la actriz Carmen Maura?"] + texts[3:]
    languages = ["en", "en", "es", "es"]
    same, changed = (specificity(encode(rows), languages, rows, encode) for rows in (texts, other))
    assert changed["unmatched"][2] > same["unmatched"][2] + 1
    assert changed["specificity"][2] > same["specificity"][2]


def test_a_number_counts_by_its_digits(encode):
    languages = ["en", "fr"]
    texts = ["There are 1,250 sheep on the hill.", "Il y a 1.250 moutons sur la colline."]
    other = [texts[0], "Il y a 1.350 moutons sur la colline."]
    same, changed = (specificity(encode(rows), languages, rows, encode) for rows in (texts, other))
    assert changed["unmatched"][0] == pytest.approx(same["unmatched"][0] + 2 * 0.6, abs=0.1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_rows_does_not_matter(seed):
    vectors, languages = parallel(12)
    shuffle = np.random.default_rng(seed).permutation(len(languages))
    straight, shuffled = specificity(vectors, languages), specificity(vectors[shuffle], languages[shuffle])
    np.testing.assert_allclose(shuffled["specificity"], straight["specificity"][shuffle], atol=1e-4)
    assert (shuffle[shuffled["counterpart"]] == straight["counterpart"].to_numpy()[shuffle]).all()


def test_a_counterpart_in_one_language_is_enough():
    vectors, languages = parallel(30)
    stays = np.ones(90, bool)
    stays[[30, 60, 61]] = False  # content 0 is left in language a alone, content 1 in a and b
    score = specificity(vectors[stays], languages[stays])["specificity"].to_numpy()
    assert score[0] == score.max() and score[0] > 3 * score[1] and score[1] < 3 * np.median(score)


def test_removed_counterparts_are_found_among_many():
    vectors, languages = parallel(200, noise=0.5)
    stays = ~np.isin(np.arange(600) % 200, range(20)) | (np.arange(600) < 200)
    score = specificity(vectors[stays], languages[stays])["specificity"].to_numpy()[:200]
    assert np.mean(score[:20, None] > score[20:]) > 0.95


def test_three_rows_and_empty_rows():
    vectors, languages = parallel(20, "ab")
    few, empty = np.random.default_rng(1).normal(size=(3, 16)), np.zeros((1, 16))
    found = specificity(np.concatenate([vectors, few, empty]), [*languages, "c", "c", "c", "a"])
    assert found["specificity"].iloc[-1] == 0 and found["counterpart"].iloc[-1] == -1
    assert found["specificity"].iloc[:40].max() < found["specificity"].iloc[40:43].min()


def test_only_empty_rows_to_compare_with():
    found = specificity(np.concatenate([np.eye(3), np.zeros((2, 3))]), ["a", "a", "a", "b", "b"])
    assert found["specificity"].tolist() == [1, 1, 1, 0, 0] and (found["counterpart"] == -1).all()


def test_texts_without_a_word(encode):
    texts = ["?!", "…", "猫", "12"]
    assert specificity(np.eye(4), ["en", "fr", "zh", "en"], texts, encode)["specificity"].between(0, 1).all()


def test_what_cannot_be_scored_is_said():
    with pytest.raises(BadChoice, match="only en"):
        specificity(np.eye(3), ["en"] * 3)
    with pytest.raises(BadChoice, match="2 texts for 3 documents"):
        specificity(np.eye(3), ["en", "fr", "en"], ["a", "b"], lambda words: np.eye(len(words)))
    with pytest.raises(BadChoice, match="encode"):
        specificity(np.eye(2), ["en", "fr"], ["a", "b"])
    with pytest.raises(BadVectors, match="row 1"):
        specificity(np.array([[1.0, 0], [np.nan, 0]]), ["en", "fr"])


def test_rows_localised_for_their_culture_rank_first(shared_data, encode):
    path = shared_data / "redundancy" / "omgeval_chat.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts, languages = [row["messages"][0]["content"] for row in rows], np.array([row["language"] for row in rows])
    score = specificity(encode(texts), languages, texts, encode)["specificity"].to_numpy()
    localised = np.array([bool(row.get("localised")) for row in rows])
    for code, least in {"es": 0.9, "fr": 0.9, "ru": 0.89, "zh": 0.85}.items():
        here, there = score[localised & (languages == code)], score[~localised & (languages == code)]
        assert np.mean(here[:, None] > there) > least, code


def clusters(sizes: list[int], seed: int = 0):
    """Vectors of clear clusters, their true labels and ids."""
    rng, label = np.random.default_rng(seed), np.repeat(np.arange(len(sizes)), sizes)
    vectors = 10 * np.eye(len(sizes), 24)[label] + rng.normal(size=(len(label), 24))
    return vectors.astype(np.float32), label, [f"document {number}" for number in range(len(label))]


def test_topics_are_the_clusters_whatever_the_order_of_rows():
    vectors, label, ids = clusters([60, 50, 40, 30, 20])
    topics = find_topics(vectors, ["en"] * 200, ids, 5)
    assert (topics == label).all()  # numbered by size
    shuffle = np.random.default_rng(1).permutation(200)
    assert (find_topics(vectors[shuffle], ["en"] * 200, [ids[row] for row in shuffle], 5) == topics[shuffle]).all()


def test_topics_lie_across_languages():
    vectors, label, ids = clusters([400, 300])
    languages = np.where(np.arange(700) % 2, "en", "fr")
    vectors[languages == "fr"] += 5  # a cone of its own, further away than the other cluster
    assert (find_topics(vectors, languages, ids, 2) == label).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 60), st.sampled_from(["sqrt", "equal"]))
def test_topics_are_covered_and_the_number_is_met(sizes, n, quota):
    topics = np.repeat(np.arange(len(sizes)), sizes)
    ids = [str(number) for number in range(len(topics))]
    chosen = choose(ids, ["en"] * len(ids), n, "topics", 7, topics, quota=quota)
    taken = np.bincount(topics[chosen], minlength=len(sizes))
    assert len(set(chosen)) == len(chosen) == min(n, len(ids))
    assert (taken > 0).sum() == min(n, len(sizes))
    if quota == "equal":  # only a topic that is used up has less than another
        assert all(taken[topic] == sizes[topic] or taken[topic] >= taken.max() - 1 for topic in range(len(sizes)))


def test_square_root_quotas_lie_between_equal_and_proportional():
    topics = np.repeat([0, 1], [900, 100])
    ids = [str(number) for number in range(1000)]
    taken = {quota: np.bincount(topics[choose(ids, ["en"] * 1000, 80, "topics", 1, topics, quota=quota)]).tolist()
             for quota in ("equal", "sqrt")}
    assert taken == {"equal": [40, 40], "sqrt": [60, 20]}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["random", "topics", "specific"]), st.integers(0, 15), st.integers(0, 10_000))
def test_choices_go_by_id_and_seed_and_not_by_row(by, n, seed):
    rng = np.random.default_rng(seed)
    ids, languages = np.array([f"d{number}" for number in range(40)]), np.repeat(["en", "fr"], [30, 10])
    topics, scores = rng.integers(4, size=40), rng.integers(5, size=40) / 5
    chosen = choose(ids, languages, n, by, seed, topics, scores)
    assert [(languages[chosen] == code).sum() for code in ("en", "fr")] == [n if n < 30 else 30, min(n, 10)]
    assert (np.diff(chosen) > 0).all()
    shuffle = rng.permutation(40)
    again = shuffle[choose(ids[shuffle], languages[shuffle], n, by, seed, topics[shuffle], scores[shuffle])]
    assert set(again) == set(chosen)


def test_random_takes_the_lowest_hashes_and_grows_without_change():
    ids = [f"en:{number}" for number in range(200)]
    ten, twenty = (choose(ids, ["en"] * 200, n) for n in (10, 20))
    assert set(ten) < set(twenty) and set(ten) == set(np.argsort(places_in_draw(ids, 1))[:10])
    assert set(choose(ids, ["en"] * 200, 10, seed=2)) != set(ten)


def test_specific_takes_the_highest_scores_but_not_all_from_one_topic():
    topics = np.repeat([0, 1, 2], [50, 25, 25])
    ids, languages, scores = [str(number) for number in range(100)], ["en"] * 100, np.linspace(1, 0, 100)  # topic 0 is on top
    chosen = choose(ids, languages, 20, "specific", 1, topics, scores, max_topic_share=0.4)
    assert np.bincount(topics[chosen]).tolist() == [8, 8, 4]
    assert chosen.tolist() == [*range(8), *range(50, 58), *range(75, 79)]
    assert choose(ids, languages, 20, "specific", scores=scores).tolist() == list(range(20))
    filled = choose(ids, languages, 20, "specific", 1, topics, scores, max_topic_share=0.1)  # 3 topics of 2 leave 14 places
    assert filled.tolist() == [*range(16), 50, 51, 75, 76]


def test_a_number_for_each_language():
    chosen = choose(list("abcdef"), ["en", "en", "en", "fr", "fr", "zh"], {"en": 2, "fr": 5})
    assert np.bincount(chosen // 3).tolist() == [2, 2] and 5 not in chosen


def test_no_documents():
    assert len(choose([], [], 5)) == 0 and len(find_topics(np.zeros((0, 4)), [], [])) == 0


@pytest.mark.parametrize(("options", "message"), [
    ({"by": "luck"}, "random, topics, specific"), ({"by": "topics"}, "needs topics"), ({"by": "specific"}, "needs scores"),
    ({"by": "topics", "topics": np.zeros(3)}, "3 topics for 2 ids"), ({"by": "topics", "quota": "cube"}, "sqrt, equal"),
])
def test_wrong_choices_are_named(options, message):
    with pytest.raises(BadChoice, match=message):
        choose(["a", "b"], ["en", "en"], 1, **options)
    with pytest.raises(BadChoice, match="twice"):
        choose(["a", "a"], ["en", "en"], 1)


def test_one_pool_is_covered():
    vectors, label, ids = clusters([60, 50, 40, 30, 20])
    chosen, topics = cover_topics(vectors, 10, ids, n_topics=5)
    assert len(chosen) == 10 and set(topics[chosen]) == set(range(5)) and len(topics) == 200


def test_topics_are_named_by_their_own_words():
    texts = ["the river floods the valley", "the river and the valley", "the king of the castle", "a castle for the king",
             "河流淹没山谷", "河流与山谷", "国王的城堡", "国王住城堡"]
    words = topic_words(texts, ["en"] * 4 + ["zh"] * 4, np.array([0, 0, 1, 1] * 2), 2)
    named = {(row.topic, row.language): set(row.words) for row in words.itertuples()}
    assert named[0, "en"] == {"river", "valley"} and named[1, "en"] == {"king", "castle"}
    assert named[0, "zh"] == {"河流", "山谷"} and named[1, "zh"] == {"国王", "城堡"}
    assert words["documents"].tolist() == [2] * 4
