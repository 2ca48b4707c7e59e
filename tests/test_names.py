import pytest

from ultralink_nb.names import Names, compare_names, read_names


def names(text: str, language: str) -> tuple[str, ...]:
    return read_names(text, language).names


def compared(a: tuple[str, str], b: tuple[str, str]) -> tuple[int, int]:
    there, back = compare_names(read_names(*a), read_names(*b)), compare_names(read_names(*b), read_names(*a))
    assert there == back, "the order of two texts does not matter"
    return there


SPEECH = ("A speech by Obama about schools.", "en")


@pytest.mark.parametrize("text, language, found", [
    ("Yesterday Marta met Olga. They spoke. Nobody asked Olga.", "en", ("marta", "olga")),  # sorted, distinct
    ("Marta sang. “Boris danced.” — he said: Yes!", "en", ()),  # a sentence begins with a capital whoever it names
    ("Hier, René a vu Zoé.", "fr", ("rene", "zoe")),
    ("Вчера Марта встретила Ольгу.", "ru", ("marta", "olgu")),
    ("Tell Al and I about Bo.", "en", ()),  # too short to be told apart
    ("Gestern traf Marta den Bürgermeister der Stadt.", "de", ()),  # every noun has a capital
    ("昨天玛尔塔遇见了奥尔加。", "zh", ()),
    ("请介绍一下iPhone和numpy的用法。", "zh", ("iphone", "numpy")),  # Latin words stand out, whatever their case
    ("Как установить numpy в системе Linux?", "ru", ("linux", "numpy")),
    ("昨日、numpyを使いました。", "ja", ("numpy",)),
    ("Wczoraj Marta spotkała Olgę.", "pl", ("marta", "olge")),  # no entry in LANGUAGES
    ("", "en", ()), ("12 + 30 = 42", "en", ()), ("北京", "zh", ()),
])
def test_names_are_read(text, language, found):
    assert names(text, language) == found


def test_what_is_kept_of_a_text():
    kept = read_names("Then Marta said no, no.", "en")
    assert kept == Names(("marta",), ("marta", "no", "said", "then"), ("mlt", "m", "st", "tm"), "")
    assert read_names("玛尔塔。", "zh") == Names((), (), (), "mlt")


@pytest.mark.parametrize("text, language", [
    ("Un discours d'Obama sur les écoles.", "fr"), ("Речь Обамы о школах.", "ru"), ("Выступление с Обамой о школах.", "ru"),
    ("奥巴马关于学校的演讲。", "zh"), ("Eine Rede von Obama über Schulen.", "de"), ("Przemówienie Obamy o szkołach.", "pl"),
])
def test_a_name_is_found_in_another_script_and_case(text, language):
    lacking, shared = compared(SPEECH, (text, language))
    assert lacking == 0 and shared >= 1


@pytest.mark.parametrize("text, language, lacking", [
    ("Un discours de Chirac sur les écoles.", "fr", 2), ("Речь о школах, ее произнес Ельцин.", "ru", 2),
    ("江泽民关于学校的演讲。", "zh", 1), ("Un discours sur les écoles.", "fr", 1), ("", "es", 1),
])
def test_a_swapped_name_is_lacking(text, language, lacking):
    assert compared(SPEECH, (text, language)) == (lacking, 0)


def test_texts_without_names_are_not_compared():
    assert compared(("How do plants grow?", "en"), ("植物如何生长？", "zh")) == (0, 0)
    assert compared(("", "en"), ("", "zh")) == (0, 0)


def test_a_short_skeleton_needs_the_same_initial():
    alone = read_names("He asked Ben about it.", "en")
    assert alone.names == ("ben",)
    assert compare_names(alone, Names((), ("pom",), ("bm",), "")) == (1, 0)
    assert compare_names(alone, Names((), ("bim",), ("bm",), "")) == (0, 1)
    assert compare_names(alone, Names((), (), (), "kbmt")) == (0, 1)
    assert compare_names(alone, Names((), (), (), "kbtm")) == (1, 0)
