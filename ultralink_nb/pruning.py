"""Which rows stay: policies over groups of the same content.

What every policy but the control keeps to: each group keeps a row, a protected kind loses nothing, kept + dropped = input, the
same seed gives the same result whatever the order of the rows, and every dropped row names the row that stands for it.

The paper (Section 3.2) prunes language-agnostic data because LLMs transfer what they learn across languages; it samples its
translations per language. Policy `paper` does that; the others choose by content.
"""

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

Rows = list[dict]


@dataclass(frozen=True)
class Plan:
    """What a policy may look at, besides the rows of a group.

    seed: of every random choice; source_language and quota: for `paper`; language_order: for `by_language`; budget: the share of
    all rows to keep, for `coverage` and `random` (None: as few as keep everything); protected: kinds that lose nothing.
    """

    seed: int = 1
    source_language: str = "en"
    quota: float = 0.1
    language_order: Sequence[str] = ()
    budget: float | None = None
    protected: frozenset[str] = frozenset({"chat_specific"})
    similar: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pruned:
    """The outcome: ids kept and rows of the dropped table, both in the order of the input."""

    kept: list[str]
    dropped: Rows


def _draw(seed: int, name: str) -> float:
    """A number in [0, 1) that depends on the seed and the name alone, so that the order of rows cannot matter."""
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _name(group: Rows) -> str:
    return min(row["id"] for row in group)


def _protected_or(choose: Callable[[Rows, Plan], set[str]]) -> Callable[[list[Rows], Plan], set[str]]:
    """A policy from a choice within one group: protected rows stay, and where there are any, nothing else has to."""

    def policy(groups: list[Rows], plan: Plan) -> set[str]:
        kept: set[str] = set()
        for group in groups:
            own = {row["id"] for row in group if row["kind"] in plan.protected}
            kept |= own or choose(group, plan)
        return kept

    return policy


def _balanced(groups: list[Rows], plan: Plan) -> set[str]:
    """One row a group, each in the language that so far has least of the row's kind; groups with least choice first."""
    count: dict[tuple[str, str], int] = defaultdict(int)
    kept: set[str] = set()
    open_groups = []
    for group in groups:
        own = [row for row in group if row["kind"] in plan.protected]
        if own or len(group) == 1:
            for row in own or group:
                kept.add(row["id"])
                count[row["kind"], row["language"]] += 1
        else:
            open_groups.append(group)
    for group in sorted(open_groups, key=lambda rows: (len(rows), _draw(plan.seed, _name(rows)), _name(rows))):
        best = min(group, key=lambda row: (count[row["kind"], row["language"]], _draw(plan.seed, row["id"]), row["id"]))
        kept.add(best["id"])
        count[best["kind"], best["language"]] += 1
    return kept


def _paper(groups: list[Rows], plan: Plan) -> set[str]:
    """The source language in full; of every other row a sampled quota; of a group without a source row at least one."""
    kept: set[str] = set()
    for group in groups:
        chosen = {
            row["id"] for row in group
            if row["kind"] in plan.protected or row["language"] == plan.source_language
            or (len(group) > 1 and _draw(plan.seed, row["id"]) < plan.quota)
        }
        kept |= chosen or {min(group, key=lambda row: (_draw(plan.seed, row["id"]), row["id"]))["id"]}
    return kept


def _by_language(group: Rows, plan: Plan) -> set[str]:
    """The row whose language comes first in the given order; languages not named come last."""
    rank = {code: position for position, code in enumerate(plan.language_order)}
    return {min(group, key=lambda row: (rank.get(row["language"], len(rank)), row["language"], row["id"]))["id"]}


def _by_quality(group: Rows, plan: Plan) -> set[str]:
    """The row of the highest `quality` (a number; see `quality_of`)."""
    return {min(group, key=lambda row: (-row["quality"], row["id"]))["id"]}


def _coverage(groups: list[Rows], plan: Plan) -> set[str]:
    """Facility location: maximise the sum over rows of their probability of being said by a kept row, under the budget.

    First each group's row that covers the group best, then, while the budget lasts, the row that adds most (greedy, with the
    lazy bounds of Minoux 1978: a gain can only shrink as rows are added).
    """
    similar = plan.similar
    kept: set[str] = set()
    for group in groups:
        own = {row["id"] for row in group if row["kind"] in plan.protected}
        ids = [row["id"] for row in group]
        best = min(ids, key=lambda x: (-round(sum(similar.get(x, {}).get(y, 0.0) for y in ids), 6), x))
        kept |= own or {best}
    ids = [row["id"] for group in groups for row in group]
    room = int(round((plan.budget or 0) * len(ids))) - len(kept)
    covered = {x: 1.0 if x in kept else max((p for y, p in similar.get(x, {}).items() if y in kept), default=0.0) for x in ids}

    def gain(x: str) -> float:
        return 1 - covered[x] + sum(max(0.0, p - covered.get(y, 1.0)) for y, p in similar.get(x, {}).items())

    heap = [(-gain(x), x) for x in ids if x not in kept] if room > 0 else []
    heapq.heapify(heap)
    while room > 0 and heap:
        bound, x = heapq.heappop(heap)
        now = gain(x)
        if heap and now < -heap[0][0] - 1e-12:
            heapq.heappush(heap, (-now, x))
            continue
        kept.add(x)
        room -= 1
        covered[x] = 1.0
        for y, p in similar.get(x, {}).items():
            covered[y] = max(covered.get(y, 1.0), p)
    return kept


