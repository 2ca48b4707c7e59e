"""Passes over finished dialogues, and their statistics."""

import json

import pytest

from ultralink_nb import dialogue_stats
from ultralink_nb.checks import GATES
from ultralink_nb.dialogue_passes import drop_repeated_questions, drop_ungrounded
from ultralink_nb.records import parse_sample

PASSAGE = ("The Hollow Bridge was built in 1874 by Anna Merrow, who used oak from the Selby forest. It is 212 metres long and "
           "rests on nine piers. Farmers paid a toll of two pence until 1911.")
ANSWER = "Anna Merrow built the bridge in 1874, with oak from the Selby forest."


def sample(number, *questions, language="en", answers=()):
    answers = [*answers, *[ANSWER] * (len(questions) - len(answers))]
    messages = [{"role": role, "content": text} for pair in zip(questions, answers, strict=True)
                for role, text in zip(("user", "assistant"), pair, strict=True)]
    turns = [{"move": move, "grounding": 0.9, "missing": [], "prompt_tokens": 1, "completion_tokens": 1}
             for move in ["first", "depth", "width", "depth"][: len(questions)]]
    return {"id": f"{language}_chat_specific_p{number}", "language": language, "kind": "chat_specific", "messages": messages,
            "source": {"dataset": "d", "parent_id": None, "document_id": "d", "url": None, "license": None},
            "generator": {"model": "m", "prompt_version": "1", "seed": 1},
            "extra": json.dumps({"title": "Hollow Bridge", "turns": turns})}


def passages(samples):
    return [{"id": one["id"].partition("_chat_specific_")[2], "language": one["language"], "title": "Hollow Bridge",
             "text": PASSAGE} for one in samples]


LONG = "What became of the toll that the farmers paid for crossing the bridge with their carts?"


def test_a_question_of_an_earlier_dialogue_is_dropped_or_cut():
    samples = [sample(0, "Who built the Hollow Bridge?", LONG), sample(1, "who built the hollow bridge ?", LONG),
               sample(2, "How long is the Hollow Bridge?", "Why was that?", LONG),
               sample(3, "What is its oak like?", "Why was that?")]
    kept, refused = drop_repeated_questions(samples)
    assert [(one["id"][-2:], len(one["messages"])) for one in kept] == [("p0", 4), ("p2", 4), ("p3", 4)]
    assert [(row["id"][-2:], row["gate"], json.loads(row["record"])["turn"]) for row in refused] == [
        ("p1", "repeated_in_run", 1), ("p2", "repeated_in_run", 3)]
    assert "en_chat_specific_p0" in refused[0]["reason"]
    for one in kept:
        parse_sample(one)
        assert len(json.loads(one["extra"])["turns"]) == len(one["messages"]) // 2
    assert drop_repeated_questions(kept) == (kept, [])


def test_a_question_that_went_with_its_dialogue_refuses_no_other():
    samples = [sample(0, "Who built the Hollow Bridge?"), sample(1, "Who built the Hollow Bridge?", LONG),
               sample(2, "Why oak?", LONG)]
    kept, refused = drop_repeated_questions(samples)
    assert [one["id"][-2:] for one in kept] == ["p0", "p2"] and len(kept[1]["messages"]) == 4 and len(refused) == 1


def test_a_pattern_about_two_subjects_is_two_questions():
    samples = [sample(n, f"What is the history of the {name} Bridge, and who built it?")
               for n, name in enumerate(["Hollow", "Selby", "Orme"])]
    samples += [sample(4, "石泉桥是谁修的？", language="zh"), sample(5, "青山桥是谁修的？", language="zh")]
    assert drop_repeated_questions(samples) == (samples, [])
    assert drop_repeated_questions([]) == ([], [])


def test_an_answer_without_support_cuts_its_dialogue():
    foreign = "The carnival of Orsay draws sixty thousand visitors each February since 1962; its masks come from Ville-Haute."
    samples = [sample(0, "Who built it?", "And how?", answers=[ANSWER, foreign]), sample(1, "Who?", answers=[foreign]),
               sample(2, "Who?")]
    kept, refused = drop_ungrounded(samples, passages(samples))
    assert [(one["id"][-2:], len(one["messages"])) for one in kept] == [("p0", 2), ("p2", 2)]
    assert [(row["gate"], json.loads(row["record"])["turns_kept"]) for row in refused] == [("grounding", 1), ("grounding", 0)]
    assert "Orsay" in refused[0]["reason"]
    assert all(turn["grounding"] != 0.9 for one in kept for turn in json.loads(one["extra"])["turns"])
    assert drop_ungrounded(samples, passages(samples), 0.0)[1] == []
    with pytest.raises(ValueError, match="no passage for the sample 'en_chat_specific_p0'"):
        drop_ungrounded(samples, [])


def test_statistics_by_language_and_beside_the_paper():
    samples = [sample(0, "Who built it?", "And how?", "And when?"), sample(1, "谁修的？", language="zh")]
    table = dialogue_stats.by_language(samples).set_index("language")
    assert list(table.index) == ["en", "zh", "all"]
    assert table.loc["en", "turns per dialogue"] == 3 and table.loc["all", "turns"] == 4
    assert table.loc["en", "depth"] == table.loc["en", "width"] == 0.5 and table.loc["all", "grounding"] == pytest.approx(0.9)
    assert 0 < table.loc["en", "distinct-2 answers"] < table.loc["en", "distinct-2 questions"] <= 1
    paper = dialogue_stats.beside_paper(samples, "this run").set_index("dataset")
    assert paper.loc["UltraLink", "turns per dialogue"] == pytest.approx(1.57, abs=0.01)
    assert paper.loc["this run", "dialogues"] == 2


def test_distinct():
    assert dialogue_stats.distinct(["a b a b"]) == pytest.approx(2 / 3) and dialogue_stats.distinct(["a"]) is None
    assert dialogue_stats.distinct(["a b c", "a b c"], at_most=2) == 1


def test_refusal_counts():
    rows = [{"gate": "loop", "language": "en"}, {"gate": "loop", "language": "en"}, {"gate": "timeout", "language": "fr"}]
    table = dialogue_stats.refusal_counts(rows, ["en", "fr", "ru"])
    assert list(table.index) == [*GATES, "timeout"] and table.loc["loop", "en"] == 2 and table.to_numpy().sum() == 3
    assert dialogue_stats.refusal_counts([], ["en"]).to_numpy().sum() == 0
