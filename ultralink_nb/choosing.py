"""Choosing what to ground on: documents at random, across topics, or those that only their own language has.

Three steps that a notebook calls one by one: `specificity` scores how little of a document the other languages' documents say,
`find_topics` clusters all languages together, and `choose` spends a budget per language. Choices depend on the documents' ids and
the seed, never on the order of the rows.

Specificity looks at the nearest document of each other language and asks how close it is, and which words of either have no
counterpart in the other (`words.py`). The words matter: a question rewritten for another culture keeps its sentence and changes
a name, which moves its vector little. Nothing is fitted; the few constants, those of the words too, were set by hand, in round
numbers, by the AUC that `benchmarks/specificity.py` measures on OMGEval, MSVAMP, Tatoeba and Alpaca; XQuAD and NTREX had no
part in it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from ultralink_nb.chance import places_in_draw
from ultralink_nb.errors import KitError
from ultralink_nb.neighbours import search_between
from ultralink_nb.vectors import BLOCK, Centred, centre, read_rows
from ultralink_nb.words import WordVectors, is_unspaced, tokens

WAYS = ("random", "topics", "specific")
QUOTAS = {"sqrt": np.sqrt, "equal": np.ones_like}


class BadChoice(KitError, ValueError):
    """Documents that cannot be scored or chosen from as asked; the message says what is missing."""


def specificity(
    vectors: np.ndarray, languages: Sequence[str], texts: Sequence[str] | None = None,
    encode: Callable[[list[str]], np.ndarray] | None = None, most_tokens: int = 100, most_words: int = 200_000,
) -> pd.DataFrame:
    """How little each document has a counterpart in the other languages' documents; a row each, in the order of the input.

    vectors: (n, d) floats of any length, in memory or memory-mapped. languages: n codes, of two languages or more. texts: n
    texts, of which the first `most_tokens` words are compared (characters, where there are no spaces). encode: turns m words
    into (m, d') vectors, such as `embed` of the same encoder. Without the two only the vectors speak, which ranks much worse.
    most_words: words a language that are encoded, the most frequent ones; they take up to 4 d' bytes each.

    Columns: specificity in [0, 1]; counterpart, the row number of the nearest document of all other languages, -1 where there
    is none; cosine, theirs; unmatched, the weight of the words without a counterpart, both documents' together, mean over the
    languages (NaN without texts). With the nearest document of language l at cosine c_l, of which u_l words are not matched,

        s_l = (1 - (1 + u_l)^(c_l - 1)) max(0.1, 1 - p_l)   (1 - c_l in the first factor without texts),
        p_l = 1 / (1 + exp(-(g_l + 0.1) / 0.05)),

    where g_l is how much closer the two are than each of them is to any other document of the other's language: of things that
    all look alike only counterparts stand out. Specificity is the power mean of s_l over the other languages with exponent -2: a
    counterpart in one language outweighs that the others have none.
    A zero vector (an empty text) says nothing that could be specific: 0.
    Raises `BadChoice` for fewer than two languages, texts of another number, or texts without `encode`; `BadVectors` for a
    value that is not finite or a wrong shape.
    """
    if texts is not None and (encode is None or len(texts) != len(languages)):
        raise BadChoice(f"{len(texts):,} texts for {len(languages):,} documents: give each its text, and `encode` for the words")
    centred = centre(vectors, languages)
    if len(centred.languages) < 2:
        raise BadChoice(f"specificity compares languages, and there is only {', '.join(centred.languages) or 'none'}")
    nearest, cosine, gap = _nearest(centred)
    exists, apart = nearest >= 0, 1 - np.nan_to_num(cosine)
    compared = np.maximum(exists.sum(axis=1), 1)
    lacking, unmatched = apart, np.full(len(centred), np.nan)
    if texts is not None:
        words = np.zeros(nearest.shape, np.float32)
        of_texts = WordVectors.of(texts, languages, encode, most_tokens, most_words)
        words[exists] = of_texts.unmatched(np.nonzero(exists)[0], nearest[exists])
        lacking, unmatched = -np.expm1(-apart * np.log1p(words)), words.sum(axis=1) / compared
    lacking = np.maximum(lacking * np.maximum(0.1, 1 / (1 + np.exp((gap + 0.1) / 0.05))), 1e-4)
    squares = np.where(exists, lacking**-2.0, 0).sum(axis=1) / compared
    score = np.where(exists.any(axis=1), np.maximum(squares, 1) ** -0.5, centred.length > 0)
    at = np.arange(len(centred)), np.nan_to_num(cosine, nan=-1).argmax(axis=1)
    return pd.DataFrame({
        "specificity": score.astype(np.float32), "counterpart": nearest[at],
        "cosine": cosine[at], "unmatched": unmatched.astype(np.float32),
    })


def _nearest(centred: Centred) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, L) each: nearest row of each other language (-1: none), the encoder's cosine with it in [0, 1], and the gap.

    gap: by how much the centred cosine exceeds that of either end with its best other row of the other end's language.
    """
    shape = len(centred), len(centred.languages)
    nearest, cosine, gap = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32)
    between = search_between(centred, 2)
    for (source, target), found in between.items():
        there, column = found.rows[:, 0] >= 0, centred.languages.index(target)
        here, row, closeness = found.queries[there], found.rows[there, 0], found.similarity[there, 0]
        back = between[target, source]
        listed = np.searchsorted(back.queries, row)
        returned = (back.rows[listed, 0] == here).astype(int)
        rival = np.maximum(found.similarity[there, 1], back.similarity[listed, returned])
        nearest[here, column], gap[here, column] = row, closeness - np.maximum(rival, 0)
        cosine[here, column] = np.clip(centred.raw_cosine(here, row, closeness), 0, 1)
    return nearest, cosine, gap


