"""Duplicates within a language, with the sketches and the comparison of words that they are found by."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb.duplicates import BadDuplicates, find_duplicates, summary
from ultralink_nb.languages import UnknownLanguage
from ultralink_nb.minhash import BANDS, CROWD, WINDOW, Sketches, blocks_of, candidate_pairs, read_block, shingles, signatures
from ultralink_nb.vectors import centre
from ultralink_nb.wording import Wording, jaccard, only_slips, rewords


def table(languages, **columns):
    codes = [languages] if isinstance(languages, str) else languages
    return pd.DataFrame({"id": [f"r{row:06d}" for row in range(len(codes))], "language": codes, **columns})


def found_in(texts, language="en", **options):
    """How each duplicate among texts of one language was found, by (row, row that stands for it)."""
    found = find_duplicates(texts, table([language] * len(texts)), **options)
    return {(int(a[1:]), int(b[1:])): how for a, b, how in zip(found["id"], found["duplicate_of"], found["how"], strict=True)}


def wordings(language, *texts):
    return [Wording(text, normal, language) for text, normal in zip(texts, read_block(texts, language).strings(), strict=True)]


def directions(cosines):
    """Vectors in a plane: the first along an axis, each other with the given cosine to it; nothing is centred away."""
    cosines = np.array([1.0, *cosines])
    return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)


def uncentred(vectors, languages):
    return centre(vectors, languages, shrink=1e9)


SAME = [
    ("en", "What is the capital of France?", "what is  the capital of FRANCE"),
    ("en", "It's “fine”, isn’t it?", "it's \"fine\" - isn't it!"),
    ("en", "Ｆｕｌｌ　ｗｉｄｔｈ １２", "full width 12"),
    ("en", "a file\nname", "a file-name"),
    ("zh", "我經常忘記別人的名字。", "我经常忘记别人的名字"),
    ("zh", "各国的 GDP 是多少？", "各国的GDP是多少"),
    ("de", "Die Straße.", "die STRASSE"),
    ("fr", "Qu’est-ce que c’est ?", "qu'est ce que c'est?"),
    ("ru", "Как дела?", "КАК ДЕЛА"),
]
OTHER = [
    ("en", "2 + 3", "2 - 3"), ("en", "2 + 3", "2 3"), ("en", "What is C++?", "What is C#?"), ("en", "x > 3", "x < 3"),
    ("en", "1.5 litres", "15 litres"), ("en", "add 3 5", "add 35"), ("en", "take -5", "take 5"), ("en", "a/b", "ab"),
    ("en", "a nice man", "an ice man"),
    ("fr", "où", "ou"), ("en", "?", "!"), ("zh", "三", "五"),
]


@pytest.mark.parametrize(("language", "one", "other"), SAME)
def test_equal_in_normal_form_is_exact(language, one, other):
    assert found_in([one, other], language) == {(1, 0): "exact"}


@pytest.mark.parametrize(("language", "one", "other"), OTHER)
def test_what_carries_meaning_stays_in_the_normal_form(language, one, other):
    assert found_in([one, other], language) == {}


def test_equal_texts_of_two_languages_are_no_duplicates():
    texts = ["Pizza Margherita", "pizza margherita", "Pizza Margherita!"]
    found = find_duplicates(texts, table(["fr", "es", "es"]))
    assert found[["id", "language", "duplicate_of", "how", "similarity"]].to_numpy().tolist() == [
        ["r000002", "es", "r000001", "exact", 1.0]]


SLIPS = [
    ("en", "Describe the process of photosynthesis in plants.", "Describe the proces of photosynthesis in plants."),
    ("en", "Describe the process of photosynthesis in plants.", "Describe the process of photosyntehsis in plants"),
    ("en", "Describe the process of photosynthesis in plants.", "Please describe the process of photosynthesis in plants!"),
    ("en", "List the steps to change a flat bicycle tyre.", "List the the steps to change flat bicycle tyre"),
    ("en", "Generate names for a new coffee shop near the beach.", "Generate Generate names for a new coffeeshop near the beach"),
    ("en", "Tom has 3 apples and buys 5 more. How many has he?", "Tom has three apples and buys 5 more. How many has he?"),
    ("en", "The lake is 1,250 metres deep, says the guide book.", "The lake is 1250 metres deep, says the guide book"),
    ("zh", "列出五种常见的数据分析方法", "请列出五种常见数据分析的方法，谢谢！"),
    ("ru", "Опиши процесс фотосинтеза у растений.", "Пожалуйста, опиши процес фотосинтеза у растений."),
    ("fr", "Décris le processus de la photosynthèse des plantes.", "Bonjour, décris le procesus de photosynthèse des plantes"),
    ("es", "Describe el proceso de la fotosíntesis en las plantas.", "Por favor, describe el proceso de fotosíntesis en plantas"),
    ("de", "Beschreibe den Vorgang der Fotosynthese der Pflanzen.", "Beschreibe den Vorgang der Fotosynthesse der Pflanzen"),
]
CHANGES = [
    ("en", "Tom has 3 apples and buys 5 more. How many are there?", "Tom has 3 apples and buys 6 more. How many are there?"),
    ("en", "Tom has 3 apples and gets 5 pears. How much is it?", "Tom has 5 apples and gets 3 pears. How much is it?"),
    ("en", "Tom has three apples and buys five more apples.", "Tom has three apples and buys nine more apples."),
    ("en", "Maria gave her brother half of the cake she baked.", "Mario gave her brother half of the cake she baked."),
    ("en", "Name the highest mountain in Gambia.", "Name the highest mountain in Zambia."),
    ("en", "Explain how a refrigerator keeps the food cold.", "Explain how a refrigerator keeps the food frozen."),
    ("en", "Which of these animals can fly at night?", "Which of these animals can not fly at night?"),
    ("en", "Did anyone see the car at the corner?", "Did anyone see the car at the corner leave?"),
    ("en", "The room is long. How wide is the carpet that fits?", "The room is wide. How long is the carpet that fits?"),
    ("en", "Evaluate x + y for the values that are given.", "Evaluate x * y for the values that are given."),
    ("zh", "我的房间就在楼上，请帮我拿一下行李", "我的房间就在楼下，请帮我拿一下行李"),
    ("es", "Hay sesenta personas en la sala de espera.", "Hay setenta personas en la sala de espera."),
    ("ru", "Сколько яблок осталось у Маши к вечеру?", "Сколько груш осталось у Маши к вечеру?"),
    ("de", "Das ist ein guter Grund für eine Reise nach Wien.", "Das ist kein guter Grund für eine Reise nach Wien."),
]


@pytest.mark.parametrize(("language", "one", "other"), SLIPS)
def test_slips_are_near(language, one, other):
    assert found_in([one, other], language) in ({(1, 0): "near"}, {(1, 0): "exact"})
    assert only_slips(*wordings(language, one, other)) and only_slips(*wordings(language, other, one))


@pytest.mark.parametrize(("language", "one", "other"), CHANGES)
def test_another_task_is_not_near(language, one, other):
    assert found_in([one, other], language) == {}
    assert not only_slips(*wordings(language, other, one))


def test_one_word_in_a_long_text_still_makes_another_task():
    passage = " ".join(f"The {number}th part of this long passage says something of its own." for number in range(60))
    texts = [f"{verb} this. {passage}" for verb in ("Summarise", "Translate", "Sumarise")]
    assert found_in(texts) == {(2, 0): "near"}


def test_the_similarity_of_a_near_duplicate_is_the_jaccard_similarity_of_its_shingles():
    one, other = "Describe the process of photosynthesis.", "Describe the proces of photosynthesis."
    a, b = ({text[n : n + 4] for n in range(len(text) - 3)} for text in (
        "describetheprocessofphotosynthesis", "describetheprocesofphotosynthesis"))
    found = find_duplicates([one, other], table(["en"] * 2))
    assert found["similarity"].tolist() == pytest.approx([len(a & b) / len(a | b)])
    assert found_in([one, other], near_threshold=0.9) == {}
    assert found_in([one, other], near=False) == {}


def test_minhash_estimates_the_jaccard_similarity():
    draw = np.random.default_rng(0)
    words = np.array(["".join(chr(97 + letter) for letter in draw.integers(0, 26, 5)) for _ in range(900)], dtype=object)
    texts = []
    for _ in range(300):
        one = draw.choice(words, 20)
        other = np.where(draw.random(20) < draw.random(), draw.choice(words, 20), one)
        texts += [" ".join(one), " ".join(other)]
    block = read_block(texts, "en")
    signature, normal = signatures(block), block.strings()
    estimate = (signature[::2] == signature[1::2]).mean(axis=1)
    true = np.array([jaccard(*wordings("en", a, b)) for a, b in zip(normal[::2], normal[1::2], strict=True)])
    expected = np.sqrt((true * (1 - true)).mean() / signature.shape[1])
    assert np.sqrt(((estimate - true) ** 2).mean()) < 1.15 * expected and abs((estimate - true).mean()) < expected / 4
    sketches = Sketches.empty(len(texts))
    for rows, part in blocks_of(texts, np.arange(len(texts)), "en"):
        sketches.read(texts, rows, part)
    pairs = set(map(tuple, candidate_pairs(sketches, np.arange(len(texts)), 0.5).tolist()))
    proposed = np.array([(2 * n, 2 * n + 1) in pairs for n in range(300)])
    assert proposed[true >= 0.7].mean() > 0.95 and proposed[true < 0.2].sum() == 0


def test_shingles_are_characters_in_any_script():
    assert shingles("ab cde") == {"abcd", "bcde"} and shingles("ab") == {"ab"}
    assert shingles("数据分析") == {"数据", "据分", "分析"}
    one, other = "กรุณาอธิบายกระบวนการสังเคราะห์แสงของพืช", "กรุณาอธิบายกระบวนการสังเคราะห์แสงของสัตว์"
    assert found_in([one, other, one + " "], "en") == {(2, 0): "exact"}  # a script without word spaces, under any code


def test_blocks_do_not_change_what_a_text_is():
    texts = ["", "1,5 и 2", "…", "x", "  ", "我有3本書", "\u0301", "a\x00b\u2028c\r\nd", "\ud800", "3 5 35"]
    together = read_block(texts, "zh")
    assert together.strings() == [read_block([text], "zh").strings()[0] for text in texts]
    sketches = [Sketches.empty(len(texts)) for _ in range(2)]
    for sketch, size in zip(sketches, (1, 10**6), strict=True):
        for rows, block in blocks_of(texts, np.arange(len(texts)), "zh", size):
            sketch.read(texts, rows, block)
    for name in ("digest", "keys", "minima", "digits", "numbers", "length"):
        assert np.array_equal(getattr(sketches[0], name), getattr(sketches[1], name)), name


def test_the_best_row_stands_and_the_order_of_rows_does_not_matter():
    texts = ["Name a blue flower.", "name a blue flower", "NAME A BLUE FLOWER!"]
    assert found_in(texts) == {(1, 0): "exact", (2, 0): "exact"}
    found = find_duplicates(texts, table(["en"] * 3, quality=[0.1, np.nan, 0.5]))
    assert found["id"].tolist() == ["r000000", "r000001"] and set(found["duplicate_of"]) == {"r000002"}


WORDS = ["what", "colour", "has", "wonderful", "mountain", "number", "7", "eight", "not", "Maria", "elephant", "quickly"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=2, max_size=7), min_size=1, max_size=6),
       st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60), st.sampled_from("xe !")), max_size=20),
       st.randoms(use_true_random=False))
def test_clusters_are_stars_whatever_the_order(sentences, edits, random):
    texts = [" ".join(words) for words in sentences]
    for number, place, letter in edits:
        text = texts[number % len(texts)]
        texts.append(text[: place % len(text)] + letter + text[place % len(text) :])
    codes = ["en" if random.random() < 0.8 else "fr" for _ in texts]
    rows = table(codes, quality=[random.choice([0.0, 1.0]) for _ in texts])
    found = find_duplicates(texts, rows)
    text, code = dict(zip(rows["id"], texts, strict=True)), dict(zip(rows["id"], codes, strict=True))
    assert found["id"].is_unique and not set(found["id"]) & set(found["duplicate_of"])
    quality = dict(zip(rows["id"], rows["quality"], strict=True))
    for row in found.itertuples():
        assert code[row.id] == code[row.duplicate_of] == row.language
        one, other = wordings(row.language, text[row.duplicate_of], text[row.id])
        if row.how == "exact":
            assert one.normal == other.normal
            assert (-quality[row.duplicate_of], row.duplicate_of) < (-quality[row.id], row.id)
        else:
            assert only_slips(one, other) and jaccard(one, other) == pytest.approx(row.similarity) and row.similarity >= 0.4
    order = random.sample(range(len(texts)), len(texts))
    again = find_duplicates([texts[n] for n in order], rows.iloc[order].reset_index(drop=True))
    pd.testing.assert_frame_equal(found.sort_values("id", ignore_index=True), again.sort_values("id", ignore_index=True))


def test_a_chain_of_slips_does_not_chain():
    """Two slips lie between the ends, which share too few shingles; whichever is preferred, none stands behind a duplicate."""
    ends, middle = ["strawberry marmalade", "strawbery marmlade"], "strawbery marmalade"
    assert jaccard(*wordings("en", *ends)) < 0.5 < min(jaccard(*wordings("en", middle, end)) for end in ends)
    assert found_in([middle, *ends], near_threshold=0.5) == {(1, 0): "near", (2, 0): "near"}
    assert found_in([ends[0], middle, ends[1]], near_threshold=0.5) == {(1, 0): "near"}


def test_a_hundred_thousand_equal_rows():
    found = find_duplicates(["One and the same question?"] * 100_000, table(["en"] * 100_000))
    assert len(found) == 99_999 and set(found["duplicate_of"]) == {"r000000"} and set(found["how"]) == {"exact"}


@pytest.mark.parametrize("kind", ["number", "word", "slip"])
def test_a_crowd_of_rows_nearly_alike_makes_no_more_pairs_than_a_few_a_row(kind):
    n, draw = 4_000, np.random.default_rng(0)
    letters = [chr(97 + letter) for letter in draw.integers(0, 26, 8 * n)]
    word = ["".join(letters[8 * row : 8 * row + 8]) for row in range(n)]
    base = "Describe the wonderful journey of a single raindrop from the clouds down to the ocean"
    place = draw.choice([at for at in range(2, len(base) - 3) if base[at - 2 : at + 3].isalpha()], n)
    texts = {
        "number": [f"What is it that comes after the number {row} when I count on my fingers?" for row in range(n)],
        "word": [f"What does the curious word {name} mean in plain and simple English?" for name in word],
        "slip": [base[:at] + letter + base[at:] for at, letter in zip(place, letters, strict=False)],
    }[kind]
    sketches = Sketches.empty(n)
    for rows, block in blocks_of(texts, np.arange(n), "en"):
        sketches.read(texts, rows, block)
    assert np.unique(sketches.keys[:, 0], return_counts=True)[1].max() > CROWD
    assert len(candidate_pairs(sketches, np.arange(n), 0.5)) <= n * BANDS * (WINDOW + 3)
    found = find_duplicates(texts, table(["en"] * n))
    assert len(found) > 0.95 * n if kind == "slip" else len(found) <= 0.002 * n


def test_a_pair_in_a_crowd_is_found():
    """Two rows with one slip between them among thousands that share all but a word or two."""
    draw = np.random.default_rng(1)
    word = ["".join(chr(97 + letter) for letter in draw.integers(0, 26, 9)) for _ in range(6_000)]
    texts = [f"How do you spell {a} and {b} in capital letters?" for a, b in zip(word[::2], word[1::2], strict=True)]
    slips = [text.replace("spell", "speell").replace("capital", "captal") for text in texts[:200]]
    found = found_in(texts + slips)
    assert sum(found.get((3_000 + n, n)) == "near" for n in range(200)) > 190


def test_empty_and_very_long_texts():
    long = "All work and no play makes Jack a dull boy. " * 2_000
    texts = ["", "  ", "?", long, long.replace("Jack", "Joan", 1), long.upper(), long.replace("dull", "duull", 1), "\n"]
    assert found_in(texts) == {(1, 0): "exact", (7, 0): "exact", (5, 3): "exact"}
    assert found_in([]) == {}
    assert find_duplicates([], table([])).columns.tolist() == ["id", "language", "duplicate_of", "how", "similarity"]


REWORDINGS = [("en", "Compose a poem about loneliness.", "Write some verses on being alone."),
              ("zh", "怎样才能改善我的睡眠？", "我该做些什么来睡好觉？")]


@pytest.mark.parametrize(("language", "one", "other"), REWORDINGS)
def test_rewordings_are_semantic(language, one, other):
    close, far = (uncentred(directions([cosine]), [language] * 2) for cosine in (0.93, 0.8))
    assert found_in([one, other], language, centred=close) == {(1, 0): "semantic"}
    assert found_in([one, other], language, centred=far) == {}
    assert found_in([one, other], language, centred=close, semantic=False) == {}
    found = find_duplicates([one, other], table([language] * 2), close)
    assert found["similarity"].tolist() == pytest.approx([0.93], abs=2e-3)


@pytest.mark.parametrize(("one", "other"), [
    ("Give me 3 reasons to run.", "What are 4 arguments for running?"),
    ("Give me three reasons to run.", "What are four arguments for running?"),
    ("Why do people like Paris?", "What makes London popular?"),
    ("Is it true that cats swim?", "Do cats not swim?"),
    ("Tell me about the moon landing.", "Tell me about the moon landing of the Americans."),
])
def test_a_number_a_name_a_negation_or_an_addition_is_no_rewording(one, other):
    assert found_in([one, other], centred=uncentred(directions([0.99]), ["en"] * 2)) == {}


def test_the_more_words_are_shared_the_closer_the_vectors_must_be():
    few = wordings("en", "Compose a poem about loneliness", "Write some verses on being alone")
    many = wordings("en", "Explain how a motor keeps the water cold", "Explain how a motor keeps the water hot")
    assert rewords(*few, 0.92, 0.85) and not rewords(*many, 0.92, 0.85) and rewords(*many, 0.99, 0.85)
    assert not rewords(*few, 0.92, 0.95)


def test_a_row_that_stands_for_others_stays():
    """B stands for its near copy C; A means what B means, but C was never compared with A."""
    texts = ["Write some verses on being alone.", "Compose a poem about loneliness.", "Compose a poem about lonelines."]
    assert found_in(texts[:2], centred=uncentred(directions([0.95]), ["en"] * 2)) == {(1, 0): "semantic"}
    assert found_in(texts, centred=uncentred(directions([0.95, 0.5]), ["en"] * 3)) == {(2, 1): "near"}


def test_a_copy_goes_where_its_original_goes():
    texts = ["Describe the process of photosynthesis.", "Describe the proces of photosynthesis.",
             "describe the proces of photosynthesis"]
    found = find_duplicates(texts, table(["en"] * 3))
    assert found["how"].tolist() == ["near", "near"] and set(found["duplicate_of"]) == {"r000000"}
    assert found["similarity"].nunique() == 1


def test_the_same_question_with_another_answer():
    texts = ["Name a flower."] * 4
    found = find_duplicates(texts, table(["en"] * 4), answers=["A rose.", "a rose", "A tulip.", ""])
    assert found["same_answer"].tolist() == [True, False, False]


def test_summary_counts_by_language():
    texts = ["Name a flower.", "name a flower", "Describe the process of photosynthesis.",
             "Describe the proces of photosynthesis.", "Nomme une fleur."]
    rows = table(["en"] * 4 + ["fr"])
    counted = summary(find_duplicates(texts, rows), rows)
    assert counted.loc["en"].to_dict() == {"rows": 4, "exact": 1, "near": 1, "semantic": 0, "share": 0.5}
    assert counted.loc["fr"].to_dict() == {"rows": 1, "exact": 0, "near": 0, "semantic": 0, "share": 0.0}
    assert summary(find_duplicates([], table([])), table([])).empty


def test_input_that_does_not_fit_is_named():
    rows = table(["en", "en"])
    with pytest.raises(BadDuplicates, match="1 texts but 2 rows"):
        find_duplicates(["a"], rows)
    with pytest.raises(BadDuplicates, match="1 vectors but 2 rows"):
        find_duplicates(["a", "b"], rows, uncentred(directions([]), ["en"]))
    with pytest.raises(BadDuplicates, match="answers: row 1 is no text but None"):
        find_duplicates(["a", "b"], rows, answers=["x", None])
    with pytest.raises(BadDuplicates, match="'r000000' is listed twice"):
        find_duplicates(["a", "b"], rows.assign(id="r000000"))
    with pytest.raises(BadDuplicates, match="row 1 has no language"):
        find_duplicates(["a", "b"], rows.assign(language=["en", None]))
    with pytest.raises(BadDuplicates, match="no column language"):
        find_duplicates(["a", "b"], rows[["id"]])
    with pytest.raises(BadDuplicates, match="threshold"):
        find_duplicates(["a", "b"], rows, semantic_threshold=0.0)
    with pytest.raises(UnknownLanguage):
        find_duplicates(["a", "b"], rows.assign(language="xx"))


def test_public_sets_have_hardly_a_near_duplicate(shared_data):
    import json

    from ultralink_nb.embedding import sample_text

    for name in ("alpaca_en_zh_chat", "msvamp_math", "omgeval_chat"):
        lines = (shared_data / "redundancy" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = pd.DataFrame([json.loads(line) for line in lines])
        found = find_duplicates([sample_text(row) for row in rows.to_dict("records")], rows[["id", "language"]])
        assert len(found) < 0.002 * len(rows), name
