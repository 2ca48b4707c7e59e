"""The dialogue process against a loopback server and against replay; its draws; and what stops it."""

import asyncio
import json
from collections import Counter

import pytest
import yaml

from tests.chat_server import ChatServer, Reply, completion, grounded_text
from ultralink_nb import dialogues, prompts
from ultralink_nb.chat import ChatError, open_chat_model
from ultralink_nb.dialogues import Process, generate_dialogues, plan, read_passages
from ultralink_nb.languages import LANGUAGES
from ultralink_nb.ledger import Ledger
from ultralink_nb.records import BadRecord, parse_sample
from ultralink_nb.workspace import SAMPLE

TEXT = """The Hollow Bridge was built in 1874 by Anna Merrow of Tarn. She used oak from the Selby forest, floated down the Orme.
The bridge is 212 metres long and rests on nine piers of granite. Farmers paid a toll of two pence until 1911. In that year
the county bought it from the Merrow family. A storm broke the third pier in 1953, and the repair took fourteen months.

Today the bridge carries a footpath, because lorries have used the new crossing at Hale since 1968. Swifts nest below its deck.
Every June the town of Tarn holds a lantern walk across it. The oldest of the lanterns was made by Merrow's daughter Ruth."""


def passage(number, language="en", text=TEXT):
    return {"id": f"{language}:{number}:0", "document_id": f"{language}:{number}", "language": language,
            "title": f"Hollow Bridge {number}", "text": text, "n_tokens": 200}


def generate(passages, model, **options):
    options = {"seed": 1, "languages": ["en", "fr"], **options}
    return asyncio.run(generate_dialogues(passages, model, **options))


def model_at(server, ledger=None, **options):
    return open_chat_model("loopback", base_url=server.url, ledger=ledger, max_retries=0, timeout=5, patience=0, **options)


