"""Pairs, scores, probabilities: what is said again in another language.

The steps are visible calls in notebook 04: `candidate_pairs` (neighbours per pair of languages, both directions), `score_pairs`
(cosine, ratio margin, gaps to the next best, agreement of numbers, length); a `Calibration` (calibration.py) turns
the scores of a pair into a probability, and `corroborate` sees the pairs of a data set together: how much is repeated in it at
all, what a third language says of the pair, and which other rows compete for the same counterpart. `grouping.py` makes groups.

Same content means that the same task is asked or the same statement made; answers may be worded differently.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np
import pandas as pd

from ultralink_nb.engine import Engine, LocalEngine
from ultralink_nb.neighbours import Neighbours, search_between
from ultralink_nb.numerals import compare_numbers, read_numbers
from ultralink_nb.vectors import Centred


@dataclass(frozen=True)
class Candidates:
    """Candidate pairs and the neighbour lists that they came from.

    left, right: (m,) int32 row numbers, left's language before right's in the order of first appearance; every pair once, one
    pair of languages after the other. cosine: (m,) float32, of the centred vectors. between: the neighbour lists per ordered
    pair of languages.
    """

    left: np.ndarray
    right: np.ndarray
    cosine: np.ndarray
    between: dict[tuple[str, str], Neighbours]

    def __len__(self) -> int:
        return len(self.left)

    def take(self, chosen: np.ndarray) -> "Candidates":
        """Those at the chosen positions, with the same neighbour lists."""
        return replace(self, left=self.left[chosen], right=self.right[chosen], cosine=self.cosine[chosen])


def candidate_pairs(
    centred: Centred, k: int = 4, index: str = "auto", rows: np.ndarray | None = None,
    engine: Engine = LocalEngine(),  # noqa: B008 (it has no state)
) -> Candidates:
    """The k nearest rows of every other language for every row, both directions joined.

    k: neighbours per direction, of which margins are means too. rows: the row numbers that take part; None for all. engine:
    where they are searched.
    """
    between = search_between(centred, k, index, rows, engine)
    return _joined(list(_by_languages(centred, between)), between)


def _by_languages(centred: Centred, between: dict[tuple[str, str], Neighbours]) -> Iterator[Candidates]:
    """The pairs of one pair of languages at a time, both directions joined."""
    for first, second in combinations(centred.languages, 2):
        both = {pair: between[pair] for pair in ((first, second), (second, first)) if pair in between}
        keys, cosines = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        for (source, _), found in both.items():
            here, there = np.repeat(found.queries, found.rows.shape[1]).astype(np.int64), found.rows.ravel().astype(np.int64)
            valid = there >= 0
            left, right = (here, there) if source == first else (there, here)
            keys.append(left[valid] * len(centred) + right[valid])
            cosines.append(found.similarity.ravel()[valid])
        pairs, once = np.unique(np.concatenate(keys), return_index=True)
        left, right = np.divmod(pairs, max(1, len(centred)))
        yield Candidates(left.astype(np.int32), right.astype(np.int32), np.concatenate(cosines)[once], both)


def _joined(pieces: list[Candidates], between: dict[tuple[str, str], Neighbours]) -> Candidates:
    none = np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32)
    columns = zip(none, *((piece.left, piece.right, piece.cosine) for piece in pieces), strict=True)
    return Candidates(*(np.concatenate(column) for column in columns), between)


_STEP = 2_000_000  # pairs that are scored at a time where most are let go


# What a calibration may look at. The margin is for comparison only: it and the gaps measure the same thing, and with both the
# weights of a linear model lose their meaning and carry over to other data less well.
FEATURES = ("centred", "cosine", "gap_best", "gap_worst", "mutual", "others_left", "others_right", "length", "numbers_clash",
            "numbers_differ", "numbers_match", "numbers_agree")
SCORES = (*FEATURES, "margin")


def score_pairs(candidates: Candidates, centred: Centred, texts: Sequence[str] | None) -> pd.DataFrame:
    """Scores of each candidate pair, one column for each name in `SCORES`, row order that of the candidates.

    texts: what was embedded, one text a row of `centred`; None where only vectors are known: length and numbers are 0 then.
    cosine: of the encoder's own vectors; centred: of the centred ones, and so is all that follows. margin: the ratio margin of
    Artetxe & Schwenk (2019), eq. 2 to 4, with the encoder's own cosines:
    margin(x, y) = cos(x, y) / ( sum_{z in NN_k(x)} cos(x, z) / 2k + sum_{z in NN_k(y)} cos(y, z) / 2k ).
    gap_best and gap_worst: how much closer the pair is than each end's best other neighbour, the larger and the smaller of the
    two. mutual: 1 if each is the other's nearest. others_left, others_right: mean over each end's neighbours but the best.
    length: |log| of the lengths' ratio beside what is usual between the two languages in this data. numbers_differ and
    numbers_agree: how many numbers have no answer in the other text, and how many have; numbers_clash and numbers_match: 1 if
    any differs; if none does and some agree.

    The answers' own vectors are not used: they help with rows that were rewritten for another culture (F1 +0.01 on OMGEval), but
    what a calibration learns from them on one set misleads it on another (Alpaca -0.05).
    """
    known = None if texts is None else _Texts.of(texts)
    scores = np.zeros((len(candidates), len(SCORES)), np.float32)
    languages = centred.codes[candidates.left].astype(np.int16) * 128 + centred.codes[candidates.right]
    for pair in np.unique(languages):
        chosen = np.flatnonzero(languages == pair)
        scores[chosen] = _score_piece(candidates.take(chosen), centred, known)
    return pd.DataFrame(scores, columns=list(SCORES))


def screen_pairs(
    centred: Centred, between: dict[tuple[str, str], Neighbours], texts: Sequence[str] | None,
    probability: Callable[[pd.DataFrame], np.ndarray], least: float = 0.01,
) -> tuple[Candidates, pd.DataFrame]:
    """The candidate pairs that may be true, and their scores: what `candidate_pairs` and `score_pairs` give, less the rest.

    between: of `neighbours.search_between`. probability: from scores to (m,), such as a calibration's; pairs below `least` go.
    One pair of languages is in memory at a time: of what is found among millions of rows most is far from saying the same. Beyond
    `_STEP` pairs of two languages the usual ratio of lengths is that of each step.
    """
    pieces, scores = [], []
    known = None if texts is None else _Texts.of(texts)
    for piece in _by_languages(centred, between):
        for start in range(0, len(piece), _STEP):
            some = piece.take(slice(start, start + _STEP))
            of_some = _score_piece(some, centred, known)
            chosen = np.flatnonzero(probability(pd.DataFrame(of_some, columns=list(SCORES), copy=False)) >= least)
            pieces.append(some.take(chosen))
            scores.append(of_some.T.take(chosen, axis=1))
            del of_some, some
    candidates = _joined(pieces, between)
    pieces.clear()
    kept, begin = np.empty((len(SCORES), sum(part.shape[1] for part in scores)), np.float32), 0
    while scores:  # the largest table that there is: each part is let go as soon as it is in its place
        part = scores.pop(0)
        kept[:, begin : begin + part.shape[1]] = part
        begin += part.shape[1]
    return candidates, pd.DataFrame(kept.T, columns=list(SCORES), copy=False)


@dataclass(frozen=True)
class _Texts:
    """texts, the log of their lengths, and which are copies: a number a row that equal texts share, None if there are none."""

    texts: Sequence[str]
    log_length: np.ndarray
    copy: np.ndarray | None

    @classmethod
    def of(cls, texts: Sequence[str]) -> "_Texts":
        copy = pd.factorize(np.asarray(texts, dtype=object))[0] if len(texts) else np.zeros(0, np.int64)
        length = np.log(np.fromiter(map(len, texts), dtype=np.float32, count=len(texts)) + 1)
        return cls(texts, length, copy if len(copy) and copy.max() + 1 < len(copy) else None)


def _score_piece(candidates: Candidates, centred: Centred, known: _Texts | None) -> np.ndarray:
    """The scores of pairs of one pair of languages, (m, len(SCORES)) float32."""
    left, right = candidates.left, candidates.right
    if not len(left):
        return np.zeros((0, len(SCORES)), np.float32)
    ends = [_end(candidates, centred, known and known.copy, side) for side in ("left", "right")]
    gaps = [candidates.cosine - end["best other"] for end in ends]
    raw = centred.raw_cosine(left, right, candidates.cosine)
    mutual = ends[0]["first"] & ends[1]["first"]
    length, differ, agree = np.zeros((3, len(left)), np.float32)
    if known:
        length = _unusual_length(known.log_length[left] - known.log_length[right], mutual)
        differ, agree = _numbers(known.texts, centred, left, right)
    found = {
        "centred": candidates.cosine, "cosine": raw, "gap_best": np.maximum(*gaps), "gap_worst": np.minimum(*gaps),
        "mutual": mutual, "others_left": ends[0]["others"], "others_right": ends[1]["others"], "length": length,
        "numbers_clash": differ > 0, "numbers_differ": differ, "numbers_match": (differ == 0) & (agree > 0),
        "numbers_agree": agree, "margin": raw / np.maximum(1e-3, (ends[0]["raw"] + ends[1]["raw"]) / 2),
    }
    return np.stack([found[name] for name in SCORES], dtype=np.float32, casting="unsafe").T  # a column's scores side by side


def _end(candidates: Candidates, centred: Centred, copy: np.ndarray | None, side: str) -> dict[str, np.ndarray]:
    """For one end of each pair, of its neighbours in the other's language: the best other one, the mean of all but the first,
    the mean of the raw cosines, and whether the pair is best.

    copy: a number for each row that equal texts share; a second copy of the other end is no other neighbour.
    """
    here, there = (candidates.left, candidates.right)[:: 1 if side == "left" else -1]
    found = candidates.between.get(tuple(centred.languages[centred.codes[end[0]]] for end in (here, there)))
    if found is None or not found.rows.shape[1]:
        none = np.zeros(len(here), np.float32)
        return {"best other": none, "first": none >= 0, "others": none, "raw": none}
    listed, similarity = found.rows >= 0, np.where(found.rows >= 0, found.similarity, 0)
    second = similarity[:, 1] if found.rows.shape[1] > 1 else np.zeros(len(listed), np.float32)
    others = similarity[:, 1:].sum(axis=1) / np.maximum(1, listed[:, 1:].sum(axis=1))
    raw = np.zeros(len(listed), np.float32)
    for column in range(found.rows.shape[1]):
        cosine = centred.raw_cosine(found.queries, np.maximum(found.rows[:, column], 0), similarity[:, column])
        raw += np.where(listed[:, column], cosine, 0)
    raw /= np.maximum(1, listed.sum(axis=1))
    slot = np.searchsorted(found.queries, here)
    top, nearest = similarity[slot, 0], found.rows[slot, 0]
    best = np.where(nearest == there, second[slot], top)
    first = candidates.cosine >= top - 1e-6  # of equals (a text given twice) each is best
    if copy is not None:
        _pass_over_copies(best, found, copy, here, there)
    return {"best other": best, "first": first | (nearest == there), "others": others[slot], "raw": raw[slot]}


def _pass_over_copies(best: np.ndarray, found: Neighbours, copy: np.ndarray, here: np.ndarray, there: np.ndarray) -> None:
    """Mend `best`, the cosine of the best other neighbour, for pairs whose other end has a copy."""
    chosen = np.flatnonzero((np.bincount(copy)[copy] > 1)[there])
    listed = np.searchsorted(found.queries, here[chosen])
    rows = found.rows[listed]
    other = (rows >= 0) & (copy[np.maximum(rows, 0)] != copy[there[chosen], None])
    top = np.where(other, found.similarity[listed], -np.inf).max(axis=1, initial=-np.inf)
    best[chosen] = np.where(np.isfinite(top), top, 0)


def _unusual_length(ratio: np.ndarray, mutual: np.ndarray) -> np.ndarray:
    usual = ratio[mutual]
    return np.abs(ratio - np.median(usual if len(usual) > 5 else ratio))


def _numbers(texts: Sequence[str], centred: Centred, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many numbers differ and how many agree, (m,) float32 each; only pairs of which a text has a digit are compared."""
    read = {}
    for row in np.unique(np.concatenate([left, right])).tolist():
        read[row] = read_numbers(texts[row], centred.languages[centred.codes[row]])
    written = np.zeros(len(centred), np.int32)
    for row, numbers in read.items():
        written[row] = len(numbers.digits)
    differ, agree = np.zeros(len(left), np.float32), np.zeros(len(left), np.float32)
    most = np.maximum(written[left], written[right])
    for pair in np.flatnonzero(most).tolist():
        missing, added = compare_numbers(read[int(left[pair])], read[int(right[pair])])
        differ[pair] = len(missing) + len(added)
        agree[pair] = max(0, most[pair] - max(len(missing), len(added)))
    return differ, agree


