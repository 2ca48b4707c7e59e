"""Duplicates within a language: a first pass, before the search across languages.

Three passes, each over the rows that the one before left standing:

- exact: equal once case, spaces, width of characters, sentence marks and, in Chinese, traditional characters are put aside;
- near: the same words but for slips; MinHash proposes pairs (minhash.py), their true Jaccard similarity and their words decide
  (wording.py);
- semantic: rewordings, proposed by the vectors and checked on words, names and numbers.

A duplicate matches the row that stands for it, not only some other duplicate: clusters are stars and do not chain. Time and
memory grow with the number of rows, whatever they share: in a crowd each is compared with the first and a few others.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ultralink_nb.errors import KitError
from ultralink_nb.minhash import Sketches, blocks_of, candidate_pairs, digests
from ultralink_nb.neighbours import search_within
from ultralink_nb.vectors import Centred
from ultralink_nb.wording import Wording, jaccard, only_slips, rewords

HOW = ("exact", "near", "semantic")
LONGEST_NEAR, LONGEST_SEMANTIC = 20_000, 2_000  # characters; of a longer text an encoder sees no more than the beginning
BATCH = 10_000_000  # characters of the texts whose words are held at a time


class BadDuplicates(KitError, ValueError):
    """Input in which duplicates cannot be looked for; the message says what to change."""


def find_duplicates(
    texts: Sequence[str], rows: pd.DataFrame, centred: Centred | None = None, near: bool = True, semantic: bool = True,
    near_threshold: float = 0.4, semantic_threshold: float = 0.85, k: int = 8, answers: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The rows that repeat another row of their language: id, language, duplicate_of, how, similarity, one row a duplicate.

    texts: what was embedded, one for each row. rows: id, language, optionally quality. centred: their vectors; without them
    there is no semantic pass. k: neighbours that it looks at.

    near_threshold: in (0, 1], the least Jaccard similarity of two texts' shingles (four characters, two in Chinese). It is low
    because words decide: it sets how much of a short text slips may make up. semantic_threshold: in (0, 1], t in
    1 - c <= (1 - t) (1 - J), where c is the centred cosine of two texts and J the overlap of their words (`wording.rewords`).
    The default was chosen for the default encoder, by the table that `benchmarks/duplicates.py` prints.

    Of a cluster the row of the highest quality stands, then the one with the smallest id: the order of rows does not matter.
    `similarity` to the row that stands is 1 for exact, the Jaccard similarity for near, the centred cosine for semantic.
    answers: what each row answers, empty for nothing. The same question with another answer is a duplicate all the same; the
    column `same_answer` then says whether the two answers are equal in normal form.

    Texts above 20,000 characters are compared exactly only, those above 2,000 not semantically.
    Raises BadDuplicates where texts, rows, answers and vectors do not fit, and UnknownLanguage.
    """
    _check(texts, rows, centred, answers, near_threshold, semantic_threshold)
    texts, stars = list(texts), _Stars(rows)
    sketches = Sketches.empty(len(rows))
    with tqdm(total=len(rows), desc="reading texts", unit="row", disable=None) as progress:
        for code, listed in stars.members.items():
            for part, block in blocks_of(texts, listed, code):
                sketches.read(texts, part, block, near)
                progress.update(len(part))
            stars.join_copies(listed, sketches.digest[listed])
    if near:
        for code, listed in stars.members.items():
            length = sketches.length[listed]
            chosen = listed[(length > 0) & (length <= LONGEST_NEAR) & stars.standing(listed)]
            while len(chosen) > 1:
                pairs = candidate_pairs(sketches, chosen, near_threshold)
                again = stars.join(
                    texts, pairs, code, "near", near_threshold, lambda _, a, b: only_slips(a, b) and jaccard(a, b)
                )
                chosen = chosen[np.isin(chosen, again)]
    if semantic and centred is not None and len(rows):
        fit = (sketches.length > 0) & (sketches.length <= LONGEST_SEMANTIC)
        standing = np.flatnonzero(stars.standing(np.arange(len(rows))) & fit)
        for code, neighbours in search_within(centred, k, rows=standing).items():
            at, column = np.nonzero((neighbours.rows >= 0) & (neighbours.similarity >= semantic_threshold))
            pairs = stars.preferred_first(neighbours.queries[at], neighbours.rows[at, column])
            pairs, once = np.unique(pairs, axis=0, return_index=True)
            cosine = np.minimum(neighbours.similarity[at, column][once], 1).tolist()
            stars.join(
                texts, pairs, code, "semantic", semantic_threshold,
                lambda number, a, b, cosine=cosine: rewords(a, b, cosine[number], semantic_threshold) and cosine[number],
            )
    return _table(stars, rows, answers if answers is None else list(answers))


