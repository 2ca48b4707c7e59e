"""Whether language-specificity means something: AUC per language against labels, beside the cosine to the nearest row.

    python benchmarks/specificity.py FOLDER [--documents FOLDER] [--encoder use] [--cache-dir .cache] [--sets NAME …]

FOLDER holds labelled sets as JSONL: rows {id, language, kind, messages, group, localised?}. Where rows are marked `localised`
(rewritten for their own culture), these must rank above the other rows of their language. From a set without such marks all rows
but one of a fifth of the groups are taken out, and the ones that stay must rank above the rest. The second folder may hold
files of XQuAD and NTREX (see labelled.py), which had no part in choosing the score's constants. The question is what is embedded
and compared; neither group nor mark is known to any way of scoring, though the shipped calibration behind the probability was
fitted on these sets (but Alpaca) with their labels.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from labelled import read_documents
from scipy.stats import rankdata

from ultralink_nb.calibration import load_calibrations
from ultralink_nb.choosing import specificity
from ultralink_nb.embedding import Encoder, embed, open_encoder, sample_text
from ultralink_nb.redundancy import candidate_pairs
from ultralink_nb.repetition import find_pairs
from ultralink_nb.vectors import centre


def auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Probability that a positive row scores above another one, ties counting half; positive (n,) bool, score (n,)."""
    above = rankdata(score)[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(above / (positive.sum() * (~positive).sum()))


def intervals(positive: np.ndarray, scores: list[np.ndarray], rounds: int = 1000, seed: int = 0) -> np.ndarray:
    """(len(scores), 2): 95% bootstrap intervals of each AUC, over rows, the positive ones and the others drawn apart."""
    rng, found = np.random.default_rng(seed), []
    yes, no = np.flatnonzero(positive), np.flatnonzero(~positive)
    label = np.arange(len(positive)) < len(yes)
    for _ in range(rounds):
        rows = np.concatenate([rng.choice(yes, len(yes)), rng.choice(no, len(no))])
        found.append([auc(label, score[rows]) for score in scores])
    return np.quantile(found, [0.025, 0.975], axis=0).T


def read_rows(path: Path) -> pd.DataFrame:
    """language, kind, text, group and positive (marked as localised) of a set."""
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return pd.DataFrame({
        "language": [sample["language"] for sample in samples], "kind": [sample.get("kind", "") for sample in samples],
        "text": [sample_text(sample) for sample in samples],
        "group": [sample["group"] for sample in samples], "positive": [bool(sample.get("localised")) for sample in samples],
    })


def with_lone_rows(rows: pd.DataFrame, share: float = 0.2, seed: int = 3) -> pd.DataFrame:
    """The rows with a `share` of the groups cut down to one row, positive since its counterparts are gone."""
    rng = np.random.default_rng(seed)
    place = pd.Series(rng.permutation(len(rows)))
    lone = rows["group"].isin([group for group in rows["group"].unique() if rng.random() < share])
    stays = place.groupby(rows["group"]).transform("min") == place
    return rows.assign(positive=lone & stays)[~lone | stays].reset_index(drop=True)


def nearest_cosine(vectors: np.ndarray, languages: np.ndarray) -> np.ndarray:
    """(n,) cosine with the nearest row of any other language."""
    best = np.full(len(vectors), -1, np.float32)
    for code in np.unique(languages):
        own = languages == code
        for rows in np.array_split(np.flatnonzero(own), max(1, own.sum() // 2000)):
            best[rows] = (vectors[rows] @ vectors[~own].T).max(axis=1)
    return best


def pair_scores(
    vectors: np.ndarray, rows: pd.DataFrame, encoder: str, encode: Callable[[list[str]], np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """What the redundancy analysis says: the best ratio margin, and the best probability of a counterpart, negated."""
    centred = centre(vectors, rows["language"].tolist())
    candidates = candidate_pairs(centred)
    pairs = find_pairs(rows, rows["text"].tolist(), centred, candidates, load_calibrations(encoder)[0], encode)
    for name, column in (("best ratio margin", "margin"), ("probability", "probability")):
        score = pairs[column].to_numpy()
        best = np.full(len(rows), -np.inf)
        np.maximum.at(best, candidates.left, score)
        np.maximum.at(best, candidates.right, score)
        yield name, -best


def measure(rows: pd.DataFrame, encoder: Encoder, cache_dir: str) -> pd.DataFrame:
    """AUC with its interval of every way, a column for each language that has rows without a counterpart."""
    languages, texts = rows["language"].to_numpy(), rows["text"].tolist()
    encode = partial(embed, encoder=encoder, cache_dir=cache_dir)
    vectors = encode(texts)
    ways = {"cosine to the nearest row (baseline)": -nearest_cosine(vectors, languages)}
    ways |= pair_scores(vectors, rows, encoder.name, encode)
    ways["specificity, vectors alone"] = specificity(vectors, languages)["specificity"].to_numpy()
    ways["specificity, vectors and words"] = specificity(vectors, languages, texts, encode)["specificity"].to_numpy()
    table = {}
    for code in np.unique(languages[rows["positive"]]):
        own = languages == code
        positive, scores = rows["positive"].to_numpy()[own], [score[own] for score in ways.values()]
        table[f"{code} ({positive.sum()} of {own.sum()})"] = [
            f"{auc(positive, score):.3f} [{low:.3f}, {high:.3f}]"
            for score, (low, high) in zip(scores, intervals(positive, scores), strict=True)
        ]
    return pd.DataFrame(table, index=list(ways))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=Path, help="folder with XQuAD and NTREX files")
    parser.add_argument("--encoder", default="use")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--sets", nargs="+", metavar="NAME")
    arguments = parser.parse_args()
    sets = {file.stem: read_rows(file) for file in sorted(arguments.folder.glob("*.jsonl"))}
    if arguments.documents:
        sets |= {name: rows.rename(columns={"content": "group"}).assign(positive=False)
                 for name, rows in read_documents(arguments.documents).items()}
    if not sets or set(arguments.sets or ()) - set(sets):
        parser.error(f"the sets there are: {', '.join(sets) or 'none'}")
    encoder = open_encoder(arguments.encoder)
    for name in arguments.sets or sets:
        rows = sets[name] if sets[name]["positive"].any() else with_lone_rows(sets[name])
        print(f"\n{name}: AUC [95% interval], encoder {encoder.name}", flush=True)
        print(measure(rows, encoder, arguments.cache_dir).to_string(), flush=True)


if __name__ == "__main__":
    main()