def corroborate(
    n: int, left: np.ndarray, right: np.ndarray, languages: np.ndarray, probability: np.ndarray, prior: float | np.ndarray,
    weight: float = 0.5,
) -> np.ndarray:
    """The probabilities of pairs seen together, (m,) float32 in [0, 1]: what no pair can know alone.

    n: rows; left, right: (m,) row numbers; languages: (n,) codes; probability: (m,), from a calibration that was fitted where a
    share `prior` of the pairs was true, one number or (m,). Three steps, none of which knows a label:
    1. The share of true pairs in this data is estimated by expectation maximisation and takes the place of the prior (Saerens,
       Latinne & Decaestecker 2002, Section 2), within a factor of ten, for the pairs of each prior on their own; with fewer than
       500 of them it is left as it is.
    2. A third language speaks for a pair with the weaker of its two links to it; its log-odds rise by `weight` times that.
    3. The rows of one language compete for being a row's counterpart: a pair's odds are divided by one plus the odds of all that
       share its end, so that the probabilities of a row's counterparts in one language never add up to more than one.
    """
    found = np.clip(np.asarray(probability, dtype=np.float64), 1e-7, 1 - 1e-7)
    if not len(found):
        return np.zeros(0, np.float32)
    odds = found / (1 - found)
    priors = np.broadcast_to(np.asarray(prior, dtype=np.float64), odds.shape)
    for share in np.unique(np.asarray(prior, dtype=np.float64)):
        if (chosen := priors == share).sum() >= 500:
            odds[chosen] *= _change_of_prior(np.log(odds[chosen]), float(share))
    np.divide(odds, 1 + odds, out=found)
    third = _third(n, left, right, found)
    del found
    third *= weight
    odds *= np.exp(third, out=third)
    rivals = third  # its memory is used again
    rivals[:] = 0
    for here, there in ((left, right), (right, left)):
        slot = here.astype(np.int64) * (int(languages.max()) + 1) + languages[there]
        np.maximum(rivals, np.bincount(slot, odds)[slot], out=rivals)
    rivals += 1
    return np.divide(odds, rivals, out=rivals).astype(np.float32)


