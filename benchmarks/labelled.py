"""Labelled sets for the benchmarks: samples of known content, with the scores of their candidate pairs.

A folder holds JSONL files of rows {id, language, kind, messages, group}: rows of one group have the same content. Files in the
layouts of XQuAD (`xquad.<language>.json`: questions by id) and NTREX (`ntrex_<language>….txt`: aligned lines), if a second
folder has them, are used to fit a calibration only.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ultralink_nb.agreement import compare_texts
from ultralink_nb.embedding import Encoder, embed, sample_text
from ultralink_nb.redundancy import Candidates, candidate_pairs, score_pairs
from ultralink_nb.vectors import Centred, centre

NTREX = {"eng": "en", "fra": "fr", "rus": "ru", "spa": "es", "zho": "zh"}


@dataclass(frozen=True)
class Labelled:
    """A set and its candidate pairs. rows: id, language, kind, content, text; same: (m,) 0 or 1; true: true pairs in all.

    chosen, agreement: the positions of the pairs whose texts were read, and what the texts agree on.
    """

    name: str
    rows: pd.DataFrame
    centred: Centred
    candidates: Candidates
    scores: pd.DataFrame
    same: np.ndarray
    true: int
    chosen: np.ndarray | None = None
    agreement: pd.DataFrame | None = None

    def read(self, chosen: np.ndarray, encoder: Encoder, cache_dir: str) -> "Labelled":
        """The set with the texts of the pairs at the chosen positions, ascending, read."""
        pairs, texts = self.candidates.take(chosen), self.rows["text"].tolist()
        agreement = compare_texts(pairs.left, pairs.right, texts, self.rows["language"].tolist(),
                                  lambda words: embed(words, encoder, cache_dir))
        return replace(self, chosen=chosen, agreement=agreement)


def read_rows(path: Path) -> pd.DataFrame:
    """id, language, kind, content and text of a JSONL set."""
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return pd.DataFrame({
        "id": [row["id"] for row in samples], "language": [row["language"] for row in samples],
        "kind": [row.get("kind", "") for row in samples],
        "content": [str(row["id"] if row.get("localised") else row["group"]) for row in samples],
        "text": [sample_text(row) for row in samples],
    })


def read_documents(folder: Path) -> dict[str, pd.DataFrame]:
    """The questions of XQuAD and the lines of NTREX, where the folder has them."""
    found: dict[str, list[tuple]] = {"xquad": [], "ntrex": []}
    for path in sorted(folder.glob("xquad.*.json")):
        code = path.name.split(".")[1]
        for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                found["xquad"] += [(f"{q['id']}_{code}", code, "reading", q["id"], q["question"]) for q in paragraph["qas"]]
    for path in sorted(folder.glob("ntrex_*.txt")):
        code = NTREX[path.stem.split("_")[1][:3]]
        lines = path.read_text(encoding="utf-8").splitlines()
        found["ntrex"] += [(f"{number}_{code}", code, "news", str(number), line) for number, line in enumerate(lines)]
    columns = ["id", "language", "kind", "content", "text"]
    return {name: pd.DataFrame(rows, columns=columns) for name, rows in found.items() if rows}


def true_pairs(rows: pd.DataFrame) -> int:
    """Pairs of rows of one content in two languages."""
    counts = rows.value_counts(["content", "language"]).groupby("content").agg(["sum", lambda n: (n**2).sum()])
    return int(((counts.iloc[:, 0] ** 2 - counts.iloc[:, 1]) // 2).sum())


def scored(
    name: str, rows: pd.DataFrame, encoder: Encoder, cache_dir: str, keep: np.ndarray | None = None, k: int = 4
) -> Labelled:
    """A set, or the rows of it that `keep` (n,) bool chooses, with the scores of its candidate pairs."""
    raw = embed(rows["text"].tolist(), encoder, cache_dir)
    if keep is not None:
        rows, raw = rows[keep].reset_index(drop=True), raw[keep]
    centred = centre(raw, rows["language"].tolist())
    candidates = candidate_pairs(centred, k)
    scores = score_pairs(candidates, centred, rows["text"].tolist())
    content = rows["content"].to_numpy()
    same = (content[candidates.left] == content[candidates.right]).astype(int)
    return Labelled(name, rows, centred, candidates, scores, same, true_pairs(rows))


def thinned(rows: pd.DataFrame, share: float = 0.6, seed: int = 5) -> np.ndarray:
    """(n,) bool: which rows stay when a share of them is drawn, so that many of those lack a counterpart."""
    return np.random.default_rng(seed).random(len(rows)) < share
