from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultralink_nb.languages import LANGUAGES
from ultralink_nb.numerals import compare_numbers, read_numbers, spoken


def differ(source: str, translation: str, language: str) -> tuple[list[str], list[str]]:
    missing, added = compare_numbers(read_numbers(source, "en"), read_numbers(translation, language))
    return [spoken(value) for value in missing], [spoken(value) for value in added]


@pytest.mark.parametrize("source, language, translation", [
    ("It weighs 1,250.5 kilograms.", "zh", "它重1,250.5千克。"),
    ("It weighs 1,250.5 kilograms.", "zh", "它重１２５０.５公斤。"),
    ("It weighs 1,250.5 kilograms.", "ru", "Он весит 1\u00a0250,5 килограмма."),
    ("It weighs 1,250.5 kilograms.", "fr", "Il pèse 1\u202f250,5 kilogrammes."),
    ("It weighs 1,250.5 kilograms.", "es", "Pesa 1.250,5 kilogramos."),
    ("It weighs 1,250.5 kilograms.", "es", "Pesa 1,250.5 kilogramos."),
    ("It weighs 1,250.5 kilograms.", "de", "Es wiegt 1.250,5 Kilogramm."),
    ("He has 2 cats and 12 mice.", "zh", "他有两只猫和十二只老鼠。"),
    ("He has 2 cats and 12 mice.", "ru", "У него две кошки и двенадцать мышей."),
    ("He has two cats and twelve mice.", "fr", "Il a 2 chats et 12 souris."),
    ("She paid 21 in total.", "es", "Pagó veintiuno en total."),
    ("She paid 97 in total.", "fr", "Elle a payé quatre-vingt-dix-sept en tout."),
    ("About 3 million people", "zh", "约300万人"),
    ("About 3.5 billion people", "zh", "约35亿人"),
    ("About 1.2 billion people", "es", "Unos 1200 millones de personas"),
    ("About 5 million people", "ru", "Около 5 млн человек"),
    ("a million filters", "zh", "100万个过滤器"),
    ("It is 5 kilometres away and weighs 3 kilograms.", "zh", "它在5千米外，重3千克。"),
    ("Come at 3 pm.", "fr", "Viens à 15 h."),
    ("Open from 9:00 to 5:30 p.m.", "ru", "Открыто с 9 до 17:30."),
    ("in the 1990s", "zh", "在20世纪90年代"),
    ("in the 70s and 80s", "zh", "在20世纪的70、80年代"),
    ("in 1949", "zh", "在一九四九年"),
    ("in the 19th century", "fr", "au XIXe siècle"),
    ("On March 5, 2020", "zh", "2020年3月5日"),
    ("A dozen eggs, half an hour, twice", "es", "Una docena de huevos, media hora, dos veces"),
    ("25% off, then 1/4 of it", "zh", "优惠25%，然后是它的四分之一"),
    ("2 billion trees", "es", "2 mil millones de árboles"),
    ("30 million trees", "zh", "3千万棵树"),
    ("50 cents", "fr", "50 cents"),
    ("1/2 a cup", "es", "½ taza"),
    ("The scores are 78, 85, 91 and 82.", "fr", "Les notes sont 78, 85, 91 et 82."),
    ("$.50 each", "ru", "по 0,5 доллара"),
])
def test_the_same_numbers_agree(source, language, translation):
    assert differ(source, translation, language) == ([], [])


@pytest.mark.parametrize("source, language, translation, missing, added", [
    ("Mei reads 240 pages.", "zh", "小美读了250页。", ["240"], ["250"]),
    ("It costs 1,250.5.", "ru", "Это стоит 125,05.", ["1250.5"], ["125.05"]),
    ("It costs 2.5.", "es", "Cuesta 25.", ["2.5"], ["25"]),
    ("5 red and 6 green", "fr", "6 verts", ["5"], []),
    ("some apples", "es", "7 manzanas", [], ["7"]),
    ("12 eggs and 12 plums", "ru", "12 яиц и сливы", ["12"], []),
    ("3 million people", "zh", "3万人", ["3000000"], ["30000"]),
    ("every 2 days", "zh", "每一天", ["2"], []),
])
def test_another_number_is_seen(source, language, translation, missing, added):
    assert differ(source, translation, language) == (missing, added)


def test_rows_of_number_words_are_composed():
    words = {
        "en": ("two hundred and five thousand three hundred twelve", 205_312), "zh": ("三千五百万", 35_000_000),
        "ru": ("сто двадцать пять", 125), "fr": ("soixante-dix-huit", 78), "es": ("treinta y cinco", 35), "de": ("zwölf", 12),
    }
    for language, (text, value) in words.items():
        assert Fraction(value) in read_numbers(text, language).words


def _written(value: Fraction, language: str, grouped: bool) -> str:
    mark = LANGUAGES[language].decimal_mark
    group = {"en": ",", "zh": ",", "ru": "\u00a0", "fr": "\u202f", "es": ".", "de": "."}[language] if grouped else ""
    whole, _, decimals = f"{float(value):,.2f}".partition(".")
    return whole.replace(",", group) + mark + decimals


@given(
    st.lists(st.integers(0, 99_999_999).map(lambda cents: Fraction(cents, 100)), max_size=6),
    st.sampled_from([code for code in LANGUAGES if code != "en"]), st.booleans(),
)
def test_each_language_writes_the_same_values(values, language, grouped):
    source = "; ".join(_written(value, "en", True) for value in values)
    translation = "; ".join(_written(value, language, grouped) for value in reversed(values))
    assert differ(source, translation, language) == ([], [])


@given(st.lists(st.integers(100, 900), min_size=1, max_size=6), st.integers(0, 5), st.integers(1, 50))
def test_one_changed_number_is_always_seen(values, place, change):
    place %= len(values)
    changed = [value + (change if number == place else 0) for number, value in enumerate(values)]
    source, translation = ("; ".join(map(str, numbers)) for numbers in (values, changed))
    missing, added = differ(source, translation, "fr")
    assert missing == [str(values[place])] and added == [str(changed[place])]
