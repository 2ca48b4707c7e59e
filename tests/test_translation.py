import asyncio
import re
from dataclasses import replace

import pytest

from ultralink_nb.chat import ChatError, Completion, open_chat_model
from ultralink_nb.checks import Refusal
from ultralink_nb.layouts import read_sft
from ultralink_nb.translation import in_languages, translate, translate_text
from ultralink_nb.verification import verify
from ultralink_nb.workspace import SAMPLE

BLOCK = "```python\nprint(sorted([2, 1]))  # both\n```"
TEXT = f"Use `sorted` here:\n\n{BLOCK}\n\nThe cost is $n^2$; see https://example.org/x.\n#### 12"


class Translator:
    """A model that puts words into capitals, as long as nobody shows it code, and leaves placeholders as they are."""

    name = "capitals"

    def __init__(self, change=lambda text: text, finish_reason="stop"):
        self.requests, self.change, self.finish_reason = [], change, finish_reason

    async def complete(self, request):
        self.requests.append(request)
        asked = [message["content"] for message in request.messages if "\n<text>\n" in message["content"]]
        text = asked[-1].partition("<text>\n")[2].rpartition("\n</text>")[0]
        return Completion(self.change(text.upper().replace("&LT;", "&lt;")), self.name, self.finish_reason, 1, 1, 0.0, False)


def sample(*contents, kind="chat_agnostic"):
    roles = ("user", "assistant")
    return {
        "id": "s-0", "language": "en", "kind": kind, "source": {"dataset": "s.json", "parent_id": None, "license": "MIT"},
        "messages": [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)],
    }


def run(samples, model, languages=("fr",), **options):
    return asyncio.run(translate(samples, model, languages, **options))


def test_code_never_passes_through_the_translator():
    model = Translator()
    (translated,), refused = run([sample("How do I sort?", TEXT)], model)
    assert not refused
    assert translated["messages"][1]["content"] == (
        f"USE `sorted` HERE:\n\n{BLOCK}\n\nTHE COST IS $n^2$; SEE https://example.org/x.\n#### 12"
    )
    sent = "\n".join(message["content"] for request in model.requests for message in request.messages)
    assert not re.search(r"sorted|n\^2|example\.org|#### 12", sent) and "⟦1⟧" in sent


def test_unfenced_code_of_code_samples_is_kept_too():
    model = Translator()
    (translated,), _ = run([sample("Explain.\n\nx = [1]\nprint(x)", "x = 1\nprint(x)", kind="code")], model)
    assert [message["content"] for message in translated["messages"]] == ["EXPLAIN.\n\nx = [1]\nprint(x)", "x = 1\nprint(x)"]
    assert len(model.requests) == 1  # the answer is nothing but code


def test_ids_sources_and_generator():
    translated, _ = run([sample("Hi", "Hello")], Translator(), ["en", "fr", "zh"], seed=7)
    assert [row["id"] for row in translated] == ["fr_s-0", "zh_s-0"]  # nothing is translated into its own language
    first = translated[0]
    assert first["source"] == {"dataset": "s.json", "parent_id": "s-0", "license": "MIT"}
    assert first["generator"] == {"model": "capitals", "prompt_version": "1", "seed": 7} and first["kind"] == "chat_agnostic"
    assert [row["id"] for row in in_languages([sample("Hi"), *translated], "s-0")] == ["s-0", "fr_s-0", "zh_s-0"]


def test_what_replay_needs_stands_in_about():
    model = Translator()
    run([sample("Hi there", "Hello you")], model, ["ru"])
    wanted = [{"task": "translate", "subject": "s-0", "turn": turn, "language": "ru"} for turn in (0, 1)]
    assert [dict(request.about) for request in model.requests] == wanted


@pytest.mark.parametrize("change, finish_reason, cause", [
    (lambda text: text.replace("⟦2⟧", ""), "stop", "placeholder"),
    (lambda text: text + "⟦1⟧", "stop", "placeholder"),
    (lambda text: text, "length", "truncated"),
])
def test_an_unusable_translation_is_refused_in_its_language_only(change, finish_reason, cause):
    translated, (refused,) = run([sample("Hi", TEXT)], Translator(change, finish_reason))
    assert not translated and (refused["id"], refused["language"]) == ("fr_s-0", "fr")
    assert refused["gate"] == cause and refused["stage"] == "translation"


def test_a_text_cannot_close_its_tag():
    model = Translator()
    text = asyncio.run(translate_text("a </text> b", model, "en", "fr"))
    assert model.requests[0].messages[1]["content"].count("</text>") == 2  # the prompt's own: once named, once closing
    assert text == "A </text> B"  # a tag is held, as every placeholder is


def test_the_order_of_results_does_not_depend_on_concurrency():
    samples = [{**sample(f"question {number}", "answer"), "id": f"s-{number}"} for number in range(40)]
    one, _ = run(samples, Translator(), ["fr", "ru"], concurrency=1)
    many, _ = run(samples, Translator(), ["fr", "ru"], concurrency=16)
    assert one == many and len(one) == 80


def test_no_recording_is_a_refused_row():
    with pytest.raises(ChatError, match="replay knows the embedded sample only"):
        run([{**sample("Hi", "Hello"), "id": f"s-{number}"} for number in range(30)], open_chat_model("replay", ledger=None))


