"""How right and how fast the pass for duplicates within a language is.

    python benchmarks/duplicates.py FOLDER [--encoder use] [--cache-dir .cache] [--show] [--rows 10000 100000 …]

FOLDER holds labelled sets as JSONL: rows {id, language, kind, messages, group}. Three tables:

1. what is found in the sets as they are, by semantic threshold. Their labels know no two rows of a language that say the same,
   and so call each of these wrong. Read them with --show: in the shared sets most of those among short sentences are true;
2. slips put into the sets' questions, drawn with a fixed seed: the share found of what leaves the task as it was (recall), and
   the share taken for a duplicate of what makes another task (wrong). Without vectors;
3. rewordings and hard negatives that were written for this table, in six languages, among the rows of the sets.

--rows adds seconds and memory on made-up texts, and, up to 100,000 rows, crowds of rows alike, and the time in which datasketch
and rensa, where they are installed, sketch the texts and propose pairs: what `ultralink_nb/minhash.py` does.
"""

import argparse
import json
import random
import resource
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from ultralink_nb.duplicates import find_duplicates
from ultralink_nb.embedding import embed, open_encoder, sample_text
from ultralink_nb.languages import get_language
from ultralink_nb.minhash import Sketches, blocks_of, candidate_pairs, shingles
from ultralink_nb.vectors import centre
from ultralink_nb.wording import numbers_differ, read_numbers

THRESHOLDS = (0.8, 0.85, 0.9, 0.95)

