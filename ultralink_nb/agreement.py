"""What the two texts of a pair agree on, word by word, and how the pair stands among its neighbours.

A vector of a whole text hardly moves when one name, place or currency is exchanged, and such a text asks something else. So the
pairs that `redundancy` leaves in doubt are read: their words (words.py), names (names.py), places and currencies (places.py).
What one pair shows is noisy; what the other pairs of its two rows show is added by `surroundings`. A `Calibration` weighs it all.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ultralink_nb.names import compare_names, read_names
from ultralink_nb.places import compare_places, read_places
from ultralink_nb.words import WordVectors

AGREEMENT = ("words_lacking", "words_apart", "names_lacking", "names_shared", "places_lacking", "currencies_lacking")
SURROUNDED = ("words_lacking", "words_apart", "names_lacking", "places_lacking", "centred")
SURROUNDINGS = tuple(f"{name}_{which}" for name in SURROUNDED for which in ("more", "less"))
SHRINK = 0.5  # how many certain neighbours' word the pair's own counts for among them


def compare_texts(
    left: np.ndarray, right: np.ndarray, texts: Sequence[str], languages: Sequence[str],
    encode: Callable[[list[str]], np.ndarray],
) -> pd.DataFrame:
    """What the texts of each pair lack of each other: (m) rows, a float32 column for each name in `AGREEMENT`, 0 at best.

    left, right: (m,) row numbers; texts, languages: of the n rows. encode: turns w words into (w, d) vectors, such as `embed` of
    the encoder in use. words_lacking: log(1 + weight) of the words of either text without a counterpart in the other;
    words_apart: what a word lacks on average, both texts' averages together. names_lacking, names_shared: log(1 + number) of
    names without and with a counterpart. places_lacking, currencies_lacking: 1 if either text has one that the other has not.
    """
    taking_part = np.unique(np.concatenate([left, right]))
    words = WordVectors.of(texts, languages, encode, rows=taking_part)
    lacking, apart = words.compare(left, right)
    names, places = {}, {}
    for row in taking_part.tolist():
        names[row], places[row] = read_names(texts[row], languages[row]), read_places(texts[row], languages[row])
    ends = list(zip(left.tolist(), right.tolist(), strict=True))
    of_names = np.array([compare_names(names[a], names[b]) for a, b in ends], np.float32).reshape(-1, 2)
    of_places = np.array([compare_places(places[a], places[b]) for a, b in ends], np.float32).reshape(-1, 2)
    columns = (lacking, apart, *np.log1p(of_names).T, *(of_places > 0).T)
    return pd.DataFrame(dict(zip(AGREEMENT, columns, strict=True)), dtype=np.float32)


def surroundings(n: int, left: np.ndarray, right: np.ndarray, probability: np.ndarray, scores: pd.DataFrame) -> pd.DataFrame:
    """What the other pairs of a pair's rows show: (m) rows, a float32 column for each name in `SURROUNDINGS`.

    n: rows; left, right: (m,) row numbers; probability: (m,), how likely each pair is so far; scores: (m) rows with the columns
    `SURROUNDED`. For each end the mean of a score over its other pairs, weighted by their probability, is drawn towards the
    pair's own by `SHRINK`; `more` is the larger of the two ends' means and `less` the smaller. A row that was rewritten for its
    own culture lacks the same words in every language; a true pair whose one link is loose has others that are not.
    """
    weight, found = np.asarray(probability, np.float64), {}

    def at_ends(value: np.ndarray) -> list[np.ndarray]:
        """The sum over the other pairs of the left row, and of the right row."""
        sums = np.bincount(left, value, minlength=n) + np.bincount(right, value, minlength=n)
        return [sums[end] - value for end in (left, right)]

    weights = at_ends(weight)
    for name in SURROUNDED:
        value = scores[name].to_numpy(np.float64)
        ends = [(others + SHRINK * value) / (of + SHRINK) for others, of in zip(at_ends(weight * value), weights, strict=True)]
        found[f"{name}_more"], found[f"{name}_less"] = np.maximum(*ends), np.minimum(*ends)
    return pd.DataFrame(found, dtype=np.float32)