def _random(groups: list[Rows], plan: Plan) -> set[str]:
    """The control: as many rows as `balanced` keeps, drawn without looking at groups. Content may be lost; that is its point."""
    rows = [row for group in groups for row in group]
    own = {row["id"] for row in rows if row["kind"] in plan.protected}
    free = sorted((row["id"] for row in rows if row["id"] not in own), key=lambda x: (_draw(plan.seed, x), x))
    size = len(_balanced(groups, plan)) if plan.budget is None else int(round(plan.budget * len(rows)))
    return own | set(free[: max(0, size - len(own))])


POLICIES: dict[str, Callable[[list[Rows], Plan], set[str]]] = {
    "balanced": _balanced, "paper": _paper, "by_language": _protected_or(_by_language),
    "by_quality": _protected_or(_by_quality), "coverage": _coverage, "random": _random,
}


def quality_of(sample: Mapping[str, Any]) -> float:
    """A number to prefer one wording of the same content by: the characters that the sample's answers have.

    A translation that was cut short loses against a whole one. Chinese says the same in about a third of the characters, so
    `by_quality` compares ranks within a language (`prune` does that), not lengths across languages.
    """
    return float(sum(len(message["content"]) for message in sample["messages"] if message["role"] == "assistant"))


def prune(
    samples: Sequence[Mapping[str, Any]], groups: pd.DataFrame, pairs: pd.DataFrame, policy: str, plan: Plan | None = None
) -> Pruned:
    """Apply a policy to samples whose `groups` (id, group) are known; `pairs` gives the probabilities between rows.

    Raises ValueError for an unknown policy or if samples and groups do not hold the same ids.
    """
    if policy not in POLICIES:
        raise ValueError(f"unknown policy {policy!r}: the kit has {', '.join(POLICIES)}")
    group_of = dict(zip(groups["id"], groups["group"], strict=True))
    ids = [sample["id"] for sample in samples]
    if set(ids) != set(group_of) or len(ids) != len(group_of):
        odd = sorted(set(ids) ^ set(group_of))
        raise ValueError(f"samples and groups do not hold the same ids ({odd[:3] or 'one occurs twice'}): run notebook 04 again")
    rank = pd.Series([quality_of(sample) for sample in samples]).groupby([s["language"] for s in samples]).rank(pct=True)
    rows_of: dict[int, Rows] = defaultdict(list)
    for sample, quality in zip(samples, rank, strict=True):
        row = {"id": sample["id"], "language": sample["language"], "kind": sample["kind"], "quality": quality}
        rows_of[group_of[sample["id"]]].append(row)
    similar = _similar(pairs, group_of)
    plan = Plan(**{**vars(plan or Plan()), "similar": similar})
    kept = POLICIES[policy]([rows_of[name] for name in sorted(rows_of)], plan)
    dropped = [
        _dropped_row(x, [row["id"] for row in rows_of[group_of[x]] if row["id"] in kept], similar.get(x, {}), policy)
        for x in ids if x not in kept
    ]
    return Pruned([x for x in ids if x in kept], dropped)


def _similar(pairs: pd.DataFrame, group_of: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Probabilities between rows of one group, both directions."""
    similar: dict[str, dict[str, float]] = defaultdict(dict)
    same = pairs["left_id"].map(group_of).to_numpy() == pairs["right_id"].map(group_of).to_numpy()
    inner = pairs[same]
    for a, b, p in zip(inner["left_id"], inner["right_id"], inner["probability"].astype(float), strict=True):
        similar[a][b] = similar[b][a] = p
    return similar


def _dropped_row(row: str, keepers: list[str], similar: Mapping[str, float], policy: str) -> dict:
    if not keepers:
        return {"id": row, "kept_by": None, "probability": None, "policy": policy,
                "reason": "drawn by the random control; no row says it any more"}
    best = min(keepers, key=lambda other: (-similar.get(other, 0.0), other))
    probability = similar.get(best)
    return {"id": row, "kept_by": best, "probability": probability, "policy": policy,
            "reason": f"says the same as {best}" + (f" (p = {probability:.2f})" if probability is not None else "")}


def coverage_kept(groups: pd.DataFrame, kept: Sequence[str]) -> float:
    """Share of all groups of which at least one row is kept, in [0, 1]: how much of the content is still said."""
    if not len(groups):
        return 1.0
    return float(groups["id"].isin(set(kept)).groupby(groups["group"]).any().mean())


def evenness(languages: Sequence[str], ids: Sequence[str], kept: Sequence[str]) -> float:
    """How evenly the kept rows spread over the languages of the input: entropy of their shares over its maximum, in [0, 1]."""
    chosen = set(kept)
    spoken = pd.Series([language for language, row in zip(languages, ids, strict=True) if row in chosen])
    share = spoken.value_counts(normalize=True)
    number = len(set(languages))
    return float(-(share * np.log(share)).sum() / np.log(number)) if number > 1 else 1.0


def drops_against_truth(dropped: Rows, truth: Mapping[str, str]) -> dict[str, float]:
    """How right the drops are, where `truth` gives each id a value that is equal for rows of the same content.

    precision: share of the dropped rows whose stand-in has the same content; recall: of the rows that repeat another one, the
    share that was dropped rightly.
    """
    right = sum(truth[row["id"]] == truth.get(row["kept_by"]) for row in dropped)
    repeated = len(truth) - len(set(truth.values()))
    return {"repeated rows": repeated, "dropped": len(dropped), "right": right,
            "precision": right / max(1, len(dropped)), "recall": right / max(1, repeated)}
