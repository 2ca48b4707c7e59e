"""Every gate on good and bad turns of every language, and the measures beneath on what must hold for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultralink_nb import checks
from ultralink_nb.checks import Gates, check_dialogue, check_turn, grounding, overlap, repetition
from ultralink_nb.prompts import load_prompts

RUN = ["en", "zh", "ru", "fr", "es", "de"]

# For each language a passage with a good turn about it, then a question that speaks of a text and an answer that declines.
EXAMPLES = {
    "en": (
        "The Hollow Bridge was built in 1874 by Anna Merrow, who used oak from the Selby forest. It is 212 metres long.",
        "Who built the Hollow Bridge, and what from?",
        "Anna Merrow built it in 1874. She chose oak from the Selby forest, and the bridge is 212 metres long.",
        "According to the passage, who built the bridge?",
        "I'm sorry, but as an AI I cannot help with that question about the bridge at this time.",
    ),
    "zh": (
        "石泉桥建于1874年，由工匠林安主持修造，桥身用的是青山一带的橡木，全长212米。",
        "石泉桥是谁修的，用的是什么材料？",
        "石泉桥由工匠林安在1874年主持修造，桥身用的是青山一带的橡木，全长有212米。",
        "根据这段文字，石泉桥是谁修的？",
        "很抱歉，作为一个人工智能，我无法回答关于这座桥梁的问题，请您另找资料吧。",
    ),
    "ru": (
        "Каменный мост построила в 1874 году Анна Мерова из дуба Селбинского леса. Его длина — 212 метров.",
        "Кто построил Каменный мост и из чего?",
        "Мост построила Анна Мерова в 1874 году. Она взяла дуб из Селбинского леса, а длина моста составила 212 метров.",
        "Согласно тексту, кто построил мост?",
        "К сожалению, я не могу ответить на этот вопрос, потому что у меня нет нужных сведений о мосте.",
    ),
    "fr": (
        "Le pont Creux fut construit en 1874 par Anne Merrand avec du chêne de la forêt de Selbe. Il mesure 212 mètres.",
        "Qui a construit le pont Creux, et avec quoi ?",
        "C'est Anne Merrand qui le construisit en 1874, avec du chêne de la forêt de Selbe ; le pont mesure 212 mètres.",
        "Selon le texte, qui a construit ce pont ?",
        "Je suis désolé, en tant qu'intelligence artificielle je ne peux pas répondre à cette question sur le pont.",
    ),
    "es": (
        "El puente Hueco fue construido en 1874 por Ana Merino con roble del bosque de Selba. Mide 212 metros de largo.",
        "¿Quién construyó el puente Hueco y con qué madera?",
        "Lo construyó Ana Merino en 1874 con roble del bosque de Selba, y el puente mide 212 metros de largo.",
        "Según el texto, ¿quién construyó el puente?",
        "Lo siento, como modelo de lenguaje no puedo responder a esta pregunta sobre el puente en este momento.",
    ),
    "de": (
        "Die Hohlbrücke wurde 1874 von Anna Merrow aus Eichenholz des Selber Waldes gebaut. Sie ist 212 Meter lang.",
        "Wer hat die Hohlbrücke gebaut und aus welchem Holz?",
        "Anna Merrow baute sie 1874 aus dem Eichenholz des Selber Waldes, und die Brücke wurde 212 Meter lang.",
        "Laut dem Text, wer hat die Brücke gebaut?",
        "Es tut mir leid, als KI kann ich diese Frage über die Brücke im Augenblick nicht beantworten.",
    ),
}


def gates_of(language, question=None, answer=None, **changes):
    passage, good_question, good_answer, _, _ = EXAMPLES[language]
    options = {"passage": passage, "language": language, "among": RUN, "earlier": [], "gates": Gates(), **changes}
    return {refusal.gate for refusal in check_turn(question or good_question, answer or good_answer, **options)}


@pytest.mark.parametrize("language", EXAMPLES)
def test_a_good_turn_passes(language):
    assert gates_of(language) == set()


@pytest.mark.parametrize("language", EXAMPLES)
def test_a_question_that_speaks_of_a_text_is_refused(language):
    assert gates_of(language, question=EXAMPLES[language][3]) == {"self_contained"}


@pytest.mark.parametrize("language", EXAMPLES)
def test_an_answer_that_declines_is_refused(language):
    assert "refusal" in gates_of(language, answer=EXAMPLES[language][4])


@pytest.mark.parametrize("language", EXAMPLES)
def test_another_language_is_refused(language):
    other = "fr" if language != "fr" else "ru"
    assert "language" in gates_of(language, answer=EXAMPLES[other][2])
    assert "language" in gates_of(language, question=EXAMPLES[other][1])


@pytest.mark.parametrize("language", EXAMPLES)
def test_a_cut_answer_is_refused(language):
    answer = EXAMPLES[language][2]
    assert gates_of(language, answer=answer[:-3]) == {"truncated"}
    assert gates_of(language, finish_reason="length") == {"truncated"}


@pytest.mark.parametrize("language", EXAMPLES)
def test_a_short_answer_is_refused(language):
    assert "too_short" in gates_of(language, answer={"zh": "是林安。"}.get(language, "1874."))


@pytest.mark.parametrize("language", EXAMPLES)
def test_a_loop_is_refused(language):
    assert "loop" in gates_of(language, answer=EXAMPLES[language][2] * 4)


@pytest.mark.parametrize("language", EXAMPLES)
def test_a_question_asked_before_is_refused(language):
    question = EXAMPLES[language][1]
    assert gates_of(language, earlier=["?", question.upper() + " "]) == {"repeated_question"}
    assert gates_of(language, earlier=[EXAMPLES[language][4]]) == set()


@pytest.mark.parametrize("language, question", [
    ("en", "The Hollow Bridge is long and old."), ("zh", "石泉桥很长，也很古老。"), ("ru", "Каменный мост длинный и старый."),
    ("fr", "Le pont Creux est long et ancien."), ("es", "El puente Hueco es largo y antiguo."), ("de", "Die Hohlbrücke ist alt."),
])
def test_a_statement_asks_nothing(language, question):
    assert gates_of(language, question=question) == {"asks"}


@pytest.mark.parametrize("language, request_", [
    ("en", "Tell me how the Hollow Bridge was built."), ("zh", "请讲讲石泉桥是怎么修起来的。"),
    ("ru", "Расскажи, как строили Каменный мост."), ("ru", "Вспомните, пожалуйста, как строили Каменный мост."),
    ("fr", "Racontez-moi la construction du pont Creux."), ("es", "Explíqueme cómo se construyó el puente Hueco."),
    ("es", "Contame cómo se construyó el puente Hueco."), ("de", "Erzähl mir, wie die Hohlbrücke gebaut wurde."),
])
def test_a_request_without_a_question_mark_asks(language, request_):
    assert gates_of(language, question=request_) == set()


def test_an_answer_about_something_else_has_no_support():
    answer = "The carnival of Orsay draws sixty thousand visitors every February, and its masks are carved in Ville-Haute."
    assert "grounding" in gates_of("en", answer=answer)
    score, missing = grounding("Anna Merrow built it in 1875 with Peter Quill.", EXAMPLES["en"][0], "en")
    assert missing == ["1875", "Peter", "Quill"] and 0 < score < 1


@pytest.mark.parametrize("language", EXAMPLES)
def test_an_answer_to_another_passage_has_less_support(language):
    """The same question about a mill that another person built elsewhere, of something else."""
    other = {"en": "The Selby mill was opened in 1906 by Peter Quill, who hired weavers from Hale. It burned down after 31 "
                   "years.",
             "zh": "兰河磨坊由商人周启明于1906年开办，从海门请来织工，三十一年后毁于大火。",
             "ru": "Селбинскую мельницу открыл в 1906 году Пётр Квилин, нанявший ткачей из Хейла. Через 31 год она сгорела.",
             "fr": "Le moulin de Hale fut ouvert en 1906 par Pierre Quillan, qui engagea des tisserands. Il brûla 31 ans plus "
                   "tard.",
             "es": "El molino de Hale fue abierto en 1906 por Pedro Quiles, que contrató tejedores. Ardió 31 años más tarde.",
             "de": "Die Haler Mühle wurde 1906 von Peter Quill eröffnet, der Weber aus Tarn anstellte. Nach 31 Jahren brannte "
                   "sie ab."}
    passage, question, answer, _, _ = EXAMPLES[language]
    own, neighbour = (grounding(answer, text, language, question)[0] for text in (passage, other[language]))
    assert own > 0.5 > 0.1 > neighbour
    assert gates_of(language, passage=other[language]) == {"grounding"}


@pytest.mark.parametrize("language, marked", [
    ("en", "User:"), ("en", "Assistant:"), ("en", "**Human:**"), ("zh", "用户："), ("zh", "助手："), ("zh", "AI助手:"),
    ("ru", "Пользователь:"), ("ru", "Помощник:"), ("ru", "Ассистент:"), ("fr", "Utilisateur :"), ("fr", "Assistante\u00a0:"),
    ("es", "Usuario:"), ("es", "Asistente:"), ("de", "Nutzer:"), ("de", "Benutzerin:"), ("de", "Assistent:"),
    ("zh", "Assistant:"), ("fr", "<|im_start|>"), ("ru", "### Response:"), ("es", "[INST]"), ("de", "<start_of_turn>"),
    ("en", "<｜User｜>"),
])
def test_a_turn_of_its_own_is_refused(language, marked):
    question, answer = EXAMPLES[language][1:3]
    assert gates_of(language, answer=f"{answer}\n{marked} {question}") == {"role_marker"}
    assert gates_of(language, question=f"{marked} {question}") == {"role_marker"}


@pytest.mark.parametrize("language, line", [
    ("en", "Who used it: the user of the bridge paid a toll."), ("en", "# The builders: Anna Merrow and her oak from Selby."),
    ("zh", "这座桥有两类用户：农夫和商人。"), ("ru", "Её помощник: дуб из Селбинского леса."), ("de",
                                                                                 "Das Holz: Eiche aus dem Wald."),
    ("fr", "Son assistant : le chêne de Selbe."), ("es", "La madera: roble del bosque de Selba."),
])
def test_a_colon_is_no_role(language, line):
    assert "role_marker" not in gates_of(language, answer=f"{EXAMPLES[language][2]}\n{line}")


@pytest.mark.parametrize("language", EXAMPLES)
def test_an_echo_of_the_prompt_is_refused(language):
    question, answer = EXAMPLES[language][1:3]
    prompts = load_prompts(language)["dialogue"]
    for key in ("system_question", "first_question", "depth_question", "width_question", "answer", "answer_alone"):
        line = max(prompts[key].replace("\n  ", " ").splitlines(), key=len).strip(" -")
        assert "echo" in gates_of(language, answer=f"{answer} {line}"), line
        assert "echo" in gates_of(language, question=f"{line} {question}"), line
    assert gates_of(language, answer=f"<passage>{answer}</passage> {answer}") >= {"echo"}


@pytest.mark.parametrize("language", EXAMPLES)
def test_what_the_prompt_asks_for_is_no_echo(language):
    """A few words of the prompt are words of the language."""
    said = {"en": "It is a passage from an encyclopedia, and the bridge is clear on its own.",
            "zh": "百科全书里有一段内容谈到这座桥。",
            "ru": "Это фрагмент энциклопедии о мосте, который понятен сам по себе.",
            "fr": "C'est un passage d'encyclopédie, et le pont se comprend seul.",
            "es": "Es un pasaje de una enciclopedia y el puente se entiende por sí solo.",
            "de": "Das ist ein Abschnitt aus einem Lexikon, und die Brücke ist für sich allein verständlich."}
    assert not checks.check_no_echo(said[language], language, 7)


@pytest.mark.parametrize("text", [
    "1. first\n2. second", "- one\n- two", "He said: “Yes.”", "Fin…", "好的。」", "```\ncode\n```", "Да!",
])
def test_these_ends_are_complete(text):
    assert checks.check_complete(text) is None


@pytest.mark.parametrize("text", ["because of the", "и поэтому,", "因为当时的人们", "first:", "the year 18"])
def test_these_ends_are_cut(text):
    assert checks.check_complete(text).gate == "truncated"


def test_a_dialogue_is_cut_at_its_first_bad_turn():
    passage, question, answer, bad, _ = EXAMPLES["en"]
    options = {"passage": passage, "language": "en", "among": RUN, "gates": Gates()}
    second = ("How long is that bridge today?", answer)
    assert check_dialogue([(question, answer), second], **options) == (2, [])
    kept, refusals = check_dialogue([(question, answer), (bad, answer), second], **options)
    assert kept == 1 and [refusal.gate for refusal in refusals] == ["self_contained"]
    kept, refusals = check_dialogue([(bad, answer), second], **options)
    assert kept == 0 and refusals


def test_thresholds_are_arguments():
    answer = "Peter Quill says that Anna Merrow built it in 1874 with oak from the Selby forest."
    assert gates_of("en", answer=answer) == set()
    assert gates_of("en", answer=answer, gates=Gates(min_grounding=1.0)) == {"grounding"}
    prompt = "I ask for something particular to this subject: who built the Hollow Bridge?"
    assert gates_of("en", question=prompt) == set()
    assert gates_of("en", question=prompt, gates=Gates(max_echo=4)) == {"echo"}
    assert "too_short" in gates_of("en", gates=Gates(min_answer_characters=500))
    assert "repeated_question" in gates_of("en", gates=Gates(max_question_overlap=0.0), earlier=["Who built the tower?"])


texts = st.text(max_size=80)


@given(texts, texts)
def test_measures_stay_in_their_range(left, right):
    assert 0 <= overlap(left, right) <= 1 and overlap(left, right) == overlap(right, left)
    assert 0 <= repetition(left) < 1
    assert 0 <= grounding(left, right, "en")[0] <= 1


@given(texts)
def test_a_text_supports_itself_and_overlaps_itself(text):
    assert grounding(text, text, "en", text)[0] > 0.9
    assert overlap(text, text) == 1


@given(texts, st.sampled_from(sorted(EXAMPLES)))
def test_no_text_breaks_a_gate(text, language):
    gates_of(language, question=text or " ", answer=text or " ")
