import pytest

from ultralink_nb.languages import LANGUAGES
from ultralink_nb.places import Places, compare_places, read_places


def compared(a: tuple[str, str], b: tuple[str, str]) -> tuple[int, int]:
    there, back = compare_places(read_places(*a), read_places(*b)), compare_places(read_places(*b), read_places(*a))
    assert there == back, "the order of two texts does not matter"
    return there


@pytest.mark.parametrize("text, language", [
    ("Life in France", "en"), ("A French song", "en"), ("La vie en France", "fr"), ("Une chanson en français", "fr"),
    ("法国的生活", "zh"), ("一首法语歌", "zh"), ("Жизнь во Франции", "ru"), ("Французская песня", "ru"),
    ("Canciones en francés", "es"),
    ("Die französischen Berge", "de"), ("フランスの山", "ja"), ("프랑스에서", "ko"), ("Życie we Francji", "pl"),
])
def test_a_territory_and_its_language_are_one(text, language):
    assert read_places(text, language).places == {frozenset({"FR"})}


def test_cities_and_names_of_several_words():
    assert read_places("From Sydney to New Caledonia", "en").places == {frozenset({"Australia/Sydney"}), frozenset({"NC"})}
    assert compared(("The rain in Sydney", "en"), ("悉尼的雨", "zh")) == (0, 0)
    both = read_places("Music of Singapore", "en").places
    assert len(both) == 1 and set(*both) == {"SG", "Asia/Singapore"}  # either may answer
    assert compare_places(Places(both, frozenset()), Places(frozenset({frozenset({"SG"})}), frozenset())) == (0, 0)


def test_a_swapped_place_is_lacking():
    economy = ("Describe the economy of Australia.", "en")
    assert compared(economy, ("描述澳大利亚的经济。", "zh")) == (0, 0)
    assert compared(economy, ("Décris l'économie de la France.", "fr")) == (2, 0)
    assert compared(economy, ("Опиши экономику.", "ru")) == (1, 0)
    assert compared(economy, ("Describe the economies of Australia, Peru and Kenya.", "en")) == (2, 0)


@pytest.mark.parametrize("text, language, found", [
    ("It costs $800.", "en", {"USD"}), ("It costs 800 €.", "en", {"EUR"}), ("It costs £5 or 7 dollars.", "en", {"GBP", "USD"}),
    ("Priced in EUR and CNY", "en", {"EUR", "CNY"}), ("Rub the stain, then pound it. Type $HOME.", "en", set()),
    ("一共800元，或者110美元。", "zh", {"CNY", "USD"}), ("多元文化中的元素", "zh", set()), ("多少元？", "zh", {"CNY"}),
    ("Он заплатил 800 рублей.", "ru", {"RUB"}), ("рубка леса", "ru", set()), ("Cuesta ochenta dólares.", "es", {"USD"}),
    ("Cela coûte 20 euros.", "fr", {"EUR"}), ("Das kostet 20 Dollar.", "de", {"USD"}),
    ("Kosztuje 5 € i trzy dolary.", "pl", {"EUR"}), ("500円です", "ja", {"JPY"}),
])
def test_currencies(text, language, found):
    assert read_places(text, language).currencies == found


def test_a_swapped_currency_is_lacking():
    assert compared(("It costs $800.", "en"), ("这要800美元。", "zh")) == (0, 0)
    assert compared(("It costs $800.", "en"), ("Cela coûte 800 euros.", "fr")) == (0, 2)
    assert compared(("It costs $800.", "en"), ("Cela coûte cher.", "fr")) == (0, 1)


@pytest.mark.parametrize("language", ["xx", "", "not a language", "tlh"])
def test_an_unknown_language_has_no_places(language):
    assert read_places("Paris and France for $5", language) == Places(frozenset(), frozenset({"USD"}))


def test_regional_codes_and_sparse_languages():
    assert read_places("A vida na França", "pt-BR").places == {frozenset({"FR"})}
    assert read_places("法國", "zh-Hant").places == {frozenset({"FR"})}
    read_places("Roma", "la")  # babel has the language and hardly a name in it


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_names_money(language):
    assert set(LANGUAGES[language].currencies) >= {"USD", "EUR", "GBP", "RUB", "CNY", "JPY"}
    assert not read_places("", language).currencies