# (a text, another wording of it, a text that is close and asks something else)
WORDINGS = {
    "en": [
        ("How do I get a coffee stain out of a white shirt?", "What is the best way to remove coffee stains from white shirts?",
         "How do I get a wine stain out of a white carpet?"),
        ("Write a short poem about autumn leaves.", "Compose a brief poem on the leaves of autumn.",
         "Write a short poem about spring flowers."),
        ("Explain how a bicycle stays upright while moving.", "Describe why a moving bike does not fall over.",
         "Explain how a motorbike stays cool while moving."),
        ("What causes the tides in the ocean?", "Why does the ocean have tides?", "What causes the currents in the ocean?"),
        ("Suggest three gifts for a ten-year-old girl.", "Give me three present ideas for a girl of ten.",
         "Suggest three gifts for a twelve-year-old girl."),
        ("Give me a recipe for lentil soup.", "How do you make lentil soup?", "Give me a recipe for onion soup."),
        ("Write a Python function that reverses a string.", "Create a function in Python to reverse a string.",
         "Write a Python function that sorts a string."),
        ("What are the benefits of drinking green tea?", "How is drinking green tea good for you?",
         "What are the risks of drinking green tea?"),
        ("How long does it take to fly from London to Tokyo?", "What is the flight time between London and Tokyo?",
         "How long does it take to fly from London to Sydney?"),
        ("Summarise the plot of Hamlet.", "Give a summary of what happens in Hamlet.", "Summarise the plot of Macbeth."),
        ("List the main exports of Brazil.", "What are Brazil's main exports?", "List the main imports of Brazil."),
        ("How can I improve my sleep?", "What can I do to sleep better?", "How can I improve my memory?"),
    ],
    "zh": [
        ("怎样才能把白衬衫上的咖啡渍洗掉？", "白衬衫上的咖啡污渍怎么清洗干净？", "怎样才能把白地毯上的酒渍洗掉？"),
        ("写一首关于秋天落叶的短诗。", "以秋天的落叶为主题创作一首短诗。", "写一首关于春天花朵的短诗。"),
        ("海洋为什么会有潮汐？", "是什么导致了海洋的潮汐？", "海洋为什么会有洋流？"),
        ("怎样才能改善我的睡眠？", "我该怎么做才能睡得更好？", "怎样才能改善我的记忆力？"),
        ("喝绿茶有哪些好处？", "常喝绿茶对身体有什么益处？", "喝绿茶有哪些坏处？"),
        ("从伦敦飞到东京需要多长时间？", "伦敦到东京的飞行时间是多久？", "从伦敦飞到悉尼需要多长时间？"),
    ],
    "ru": [
        ("Как вывести пятно от кофе с белой рубашки?", "Чем удалить кофейное пятно с белой рубашки?",
         "Как вывести пятно от вина с белого ковра?"),
        ("Напиши короткое стихотворение об осенних листьях.", "Сочини небольшой стих про осенние листья.",
         "Напиши короткое стихотворение о весенних цветах."),
        ("Почему в океане бывают приливы и отливы?", "Чем вызваны приливы и отливы в океане?", "Почему в океане бывают течения?"),
        ("Как мне улучшить свой сон?", "Что мне делать, чтобы лучше спать?", "Как мне улучшить свою память?"),
        ("Сколько лететь из Лондона в Токио?", "Какова продолжительность перелёта из Лондона в Токио?",
         "Сколько лететь из Лондона в Сидней?"),
    ],
    "fr": [
        ("Comment enlever une tache de café sur une chemise blanche ?",
         "Quelle est la meilleure façon de retirer le café d'une chemise blanche ?",
         "Comment enlever une tache de vin sur un tapis blanc ?"),
        ("Écris un court poème sur les feuilles d'automne.", "Compose un petit poème à propos des feuilles d'automne.",
         "Écris un court poème sur les fleurs du printemps."),
        ("Qu'est-ce qui provoque les marées ?", "Pourquoi y a-t-il des marées ?", "Qu'est-ce qui provoque les orages ?"),
        ("Comment puis-je améliorer mon sommeil ?", "Que puis-je faire pour mieux dormir ?",
         "Comment puis-je améliorer ma mémoire ?"),
        ("Combien de temps dure le vol de Londres à Tokyo ?", "Quelle est la durée du vol entre Londres et Tokyo ?",
         "Combien de temps dure le vol de Londres à Sydney ?"),
    ],
    "es": [
        ("¿Cómo quito una mancha de café de una camisa blanca?",
         "¿Cuál es la mejor manera de sacar el café de una camisa blanca?",
         "¿Cómo quito una mancha de vino de una alfombra blanca?"),
        ("Escribe un poema corto sobre las hojas de otoño.", "Compón un breve poema acerca de las hojas del otoño.",
         "Escribe un poema corto sobre las flores de primavera."),
        ("¿Qué causa las mareas del océano?", "¿Por qué hay mareas en el océano?", "¿Qué causa las corrientes del océano?"),
        ("¿Cómo puedo mejorar mi sueño?", "¿Qué puedo hacer para dormir mejor?", "¿Cómo puedo mejorar mi memoria?"),
        ("¿Cuánto dura el vuelo de Londres a Tokio?", "¿Cuánto tiempo se tarda en volar de Londres a Tokio?",
         "¿Cuánto dura el vuelo de Londres a Sídney?"),
    ],
    "de": [
        ("Wie bekomme ich einen Kaffeefleck aus einem weißen Hemd?", "Womit entfernt man Kaffeeflecken aus weißen Hemden?",
         "Wie bekomme ich einen Weinfleck aus einem weißen Teppich?"),
        ("Schreibe ein kurzes Gedicht über Herbstlaub.", "Verfasse ein kleines Gedicht über das Laub im Herbst.",
         "Schreibe ein kurzes Gedicht über Frühlingsblumen."),
        ("Wodurch entstehen die Gezeiten?", "Warum gibt es Ebbe und Flut?", "Wodurch entstehen die Jahreszeiten?"),
        ("Wie kann ich meinen Schlaf verbessern?", "Was kann ich tun, um besser zu schlafen?",
         "Wie kann ich mein Gedächtnis verbessern?"),
    ],
}
COURTESY = {
    "en": "Could you please {}", "zh": "请问，{}谢谢！", "ru": "Здравствуйте! {} Заранее спасибо!", "fr": "Bonjour, {} Merci !",
    "es": "Hola, {} Por favor.", "de": "Hallo, {} Danke!",
}


def typing_error(text: str, language: str, draw: random.Random, spared: int = -1) -> str | None:
    """One letter within a word of six or more is lost, doubled, changed or swapped with the next."""
    words = text.split(" ")
    at = [n for n, word in enumerate(words) if len(word) > 5 and word.isalpha() and word.islower() and n != spared]
    if not at or language == "zh":
        return None
    number = draw.choice(at)
    word, place = words[number], draw.randrange(1, len(words[number]) - 2)
    letter, following = word[place], word[place + 1]
    words[number] = word[:place] + draw.choice([
        following, letter * 2 + following, draw.choice(word) + following, following + letter,
    ]) + word[place + 2 :]
    return " ".join(words) if words[number] != word else None