def find_topics(
    vectors: np.ndarray, languages: Sequence[str], ids: Sequence[str], n_topics: int | None = None, seed: int = 1,
    most_rows: int = 100_000,
) -> np.ndarray:
    """Topic of each document, (n,) int32, from 0, the largest, on: k-means over the centred vectors of all languages together.

    n_topics: at most so many; None: the root of half the documents, at most 50. The clusters are found on the first `most_rows`
    in the order of `places_in_draw`, so that neither the order of rows nor their number beyond that matters to time and memory.
    """
    from sklearn.cluster import MiniBatchKMeans

    centred = centre(vectors, languages)
    if not len(centred):
        return np.zeros(0, np.int32)
    order = np.argsort(places_in_draw(ids, seed), kind="stable")[:most_rows]
    n_topics = min(n_topics or min(50, math.ceil((len(centred) / 2) ** 0.5)), len(order))
    model = MiniBatchKMeans(n_topics, random_state=seed, n_init=3, batch_size=4096).fit(read_rows(centred.vectors, order))
    labels = np.concatenate([model.predict(read_rows(centred.vectors, slice(start, start + BLOCK)))
                             for start in range(0, len(centred), BLOCK)])
    rank = np.empty(n_topics, np.int32)
    rank[np.argsort(-np.bincount(labels, minlength=n_topics), kind="stable")] = np.arange(n_topics)
    return rank[labels]


def topic_words(texts: Sequence[str], languages: Sequence[str], topics: np.ndarray, n_words: int = 6) -> pd.DataFrame:
    """The most characteristic words of each topic in each language: columns topic, language, documents, words.

    Class-based TF-IDF (Grootendorst, 2022, BERTopic, Section 3.3): a word in f documents of a topic and in F of the language
    weighs f log(1 + A / F), A being the mean number of words a topic, times the share f / F, which keeps out words that every
    topic has. Words are those of three letters or more, or pairs of characters where a script has no spaces.
    """
    frame = pd.DataFrame({"topic": np.asarray(topics), "language": np.asarray(languages, dtype=object)})
    rows = []
    for language, of_language in frame.groupby("language", sort=True):
        count = {topic: Counter(word for row in part.index for word in set(_long_words(texts[row])))
                 for topic, part in of_language.groupby("topic", sort=True)}
        total = sum(count.values(), Counter())
        mean = sum(total.values()) / len(count)
        for topic, words in count.items():
            weight = {word: f * math.log1p(mean / total[word]) * f / total[word] for word, f in words.items()}
            best = sorted(weight, key=lambda word: (-weight[word], word))[:n_words]
            rows.append((topic, language, int((of_language["topic"] == topic).sum()), best))
    return pd.DataFrame(rows, columns=["topic", "language", "documents", "words"]).sort_values(
        ["topic", "language"], ignore_index=True)


