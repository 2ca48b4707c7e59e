"""The evidence, level (b): a small language model trained from scratch on what each policy keeps, and on random rows.

    python benchmarks/evidence_lm.py FILE --target-column operation --split-column split --truth-column group [--size small]

FILE holds samples (JSONL, JSON or Parquet). Each model is tested per language on held-out rows: loss in nats a token, and whether
its answer (the target) is right. `--match steps` gives every set the same number of updates, `--match epochs` the same number of
epochs; both are run unless one is named. `--size toy` suits two cores, `small` and `medium` a GPU (any CUDA device is used where
there is one). Every model's scores are on disk before the next is trained: started again with the same words, the script goes on.
Written to `--output`: evidence.parquet, evidence_verdict.json, the figures, costs.json (updates, tokens, seconds, GPU memory of
each model).
"""

import argparse
import hashlib
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from ultralink_nb import embedding, encoders, evidence, evidence_figures, plots, records, small_lm, tasks
from ultralink_nb.content import Plan
from ultralink_nb.errors import KitError
from ultralink_nb.verdict import Scores

SIZES = {
    "toy": small_lm.LmPlan(width=64, layers=2, heads=4, vocabulary=2048, max_tokens=96, batch=16, epochs=2, rate=2e-3),
    "small": small_lm.LmPlan(width=256, layers=6, heads=8, vocabulary=8192, max_tokens=256, batch=64, epochs=20, rate=1e-3),
    "medium": small_lm.LmPlan(width=512, layers=8, heads=8, vocabulary=16384, max_tokens=256, batch=64, epochs=20, rate=6e-4),
}


def read(args: argparse.Namespace) -> tuple[tasks.Task, list[str]]:
    """The task of the file, groups from the kit's own analysis of the training part, and the texts of its rows."""
    samples = records.read_samples(args.file)
    targets = tasks.column(samples, args.target_column)
    samples = [sample for sample, target in zip(samples, targets, strict=True) if target is not None]
    targets = [target for target in targets if target is not None]
    rows = pd.DataFrame([{name: sample[name] for name in ("id", "language", "kind")} for sample in samples])
    rows["quality"] = tasks.quality(samples)
    texts = [embedding.sample_text(sample, "question") for sample in samples]
    test = tasks.split_by_column(tasks.column(samples, args.split_column))
    contents = np.array(tasks.column(samples, args.truth_column), dtype=object)
    chosen = np.ones(len(rows), dtype=bool)
    if args.rows and len(rows) > args.rows:
        chosen = tasks.split_by_content(contents, args.rows / len(rows), 0)
    where = np.flatnonzero(chosen)
    rows, texts = rows.iloc[where].reset_index(drop=True), [texts[row] for row in where]
    targets, test, contents = [targets[row] for row in where], test[where], contents[where]
    train = np.flatnonzero(~test)
    known = [texts[row] for row in train]
    encoder = encoders.open_encoder(args.encoder, "cpu")
    vectors = embedding.embed(known, encoder, args.cache_dir)
    found = tasks.analyse(rows.iloc[train].reset_index(drop=True), known, vectors, encoder, args.cache_dir)
    return tasks.make_task(f"{args.target_column} of {args.file.name}", rows, targets, test, contents, found), texts