def _change_of_prior(logit: np.ndarray, prior: float) -> float:
    """By how much the odds of all pairs change with the share of true pairs that expectation maximisation finds."""
    count, edges = np.histogram(logit, bins=4096, range=(-17, 17))
    middle = np.exp((edges[1:] + edges[:-1]) / 2)
    low, high = prior / 10, min(0.9, prior * 10)
    share, change = prior, 1.0
    for _ in range(100):
        change = share / (1 - share) / (prior / (1 - prior))
        share = float(np.clip(np.average(middle * change / (1 + middle * change), weights=count), low, high))
    return change


def _third(
    n: int, left: np.ndarray, right: np.ndarray, probability: np.ndarray, least: float = 0.02, step: int = 500_000
) -> np.ndarray:
    """For each pair the best min(p(x, z), p(z, y)) over rows z that both ends are linked to, (m,) float64 in [0, 1].

    left, right: (m,) row numbers, no pair twice. Only links of at least `least` count, and pairs far below it are not asked.
    Every triangle of pairs is met once, by paths from its row with the fewest pairs to that with the most (Chiba & Nishizeki
    1985): a row that resembles thousands costs no more than its pairs. step: about how many paths are followed at a time.
    """
    best = np.zeros(len(left))
    asked = np.flatnonzero(probability >= least / 4)
    if not len(asked):
        return best
    pairs_of = np.bincount(left[asked], minlength=n) + np.bincount(right[asked], minlength=n)
    place = np.empty(n, np.int64)  # of a row among all, by its number of pairs
    place[np.argsort(pairs_of, kind="stable")] = np.arange(n)
    key = np.minimum(place[left[asked]], place[right[asked]]) * n
    key += np.maximum(place[left[asked]], place[right[asked]])
    order = np.argsort(key)
    key, asked = key[order], asked[order]
    del order
    begin = np.zeros(n + 1, np.int64)  # where the pairs of a row with later rows begin
    np.cumsum(np.bincount(key // n, minlength=n), out=begin[1:])
    paths = np.cumsum(np.diff(begin)[key % n] + 1)
    bounds = np.unique(np.append(np.searchsorted(paths, np.arange(0, paths[-1], step)), len(key)))
    del paths
    for start, stop in pairwise(bounds.tolist()):
        low, middle = np.divmod(key[start:stop], n)
        count = begin[middle + 1] - begin[middle]
        one = np.repeat(np.arange(start, stop), count)
        two = np.repeat(begin[middle] - (np.cumsum(count) - count), count) + np.arange(len(one))
        wanted = np.repeat(low * n, count) + key[two] % n
        three = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        closed = np.flatnonzero(key[three] == wanted)
        triangle = [asked[side[closed]] for side in (one, two, three)]
        for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            weakest = np.minimum(probability[triangle[b]], probability[triangle[c]])
            linked = weakest >= least
            np.maximum.at(best, triangle[a][linked], weakest[linked])
    return best


def against_truth(rows: pd.DataFrame, truth: Sequence[str], pairs: pd.DataFrame, threshold: float = 0.5) -> dict[str, float]:
    """Precision, recall and F1 of the pairs from `threshold` on, where `truth` is equal for rows of the same content.

    rows: id, language; pairs: left, right (row numbers), probability. Recall is over all true pairs across languages.
    """
    label = pd.factorize(np.asarray(truth, dtype=object))[0]
    sure = pairs[pairs["probability"] >= threshold]
    right = int((label[sure["left"]] == label[sure["right"]]).sum())
    sizes = pd.DataFrame({"truth": label, "language": rows["language"].to_numpy()}).value_counts(["truth", "language"])
    per_truth = sizes.groupby("truth").agg(["sum", lambda counts: (counts**2).sum()])
    total = int(((per_truth.iloc[:, 0] ** 2 - per_truth.iloc[:, 1]) // 2).sum())
    precision, recall = right / max(1, len(sure)), right / max(1, total)
    return {"true pairs": total, "found": len(sure), "right": right, "precision": precision, "recall": recall,
            "F1": 2 * right / max(1, len(sure) + total)}