def summary(duplicates: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """How many rows of each language are duplicates: index language; columns rows, exact, near, semantic, share (in [0, 1])."""
    order = list(dict.fromkeys(rows["language"]))
    counts = duplicates.groupby(["language", "how"]).size().unstack(fill_value=0)
    table = counts.reindex(index=order, columns=list(HOW), fill_value=0).astype(int)
    table.insert(0, "rows", rows["language"].value_counts().reindex(order).astype(int))
    table["share"] = table[list(HOW)].sum(axis=1) / table["rows"]
    return table.rename_axis(index="language", columns=None)


def _check(
    texts: Sequence[str], rows: pd.DataFrame, centred: Centred | None, answers: Sequence[str] | None, *thresholds: float
) -> None:
    for name in ("id", "language"):
        if name not in rows:
            raise BadDuplicates(f"rows have no column {name}: name each text's id and language")
    for name, given in (("texts", texts), ("vectors", centred), ("answers", answers)):
        if given is not None and len(given) != len(rows):
            raise BadDuplicates(f"{len(given):,} {name} but {len(rows):,} rows: give one for each row")
        if name != "vectors" and given is not None and not all(isinstance(text, str) for text in given):
            row, odd = next((row, text) for row, text in enumerate(given) if not isinstance(text, str))
            raise BadDuplicates(f"{name}: row {row:,} is no text but {odd!r}; give an empty text where there is none")
    if rows["language"].isna().any():
        raise BadDuplicates(f"row {int(np.argmax(rows['language'].isna())):,} has no language: fill the column language")
    if rows["id"].duplicated().any():
        twice = rows["id"][rows["id"].duplicated()].iloc[0]
        raise BadDuplicates(f"id {twice!r} is listed twice: give each row an id of its own")
    if not all(0 < threshold <= 1 for threshold in thresholds):
        raise BadDuplicates(f"a threshold lies above 0 and not above 1; these are {', '.join(map(str, thresholds))}")


class _Stars:
    """Which row stands for each row. members: the rows of each language in order of preference."""

    def __init__(self, rows: pd.DataFrame) -> None:
        n = len(rows)
        quality = rows["quality"].to_numpy(float) if "quality" in rows else np.zeros(n)
        keys = pd.DataFrame({"quality": quality, "id": rows["id"].to_numpy(object)})
        preferred = keys.sort_values(["quality", "id"], ascending=[False, True]).index.to_numpy()
        self.rank = np.empty(n, np.int64)
        self.rank[preferred] = np.arange(n)
        code, names = pd.factorize(rows["language"].to_numpy(object))
        self.members = {name: preferred[code[preferred] == number] for number, name in enumerate(names)}
        self.stands, self.how, self.similarity = np.arange(n), np.zeros(n, np.int8), np.ones(n, np.float32)
        self.copied = np.arange(n)
        self.leads = np.zeros(n, bool)

    def standing(self, rows: np.ndarray) -> np.ndarray:
        return self.stands[rows] == rows

    def preferred_first(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where((self.rank[a] < self.rank[b])[:, None], np.stack([a, b], 1), np.stack([b, a], 1)).astype(np.int64)

    def join_copies(self, listed: np.ndarray, digest: np.ndarray) -> None:
        """Rows of equal digests stand behind the first of them; listed: in order of preference."""
        _, first, same = np.unique(digest, return_index=True, return_inverse=True)
        self.stands[listed] = self.copied[listed] = listed[first[same]]

    def join(
        self, texts: Sequence[str], pairs: np.ndarray, code: str, how: str, threshold: float,
        match: Callable[[int, Wording, Wording], float],
    ) -> np.ndarray:
        """Let rows stand behind the row that they match best. pairs: (m, 2) rows, the preferred one on the left.

        match: the similarity of a pair, given its number and the two wordings; below the threshold where they do not match.
        Rows are taken in order of preference, so that whether a row stands is known before others ask. A row that others stand
        behind already stays: they need not match what it matches. Returns the rows whose candidate turned out a duplicate
        itself, and that still stand: they have to be paired again.
        """
        order = np.lexsort((pairs[:, 0], self.rank[pairs[:, 1]]))
        again = []
        for row, group in groupby(_worded(texts, pairs, order, code, how), key=lambda item: item[1]):
            best = (0.0, 0, -1)
            for number, _, other, a, b in group if not self.leads[row] else ():
                if self.stands[other] != other:
                    again.append(row)
                elif (similarity := match(number, a, b)) >= threshold:
                    best = max(best, (similarity, -int(self.rank[other]), other))
            if best[2] >= 0:
                self.stands[row], self.how[row], self.similarity[row] = best[2], HOW.index(how), best[0]
                self.leads[best[2]] = True
        again = np.unique(np.array(again, np.int64))
        return again[self.standing(again)]


def _worded(
    texts: Sequence[str], pairs: np.ndarray, order: np.ndarray, code: str, how: str
) -> Iterator[tuple[int, int, int, Wording, Wording]]:
    """Number, right row, left row and the wordings, left and right, of each pair, in this order of pairs.

    The words of a text are read once, as long as no more than `BATCH` characters are held.
    """
    ends = np.cumsum([len(texts[a]) + len(texts[b]) for a, b in pairs[order].tolist()])
    worded: dict[int, Wording] = {}
    held = start = 0
    with tqdm(total=len(pairs), desc=f"{how} duplicates, {code}", unit="pair", disable=None if len(pairs) else True) as progress:
        while start < len(order):
            end = min(start + 20_000, max(start + 1, int(np.searchsorted(ends, ends[start] + BATCH // 2))))
            part = pairs[order[start:end]]
            if held > BATCH:
                worded, held = {}, 0
            missing = np.array([row for row in np.unique(part).tolist() if row not in worded], np.int64)
            for listed, block in blocks_of(texts, missing, code):
                for row, normal in zip(listed.tolist(), block.strings(), strict=True):
                    worded[row] = Wording(texts[row], normal, code)
                held += len(block.points)
            for number, (a, b) in zip(order[start:end].tolist(), part.tolist(), strict=True):
                yield number, b, a, worded[a], worded[b]
            progress.update(len(part))
            start = end


def _table(stars: _Stars, rows: pd.DataFrame, answers: Sequence[str] | None) -> pd.DataFrame:
    ids, languages = rows["id"].to_numpy(object), rows["language"].to_numpy(object)
    found = np.flatnonzero(stars.stands != np.arange(len(rows)))
    first = stars.copied[found]
    source = np.where(stars.standing(first), found, first)  # the copy of a duplicate matches what that one matches, and as well
    stand_in = stars.stands[source]
    duplicates = pd.DataFrame({
        "id": ids[found], "language": languages[found], "duplicate_of": ids[stand_in],
        "how": np.array(HOW, dtype=object)[stars.how[source]], "similarity": stars.similarity[source],
    })
    if answers is not None:
        digest = np.zeros(len(rows), np.uint64)
        needed = np.union1d(found, stand_in)
        for code, listed in stars.members.items():
            for part, block in blocks_of(answers, np.intersect1d(needed, listed), code):
                digest[part] = digests([answers[row] for row in part], block)
        duplicates["same_answer"] = digest[found] == digest[stand_in]
    return duplicates
