import numpy as np
import pytest

from ultralink_nb.layouts import EMBEDDED, read_sft
from ultralink_nb.sift_rules import CRITERION, FEATURES, RULES, SURE, features, find_cues, parts, sure_cue
from ultralink_nb.sifting import CRITERIA


def chat(question, answer="Gladly.", kind="chat_agnostic"):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": "c-0", "language": "en", "kind": kind, "messages": messages}


@pytest.mark.parametrize("text, rule, quote", [
    ("Is $1,250.50 a fair rent?", "price", "$1,250.50"),
    ("It weighs 12 lbs and is 3-foot wide.", "quantity", "12 lbs"),
    ("Meet me at 221 Baker Street at noon.", "address", "221 Baker Street"),
    ("What do people eat on THANKSGIVING?", "holiday", "THANKSGIVING"),
    ("Who plays in the super  bowl?", "holiday", "super  bowl"),
    ("Where in Brazil is it driest?", "country", "Brazil"),
    ("What is New York's motto?", "city", "New York"),
    ("A limerick, please.", "verse", "limerick"),
    ("Tell me about The Old Mill (1937).", "year_title", "(1937)"),
    ("Why?\n```python\nx\n```", "code_block", "```"),
    ("Solve \\(x^2 = 2\\).", "code_block", "\\("),
])
def test_a_cue_names_its_rule_and_quotes_the_text(text, rule, quote):
    found = find_cues(text, [rule])
    assert found[0].quote == quote and found[0].rule == rule and found[0].criterion == CRITERION[rule]
    assert all(cue.quote in text for cue in find_cues(text))


@pytest.mark.parametrize("text", [
    "Let $x5$ be a variable, or $5$ in a formula.", "Take 5 feeds a day.", "He was born in 1990.",
    "The presentation is at 10 sharp.", "Use `print` for it.", "A usage of dollarization", "",
])
def test_what_only_looks_alike_is_no_sure_cue(text):
    assert sure_cue(chat(text)) is None


def test_every_rule_belongs_to_a_criterion_of_the_paper():
    assert set(CRITERION.values()) <= set(CRITERIA) and set(RULES) == set(CRITERION) and set(SURE) <= set(RULES)


def test_rules_refuse_chats_by_the_question_only_but_code_anywhere():
    assert sure_cue(chat("How much is it?", "About $12.")) is None
    assert sure_cue(chat("How much is $12 in yen?")).quote == "$12"
    assert sure_cue(chat("How much is $12?", kind="math")) is None
    assert sure_cue(chat("How do I loop?", "So:\n```\nfor\n```")).rule == "code_block"
    assert sure_cue(chat("How do I loop?", "So:\n```\nfor\n```"), ["price"]) is None and sure_cue(chat("$5"), []) is None


def test_features_count_names_within_sentences_and_read_both_sides():
    one, other = features([("We met Ada Lovelace in Rome.", ""), ("Why is water wet?", "Ask in Paris.")])
    assert one.shape == (len(FEATURES),) and np.isfinite(one).all()
    at = FEATURES.index
    assert one[at("question_full_names")] > 0 and one[at("question_names")] == pytest.approx(np.log1p(2))
    assert other[at("question_names")] == 0 and other[at("answer_places")] > 0 and one[at("answer_places")] == 0
    assert features([]).shape == (0, len(FEATURES))


def test_the_embedded_samples_that_a_rule_refuses():
    samples, _ = read_sft(EMBEDDED)
    hit = {sample["id"]: sure_cue(sample) for sample in samples}
    assert all(cue.quote in "\n".join(message["content"] for message in sample["messages"])
               for sample in samples if (cue := hit[sample["id"]]))
    assert not any(hit[sample["id"]] for sample in samples if sample["kind"] != "chat_agnostic")
    assert all(parts(sample)[0] for sample in samples)


@pytest.mark.parametrize("text", ["$" * 20000, "1," * 10000, "A" * 20000, "Aa " * 7000, "`" * 20000, "Aa-" * 7000])
def test_hostile_texts_cost_their_length(text):
    features([(text, text)])
    sure_cue(chat(text))
