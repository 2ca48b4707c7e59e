"""Fit the calibrations that the kit ships, and say how well they carry over to data they have not seen.

    python benchmarks/fit_calibration.py FOLDER [--documents FOLDER] [--encoder use] [--fit-on NAME …] [--output FILE.json]

FOLDER holds labelled sets, see `labelled.py`; `--documents` one with parallel questions and news, used to fit only.

- The screen is fitted on all sets, each whole and thinned, so that many rows have no counterpart.
- Chat, math and sentences have a calibration of their own, fitted on the sets of `KINDS`. Where there is no set of chat, the one
  for chat is fitted on `REWRITTEN`, translations of which every second content was rewritten for another culture by
  `localised.py`: what prompts have and parallel texts have not.
- The calibration for any other kind is fitted on `ANY`, or on all sets where none of these is there. Sentences, questions and
  news in two to five languages carry over to word problems and instructions better than any mixture with those.

First table: leave one set out, each set scored by calibrations of the others. Second: five folds, each fifth of a set's contents
scored by calibrations fitted on the rest of it and on the other sets, as those that ship are: what other data of the same kind
may expect. `--output` writes FILE.json, FILE.screen.json and FILE.<kind>.json, fitted on all sets or on those that `--fit-on`
names. Those that ship are fitted on omgeval_chat, msvamp_math, tatoeba_sentence, xquad and ntrex, whose licences (MIT, MIT, CC BY
2.0 FR, CC BY-SA 4.0, CC BY-SA 4.0) allow it. Needs jieba for the Chinese of `REWRITTEN` (`pip install -e '.[bench]'`).
"""

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

sys.path.insert(0, str(Path(__file__).parent))
from labelled import Labelled, read_documents, read_rows, scored, thinned
from localised import localise

from ultralink_nb.calibration import LEAST, READ, Calibration, Calibrations, fit_calibration
from ultralink_nb.embedding import Encoder, open_encoder
from ultralink_nb.repetition import decide, read_scores

ANY = ("tatoeba_sentence", "xquad", "ntrex")
KINDS = {"chat": ("omgeval_chat",), "math": ("msvamp_math",), "sentence": ("tatoeba_sentence",)}
REWRITTEN = ("msvamp_math", "ntrex")
FOLDS = 5
Sets = dict[str, dict[str, Labelled]]  # name to variant ("whole", "thinned", "rewritten") to set


def read_sets(folder: Path, documents: Path | None, encoder: Encoder, cache_dir: str) -> tuple[Sets, list[str]]:
    """The variants of each set, the pairs that some screen leaves read, and the names of the sets that are measured."""
    rows = {path.stem: read_rows(path) for path in sorted(folder.glob("*.jsonl"))}
    measured = list(rows)
    if not measured:
        raise SystemExit(f"no .jsonl file in {folder}")
    rows |= read_documents(documents) if documents else {}
    sets: Sets = {}
    for name, table in rows.items():
        sets[name] = {"whole": scored(name, table, encoder, cache_dir),
                      "thinned": scored(name, table, encoder, cache_dir, thinned(table))}
        if name in REWRITTEN:
            sets[name]["rewritten"] = scored(name, localise(table, encoder, cache_dir), encoder, cache_dir)
    screens = [screen(sets, [other for other in sets if other != name] or [name], encoder.name) for name in (*measured, None)]
    for variants in sets.values():
        for variant, part in variants.items():
            left = np.max([fitted.probability(part.scores) for fitted in screens], axis=0) >= LEAST
            variants[variant] = part.read(np.flatnonzero(left), encoder, cache_dir)
    return sets, measured


def _fit(scores: list[pd.DataFrame], same: list[np.ndarray], about: Sequence[str], encoder: str, **features) -> Calibration:
    """A calibration on several parts of the same total weight each."""
    weights = np.concatenate([np.full(len(one), 1 / max(1, len(one))) for one in same])
    return fit_calibration(pd.concat(scores, ignore_index=True), np.concatenate(same), encoder, ", ".join(about),
                           weights * len(weights) / weights.sum(), **features)


def screen(sets: Sets, names: Sequence[str], encoder: str) -> Calibration:
    """The screen fitted on the sets named, on what the vectors say alone."""
    parts = [sets[name][variant] for name in names for variant in ("whole", "thinned")]
    return _fit([part.scores for part in parts], [part.same for part in parts], names, encoder)


