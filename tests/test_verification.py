import json
import random
from collections import defaultdict

import pytest

from ultralink_nb.layouts import EMBEDDED, read_sft
from ultralink_nb.text_parts import Text
from ultralink_nb.verification import GATES, fit_lengths, length_ratio, usual_lengths, verify, verify_samples
from ultralink_nb.workspace import SAMPLE


def gates(source: str, translation: str, language: str = "fr", kind: str = "") -> list[str]:
    parent, translated = ([{"role": "user", "content": content}] for content in (source, translation))
    refusals = verify(parent, translated, "en", language, kind=kind)
    assert all(refusal.gate in GATES and refusal.reason for refusal in refusals)
    return [refusal.gate for refusal in refusals]


SOURCE = "The farm sells 1,250.5 kilograms of wheat and packs it into 61 bags, as `pack()` shows.\n#### 61"
CODE = (
    "Use this function:\n\n```python\ndef f(x):\n    # Add one.\n    return x + 1  # done\n```\n\n"
    "It adds one to every number it is given."
)


@pytest.mark.parametrize("language, translation", [
    ("fr", "La ferme vend 1\u202f250,5 kilogrammes de blé et les met dans 61 sacs, comme le montre `pack()`.\n#### 61"),
    ("ru", "Ферма продаёт 1250,5 килограмма пшеницы и раскладывает её в 61 мешок, как показывает `pack()`.\n#### 61"),
    ("es", "La granja vende 1.250,5 kilogramos de trigo y los reparte en 61 sacos, como muestra `pack()`.\n#### 61"),
    ("zh", "农场出售1,250.5千克小麦，并把它装进61个袋子，如`pack()`所示。\n#### 61"),
    ("de", "Der Hof verkauft 1.250,5 Kilogramm Weizen und packt sie in 61 Säcke, wie `pack()` zeigt.\n#### 61"),
])
def test_a_good_translation_passes(language, translation):
    assert gates(SOURCE, translation, language) == []


GOOD = "La ferme vend 1\u202f250,5 kilogrammes de blé et les met dans 61 sacs, comme le montre `pack()`.\n#### 61"


@pytest.mark.parametrize("translation, gate", [
    (GOOD.replace("61 sacs", "62 sacs"), "numbers"),
    (GOOD.replace("1\u202f250,5", "125,5"), "numbers"),
    (GOOD.replace("#### 61", "#### 16"), "final_answer"),
    (GOOD.replace("\n#### 61", ""), "final_answer"),
    (GOOD.replace("`pack()`", "`emballer()`"), "code"),
    (GOOD.replace("`pack()`", "la fonction"), "code"),
    (SOURCE, "language"),
    ("Oui, 1\u202f250,5 et 61, `pack()`.\n#### 61", "length"),
    ("", "structure"),
])
def test_each_fault_is_caught_by_its_gate(translation, gate):
    assert gate in gates(SOURCE, translation)


def test_a_sentence_left_as_it_was():
    source = "Wash the rice well. Then let it soak in plenty of cold water for a while before you cook it gently."
    mixed = "Lavez bien le riz à l'eau claire plusieurs fois de suite. Then let it soak in plenty of cold water for a while."
    assert "untranslated" in gates(source, mixed)
    names = "Anna, Boris, Clara, David, Emma, Felix, Greta and Hugo came to the party in the evening."
    assert gates(names, "Anna, Boris, Clara, David, Emma, Felix, Greta et Hugo sont venus à la fête dans la soirée.") == []


@pytest.mark.parametrize("translated_code, caught", [
    (CODE, False),
    (CODE.replace("# Add one.", "# Ajouter un.").replace("# done", "# fini"), False),
    (CODE.replace("x + 1", "x - 1"), True),
    (CODE.replace("    return", "  return"), True),
    (CODE.replace("```python", "```ruby"), True),
    (CODE.replace("```python\n", "").replace("```", ""), True),
])
def test_code_is_the_same_up_to_comments(translated_code, caught):
    translated = translated_code.replace("Use this function:", "Utilisez cette fonction :").replace(
        "It adds one to every number it is given.", "Elle ajoute un à chaque nombre qu'on lui donne."
    )
    assert ("code" in gates(CODE, translated)) == caught


