"""Fit the calibration that the kit ships, and say how well one carries over to data it has not seen.

    python benchmarks/fit_calibration.py FOLDER [--documents FOLDER] [--encoder use] [--fit-on NAME …] [--output FILE.json]

FOLDER holds labelled sets, see `labelled.py`; `--documents` one with parallel questions and news, used to fit only. Each set is
used whole and thinned, so that many rows have no counterpart. The table is leave-one-set-out: each set is scored
by a calibration fitted on the others. `--output` writes one fitted on all sets, or on those that `--fit-on` names; give it to
notebook 04 as `calibration_path`. The one that ships was fitted on omgeval_chat, msvamp_math, tatoeba_sentence, xquad and ntrex,
whose licences (MIT, MIT, CC BY 2.0 FR, CC BY-SA 4.0, CC BY-SA 4.0) allow it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from labelled import Labelled, read_documents, read_rows, scored, thinned

from ultralink_nb.calibration import Calibration, fit_calibration
from ultralink_nb.embedding import open_encoder
from ultralink_nb.redundancy import corroborate

Sets = dict[str, list[Labelled]]


def read_sets(folder: Path, documents: Path | None, encoder, cache_dir: str) -> tuple[Sets, list[str]]:
    """Each set whole and thinned, and the names of those that are measured."""
    rows = {path.stem: read_rows(path) for path in sorted(folder.glob("*.jsonl"))}
    measured = list(rows)
    rows |= read_documents(documents) if documents else {}
    sets = {}
    for name, table in rows.items():
        sets[name] = [scored(name, table, encoder, cache_dir), scored(name, table, encoder, cache_dir, thinned(table))]
    return sets, measured


def fitted(sets: Sets, names: list[str], encoder: str) -> Calibration:
    """A calibration on several sets, each, whole and thinned, with the same total weight."""
    parts = [part for name in names for part in sets[name]]
    scores = pd.concat([part.scores for part in parts], ignore_index=True)
    same = np.concatenate([part.same for part in parts])
    weights = np.concatenate([np.full(len(part.same), 1 / len(part.same)) for part in parts])
    return fit_calibration(scores, same, encoder, ", ".join(names), weights * len(weights) / weights.sum())


def probability(calibration: Calibration, part: Labelled) -> np.ndarray:
    """As notebook 04 gives it: calibrated pair by pair, then corroborated."""
    pairs = part.candidates
    alone = calibration.probability(part.scores)
    return corroborate(len(part.rows), pairs.left, pairs.right, part.centred.codes, alone, calibration.prior)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=Path, help="folder with XQuAD and NTREX files")
    parser.add_argument("--encoder", default="use")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--fit-on", nargs="+", metavar="NAME", help="sets to fit the written calibration on; default all")
    parser.add_argument("--output", type=Path, help="where to write a calibration")
    arguments = parser.parse_args()
    encoder = open_encoder(arguments.encoder)
    sets, measured = read_sets(arguments.folder, arguments.documents, encoder, arguments.cache_dir)
    if not measured:
        parser.error(f"no .jsonl file in {arguments.folder}")
    rows = []
    for name in measured:
        whole = sets[name][0]
        calibration = fitted(sets, [other for other in sets if other != name] or [name], arguments.encoder)
        hit = probability(calibration, whole) >= 0.5
        true = int((hit & (whole.same == 1)).sum())
        rows.append({
            "set": name, "true pairs": whole.true, "among candidates": whole.same.sum() / whole.true,
            "precision": true / max(1, hit.sum()), "recall": true / whole.true, "F1": 2 * true / (hit.sum() + whole.true),
        })
    print("leave one set out, p >= 0.5" if len(sets) > 1 else "one set only: scored by a calibration fitted on itself")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))
    chosen = fitted(sets, arguments.fit_on or list(sets), arguments.encoder)
    print(f"weights, fitted on {chosen.fitted_on}; {chosen.prior:.3f} of the pairs are true")
    print(pd.Series(chosen.weight, index=chosen.features).to_string(float_format="{:+.2f}".format))
    if arguments.output:
        chosen.save(arguments.output)
        print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