def test_dialogues_from_a_server(tmp_path):
    documents = {"en:0": {"url": "https://example.org/0", "license": "MIT", "source": "dump.xml"}}
    with ChatServer() as server:
        samples, refused = generate([passage(n) for n in range(6)], model_at(server, Ledger(tmp_path / "l")), documents=documents)
        asked = len(server.requests)
    assert len(samples) >= 5 and asked >= 2 * sum(len(sample["messages"]) // 2 for sample in samples)
    for sample in samples:
        parse_sample(sample)
        assert [message["role"] for message in sample["messages"]] == ["user", "assistant"] * (len(sample["messages"]) // 2)
        assert sample["generator"] == {"model": "loopback", "prompt_version": prompts.load_prompts("en")["version"], "seed": 1}
        turns = json.loads(sample["extra"])["turns"]
        assert all(turn["grounding"] > 0.5 and turn["missing"] == [] for turn in turns)  # the server answers in its sentences
        assert turns[0]["move"] == "first" and all(turn["prompt_tokens"] == 22 for turn in turns)
    assert samples[0]["id"] == "en_chat_specific_en:0:0"
    assert samples[0]["source"] == {"dataset": "dump.xml", "parent_id": None, "document_id": "en:0",
                                    "url": "https://example.org/0", "license": "MIT"}


def test_neither_order_nor_concurrency_changes_a_result():
    passages = [passage(n) for n in range(6)]
    with ChatServer() as server:
        one = generate(passages, model_at(server), concurrency=1)
        many = generate(passages, model_at(server), concurrency=6)
        backwards = generate(passages[::-1], model_at(server), concurrency=3)
    assert one == many
    assert backwards[0] == one[0][::-1]


def test_a_second_run_asks_nothing(tmp_path):
    passages = [passage(n) for n in range(4)]
    with ChatServer() as server:
        first = generate(passages, model_at(server, Ledger(tmp_path / "l")))
        asked = len(server.requests)
        second = generate(passages, model_at(server, Ledger(tmp_path / "l")))
        assert len(server.requests) == asked
        generate(passages, model_at(server, Ledger(tmp_path / "l")), seed=2)
        assert len(server.requests) > asked
    assert first == second


def test_a_failing_passage_is_a_row_and_stops_nobody():
    def respond(body, number):
        if "Bridge 3" in json.dumps(body):
            return Reply(400, b'{"error": {"message": "context too long"}}')
        return Reply(body=completion(grounded_text(body["messages"])))

    with ChatServer(respond) as server:
        samples, refused = generate([passage(n) for n in range(6)], model_at(server))
    (row,) = [row for row in refused if row["id"].endswith("en:3:0")]
    assert row["gate"] == "http_400" and "context too long" in row["reason"] and row["stage"] == "dialogue_generation"
    assert len(samples) >= 4


def test_a_failure_in_the_middle_keeps_the_turns_before():
    def respond(body, number):
        if "<dialogue>\n" in body["messages"][1]["content"]:
            return Reply(500, b"{}")
        return Reply(body=completion(grounded_text(body["messages"])))

    with ChatServer(respond) as server:
        samples, refused = generate([passage(n) for n in range(4)], model_at(server))
    assert samples and all(len(sample["messages"]) == 2 for sample in samples)
    assert {"http_500"} == {row["gate"] for row in refused if json.loads(row["record"])["turns_kept"]}


@pytest.mark.parametrize("count", [3, 200])
def test_when_everything_fails_it_stops_early_with_the_cause(count):
    with ChatServer(lambda *_: Reply(401, b'{"error": {"message": "no such key"}}')) as server:
        with pytest.raises(ChatError, match="no such key.*OPENAI_API_KEY"):
            generate([passage(n) for n in range(count)], model_at(server))
        assert len(server.requests) < 60


def test_when_the_server_dies_it_stops_and_keeps_what_was_paid(tmp_path):
    def respond(body, number):
        return Reply(body=completion(grounded_text(body["messages"]))) if number < 20 else Reply(500, b"{}")

    with ChatServer(respond) as server:
        with pytest.raises(ChatError, match="in a row failed.*500"):
            generate([passage(n) for n in range(200)], model_at(server, ledger := Ledger(tmp_path / "l")))
        assert len(server.requests) < 120
    assert sum(row["answered"] for row in ledger.summary()) == 20


def test_a_refused_turn_cuts_the_dialogue_and_is_written_down():
    def respond(body, number):
        text = grounded_text(body["messages"])
        deep = len(body["messages"]) > 2
        return Reply(body=completion("I'm sorry, as an AI I cannot say anything about that, whatever it is." if deep else text))

    with ChatServer(respond) as server:
        samples, refused = generate([passage(n) for n in range(4)], model_at(server))
    assert samples and all(len(sample["messages"]) == 2 for sample in samples)
    records = [json.loads(row["record"]) for row in refused if row["gate"] == "refusal"]
    assert records and all(record["turn"] == 2 and record["turns_kept"] == 1 and record["answer"] for record in records)


def test_a_prompt_that_is_too_long_is_not_sent():
    with ChatServer() as server:
        samples, refused = generate([passage(0)], model_at(server), process=Process(max_context_tokens=256))
        assert (samples, [row["gate"] for row in refused], server.requests) == ([], ["too_long"], [])


def test_the_passage_stays_out_of_the_answer_prompt_where_asked():
    def respond(body, number):
        about_passage = "<passage>\n" in body["messages"][-1]["content"]
        return Reply(body=completion("Who built the Hollow Bridge, and with which wood?" if about_passage else TEXT))

    with ChatServer(respond) as server:
        samples, _ = generate([passage(0)], model_at(server), process=Process(answer_with_document=False, max_turns=1))
        bodies = [body for _, body in server.requests]
    assert len(samples) == 1 and len(bodies) == 2
    assert "Merrow" in json.dumps(bodies[0]) and "Merrow" not in json.dumps(bodies[1])
    assert bodies[1]["messages"][-1] == {"role": "user", "content": "Who built the Hollow Bridge, and with which wood?"}


def test_the_plan_follows_the_paper():
    plans = [plan(f"p{n}", 1, 0.1, 50) for n in range(4000)]
    lengths = Counter(len(moves) for moves in plans)
    assert lengths[1] == 0 and max(lengths) <= 6
    assert lengths[2] / 4000 == pytest.approx(0.1, abs=0.02)
    assert lengths[3] / (4000 - lengths[2]) == pytest.approx(0.2, abs=0.02)
    assert lengths[4] / (4000 - lengths[2] - lengths[3]) == pytest.approx(0.4, abs=0.03)
    moves = Counter(move for moves in plans for move in moves[1:])
    assert all(moves[0] == "first" for moves in plans) and set(moves) == {"depth", "width"}
    assert moves["depth"] / sum(moves.values()) == pytest.approx(0.5, abs=0.02)


def test_a_plan_depends_on_seed_and_passage_only():
    assert plan("a", 1, 0.1, 6) == plan("a", 1, 0.1, 6)
    assert len({tuple(plan(f"p{n}", seed, 0.0, 12)) for n in range(20) for seed in (1, 2)}) > 30
    assert len(plan("a", 1, 0.0, 3)) == 3 and len(plan("a", 1, 1.0, 9)) == 2 and plan("a", 1, 0.1, 1) == ["first"]


@pytest.mark.parametrize("text, wanted", [
    ("“Why so?”", "Why so?"), ("«Pourquoi ?»", "Pourquoi ?"),
    ('"A" and "B"?', '"A" and "B"?'), ("  plain ", "plain"), ('"', '"'),
])
def test_tidy(text, wanted):
    assert dialogues.tidy(text) == wanted


def test_replay_gives_the_recorded_dialogue():
    recorded = [json.loads(line) for line in (SAMPLE / "dialogues" / "en.jsonl").read_text(encoding="utf-8").splitlines()]
    known = recorded[0]
    text = f"{known['anchor']} " + " ".join(turn["answer"] for turn in known["turns"])
    samples, refused = generate([passage(1, text=text)], open_chat_model("replay", ledger=None))
    (sample,) = samples
    assert refused == [] and "authors" in sample["generator"]["model"]
    said = [message["content"] for message in sample["messages"]]
    expected = [text for turn in known["turns"] for text in (turn["question"], turn["answer"])]
    assert said == expected[: len(said)]


def test_replay_without_a_recording():
    known, unknown = json.loads((SAMPLE / "dialogues/en.jsonl").read_text(encoding="utf-8").splitlines()[0]), passage(2)
    text = f"{known['anchor']} " + " ".join(turn["answer"] for turn in known["turns"])
    samples, refused = generate([passage(1, text=text), unknown], open_chat_model("replay", ledger=None))
    assert len(samples) == 1 and [row["gate"] for row in refused] == ["no_recording"]
    with pytest.raises(ChatError, match="chat_model and base_url"):
        generate([unknown], open_chat_model("replay", ledger=None))


def test_read_passages(tmp_path):
    rows = [{"id": "a", "language": "fr", "title": "T", "text": "un texte"}]
    good = tmp_path / "p.jsonl"
    good.write_text(json.dumps(rows[0]), encoding="utf-8")
    assert read_passages(good)[0]["document_id"] == "a"
    for broken, wanted in [({**rows[0], "text": ""}, "line 2, column text"), ({**rows[0], "language": "xx"}, "column language"),
                           ({**rows[0]}, "column id: 'a' stands already"), ({"id": "b"}, "column language")]:
        good.write_text(json.dumps(rows[0]) + "\n" + json.dumps(broken), encoding="utf-8")
        with pytest.raises(BadRecord, match=wanted):
            read_passages(good)
    with pytest.raises(FileNotFoundError, match="notebook 01"):
        read_passages(tmp_path / "none.parquet")


def test_choose_passages_does_not_depend_on_order_and_only_grows():
    passages = [passage(n, language) for n in range(30) for language in ("en", "fr")]
    five = dialogues.choose_passages(passages, ["fr"], 1, 5)
    assert len(five) == 5 and {one["language"] for one in five} == {"fr"}
    assert [one["id"] for one in dialogues.choose_passages(passages[::-1], ["fr"], 1, 5)] == [one["id"] for one in five][::-1]
    nine = dialogues.choose_passages(passages, ["fr"], 1, 9)
    assert {one["id"] for one in five} < {one["id"] for one in nine}
    assert len(dialogues.choose_passages(passages, ["en", "fr"], 1)) == 60


def test_every_language_has_prompts():
    for language in LANGUAGES:
        loaded = prompts.load_prompts(language)
        assert loaded["version"] and ("sifting" in loaded) == (language == "en")
    judge = prompts.load_prompts("en")["sifting"]["judge"].format(sample="x")
    assert json.loads(judge[judge.index("{") : judge.rindex("}") + 1]).keys() == {
        "full_names", "code_or_formulas", "places", "conventions", "expressions", "material_things", "organisations"}


@pytest.mark.parametrize("change, wanted", [
    (lambda p: p["dialogue"].pop("answer"), "dialogue.answer is missing"),
    (lambda p: p["dialogue"].update(answer="no placeholder"), r"dialogue.answer must have the placeholders \['passage'\]"),
    (lambda p: p["dialogue"].update(answer="{passage} {"), "dialogue.answer"),
    (lambda p: p["dialogue"].update(anser="x"), "dialogue.anser is not a key"),
    (lambda p: p["dialogue"]["patterns"].update(refusal=["("]), "dialogue.patterns.refusal"),
    (lambda p: p["translation"].update(rules=""), "translation.rules"),
    (lambda p: p.update(version=1), "version"),
])
def test_a_prompt_file_that_does_not_fit_is_named(tmp_path, change, wanted):
    loaded = yaml.safe_load((SAMPLE.parent / "prompts" / "fr.yaml").read_text(encoding="utf-8"))
    change(loaded)
    path = tmp_path / "xx.yaml"
    path.write_text(yaml.safe_dump(loaded, allow_unicode=True), encoding="utf-8")
    with pytest.raises(prompts.BadPrompts, match=rf"xx\.yaml.*{wanted}"):
        prompts.read_prompts(path)
    with pytest.raises(prompts.BadPrompts, match="does not exist"):
        prompts.read_prompts(tmp_path / "yy.yaml")