def test_directives_are_code_and_not_comments():
    source = "```c\n#include <math.h>\nint x = 1; /* one */\n```"
    assert gates(source, source.replace("/* one */", "/* un */")) == []
    assert gates(source, source.replace("math.h", "stdio.h")) == ["code"]
    script = "```bash\n#!/bin/bash\necho hi # say it\n```"
    assert gates(script, script.replace("/bin/bash", "/bin/sh")) == ["code"]


def test_unfenced_code_of_code_samples():
    source = "Explain what this prints.\n\nvalues = [3, 1]\nvalues.sort()\nprint(values[0])"
    good = source.replace("Explain what this prints.", "Expliquez ce que cela affiche.")
    assert gates(source, good, kind="code") == []
    assert "code" in gates(source, good.replace("values[0]", "values[1]"), kind="code")


def test_latex_urls_and_roles():
    source = "The root of $x^2 = 2$ is explained on https://example.org/root in more detail."
    good = "La racine de $x^2=2$ est expliquée plus en détail sur https://example.org/root."
    assert gates(source, good) == []
    assert gates(source, good.replace("x^2", "x^3")) == ["latex"]
    assert gates(source, good.replace("org/root", "org/racine")) == ["structure"]
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    (refusal,) = verify(turns, turns[:1], "en", "fr")
    assert refusal.gate == "structure" and "user, assistant became user" in refusal.reason


def test_placeholders_stay_but_line_breaks_may_go():
    source = "Write to {name} that %s is sold out and wrap it in <b>bold</b>.<br>"
    good = "Écrivez à {name} que %s est épuisé et mettez-le en <b>gras</b>."
    assert gates(source, good) == []
    assert gates(source, good.replace("{name}", "{nom}")) == ["placeholders"]
    assert gates(source, good.replace("%s", "")) == ["placeholders"]


PROBLEM = "Nora bakes 24 rolls every morning. Her oven is old and rather slow. How many rolls does she bake in 3 days?"
SOLVED = "Nora cuit 24 petits pains chaque matin. Son four est vieux et plutôt lent. Combien en cuit-elle en 3 jours ?"


def test_a_lost_question_and_a_lost_sentence():
    assert gates(PROBLEM, SOLVED) == []
    assert gates(PROBLEM, "Nora cuit 24 petits pains chaque matin, pendant 3 jours. Son four est plutôt lent.") == ["sentences"]
    assert gates(PROBLEM, "Nora cuit 24 petits pains chaque matin. Combien en 3 jours ?") == ["sentences"]
    joined = "Nora cuit chaque matin 24 petits pains et son four est vieux et plutôt lent. Combien en cuit-elle en 3 jours ?"
    assert gates(PROBLEM, joined) == []


@pytest.mark.parametrize("translation", [
    "Nora cuit 24 petits pains chaque matin. Her oven is old and rather slow. Combien en cuit-elle en 3 jours ?",
    "Nora cuit 24 petits pains chaque matin. Son four est vieux. How many rolls does she bake in 3 days?",
])
def test_a_part_left_in_english_is_seen_however_short(translation):
    assert "untranslated" in gates(PROBLEM, translation)


def test_identifiers_are_no_untranslated_text():
    source = "What is wrong with public int size(){ int total = 0; return total; } in this class?"
    assert gates(source, "Quel est le problème de public int size(){ int total = 0; return total; } dans cette classe ?") == []


def test_comment_lines_of_unfenced_code_may_be_translated():
    source = "Explain it.\n\n# sort them\nvalues.sort()\nprint(values[0])"
    good = "Expliquez-le.\n\n# les trier\nvalues.sort()\nprint(values[0])"
    assert gates(source, good, kind="code") == []
    assert gates(source, good.replace(".sort()", ".pop()"), kind="code") == ["code"]