def test_recorded_translations_come_back_whole():
    samples, _ = read_sft(SAMPLE / "sft" / "math_gsm8k.jsonl", limit=2)
    translated, refused = run(samples, open_chat_model("replay", ledger=None), ["fr", "ru"])
    assert not refused and len(translated) == 4
    assert all(row["generator"]["model"] == "replay (written by the kit's authors)" for row in translated)
    assert all(row["messages"][1]["content"].endswith(row_answer(samples, row)) for row in translated)


def row_answer(samples, row):
    parent = next(sample for sample in samples if sample["id"] == row["source"]["parent_id"])
    return parent["messages"][1]["content"].rsplit("\n", 1)[1]


def test_a_long_message_is_cut_between_paragraphs_and_comes_back_whole():
    paragraphs = [f"paragraph {number} " + "word " * 40 for number in range(9)]
    text = "\n\n".join(paragraphs[:5]) + f"\n\n{BLOCK}\n\n\n" + "\n\n".join(paragraphs[5:])
    model = Translator()
    translated = asyncio.run(translate_text(text, model, "en", "fr", longest=100, context=900))
    assert re.sub(r"[ ]+(?=\n|$)", "", translated) == re.sub(
        r"[ ]+(?=\n|$)", "", "\n\n".join(paragraphs[:5]).upper() + f"\n\n{BLOCK}\n\n\n" + "\n\n".join(paragraphs[5:]).upper()
    )
    assert len(model.requests) > 3 and [request.about["piece"] for request in model.requests] == list(range(len(model.requests)))
    first, second = model.requests[0].messages, model.requests[1].messages
    assert len(first) == 2 and [message["role"] for message in second] == ["system", "user", "assistant", "user"]
    assert second[2]["content"].startswith("PARAGRAPH 0") and "paragraph 0" in second[1]["content"]
    assert all("⟦" not in message["content"] for request in model.requests for message in request.messages[1:-1])


def test_later_turns_see_how_earlier_ones_were_translated():
    model = Translator()
    run([sample("What is a ledger?", "A book.", "Who keeps it?")], model, context=200)
    last = model.requests[-1].messages
    assert [message["content"] for message in last if message["role"] == "assistant"] == ["WHAT IS A LEDGER?", "A BOOK."]
    assert "Who keeps it?" in last[-1]["content"]
    run([sample("What is a ledger?" * 40, "A book.", "Who keeps it?")], model, context=200)
    assert [message["content"] for message in model.requests[-1].messages if message["role"] == "assistant"] == ["A BOOK."]
    run([sample("What is a ledger?", "A book.")], model)
    assert len(model.requests[-1].messages) == 2


class SecondThoughts(Translator):
    """Translates right only when it is told what was wrong."""

    async def complete(self, request):
        completion = await super().complete(request)
        wrong = request.about.get("attempt") != 2
        return Completion("12" if wrong else completion.text, self.name, "stop", 1, 1, 0.0, False)


def refuses(parent, translated, source, target, *, kind=""):
    return [Refusal("numbers", f"message {number}: 12 was added") for number, message in enumerate(translated, 1)
            if "12" in message["content"]]


def test_what_verification_refuses_is_asked_again_once_with_the_reason():
    model = SecondThoughts()
    (translated,), refused = run([sample("How many?", "Some.")], model, verify=refuses)
    assert not refused and [message["content"] for message in translated["messages"]] == ["HOW MANY?", "SOME."]
    assert len(model.requests) == 4
    told = model.requests[1].messages
    assert told[-2] == {"role": "assistant", "content": "12"} and "12 was added" in told[-1]["content"]


def test_what_is_refused_twice_is_a_rejected_row_of_verification():
    model = Translator(lambda text: text + " 12")
    translated, (refused,) = run([sample("How many?", "Some.")], model, verify=refuses)
    assert not translated and len(model.requests) == 4
    assert (refused["stage"], refused["gate"], refused["id"]) == ("verification", "numbers", "fr_s-0")
    assert "message 1" in refused["reason"] and "message 2" in refused["reason"]


def test_the_kits_own_verification_can_be_given():
    model = Translator(lambda text: "Le train part à 12 h et le bus à 15 h." if "12" in text or "TRAIN" in text else text)
    (refused,) = run([sample("The train leaves at 12 and the bus at 13.")], model, verify=verify)[1]
    assert (refused["stage"], refused["gate"]) == ("verification", "numbers") and len(model.requests) == 2


def test_a_lost_placeholder_is_asked_for_again():
    class Careless(Translator):
        async def complete(self, request):
            completion = await super().complete(request)
            return completion if "attempt" in request.about else replace(completion, text=completion.text.replace("⟦1⟧", ""))

    model = Careless()
    (translated,), _ = run([sample("Use `a` and `b`.")], model)
    assert translated["messages"][0]["content"] == "USE `a` AND `b`."
    assert "⟦1⟧ missing" in model.requests[1].messages[-1]["content"]


def test_numbers_can_be_held_back():
    model = Translator(lambda text: re.sub(r"(?<!⟦)\b\d+", "99", text))
    (translated,), _ = run([sample("Take 12 of 30.")], model, numbers=True)
    assert translated["messages"][0]["content"] == "TAKE 12 OF 30."


def test_of_a_function_to_be_written_only_the_docstring_is_translated():
    task = 'def twice(x):\n    """ Give back two times the number.\n    >>> twice(2)\n    4\n    """\n'
    (translated,), _ = run([sample(task, kind="code")], Translator())
    prose = "Give back two times the number."
    assert translated["messages"][0]["content"] == task.replace(prose, prose.upper())
