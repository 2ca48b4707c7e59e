"""Fit the calibration that the kit ships, and say how well one carries over to data it has not seen.

    python benchmarks/fit_calibration.py FOLDER [--encoder use] [--fit-on NAME …] [--output calibration.json]

FOLDER holds labelled sets as JSONL: rows {id, language, kind, messages, group, localised?}. Rows of one group are translations
of each other, except that a localised row was rewritten for its own culture and asks something else. The table is
leave-one-set-out: each set is scored by a calibration fitted on the others. `--output` writes one fitted on all sets, or on
those that `--fit-on` names; give it to notebook 04 as `calibration_path`. The one that ships was fitted on omgeval_chat,
msvamp_math and tatoeba_sentence, whose licences (MIT, MIT, CC BY 2.0 FR) allow it.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from ultralink_nb.calibration import fit_calibration
from ultralink_nb.embedding import embed, open_encoder, sample_text
from ultralink_nb.redundancy import candidate_pairs, centre, score_pairs


def labelled(path: Path, encoder, cache_dir: str) -> tuple[pd.DataFrame, np.ndarray, int]:
    """Scores of a set's candidate pairs, whether each is true, and how many true pairs the set has in all."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts, languages = [sample_text(row) for row in rows], [row["language"] for row in rows]
    content = np.array([str(row["id"] if row.get("localised") else row["group"]) for row in rows])
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
    parser.add_argument("--fit-on", nargs="+", metavar="NAME", help="sets to fit the written calibration on; default all")
    parser.add_argument("--output", type=Path, help="where to write a calibration")
    arguments = parser.parse_args()
    encoder = open_encoder(arguments.encoder)
    files = sorted(arguments.folder.glob("*.jsonl"))
    if not files:
        parser.error(f"no .jsonl file in {arguments.folder}")
    sets = {file.stem: labelled(file, encoder, arguments.cache_dir) for file in files}
    rows = []
    for name, (scores, same, total) in sets.items():
        others = [other for other in sets if other != name] or [name]
        probability = fitted(sets, others, arguments.encoder).probability(scores)
        hit = probability >= 0.5
        true = int((hit & (same == 1)).sum())
        rows.append({
            "set": name, "true pairs": total, "among candidates": same.sum() / total,
            "precision": true / max(1, hit.sum()), "recall": true / total, "F1": 2 * true / (hit.sum() + total),
        })
    print("leave one set out, p >= 0.5" if len(sets) > 1 else "one set only: scored by a calibration fitted on itself")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))
    chosen = fitted(sets, arguments.fit_on or list(sets), arguments.encoder)
    print(f"weights, fitted on {chosen.fitted_on}")
    print(pd.Series(chosen.weight, index=chosen.features).to_string(float_format="{:+.2f}".format))
    if arguments.output:
        chosen.save(arguments.output)
        print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