def two_errors(text: str, language: str, draw: random.Random) -> str | None:
    once = typing_error(text, language, draw)
    if not once:
        return None
    first = next(n for n, (a, b) in enumerate(zip(text.split(" "), once.split(" "), strict=True)) if a != b)
    return typing_error(once, language, draw, first)


def other_marks(text: str, language: str, draw: random.Random) -> str | None:
    changed = text.replace(", ", " ").replace("，", " ").rstrip(".?!。？！") + draw.choice(["", "!", " …"])
    return changed if changed != text and text.rstrip(".?!。？！") else None


def courtesy(text: str, language: str, draw: random.Random) -> str | None:
    return COURTESY[language].format(text)


def word_twice(text: str, language: str, draw: random.Random) -> str | None:
    words = text.split(" ")
    at = [number for number, word in enumerate(words) if len(word) > 2 and word.isalpha()]
    if not at or language == "zh":
        return None
    number = draw.choice(at)
    return " ".join(words[: number + 1] + words[number:])


def number_in_words(text: str, language: str, draw: random.Random) -> str | None:
    said = {str(value): words.split()[0] for value, words in get_language(language).number_words.items() if 2 <= value <= 9}
    words = text.split(" ")
    at = [number for number, word in enumerate(words) if word in said]
    if not at:
        return None
    number = draw.choice(at)
    return " ".join([*words[:number], said[words[number]], *words[number + 1 :]])


def other_number(text: str, language: str, draw: random.Random) -> str | None:
    at = [place for place, character in enumerate(text) if character in "123456789"]
    if not at:
        return None
    place = draw.choice(at)
    return text[:place] + draw.choice([digit for digit in "123456789" if digit != text[place]]) + text[place + 1 :]


