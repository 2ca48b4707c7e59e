"""The evidence, level (c): the whole recipe for each policy, for those who have the hardware.

    python benchmarks/full_recipe.py FILE --base-model meta-llama/Llama-2-13b-hf --seeds 3 [--dry-run] \\
        [--train learning_rate=2e-5 …] [--evaluate benchmarks='[mgsm]' …]

Notebook 04 analyses FILE once. For the full set, for each policy, and for random rows of the same size as each policy keeps, and
for each seed, notebook 05 prunes, 06 releases, 07 fine-tunes and 08 evaluates, each in a run of its own below `--runs`. Then the
answers of all models to the same questions are compared: evidence.parquet and evidence_verdict.json in `--runs`. What is finished
is not done again, so that the script may be killed and started anew. `--dry-run` prints every command and runs none. By default
all models see their rows for the same number of epochs; for an equal number of steps give `--train max_steps=…`. `{run}` in the
value of a parameter is the folder of the model's run. FILE must not hold what notebook 08 asks.
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ultralink_nb import evidence, records
from ultralink_nb.evaluation import ANSWERS
from ultralink_nb.verdict import BadEvidence, Scores

NOTEBOOKS = Path("notebooks")
TABLES = ("samples", "pairs", "groups", "duplicates")
FULL, RANDOM = evidence.FULL, evidence.RANDOM


@dataclass(frozen=True)
class Arm:
    """One model: its policy, its seed, and for a control the policy whose size it has."""

    policy: str
    seed: int
    like: str | None = None

    @property
    def name(self) -> str:
        return (f"{RANDOM}-as-{self.like}" if self.like else self.policy) + f"-{self.seed}"

    @property
    def model(self) -> str:
        """What it is called in the comparisons."""
        if self.policy == FULL:
            return FULL
        return evidence.control(f"{self.like}, own size") if self.like else f"{self.policy}, own size"


def arms(policies: list[str], seeds: int) -> list[Arm]:
    """Every model; a control comes after the policy whose size it takes."""
    return [arm for seed in range(1, seeds + 1) for arm in (
        Arm(FULL, seed), *(arm for policy in policies for arm in (Arm(policy, seed), Arm(RANDOM, seed, policy))))]


def notebook(number: str, run: Path, parameters: dict[str, str]) -> list[str]:
    """The papermill command of a notebook; its name may be unknown as long as it is not there."""
    path = next(iter(sorted(NOTEBOOKS.glob(f"{number}_*.ipynb"))), NOTEBOOKS / f"{number}_….ipynb")
    given = {name: str(value).replace("{run}", str(run)) for name, value in {"run_dir": run, **parameters}.items()}
    words = [word for name, value in given.items() for word in ("-p", name, value)]
    return [sys.executable, "-m", "papermill", str(path), str(run / f"{number}.ipynb"), *words]


def kept_share(run: Path) -> float:
    """Share of the samples that a run's pruning kept."""
    kept, dropped = (pq.read_metadata(run / "data" / f"{name}.parquet").num_rows for name in ("kept", "dropped"))
    return kept / (kept + dropped)


def steps(arm: Arm, args: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """The notebooks of one arm with their commands; a control's budget is read off its policy's run, once there is one."""
    run = args.runs / arm.name
    if arm.policy != FULL:
        parameters = {"policy": arm.policy, "seed": arm.seed, **args.prune}
        if arm.like:
            of = args.runs / Arm(arm.like, arm.seed).name
            ready = (of / "data" / "dropped.parquet").is_file()
            parameters["budget"] = f"{kept_share(of):.6f}" if ready else f"<share of rows that {of.name} keeps>"
        yield "05", notebook("05", run, parameters)
    yield "06", notebook("06", run, {"seed": arm.seed, "release_name": arm.name})
    yield "07", notebook("07", run, {"seed": arm.seed, "base_model": args.base_model, **args.train})
    yield "08", notebook("08", run, {"seed": arm.seed, **args.evaluate})


def prepare(arm: Arm, args: argparse.Namespace) -> None:
    """Give an arm's run what notebook 04 found; the full set is kept as it is."""
    data, base = args.runs / arm.name / "data", args.runs / "base" / "data"
    data.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        if not (data / f"{name}.parquet").is_file():
            with records.atomic_path(data / f"{name}.parquet") as temporary:
                shutil.copyfile(base / f"{name}.parquet", temporary)
    if arm.policy == FULL:
        with records.atomic_path(data / "kept.parquet") as temporary:
            shutil.copyfile(base / "samples.parquet", temporary)
        records.write_table(data / "dropped.parquet", [], records.DROPPED)


def execute(command: list[str], run: Path, number: str, dry: bool) -> None:
    """Run a command once: what it finished with the same words is not done again. CalledProcessError if it fails."""
    words, mark = shlex.join(command), run / f"{number}.done"
    if dry or not (mark.is_file() and mark.read_text(encoding="utf-8") == words):
        print(words, flush=True)
    if dry or (mark.is_file() and mark.read_text(encoding="utf-8") == words):
        return
    run.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, check=True)
    with records.atomic_path(mark) as temporary:
        temporary.write_text(words, encoding="utf-8")