def known(part: Labelled, fitted: Calibration) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Of the pairs that a screen leaves: positions among the candidates, scores with columns `READ`, and the label."""
    screened = fitted.probability(part.scores)[part.chosen]
    left = np.flatnonzero(screened >= LEAST)
    chosen = part.chosen[left]
    agreement = part.agreement.iloc[left].reset_index(drop=True)
    scores = read_scores(part.candidates.take(chosen), part.scores.iloc[chosen], screened[left], len(part.rows), agreement)
    return chosen, scores, part.same[chosen]


def fit(sets: Sets, names: Collection[str], encoder: str, without: dict[str, pd.Series] | None = None) -> Calibrations:
    """The calibrations fitted on the sets named. without: for a set, ids of rows whose pairs have no part."""
    first = screen(sets, [name for name in names if name not in (without or {})] or list(names), encoder)

    def of(parts: list[tuple[str, str]]) -> Calibration | None:
        """None where the screen leaves nothing to tell apart."""
        scores, same = [], []
        for name, variant in parts:
            part = sets[name][variant]
            chosen, found, label = known(part, first)
            if name in (without or {}):
                out = part.rows["id"].isin(without[name]).to_numpy()
                stays = ~(out[part.candidates.left[chosen]] | out[part.candidates.right[chosen]])
                found, label = found[stays], label[stays]
            scores.append(found)
            same.append(label)
        about = [name if variant == "whole" else f"{name}, rewritten" for name, variant in parts if variant != "thinned"]
        if not parts or len(np.unique(np.concatenate(same))) < 2:
            return None
        return _fit(scores, same, about, encoder, features=READ)

    def variants(of_kind: Collection[str]) -> list[tuple[str, str]]:
        return [(name, variant) for name in of_kind if name in names for variant in ("whole", "thinned")]

    by_kind = {"": variants(ANY) or variants(names), **{kind: variants(of_kind) for kind, of_kind in KINDS.items()}}
    by_kind["chat"] = by_kind["chat"] or [(name, "rewritten") for name in REWRITTEN if name in names]
    fitted = {kind: of(parts) for kind, parts in by_kind.items()}
    return Calibrations(first, {"": first} | {kind: found for kind, found in fitted.items() if found})


def probability(fitted: Calibrations, part: Labelled) -> np.ndarray:
    """The probability of each candidate pair, as notebook 04 gives it."""
    found = fitted.screen.probability(part.scores)
    chosen, scores, _ = known(part, fitted.screen)
    found[chosen] = decide(part.candidates.take(chosen), scores, part.rows["kind"], part.centred, fitted)
    return found


def left_out(sets: Sets, name: str, encoder: str) -> np.ndarray:
    """The probability of each pair of a set, by calibrations that were fitted on the others."""
    return probability(fit(sets, [other for other in sets if other != name] or [name], encoder), sets[name]["whole"])


def in_folds(sets: Sets, name: str, names: Collection[str], encoder: str) -> np.ndarray:
    """The same by calibrations fitted on `names` and on four fifths of the set's own contents: every row is left out once.

    Rows that the screen takes for the same are in one fold, whatever their labels.
    """
    part = sets[name]["whole"]
    left, right = part.candidates.left, part.candidates.right
    alike = screen(sets, list(names), encoder).probability(part.scores) >= 0.5
    graph = coo_array((np.ones(alike.sum()), (left[alike], right[alike])), shape=(len(part.rows),) * 2)
    component = connected_components(graph, directed=False)[1]
    fold = np.random.default_rng(0).integers(FOLDS, size=component.max() + 1)[component]
    found = np.zeros(len(left), np.float32)
    for number in range(FOLDS):
        own = fit(sets, [*names, *({name} - set(names))], encoder, {name: part.rows["id"][fold == number]})
        here = (fold[left] == number) | (fold[right] == number)
        found[here] = probability(own, part)[here]
    return found


def worth(part: Labelled, found: np.ndarray) -> dict[str, float]:
    """What the pairs from p >= 0.5 on are worth."""
    hit = found >= 0.5
    true = int((hit & (part.same == 1)).sum())
    return {"set": part.name, "true pairs": part.true, "among candidates": part.same.sum() / part.true,
            "precision": true / max(1, hit.sum()), "recall": true / part.true, "F1": 2 * true / (hit.sum() + part.true)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=Path, help="folder with XQuAD and NTREX files")
    parser.add_argument("--encoder", default="use")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--fit-on", nargs="+", metavar="NAME", help="sets to fit the written calibrations on; default all")
    parser.add_argument("--output", type=Path, help="where to write the calibrations")
    arguments = parser.parse_args()
    encoder = open_encoder(arguments.encoder)
    sets, measured = read_sets(arguments.folder, arguments.documents, encoder, arguments.cache_dir)
    names = arguments.fit_on or list(sets)

    def print_table(title: str, found: dict[str, np.ndarray]) -> None:
        print(title)
        table = pd.DataFrame([worth(sets[name]["whole"], of) for name, of in found.items()])
        print(table.to_string(index=False, float_format="{:.3f}".format), flush=True)

    several = "leave one set out, p >= 0.5" if len(sets) > 1 else "one set only: scored by calibrations fitted on itself"
    print_table(several, {name: left_out(sets, name, encoder.name) for name in measured})
    print_table(f"{FOLDS} folds of each set, with {', '.join(names)}",
                {name: in_folds(sets, name, names, encoder.name) for name in measured if name in names})
    chosen = fit(sets, names, encoder.name)
    for kind, fitted in {"screen": chosen.screen, **chosen.by_kind}.items():
        print(f"weights for {kind or 'any kind'}, fitted on {fitted.fitted_on}; {fitted.prior:.3f} of the pairs are true")
        print(pd.Series(fitted.weight, index=fitted.features).to_string(float_format="{:+.2f}".format))
        if arguments.output:
            path = arguments.output.with_suffix(f".{kind}.json" if kind else ".json")
            fitted.save(path)
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