def trained(
    task: tasks.Task, texts: list[str], models: list[evidence.Arm], seeds: list[int], plan: small_lm.LmPlan, folder: Path
) -> tuple[Scores, Scores, list[dict]]:
    """Scores of all models, one for accuracy and one for loss, and what each took; kept in `folder`, model by model."""
    data = small_lm.encode(texts, task.target, len(task.targets), task.train_rows, plan)
    about = json.dumps({**asdict(plan), "texts": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
                        "test": task.test_rows.tolist(), "target": task.target.tolist()}, sort_keys=True)
    costs = []

    def learn(rows: np.ndarray, seed: int) -> SimpleNamespace:
        name = hashlib.sha256(about.encode() + rows.tobytes() + str(seed).encode()).hexdigest()[:24]
        path = folder / "models" / f"{name}.npz"
        if not path.is_file():
            learnt = small_lm.train_and_test(data, rows, task.test_rows, len(task.train_rows), plan, seed)
            with records.atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **asdict(learnt))
        held = np.load(path, allow_pickle=False)
        costs.append({"match": plan.match, "rows": len(rows), "seed": seed, "updates": int(held["updates"]),
                      "tokens": int(held["tokens"]), "seconds": float(held["seconds"]), "peak_mib": float(held["peak_mib"])})
        return np.stack([held["right"], -held["loss"]])

    both = evidence.measure(task, models, seeds, learn, seeded=True, progress=lambda runs: tqdm(runs, desc=plan.match))
    return replace(both, values=both.values[:, :, 0]), replace(both, values=both.values[:, :, 1], unit=1.0), costs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--target-column", required=True)
    parser.add_argument("--split-column", required=True)
    parser.add_argument("--truth-column", required=True, help="equal where the content is: test rows that belong together")
    parser.add_argument("--policies", nargs="+", default=["balanced", "paper", "by_language", "coverage"])
    parser.add_argument("--fractions", nargs="*", type=float, default=[0.1, 0.3, 0.5, 0.7])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--match", choices=["steps", "epochs", "both"], default="both")
    parser.add_argument("--size", choices=list(SIZES), default="toy")
    parser.add_argument("--epochs", type=float, help="over the full training part; by size unless given")
    parser.add_argument("--rows", type=int, help="take part of the file: whole contents, about so many rows")
    parser.add_argument("--margin", type=float, default=2.0, help="in points of accuracy")
    parser.add_argument("--loss-margin", type=float, default=0.05, help="in nats a token")
    parser.add_argument("--encoder", default="use")
    parser.add_argument("--cache-dir", default=".cache")
    parser.add_argument("--output", type=Path, default=Path("papermill_runs/evidence_lm"))
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = replace(SIZES[args.size], device=device, epochs=args.epochs or SIZES[args.size].epochs)
    try:
        task, texts = read(args)
    except (KitError, FileNotFoundError) as error:
        print(f"evidence_lm: {error}", file=sys.stderr)
        return 2
    seeds = list(range(1, args.seeds + 1))
    models = evidence.arms(task.content, args.policies, args.fractions, seeds, Plan())
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {os.cpu_count()} cores"
    print(f"{task.name}: {len(task.train_rows):,} training rows, {len(task.test_rows):,} test rows; size {args.size} on {name}")
    found, costs = [], []
    for match in ("steps", "epochs") if args.match == "both" else (args.match,):
        right, loss, took = trained(task, texts, models, seeds, replace(size, match=match), args.output)
        costs += took
        for scores, margin, metric in ((right, args.margin, "accuracy"), (loss, args.loss_margin, "minus loss, nats a token")):
            one = evidence.weigh(f"b, {args.size}, equal {match}", task.name, models, scores, seeds, margin, args.policies[0],
                                 metric)
            found.append(one)
            print(f"\nequal {match}, {metric}", *evidence_figures.title(one), sep="\n  ")
            plots.use_theme()
            stem = f"09_lm_{match}_{metric.split(',')[0].replace(' ', '_')}"
            for kind, fig in (("curves", evidence_figures.curves(one)), ("differences", evidence_figures.forest(one))):
                plots.save(fig, SimpleNamespace(figures=args.output), f"{stem}_{kind}")
    evidence.write_evidence(args.output, found)
    with records.atomic_path(args.output / "costs.json") as temporary:
        temporary.write_text(json.dumps({"device": name, "models": costs}, indent=1), encoding="utf-8")
    table = pd.DataFrame(costs)
    print(f"\n{len(table)} models, {table['seconds'].sum():.0f} s of training, {table['tokens'].sum() / 1e6:.2f} M tokens"
          + (f", peak {table['peak_mib'].max():.0f} MiB of GPU memory" if device == "cuda" else "") + f"; in {args.output}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
