"""Which rows stay, what stands for each row that goes, and how the policies compare.

What every policy but the control keeps to: each group keeps a row, a protected kind loses nothing, kept + dropped = input, the
same seed gives the same result whatever the order of the rows, and every dropped row names the row that stands for it. Budgets
are met unless that would break one of these (`Pruned.over_budget` says where), or else `Plan.allow_loss` lets content go.

The paper (Section 3.2) prunes language-agnostic data because LLMs transfer what they learn across languages; it samples its
translations per language. Policy `paper` does that and stands beside the others in every comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ultralink_nb.budgets import over_budget
from ultralink_nb.content import BadPlan, Content, Plan, arrange, first_of_each
from ultralink_nb.policies import POLICIES, choose

__all__ = ["POLICIES", "BadPlan", "Plan", "Pruned", "compare", "coverage_curve", "coverage_kept", "drops_against_truth",
           "evenness", "prune", "quality_of"]


@dataclass(frozen=True)
class Pruned:
    """The outcome for n rows.

    ids: (n,) in the order of the input. keep: (n,) bool. dropped: id, kept_by, probability (that kept_by has the same content,
    in [0, 1]), policy, reason, position (row number in the input), in the order of the input; kept_by is empty where nothing
    says the row any more. over_budget: budget, allowed, kept, over, protected; empty where every budget is met.
    """

    ids: pd.Series
    keep: np.ndarray
    dropped: pd.DataFrame
    over_budget: pd.DataFrame

    @property
    def kept(self) -> list[str]:
        """The ids that stay, in the order of the input."""
        return self.ids[self.keep].tolist()


def prune(
    rows: pd.DataFrame, groups: pd.DataFrame, pairs: pd.DataFrame, policy: str = "balanced", plan: Plan | None = None,
    duplicates: pd.DataFrame | None = None,
) -> Pruned:
    """Apply a policy to rows whose groups are known.

    rows: id, language, kind, and quality for `by_quality`. groups: id, group, perhaps duplicate_of (see
    `grouping.group_pairs`). pairs: left, right (row numbers), probability. duplicates: adds to the ledger how and how similar.
    Duplicates go first, under every policy, unless their kind is protected. Raises `BadPlan` for an unknown policy or budget or
    if rows and groups do not hold the same ids.
    """
    plan = plan or Plan()
    return _prune(arrange(rows, groups, pairs, duplicates), policy, plan)


def _prune(content: Content, policy: str, plan: Plan) -> Pruned:
    keep, budgets = choose(content, policy, plan)
    return Pruned(content.ids, keep, _ledger(content, keep, policy), over_budget(budgets, content, plan, keep))


def _stand_ins(content: Content, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each dropped row the kept row that most probably says the same, and how probably.

    A duplicate has the stand-in of its row, a row its own kept duplicate; without a known probability (NaN) any kept row of the
    group, the first by id; -1 where the group keeps none.
    """
    voice, loud = content.voices(keep)
    best, who = loud.copy(), voice.copy()
    near = np.flatnonzero((voice[content.there] >= 0) & ~keep[content.here])
    here, other = content.here[near], voice[content.there[near]]
    probability = content.probability[near] * loud[content.there[near]]
    order = np.lexsort((-content.rank[other], probability))  # of several the last is written
    most, whose = np.zeros_like(best), np.full_like(who, -1)
    most[here[order]], whose[here[order]] = probability[order], other[order]
    better = most > best
    best[better], who[better] = most[better], whose[better]
    kept = np.flatnonzero(keep)
    kept = kept[np.lexsort((content.rank[kept], content.group[kept]))]
    any_kept = np.full(content.groups, -1)
    first = kept[first_of_each(content.group[kept])]
    any_kept[content.group[first]] = first
    unknown = who < 0
    best[unknown], who[unknown] = np.nan, any_kept[content.group[unknown]]
    return who[content.stands], best[content.stands] * content.similarity


def _ledger(content: Content, keep: np.ndarray, policy: str) -> pd.DataFrame:
    who, probability = _stand_ins(content, keep)
    dropped = np.flatnonzero(~keep)
    ids, who, stands = content.ids.to_numpy(dtype=object), who[dropped], content.stands[dropped]
    names = np.where(who >= 0, ids[who], None) if len(ids) else ids
    lost = "drawn by the random control" if policy == "random" else "over a budget"
    chance = probability[dropped]
    reasons = []
    for row, stand, other, name, p, how in zip(dropped.tolist(), stands.tolist(), who.tolist(), names, chance.tolist(),
                                               content.how[dropped], strict=True):
        same = f"{name} says the same" + (f" (p = {p:.2f})" if p == p else "")
        if other < 0:
            reasons.append(f"{lost}; no row says it any more")
        elif stand != row:
            reasons.append(f"{how} duplicate of {ids[stand]}".lstrip() + ("" if other == stand else f"; {same}"))
        else:
            reasons.append(f"{lost}; {same}" if policy == "random" else f"says the same as {name}" + same[len(name) + 14 :])
    return pd.DataFrame({
        "id": content.ids.iloc[dropped].reset_index(drop=True), "kept_by": pd.array(names, dtype="str"), "probability": chance,
        "policy": pd.array([policy] * len(dropped), dtype="str"), "reason": pd.array(reasons, dtype="str"), "position": dropped,
    })


