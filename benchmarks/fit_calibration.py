"""Fit the calibration that the kit ships, and say how well one carries over to data it has not seen.

    python benchmarks/fit_calibration.py FOLDER [--encoder use] [--write]

FOLDER holds labelled sets as JSONL: rows {id, language, kind, messages, group, localised?}. Rows of one group are translations
of each other, except that a localised row was rewritten for its own culture and asks something else. The file that ships is
fitted on the sets of `SHIPPED_SETS`, whose licences (MIT, MIT, CC BY 2.0 FR) allow it. The table is leave-one-set-out: each
set is scored by a calibration fitted on the others.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from ultralink_nb.calibration import SHIPPED, fit_calibration
from ultralink_nb.embedding import embed, open_encoder, sample_text
from ultralink_nb.redundancy import candidate_pairs, centre, score_pairs

SHIPPED_SETS = ("omgeval_chat", "msvamp_math", "tatoeba_sentence")
ALL_SETS = (*SHIPPED_SETS, "alpaca_en_zh_chat")


def labelled(path: Path, encoder, cache_dir: str) -> tuple[pd.DataFrame, np.ndarray, int]:
    """Scores of a set's candidate pairs, whether each is true, and how many true pairs the set has in all."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts, languages = [sample_text(row) for row in rows], [row["language"] for row in rows]
    content = np.array([row["id"] if row.get("localised") else row["group"] for row in rows])
    raw = embed(texts, encoder, cache_dir)
    vectors = centre(raw, languages)
    candidates = candidate_pairs(vectors, languages, k=4)
    members = defaultdict(list)
    for name, language in zip(content, languages, strict=True):
        members[name].append(language)
    total = sum(a != b for codes in members.values() for i, a in enumerate(codes) for b in codes[:i])
    same = (content[candidates.left] == content[candidates.right]).astype(int)
    return score_pairs(candidates, vectors, languages, texts, raw), same, total


def fitted(sets: dict, names: list[str], encoder: str):
    """A calibration on several sets, each with the same total weight."""
    scores = pd.concat([sets[name][0] for name in names], ignore_index=True)
    same = np.concatenate([sets[name][1] for name in names])
    weights = np.concatenate([np.full(len(sets[name][1]), 1 / len(sets[name][1])) for name in names])
    return fit_calibration(scores, same, encoder, ", ".join(names), weights * len(weights) / weights.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="use")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--write", action="store_true", help="replace the calibration that ships")
    arguments = parser.parse_args()
    encoder = open_encoder(arguments.encoder)
    sets = {name: labelled(arguments.folder / f"{name}.jsonl", encoder, arguments.cache_dir) for name in ALL_SETS}
    rows = []
    for name, (scores, same, total) in sets.items():
        probability = fitted(sets, [other for other in ALL_SETS if other != name], arguments.encoder).probability(scores)
        hit = probability >= 0.5
        true = int((hit & (same == 1)).sum())
        rows.append({
            "set": name, "true pairs": total, "among candidates": same.sum() / total,
            "precision": true / max(1, hit.sum()), "recall": true / total, "F1": 2 * true / (hit.sum() + total),
        })
    print("leave one set out, p >= 0.5")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))
    shipped = fitted(sets, list(SHIPPED_SETS), arguments.encoder)
    if arguments.write:
        shipped.save(SHIPPED / f"{arguments.encoder}.json")
    print(pd.Series(shipped.weight, index=shipped.features).to_string(float_format="{:+.2f}".format))


if __name__ == "__main__":
    main()
