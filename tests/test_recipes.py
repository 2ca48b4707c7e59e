import random
from collections import Counter

import pytest

from ultralink_nb.layouts import EMBEDDED, read_sft
from ultralink_nb.recipes import BadRecipe, choose_sources, question_pairs, questions_only, reservoir
from ultralink_nb.records import parse_sample

GENERATOR = {"model": "m", "prompt_version": "1", "seed": 1}


def row(number, language="en", parent=None, question="Why?"):
    return {"id": f"{language}-{number}", "language": language, "kind": "chat_agnostic", "generator": GENERATOR, "extra": None,
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "So."}],
            "source": {"dataset": "d", "parent_id": parent}}


def translation(sample, language, question):
    return {**row(0, language, sample["id"], question), "id": f"{language}_{sample['id']}"}


def test_pairs_of_questions_ask_in_one_language_and_answer_in_the_other():
    sample = row(1, question="How are you?")
    (pair,) = question_pairs([sample], [translation(sample, "fr", "Comment vas-tu ?")])
    assert [message["content"] for message in pair["messages"]] == ["français → English\n\nComment vas-tu ?", "How are you?"]
    assert (pair["id"], pair["language"], pair["kind"]) == ("fr-en_en-1", "en", "question_pair")
    assert pair["source"]["parent_id"] == "en-1"
    both = list(question_pairs([sample], [translation(sample, "fr", "Comment vas-tu ?")], "both"))
    assert both[1]["messages"][0]["content"] == "English → français\n\nHow are you?" and both[1]["language"] == "fr"
    assert len({one["id"] for one in both}) == 2


def test_real_rows_become_questions_and_pairs():
    samples, _ = read_sft(EMBEDDED)
    questions = list(questions_only(samples))
    assert [one["id"] for one in questions] == [sample["id"] for sample in samples]
    assert all(len(one["messages"]) == 1 and one["messages"][0]["role"] == "user" for one in questions)
    made = [translation(one, "zh", "问题") for one in questions]
    pairs = list(question_pairs(samples, made))
    assert len(pairs) == len(samples) and all(parse_sample(pair) for pair in pairs)


def test_pairs_that_cannot_be_made():
    with pytest.raises(BadRecipe, match="sideways"):
        list(question_pairs([], [], "sideways"))
    with pytest.raises(BadRecipe, match="its parent x is not among"):
        list(question_pairs([row(1)], [row(2, "fr", "x")]))
    with pytest.raises(BadRecipe, match="holds no message of a user"):
        list(questions_only([{**row(1), "messages": [{"role": "assistant", "content": "Hi"}]}]))


def test_a_reservoir_is_exact_streaming_and_independent_of_order_and_neighbours():
    rows = [row(number, language) for number in range(500) for language in ("en", "fr", "zh")]
    chosen = reservoir(iter(rows), {"fr": 40, "zh": 900})
    assert Counter(one["language"] for one in chosen) == {"en": 500, "fr": 40, "zh": 500}
    assert chosen == [one for one in rows if one in chosen]  # the order of the rows
    shuffled = random.Random(1).sample(rows, len(rows))
    french = {one["id"] for one in chosen if one["language"] == "fr"}
    assert {one["id"] for one in reservoir(shuffled, {"en": 3, "fr": 40, "zh": 0}) if one["language"] == "fr"} == french
    assert {one["id"] for one in reservoir(rows, {"en": 0, "fr": 10, "zh": 0})} < french
    assert {one["id"] for one in reservoir(rows, {"en": 0, "fr": 40, "zh": 0}, seed=2)} != french
    with pytest.raises(BadRecipe, match="-1"):
        reservoir(rows, {"fr": -1})


def test_a_reservoir_draws_every_row_alike():
    rows = [row(number) for number in range(20)]
    drawn = Counter(one["id"] for seed in range(2000) for one in reservoir(rows, {"en": 5}, seed))
    assert len(drawn) == 20 and all(abs(count - 500) < 100 for count in drawn.values())  # 5 standard deviations


def test_a_source_language_is_chosen_by_what_there_is():
    rows = [row(1), row(1, "zh", "en-1"), row(2, "fr"), row(3, "es"), row(3, "zh", "es-3")]
    assert [one["id"] for one in choose_sources(rows, ["zh", "en", "fr"])] == ["zh-1", "fr-2", "zh-3"]
    assert [one["id"] for one in choose_sources(rows, ["en"])] == ["en-1"]


def test_quotas_of_real_rows_are_a_part_of_their_file(shared_data):
    samples, _ = read_sft(shared_data / "sft_en_raw" / "gsm8k_train.jsonl")
    chosen = reservoir(samples, {"en": 747})
    assert len(chosen) == 747 and len({one["id"] for one in chosen}) == 747
    places = sorted(int(one["id"].rsplit("-", 1)[1]) for one in chosen)
    assert abs(sum(places) / len(places) / len(samples) - 0.5) < 0.05  # from the whole of the file
    pairs = list(question_pairs(samples, [translation(one, "es", "¿Cuántos?") for one in questions_only(chosen)]))
    assert len(pairs) == 747 and all("####" not in message["content"] for pair in pairs for message in pair["messages"])