def quality_of(sample: Mapping[str, Any]) -> float:
    """A number to prefer one wording of the same content by: the characters that the sample's answers have.

    A translation that was cut short loses against a whole one. Chinese says the same in about a third of the characters, so
    `by_quality` compares ranks within a language, not lengths across languages.
    """
    return float(sum(len(message["content"]) for message in sample["messages"] if message["role"] == "assistant"))


def _measures(content: Content, pruned: Pruned) -> dict[str, float]:
    keep, n = pruned.keep, max(1, len(content))
    return {
        "rows kept": int(keep.sum()), "share kept": float(keep.sum() / n),
        "contents kept": float(len(np.unique(content.group[keep])) / content.groups) if content.groups else 1.0,
        "coverage": float(content.said(keep).mean()) if len(content) else 1.0,
        "evenness": _evenness(np.bincount(content.language[keep], minlength=len(content.languages))),
        "drops expected wrong": float((1 - pruned.dropped["probability"].fillna(0)).sum()),
    }


def compare(
    rows: pd.DataFrame, groups: pd.DataFrame, pairs: pd.DataFrame, plan: Plan | None = None,
    policies: Sequence[str] | None = None, duplicates: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The policies side by side under one plan, one row a policy; without a column quality, `by_quality` is left out.

    rows kept, share kept; contents kept: share of the groups that keep a row; coverage: mean over all rows of the highest
    probability with which a kept row says the same (facility location, in [0, 1]); evenness: see `evenness`; drops expected
    wrong: sum of 1 - p over the dropped rows, with p = 0 where no probability is known.
    """
    content, plan = arrange(rows, groups, pairs, duplicates), plan or Plan()
    chosen = policies or [name for name in POLICIES if name != "by_quality" or content.quality is not None]
    return pd.DataFrame([{"policy": name, **_measures(content, _prune(content, name, plan))} for name in chosen])


def coverage_curve(
    rows: pd.DataFrame, groups: pd.DataFrame, pairs: pd.DataFrame, plan: Plan | None = None,
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    policies: Sequence[str] = ("coverage", "random", "paper"), duplicates: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What survives at each share of rows kept: policy, share asked, and the columns of `compare`; equal points are given once.

    `paper` has no budget of its own: its quota is set so that it keeps about the share that is asked. Where a share is less
    than one row a content, every policy but `random` keeps more, unless the plan allows loss.
    """
    content, plan = arrange(rows, groups, pairs, duplicates), plan or Plan()
    free = replace(plan, budget=None)
    table = []
    for name in policies:
        ends = [choose(content, name, replace(free, quota=quota))[0].mean() for quota in (0.0, 1.0)] if name == "paper" else []
        for share in shares:
            asked = replace(plan, budget=share)
            if name == "paper":
                quota = float(np.clip((share - ends[0]) / max(1e-9, ends[1] - ends[0]), 0, 1))
                asked = replace(asked if plan.allow_loss else free, quota=quota)
            table.append({"policy": name, "share asked": share, **_measures(content, _prune(content, name, asked))})
    columns = [column for column in table[0] if column != "share asked"] if table else None
    return pd.DataFrame(table).drop_duplicates(columns, ignore_index=True)


def coverage_kept(groups: pd.DataFrame, kept: Sequence[str]) -> float:
    """Share of all groups of which at least one row is kept, in [0, 1]: how much of the content is still said."""
    if not len(groups):
        return 1.0
    return float(groups["id"].isin(set(kept)).groupby(groups["group"]).any().mean())


def _evenness(counts: np.ndarray) -> float:
    share = counts[counts > 0] / max(1, counts.sum())
    return float(-(share * np.log(share)).sum() / np.log(len(counts))) if len(counts) > 1 else 1.0


def evenness(languages: Sequence[str], keep: np.ndarray) -> float:
    """How evenly the kept rows spread over the languages of the input: entropy of their shares over its maximum, in [0, 1].

    languages: (n,) codes of all rows; keep: (n,) bool.
    """
    codes, names = pd.factorize(np.asarray(languages, dtype=object))
    return _evenness(np.bincount(codes[keep], minlength=len(names)))


def drops_against_truth(dropped: pd.DataFrame, truth: Mapping[str, str]) -> dict[str, float]:
    """How right the drops are, where `truth` gives each id of the input a value that is equal for rows of the same content.

    precision: share of the dropped rows whose stand-in has the same content; recall: of the rows that repeat another one, the
    share that was dropped rightly.
    """
    right = int((dropped["id"].map(truth) == dropped["kept_by"].map(truth)).sum())
    repeated = len(truth) - len(set(truth.values()))
    return {"repeated rows": repeated, "dropped": len(dropped), "right": right,
            "precision": right / max(1, len(dropped)), "recall": right / max(1, repeated)}
