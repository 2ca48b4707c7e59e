"""Does pruning cost anything? A model learns a task from the full set, from what each policy keeps, and from random subsets.

`arms` says which training rows of a task (`tasks.py`) each model gets; `measure` trains and scores them all by whatever `learn`
is given (a probe, a small language model); `weigh` compares them (`verdict.py`).

The control is random pruning at equal size. Less data costs something whoever chooses it, so that a loss against the full set
alone does not speak against a policy; and where random pruning costs nothing either, a policy that costs nothing shows little.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ultralink_nb.budgets import meet, read_budgets
from ultralink_nb.content import Content, Plan
from ultralink_nb.policies import POLICIES
from ultralink_nb.probes import choose_strength, right
from ultralink_nb.records import INT, REAL, TEXT, atomic_path, write_frame
from ultralink_nb.tasks import Task
from ultralink_nb.verdict import MEAN, Draws, Scores, bootstrap, differences, judge

FULL, RANDOM = "full", "random"
EVIDENCE = pa.schema([
    ("level", TEXT), ("policy", TEXT), ("asked", REAL), ("kept_fraction", REAL), ("seed", INT), ("language", TEXT),
    ("n_train", INT), ("metric", TEXT), ("value", REAL), ("low", REAL), ("high", REAL),
])


def subset(content: Content, policy: str, plan: Plan, fraction: float | None = None) -> np.ndarray:
    """(n,) bool: what a policy keeps on its own, or at a fraction in (0, 1] of the rows.

    Below its own size a policy loses the rows that it prefers least, and with them content; above, what it dropped comes back
    in the order of its preference, duplicates last. A protected row stays at any fraction.
    """
    asked = plan if fraction is None else replace(plan, budget=fraction, allow_loss=True)
    budgets = read_budgets(content, asked)
    keep, order = POLICIES[policy](content, asked, budgets)
    keep = keep.copy() if policy == RANDOM else meet(budgets, content, asked, keep, order).copy()
    if fraction is not None:
        free = np.flatnonzero(~keep)
        free = free[np.lexsort((content.rank[free], order[free], content.duplicate[free]))]
        keep[free[: max(0, int(round(fraction * len(content))) - int(keep.sum()))]] = True
    return keep


def control(name: str) -> str:
    """The name of the arm of random rows that has the size of the arm `name`."""
    return f"{RANDOM} of the size of {name}"


@dataclass(frozen=True)
class Arm:
    """Training rows of one model under each seed.

    asked: the fraction asked for, None for the policy's own size. keep: (s, n) bool. like: for a control, the arm whose size
    it has.
    """

    name: str
    policy: str
    asked: float | None
    keep: np.ndarray
    like: str | None = None

    @property
    def kept(self) -> float:
        """Share of the training rows that are kept, the mean over the seeds."""
        return float(self.keep.mean())


def arms(content: Content, policies: Sequence[str], fractions: Sequence[float], seeds: Sequence[int], plan: Plan) -> list[Arm]:
    """The full set; each policy at its own size and at each fraction; and for each of these a random subset of equal size."""
    n, found = len(content), [Arm(FULL, FULL, 1.0, np.ones((len(seeds), len(content)), dtype=bool))]
    for policy in policies:
        for asked in (None, *fractions):
            name = f"{policy}, own size" if asked is None else f"{policy} at {asked:g}"
            keep = np.array([subset(content, policy, replace(plan, seed=seed), asked) for seed in seeds])
            found.append(Arm(name, policy, asked, keep))
            blind = np.array([subset(content, RANDOM, replace(plan, seed=seed), rows.sum() / n)
                              for seed, rows in zip(seeds, keep, strict=True)])
            found.append(Arm(control(name), RANDOM, asked, blind, name))
    return found


Learn = Callable[[np.ndarray, int], np.ndarray]  # training rows (k,), seed -> scores of the test rows, higher is better


def measure(task: Task, models: Sequence[Arm], seeds: Sequence[int], learn: Learn, unit: float = 100.0, seeded: bool = False,
            progress: Callable[[list], Any] = list) -> Scores:
    """Train and score every arm under every seed; equal training rows are learnt once (once a seed if `learn` is seeded)."""
    train, done = task.train_rows, {}
    plan = [(arm, place) for arm in models for place in range(len(seeds))]
    for arm, place in progress(plan):
        key = (arm.keep[place].tobytes(), place if seeded else 0)
        if key not in done:
            done[key] = np.asarray(learn(train[arm.keep[place]], seeds[place]), dtype=float)
    values = np.array([[done[keep.tobytes(), place if seeded else 0] for place, keep in enumerate(arm.keep)] for arm in models])
    held = {arm.name: arm.keep.tobytes() for arm in models}
    compared = ((arm.name, other) for arm in models for other in (FULL, control(arm.name)))
    same = frozenset((name, other) for name, other in compared if held[name] == held.get(other))
    test = task.test_rows
    return Scores(tuple(held), values, task.rows["language"].to_numpy(dtype=object)[test], task.contents[test], unit, same)


@dataclass(frozen=True)
class Evidence:
    """What was found: a table of scores (see `EVIDENCE`) and the comparisons, each with its verdict.

    comparisons: policy, asked, kept_fraction, reference, language, family, difference, low, high, outcome, verdict.
    """

    level: str
    task: str
    metric: str
    margin: float
    headline_policy: str
    table: pd.DataFrame
    comparisons: pd.DataFrame

    @property
    def headline(self) -> pd.DataFrame:
        """The two comparisons that were named beforehand: against the full set, and against random pruning."""
        return self.comparisons[self.comparisons["family"] == "headline"]

    def summary(self) -> dict[str, Any]:
        """What goes into `evidence_verdict.json`."""
        records = json.loads(self.comparisons.to_json(orient="records", double_precision=6))
        return {"level": self.level, "task": self.task, "metric": self.metric, "margin": self.margin,
                "policy": self.headline_policy, "verdict": self.headline["verdict"].tolist(), "multiplicity": MULTIPLICITY,
                "comparisons": records}


MULTIPLICITY = (
    "95 % intervals; a loss beyond the margin is ruled out at a one-sided 2.5 %. The two headline comparisons are named before "
    "the measurement and stand each for itself. The others form two families, 'curve' (all policies and fractions, mean over the "
    "languages) and 'languages' (all policies at their own size, each language); within a family all intervals hold together "
    "(max-t bootstrap)."
)


def weigh(level: str, task: str, models: Sequence[Arm], scores: Scores, seeds: Sequence[int], margin: float, policy: str,
          metric: str = "accuracy", draws: int = 2000, seed: int = 1) -> Evidence:
    """All comparisons with their verdicts.

    level, task, metric: names, for the record. margin: in the scores' unit, above 0. policy: the one the headline is about.
    """
    drawn = bootstrap(scores, draws, seed)
    by_name, controls = {arm.name: arm for arm in models}, {arm.like: arm.name for arm in models if arm.like}
    chosen = [arm.name for arm in models if arm.name in controls]
    own = [name for name in chosen if by_name[name].asked is None]

    def both(names: list[str]) -> list[tuple[str, str]]:
        return [(name, reference) for name in names for reference in (FULL, controls[name])]

    families = []
    for family, names, languages in (
        ("headline", [f"{policy}, own size"], (MEAN,)), ("curve", chosen, (MEAN,)), ("languages", own, scores.names[1:]),
    ):
        table = differences(drawn, both(names), languages, together=family != "headline")
        families.append(table.assign(family=family))
    table = pd.concat(families, ignore_index=True)
    table["policy"] = table["model"].map(lambda name: by_name[name].policy)
    table["asked"] = table["model"].map(lambda name: by_name[name].asked).astype(float)
    table["kept_fraction"] = table["model"].map(lambda name: by_name[name].kept)
    table["reference"] = np.where(table["reference"] == FULL, "the full set", "random pruning at equal size")
    unit = "points" if scores.unit == 100 else "nats a token"
    return Evidence(level, task, metric, margin, policy, _scores_table(level, models, drawn, seeds, metric),
                    judge(table.drop(columns="model"), margin, unit))


def _scores_table(level: str, models: Sequence[Arm], drawn: Draws, seeds: Sequence[int], metric: str) -> pd.DataFrame:
    """A row a model and language with the mean over the seeds and its interval, and one a seed without."""
    scores, n = drawn.scores, models[0].keep.shape[1]
    means = drawn.table()
    by_name = {arm.name: arm for arm in models}
    found = [(row.model, None, row.language, by_name[row.model].keep.sum(axis=1).mean(), row.value, row.low, row.high)
             for row in means.itertuples()]
    for place, seed in enumerate(seeds):
        wide = pd.DataFrame(scores.values[:, place].T * scores.unit, columns=list(scores.models)).groupby(scores.languages).mean()
        wide.loc[MEAN] = wide.mean()
        found += [(name, seed, language, by_name[name].keep[place].sum(), value, np.nan, np.nan)
                  for name in scores.models for language, value in wide[name].items()]
    table = pd.DataFrame(found, columns=["model", "seed", "language", "n_train", "value", "low", "high"])
    table["policy"] = table["model"].map(lambda name: by_name[name].policy)
    table["asked"] = table["model"].map(lambda name: by_name[name].asked).astype(float)
    table["seed"], table["n_train"] = table["seed"].astype("Int64"), table["n_train"].round().astype("int64")
    table = table.assign(level=level, metric=metric, kept_fraction=table["n_train"] / n)
    keys = ["policy", "asked", "n_train", "seed", "language"]  # controls of equal size are one and the same
    return table.drop_duplicates(keys)[EVIDENCE.names].reset_index(drop=True)


def probe_evidence(task: Task, vectors: np.ndarray, policies: Sequence[str], fractions: Sequence[float], seeds: Sequence[int],
                   plan: Plan, margin: float, policy: str, draws: int = 2000, progress: Callable[[list], Any] = list) -> Evidence:
    """Level (a) from end to end: probes on frozen vectors (n, d), accuracy in points."""
    strength = choose_strength(vectors, task.target, task.train_rows, task.contents)
    models = arms(task.content, list(dict.fromkeys([policy, *policies])), fractions, seeds, plan)
    scores = measure(task, models, seeds, lambda rows, _: right(vectors, task.target, rows, task.test_rows, strength),
                     progress=progress)
    return weigh("a", task.name, models, scores, seeds, margin, policy, draws=draws)


def write_evidence(folder: Path, found: Sequence[Evidence]) -> None:
    """Write `evidence.parquet` and `evidence_verdict.json` into a folder, each whole or not at all."""
    write_frame(Path(folder) / "evidence.parquet", pd.concat([one.table for one in found], ignore_index=True), EVIDENCE)
    with atomic_path(Path(folder) / "evidence_verdict.json") as temporary:
        temporary.write_text(json.dumps([one.summary() for one in found], ensure_ascii=False, indent=1), encoding="utf-8")