def _long_words(text: str, most: int = 300) -> Iterator[str]:
    for token, _ in tokens(text, most):
        if is_unspaced(token):
            yield from (token[start : start + 2] for start in range(len(token) - 1))
        elif len(token) > 2 and not token[0].isdecimal():
            yield token


def choose(
    ids: Sequence[str], languages: Sequence[str], n_per_language: int | Mapping[str, int], by: str = "random", seed: int = 1,
    topics: np.ndarray | None = None, scores: np.ndarray | None = None, quota: str = "sqrt", max_topic_share: float = 0.1,
) -> np.ndarray:
    """The row numbers of the chosen documents, ascending; of a language that has no more than its number, all.

    n_per_language: one number for all, or {language: number}, 0 for a language that is not named. by:

    - `random`: the documents first in the order of `places_in_draw`.
    - `topics`: topics (n,) as from `find_topics` are covered. The next place goes to the topic with the least places by its
      weight, its root of documents (`sqrt`) or 1 (`equal`): every topic gets one first (Adams' method of apportionment). Within
      a topic `places_in_draw` decides.
    - `specific`: those with the highest scores (n,) as from `specificity`, but not more than `max_topic_share` of the places to
      a topic (rounded up; topics None: without limit), so that they are not a thousand villages. Where that leaves places, the
      next highest scores of any topic fill them.

    Raises `BadChoice` for an unknown way, an id given twice, or topics or scores that are missing or of another number.
    """
    n, languages = len(ids), np.asarray(languages, dtype=object)
    if by not in WAYS or quota not in QUOTAS:
        raise BadChoice(f"choose by {by!r} with quota {quota!r}: by is one of {', '.join(WAYS)}; quota of {', '.join(QUOTAS)}")
    if len(set(ids)) < n:
        raise BadChoice("an id is given twice: choices are made by id")
    if by == "topics" and topics is None or by == "specific" and scores is None:
        raise BadChoice("choose by topics needs topics (find_topics), by specific needs scores (specificity)")
    for name, column in (("languages", languages), ("topics", topics), ("scores", scores)):
        if column is not None and len(column) != n:
            raise BadChoice(f"{len(column):,} {name} for {n:,} ids")
    place, chosen = places_in_draw(ids, seed), []
    for language in sorted(set(languages)):
        rows = np.flatnonzero(languages == language)
        places = n_per_language.get(language, 0) if isinstance(n_per_language, Mapping) else n_per_language
        own = np.zeros(len(rows), np.int64) if topics is None else np.unique(np.asarray(topics)[rows], return_inverse=True)[1]
        if by == "random":
            order = np.argsort(place[rows])
        elif by == "topics":
            weight = QUOTAS[quota](np.bincount(own).astype(float))[own]
            order = np.lexsort((place[rows], -weight, _place_in_topic(own, place[rows]) / weight))
        else:
            score = -np.asarray(scores, dtype=float)[rows]
            limit = places if topics is None else math.ceil(max_topic_share * places)
            order = np.lexsort((place[rows], score, _place_in_topic(own, score, place[rows]) >= limit))
        chosen.append(rows[order[:places]])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def _place_in_topic(topic: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """(m,) from 0: each row's place within its topic by the keys, the first of which decides first."""
    order = np.lexsort((*keys[::-1], topic))
    count = np.bincount(topic)
    place = np.empty(len(topic), np.int64)
    place[order] = np.arange(len(topic)) - np.repeat(np.cumsum(count) - count, count)
    return place


def cover_topics(
    vectors: np.ndarray, n: int, ids: Sequence[str], seed: int = 1, n_topics: int | None = None, quota: str = "sqrt",
) -> tuple[np.ndarray, np.ndarray]:
    """n of the documents of one pool, all topics covered: chosen row numbers, ascending, and the topic of every row, (N,)."""
    one = ["one pool"] * len(ids)
    topics = find_topics(vectors, one, ids, n_topics, seed)
    return choose(ids, one, n, "topics", seed, topics, quota=quota), topics
