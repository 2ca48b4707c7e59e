import pytest

from ultralink_nb.languages import LANGUAGES, UnknownLanguage, detect_language, get_language, language_of_file
from ultralink_nb.tokens import count_tokens

SENTENCES = {
    "en": "The old lighthouse still guides the fishing boats home at night.",
    "zh": "这座古老的灯塔至今仍在夜里为渔船指引归途。",
    "ru": "Старый маяк до сих пор указывает рыбакам дорогу домой.",
    "fr": "Le vieux phare guide encore les bateaux de pêche la nuit.",
    "es": "El viejo faro todavía guía de noche a los barcos de pesca.",
    "de": "Der alte Leuchtturm weist den Fischern nachts noch immer den Weg.",
}


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_is_recognised(code):
    found, probability = detect_language(SENTENCES[code], among=list(LANGUAGES))
    assert found == code and probability > 0.8
    assert detect_language(SENTENCES[code])[0] == code


def test_no_text_has_no_language():
    assert detect_language("  \n") == ("", 0.0)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("zhwiki-20240101-pages-articles.xml.bz2", "zh"), ("minidump_de.xml", "de"), ("fr.jsonl", "fr"),
        ("x_enwiki-latest-pages-articles1.xml-p1p2.bz2", "en"), ("dump.xml", None), ("friday.xml", None),
    ],
)
def test_the_file_name_tells_the_language(name, code):
    assert language_of_file(name) == code


def test_an_unknown_language_says_where_to_add_it():
    with pytest.raises(UnknownLanguage, match="ultralink_nb/languages.py"):
        get_language("xx")


def test_chinese_becomes_simplified():
    assert get_language("zh").normalise("皮影戲與漢字") == "皮影戏与汉字"
    assert get_language("fr").normalise("l’été") == "l’été"


def test_colours_tell_languages_apart():
    assert len({language.color for language in LANGUAGES.values()}) == len(LANGUAGES)


def test_tokens_are_those_of_cl100k():
    assert count_tokens(["hello world", "", "<|endoftext|>"]) == [2, 0, 7]