def answers(run: Path) -> pd.DataFrame:
    """benchmark, id, language, score of every question that notebook 08 asked in a run, the mean over its samples."""
    found = [pq.read_table(path, columns=ANSWERS.names).to_pandas() for path in sorted((run / "data").rglob("*.parquet"))
             if set(ANSWERS.names) <= set(pq.read_schema(path).names)]
    if not found:
        raise BadEvidence(f"{run}: no answers to questions of a benchmark: did notebook 08 run, and over which benchmarks?")
    table = pd.concat(found, ignore_index=True).assign(score=lambda rows: rows["score"].fillna(0))
    return table.groupby(["benchmark", "id", "language"], as_index=False)["score"].mean()


def collect(models: list[Arm], args: argparse.Namespace) -> list[evidence.Evidence]:
    """One comparison a benchmark, over the questions that all models were asked."""
    table = pd.concat([answers(args.runs / arm.name).assign(model=arm.model, seed=arm.seed) for arm in models])
    size = {arm.model: [] for arm in models}
    for arm in models:
        share = 1.0 if arm.policy == FULL else kept_share(args.runs / arm.name)
        size[arm.model].append(share)
    rows, seeds = pq.read_metadata(args.runs / "base" / "data" / "samples.parquet").num_rows, list(range(1, args.seeds + 1))
    made = {arm.model: evidence.Arm(
        arm.model, arm.policy, 1.0 if arm.policy == FULL else None, _rows_kept(size[arm.model], rows),
        f"{arm.like}, own size" if arm.like else None) for arm in models}
    found = []
    for benchmark, part in table.groupby("benchmark"):
        wide = part.pivot_table(index=["id", "language"], columns=["model", "seed"], values="score").dropna()
        values = np.array([[wide[name, seed] for seed in seeds] for name in made])
        languages = wide.index.get_level_values("language").to_numpy(dtype=object)
        contents = np.array([re.sub(rf"(^|[_/:-]){code}(?=$|[_/:-])", "", name) for name, code in wide.index], dtype=object)
        scores = Scores(tuple(made), values, languages, contents)
        found.append(evidence.weigh("c", str(benchmark), list(made.values()), scores, seeds, args.margin, args.policies[0]))
    return found


def _rows_kept(shares: list[float], rows: int) -> np.ndarray:
    """(s, n) bool with as many rows as each seed kept; which ones does not matter to a comparison."""
    return np.arange(rows)[None] < np.round(np.array(shares)[:, None] * rows)


def _parameters(pairs: list[str]) -> dict[str, str]:
    if odd := [pair for pair in pairs if "=" not in pair]:
        raise BadEvidence(f"a notebook's parameter is given as name=value, not {odd[0]!r}")
    return dict(pair.split("=", 1) for pair in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--base-model", required=True, help="tiny, or a causal language model by hub name or folder")
    parser.add_argument("--policies", nargs="+", default=["balanced", "paper", "by_language", "by_quality", "coverage"],
                        help="the first one is what the headline is about")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--margin", type=float, default=2.0, help="the loss that could be lived with, in points")
    for name, number in (("analyse", "04"), ("prune", "05"), ("train", "07"), ("evaluate", "08")):
        parser.add_argument(f"--{name}", nargs="*", default=[], metavar="name=value", help=f"parameters of notebook {number}")
    parser.add_argument("--runs", type=Path, default=Path("papermill_runs/full_recipe"))
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    try:
        for name in ("analyse", "prune", "train", "evaluate"):
            setattr(args, name, _parameters(getattr(args, name)))
        models, base = arms(args.policies, args.seeds), args.runs / "base"
        if not args.dry_run and (missing := [n for n in ("07", "08") if not list(NOTEBOOKS.glob(f"{n}_*.ipynb"))]):
            raise BadEvidence(f"there is no notebook {missing[0]} in {NOTEBOOKS}/: start in the root of the repository")
        execute(notebook("04", base, {"samples_path": str(args.file), **args.analyse}), base, "04", args.dry_run)
        for arm in models:
            if not args.dry_run and not (args.runs / arm.name / "data" / "kept.parquet").is_file():
                prepare(arm, args)
            for number, command in steps(arm, args):
                execute(command, args.runs / arm.name, number, args.dry_run)
        if args.dry_run:
            print(f"# then the answers of {len(models)} models are compared; written to {args.runs}/")
            return 0
        found = collect(models, args)
        evidence.write_evidence(args.runs, found)
        for one in found:
            print(f"{one.task}:", *one.headline["verdict"], sep="\n  ")
    except (BadEvidence, subprocess.CalledProcessError, FileNotFoundError, json.JSONDecodeError) as error:
        print(f"full_recipe: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
