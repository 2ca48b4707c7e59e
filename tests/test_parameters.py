import pytest

from ultralink_nb.parameters import PARAMETERS, SIZES, BadParameter, check_parameters, check_profile, check_value, size


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("treshold", 0.5, "unknown parameter treshold; did you mean threshold?"),
        ("seed", 1e6, "seed must be of type int, not float.*write 1000000"),
        ("seed", True, "seed must be of type int, not bool"),
        ("seed", "1", "seed must be of type int, not str"),
        ("seed", None, "seed is empty"),
        ("threshold", 1.5, "threshold must be between 0 and 1"),
        ("neighbours", 0, "neighbours must be between 1 and 256"),
        ("policy", "balance", "policy must be one of balanced.*did you mean balanced?"),
        ("languages", ["en", "xx"], "unknown language 'xx'"),
        ("languages", ["en", False], "put it in quotes"),
        ("languages", ["en", "en"], "none of them twice"),
        ("languages", [], "at least one language"),
        ("languages", "en", "languages must be of type list"),
        ("dump_language", "xx", "parameter dump_language: unknown language .xx."),
        ("base_url", "http://me:secret@host/v1", "base_url must look like https://host/v1, without"),
        ("base_url", "host/v1", "base_url must look like"),
        ("api_key_variable", "sk-abc", "is the NAME of an environment variable"),
        ("threshold", float("nan"), "finite number"),
        ("filter_words", {"eng": ["x"]}, "words by language"),
        ("filter_words", {"en": [False]}, "words by language"),
        ("languages", "[en, zh", "is not a list or mapping"),
        ("source_language", "eng", "unknown language 'eng'.*did you mean en?"),
    ],
)
def test_a_wrong_value_is_one_clear_sentence(name, value, message):
    with pytest.raises(BadParameter, match=message) as error:
        check_value(name, value)
    assert "\n" not in str(error.value)


def test_good_values_pass_and_integers_widen():
    assert check_profile({"threshold": 1, "policy": "paper", "samples_path": None, "dump_language": None}) == {
        "threshold": 1.0, "policy": "paper", "samples_path": None, "dump_language": None
    }


def test_a_secret_is_not_repeated_in_the_message():
    for name, value in (("base_url", "http://me:hunter2@host/v1"), ("api_key_variable", "sk-hunter2")):
        with pytest.raises(BadParameter) as error:
            check_value(name, value)
        assert "hunter2" not in str(error.value)


def test_a_list_may_come_as_text_as_papermill_passes_it():
    assert check_value("languages", "[en, de]") == ["en", "de"]
    assert check_value("filter_words", "{en: [mandolin]}") == {"en": ["mandolin"]}


def test_a_mistyped_name_in_a_notebook_stops_it_once():
    namespace = {"seed": 1, "threshhold": 0.4, "__name__": "__main__", "In": [], "Out": {}, "open": open}
    with pytest.raises(BadParameter, match="did you mean threshold"):
        check_parameters(namespace)


def test_checking_again_later_ignores_what_the_notebook_made():
    namespace = {"seed": 1, "threshold": 1}
    assert check_parameters(namespace) == {"seed": 1, "threshold": 1.0}
    namespace["recall"] = 0.99
    namespace["threshold"] = 0.4
    assert check_parameters(namespace)["threshold"] == 0.4


def test_the_scale_dial_sets_what_is_left_empty():
    assert size("max_documents", None, "demo") == SIZES["max_documents"][0]
    assert size("max_documents", None, "full") is None
    assert size("max_documents", 7, "demo") == 7
    assert size("max_documents", None, "demo", given_by_user=True) is None
    assert all(name in PARAMETERS and PARAMETERS[name].optional for name in SIZES)