def made(count, factor, rng):
    ours = ["w" * rng.randint(80, 160) for _ in range(count)]
    theirs = ["x" * round(len(text) * factor * rng.uniform(0.9, 1.1)) for text in ours]
    return [Text(text, "en") for text in ours], [Text(text, "fr") for text in theirs]


def test_lengths_are_fitted_to_the_data_and_broken_rows_hardly_move_them():
    ours, theirs = made(400, 0.9, random.Random(1))
    clean = fit_lengths(ours, theirs)
    broken = fit_lengths(ours, [Text("x", "fr") if number % 20 == 0 else text for number, text in enumerate(theirs)])
    assert clean.usual == pytest.approx(0.9, abs=0.03) and broken.usual == pytest.approx(clean.usual, abs=0.03)
    assert 1.25 <= clean.high < 2 and clean.low == pytest.approx(1 / clean.high)
    assert fit_lengths(ours[:50], theirs[:50]) == usual_lengths("en", "fr")


def test_two_processes_give_what_one_gives():
    parents, rows = recorded("fr")
    translated = [{"id": row["id"], "language": "fr", "messages": row["messages"], "source": {"parent_id": row["id"]}}
                  for row in rows] * 3
    assert verify_samples(list(parents.values()), translated, workers=2) == verify_samples(list(parents.values()), translated)


def test_short_messages_are_not_judged_by_language():
    assert gates("Yes.", "Oui.") == [] and gates("OK", "OK", "ru") == [] and gates("Thank you!", "谢谢！", "zh") == []


def test_names_in_latin_letters_do_not_make_chinese_english():
    source = "Zachary did 15 push-ups today. David did 39 more push-ups than Zachary. John did 9 less than David."
    assert gates(source, "Zachary今天做了15个俯卧撑。David比Zachary多做了39个俯卧撑。John比David少做了9个。", "zh") == []


def test_length_is_measured_against_what_is_usual():
    english = "This is a sentence of an ordinary length, which says something about the weather in spring. " * 3
    assert length_ratio(english, "x" * round(sum(map(str.isalpha, english)) * 0.37), "en", "zh") == pytest.approx(1, abs=0.1)
    assert length_ratio(english, "x" * round(sum(map(str.isalpha, english)) * 1.18), "en", "fr") == pytest.approx(1, abs=0.1)
    assert "length" in gates(english, "短。", "zh")


def recorded(language: str) -> tuple[dict[str, dict], list[dict]]:
    samples, _ = read_sft(EMBEDDED)
    path = SAMPLE / "sft" / "translations" / f"{language}.jsonl"
    return {sample["id"]: sample for sample in samples}, [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("language", ["zh", "ru", "fr", "es"])
def test_recorded_translations_pass_but_for_the_planted_faults(language):
    parents, rows = recorded(language)
    translated = [
        {"id": f"{language}_{row['id']}", "language": language, "messages": row["messages"], "source": {"parent_id": row["id"]}}
        for row in rows
    ]
    passed, refused = verify_samples(list(parents.values()), translated)
    expected = {"changed_number": {"numbers"}, "altered_code": {"code"}, "left_in_english": {"language"}}
    planted = {f"{language}_{row['id']}": expected[row["planted_fault"]] for row in rows if row.get("planted_fault")}
    assert len(planted) == 3 and len(passed) + len(refused) == len(rows)
    assert {row["id"]: {row["gate"]} for row in refused} == planted


@pytest.mark.parametrize("language", ["zh", "ru", "fr", "es"])
def test_real_translations_pass_and_foreign_ones_do_not(shared_data, language):
    groups = defaultdict(dict)
    for line in (shared_data / "redundancy" / "msvamp_math.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        groups[row["group"]][row["language"]] = row["messages"]
    rows = list(groups.values())
    right = sum(not verify(row["en"], row[language], "en", language) for row in rows)
    wrong = sum(not verify(row["en"], other[language], "en", language) for row, other in zip(rows, rows[1:], strict=False))
    assert right / len(rows) >= 0.98 and wrong / len(rows) <= 0.015