def other_word(text: str, language: str, draw: random.Random, pool: Sequence[str] = ()) -> str | None:
    """A word of four letters or more gives way to one of another row; in Chinese, two characters to two."""
    if language == "zh":
        other = draw.choice(pool)
        place, from_ = (draw.randrange(max(1, len(part) - 2)) for part in (text, other))
        new = other[from_ : from_ + 2]
        return text[:place] + new + text[place + 2 :] if new.isalpha() and text[place : place + 2].isalpha() else None
    words, others = text.split(" "), [word for word in draw.choice(pool).split(" ") if len(word) > 3 and word.isalpha()]
    at = [number for number, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not at or not others:
        return None
    number, new = draw.choice(at), draw.choice(others)
    return " ".join([*words[:number], new, *words[number + 1 :]]) if new.casefold() != words[number].casefold() else None


KEEPS = {"typing error": typing_error, "two errors": two_errors, "other marks": other_marks, "courtesy": courtesy,
         "word twice": word_twice, "3 to three": number_in_words}
CHANGES = {"other number": other_number, "other word": other_word}


def read(path: Path) -> tuple[list[str], list[str], list[str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [sample_text(row) for row in rows], [row["language"] for row in rows], [row["id"] for row in rows]


def as_they_are(sets: dict, vectors: dict, show: bool) -> pd.DataFrame:
    table = []
    for name, (texts, languages, ids) in sets.items():
        rows, centred = pd.DataFrame({"id": ids, "language": languages}), centre(vectors[name], languages)
        for threshold in THRESHOLDS:
            start = time.perf_counter()
            found = find_duplicates(texts, rows, centred, semantic_threshold=threshold)
            seconds = time.perf_counter() - start
            counts = found["how"].value_counts().reindex(["exact", "near", "semantic"], fill_value=0)
            table.append({"set": name, "rows": len(rows), "threshold": threshold, **counts, "share": len(found) / len(rows),
                          "seconds": seconds})
            if show and threshold == 0.85:  # the default
                text = dict(zip(ids, texts, strict=True))
                for row in found.itertuples():
                    print(f"{row.how} {row.language} {row.similarity:.2f} | {text[row.id]!r} | {text[row.duplicate_of]!r}")
    return pd.DataFrame(table)


def slips(sets: dict, a_language: int = 400) -> pd.DataFrame:
    """Share of changed copies that the exact and near passes find, per kind of change and set."""
    table = {}
    for name, (texts, languages, _) in sets.items():
        draw = random.Random(0)
        for what, change in {**KEEPS, **CHANGES}.items():
            made, codes = [], []
            for code in dict.fromkeys(languages):
                own = [text for text, language in zip(texts, languages, strict=True) if language == code]
                chosen = draw.sample(own, min(a_language, len(own)))
                extra = {"pool": own} if change is other_word else {}
                pairs = [(text, new) for text in chosen if (new := change(text, code, draw, **extra)) and new != text]
                if what == "other number":
                    pairs = [(a, b) for a, b in pairs if numbers_differ(read_numbers(a, code), read_numbers(b, code))]
                made += [text for pair in pairs for text in pair]
                codes += [code] * (2 * len(pairs))
            if len(made) < 40:
                continue
            ids = [f"{number // 2:06d}{'ab'[number % 2]}" for number in range(len(made))]
            found = find_duplicates(made, pd.DataFrame({"id": ids, "language": codes}))
            right = (found["id"].str[:-1] == found["duplicate_of"].str[:-1]).sum()
            table[f"{what} ({'recall' if what in KEEPS else 'wrong'})", name] = right / (len(made) // 2)
    return pd.Series(table).unstack().reindex([f"{what} ({sort})" for part, sort in ((KEEPS, "recall"), (CHANGES, "wrong"))
                                               for what in part])


def rewordings(sets: dict, vectors: dict, encoder, cache_dir: str) -> pd.DataFrame:
    """Precision and recall on the written pairs, each set once: among all rows of the sets."""
    texts = [text for rows in WORDINGS.values() for row in rows for text in row]
    languages = [code for code, rows in WORDINGS.items() for row in rows for _ in row]
    ids = [f"w{number // 3:03d}{'abc'[number % 3]}" for number in range(len(texts))]
    background = np.concatenate([embed(texts, encoder, cache_dir), *(vectors[name] for name in sets)])
    pool_texts = texts + [text for part in sets.values() for text in part[0]]
    pool_codes = languages + [code for part in sets.values() for code in part[1]]
    pool_ids = ids + [f"{name}{row}" for name, part in sets.items() for row in part[2]]
    centred, rows = centre(background, pool_codes), pd.DataFrame({"id": pool_ids, "language": pool_codes})
    table = []
    for threshold in (0.7, 0.75, *THRESHOLDS):
        found = find_duplicates(pool_texts, rows, centred, semantic_threshold=threshold)
        inside = found[found["id"].str.match(r"w\d{3}[abc]$")]
        pair = [{a, b} for a, b in zip(inside["id"].str[:4] + inside["id"].str[4:], inside["duplicate_of"], strict=True)]
        right = sum({name[-1] for name in both} == {"a", "b"} and len({name[:-1] for name in both}) == 1 for both in pair)
        table.append({"threshold": threshold, "rewordings": len(texts) // 3, "found": right, "wrong": len(pair) - right,
                      "recall": right / (len(texts) // 3), "precision": right / max(1, len(pair))})
    return pd.DataFrame(table)


def made_up(n: int, seed: int = 0) -> list[str]:
    """Questions of made-up words by Zipf's law, about 110 characters: 10 % near copies, 5 % copies, 15 % of twenty templates."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array(["".join(map(chr, rng.integers(97, 123, size))) for size in rng.integers(2, 11, 20_000)], dtype=object)
    lengths = np.maximum(4, rng.lognormal(2.7, 0.5, n).astype(int))
    share = np.cumsum(1 / (2.7 + np.arange(len(vocabulary))))
    words = vocabulary[np.searchsorted(share, share[-1] * rng.random(lengths.sum()))]
    texts = [" ".join(part) for part in np.split(words, np.cumsum(lengths)[:-1])]
    templates = texts[:20]
    sort = rng.random(n)
    for row in range(20, n):
        if sort[row] < 0.05:
            texts[row] = texts[rng.integers(row)]
        elif sort[row] < 0.15:
            text = texts[rng.integers(row)]
            place = int(rng.integers(len(text)))
            texts[row] = text[:place] + text[place + 1 :]
        elif sort[row] < 0.3:
            texts[row] = f"{templates[row % 20]} {vocabulary[rng.integers(20_000)]} {rng.integers(1000)}"
    return texts


def timed(sizes: Sequence[int]) -> pd.DataFrame:
    table = []

    def measure(name: str, texts: Sequence[str], work: Callable[[Sequence[str]], int]) -> None:
        start = time.perf_counter()
        found = work(texts)
        table.append({"rows": len(texts), "what": name, "seconds": time.perf_counter() - start, "found": found,
                      "peak GiB so far": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20})

    def ours(texts: Sequence[str], near: bool = True) -> int:
        rows = pd.DataFrame({"id": [f"{row:08d}" for row in range(len(texts))], "language": "en"})
        return len(find_duplicates(texts, rows, near=near))

    for n in sizes:
        texts = made_up(n)
        measure("exact", texts, lambda texts: ours(texts, near=False))
        measure("exact and near", texts, ours)
        measure("sketches and pairs only", texts, pairs_only)
        if n > 100_000:
            continue
        measure("all equal", ["one and the same question"] * n, ours)
        measure("alike but for a number", [f"What comes after the number {row} when I count?" for row in range(n)], ours)
        measure("alike but for a word", [f"What does the word {made_word(row)} mean in plain English?" for row in range(n)], ours)
        measure("alike but for an error", [slipped(row) for row in range(n)], ours)
        for peer in (datasketch, rensa):
            try:
                measure(f"{peer.__name__}, sketches and pairs only", texts, peer)
            except ImportError:
                print(f"{peer.__name__} is not installed: skipped")
    return pd.DataFrame(table)


def made_word(number: int) -> str:
    return "".join(chr(97 + byte % 26) for byte in blake2b(str(number).encode(), digest_size=7).digest())


def slipped(row: int) -> str:
    text = "Describe the journey of a raindrop from the clouds over the mountains down to the distant ocean"
    place = row * 7919 % (len(text) - 2) + 1
    return text[:place] + made_word(row)[row % 4] + text[place + 1 :]


def pairs_only(texts: Sequence[str]) -> int:
    """Rows that a pair is proposed for."""
    sketches, rows = Sketches.empty(len(texts)), np.arange(len(texts))
    for part, block in blocks_of(texts, rows, "en"):
        sketches.read(texts, part, block)
    return len(np.unique(candidate_pairs(sketches, rows, 0.4)[:, 1]))


def datasketch(texts: Sequence[str]) -> int:
    """Rows that datasketch's index, with the same bands and shingles, holds an earlier row for."""
    from datasketch import MinHash, MinHashLSH

    index, found = MinHashLSH(num_perm=63, params=(21, 3)), 0
    for row, text in enumerate(texts):
        sketch = MinHash(num_perm=63)
        sketch.update_batch([shingle.encode() for shingle in shingles(text)])
        found += bool(index.query(sketch))
        index.insert(row, sketch, check_duplication=False)
    return found


def rensa(texts: Sequence[str]) -> int:
    from rensa import RMinHash, RMinHashLSH

    index, found = RMinHashLSH(threshold=0.4, num_perm=63, num_bands=21), 0
    for row, text in enumerate(texts):
        sketch = RMinHash(num_perm=63, seed=0)
        sketch.update(list(shingles(text)))
        found += bool(index.query(sketch))
        index.insert(row, sketch)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="use")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--show", action="store_true", help="print what is found in the sets at the default")
    parser.add_argument("--rows", type=int, nargs="*", default=[], help="sizes to measure speed at")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("*.jsonl"))
    if not files:
        parser.error(f"no .jsonl file in {arguments.folder}")
    encoder, sets = open_encoder(arguments.encoder), {file.stem: read(file) for file in files}
    vectors = {name: embed(part[0], encoder, arguments.cache_dir) for name, part in sets.items()}
    for title, table in (
        ("found in the sets as they are", as_they_are(sets, vectors, arguments.show)),
        ("slips, exact and near passes", slips(sets).reset_index(names="")),
        ("written rewordings among the rows of the sets", rewordings(sets, vectors, encoder, arguments.cache_dir)),
    ):
        print(f"\n{title}\n{table.to_string(index=False, float_format='{:.3f}'.format)}", flush=True)
    if arguments.rows:
        print(f"\nspeed\n{timed(arguments.rows).to_string(index=False, float_format='{:.2f}'.format)}")


if __name__ == "__main__":
    main()
