"""The policies: which rows of each group stay.

What every policy but the control keeps to: duplicates go before it chooses, protected rows stay, and in each group every other
row is kept or said, with at least the plan's least probability, by a kept row. Rows are chosen one a group and round until that
holds; two chosen rows never say each other, so that pruning what was pruned changes nothing.

A policy returns the rows to keep and the order of preference in which rows would be given up for a budget.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from ultralink_nb.budgets import Budgets, meet, read_budgets, within
from ultralink_nb.content import BadPlan, Content, Plan, first_of_each

Choice = tuple[np.ndarray, np.ndarray]  # (n,) bool, rows to keep; (n,) numbers, smaller for rows that are preferred


def _uncovered(content: Content, plan: Plan, keep: np.ndarray) -> np.ndarray:
    """(n,) bool: rows, no duplicates, that are neither kept nor said by a kept row."""
    open_ = ~content.duplicate & ~keep
    if plan.floor <= 0:
        return open_ & ~np.isin(content.group, content.group[keep])
    loud = content.voices(keep)[1]
    reach = loud.copy()
    np.maximum.at(reach, content.there, content.probability * loud[content.here])
    return open_ & (reach < plan.floor)


def _cover(
    content: Content, plan: Plan, keep: np.ndarray, prefer: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Add rows until none is uncovered: in each round, of each group, the row with the least number of `prefer(rows, kept)`."""
    keep, left = keep.copy(), _uncovered(content, plan, keep)
    strong = np.flatnonzero(content.probability >= plan.floor)
    here, there = content.here[strong], content.there[strong]
    while left.any():
        near = left[here] & left[there]
        here, there = here[near], there[near]
        linked = np.zeros(len(content), dtype=bool)
        linked[here] = True
        if plan.floor > 0:  # what no other uncovered row says has to stay
            keep |= left & ~linked
            left &= linked
        rows = np.flatnonzero(left)
        rows = rows[np.lexsort((content.rank[rows], prefer(rows, keep), content.group[rows]))]
        best = rows[first_of_each(content.group[rows])]
        keep[best], left[best] = True, False
        left[there[np.isin(here, best)]] = False
        if plan.floor <= 0:
            break
    return keep


def _widest(options: dict[int, int], says: dict[int, set[int]]) -> list[int]:
    reach = {row: len(says.get(row, set()) & options.keys()) for row in options}
    most = max(reach.values())
    return [row for row in options if reach[row] == most]


def balanced(content: Content, plan: Plan, budgets: Budgets) -> Choice:
    """One row a group, each in the language that so far has least of the row's kind; groups with least choice first.

    Where rows of a group do not all say each other, only those are looked at that say the most others.
    """
    keep, draw = content.protected(plan), content.draw(plan.seed)
    left = _uncovered(content, plan, keep)
    strong = (content.probability >= plan.floor) & left[content.here] & left[content.there]
    here, there = content.here[strong], content.there[strong]
    links = np.bincount(here, minlength=len(content))
    if plan.floor > 0:
        keep = keep | left & (links == 0)
        left &= links > 0
    rows = np.flatnonzero(left)
    rows = rows[np.lexsort((content.rank[rows], draw[rows], content.group[rows]))]
    begin = np.append(first_of_each(content.group[rows]), len(rows))
    size = np.diff(begin)
    complete = np.add.reduceat(links[rows], begin[:-1]) == size * (size - 1) if len(rows) else size > 0
    complete |= plan.floor <= 0
    says: dict[int, set[int]] = {}
    torn = np.isin(here, rows[np.repeat(~complete, size)])
    for a, b in zip(here[torn].tolist(), there[torn].tolist(), strict=True):
        says.setdefault(a, set()).add(b)

    cells, of_cell = content.cell, budgets.of_cell
    load = np.bincount(cells[keep], minlength=budgets.member.shape[1]).tolist()
    room = (budgets.most - budgets.used(cells[keep])).tolist()
    members, cell_of = rows.tolist(), cells[rows].tolist()
    chosen = []
    for g in np.lexsort((content.rank[rows[begin[:-1]]], draw[rows[begin[:-1]]], size)).tolist():
        options = dict(zip(members[begin[g] : begin[g + 1]], cell_of[begin[g] : begin[g + 1]], strict=True))
        while options:
            widest = options if complete[g] else _widest(options, says)
            row = min(widest, key=lambda x: (any(room[b] <= 0 for b in of_cell[options[x]]), load[options[x]]))
            chosen.append(row)
            load[options[row]] += 1
            for b in of_cell[options[row]]:
                room[b] -= 1
            options = {} if complete[g] else {x: cell for x, cell in options.items() if x != row and x not in says.get(row, ())}
    keep[chosen] = True
    return keep, draw


def paper(content: Content, plan: Plan, budgets: Budgets) -> Choice:
    """The source language in full; of every row said elsewhere a sampled quota; of a group without either at least one row."""
    draw, single = content.draw(plan.seed), ~content.duplicate
    source = np.array([name == plan.source_language for name in content.languages], dtype=bool)[content.language]
    several = np.bincount(content.group[single], minlength=content.groups)[content.group] > 1
    keep = content.protected(plan) | (single & (source | (several & (draw < plan.quota))))
    return _cover(content, plan, keep, lambda rows, kept: draw[rows]), draw - source


def by_language(content: Content, plan: Plan, budgets: Budgets) -> Choice:
    """The row whose language comes first in the given order; languages not named come last, by name."""
    named = {name: place for place, name in enumerate(plan.language_order)}
    place = np.array([named.get(name, len(named) + code) for code, name in enumerate(content.languages)], dtype=float)
    order = place[content.language]
    return _cover(content, plan, content.protected(plan), lambda rows, kept: order[rows]), order + content.draw(plan.seed) / 2


def by_quality(content: Content, plan: Plan, budgets: Budgets) -> Choice:
    """The row that ranks highest in `quality` among the rows of its language, duplicates aside (see `pruning.quality_of`)."""
    if content.quality is None:
        raise BadPlan("policy by_quality needs a column quality in the rows, higher for better: see pruning.quality_of")
    ranks = pd.Series(content.quality).where(~content.duplicate).groupby(content.language).rank(pct=True)
    order = 1 - ranks.fillna(0).to_numpy()
    return _cover(content, plan, content.protected(plan), lambda rows, kept: order[rows]), order


def _weights(content: Content, keep: np.ndarray) -> np.ndarray:
    """(n,) how much content a row stands for: itself and, by their similarity, the duplicates that are not kept themselves."""
    lost = np.flatnonzero(content.duplicate & ~keep)
    return np.where(content.duplicate, 0.0, 1 + np.bincount(content.stands[lost], content.similarity[lost], len(content)))


def coverage(content: Content, plan: Plan, budgets: Budgets) -> Choice:
    """Facility location: maximise the sum over rows of their probability of being said by a kept row, under the budget.

    First each group's row that covers the group best, then, while the budget lasts, the row that adds most. The greedy choice
    (Nemhauser, Wolsey & Fisher 1978) is within 1 - 1/e of the best; since rows say each other within groups only, the gains of
    a group do not depend on other groups, so that it is each group's own greedy order, merged by gain.
    """
    keep = content.protected(plan)
    weight = _weights(content, keep)
    order = np.ones(len(content))

    def gain(rows: np.ndarray, kept: np.ndarray) -> np.ndarray:
        said = content.said(kept)
        more = weight[content.there] * np.maximum(0, content.probability - said[content.there])
        return np.round((weight * (1 - said) + np.bincount(content.here, more, len(content)))[rows], 6)

    if not (plan.allow_loss and plan.budget is not None):
        kept = _cover(content, plan, keep, lambda rows, kept: -gain(rows, kept))
        first = np.flatnonzero(kept & ~keep)
        order[first] = -gain(first, keep)
        keep = kept
    room = int(round((plan.budget or 0) * len(content))) - int(keep.sum())
    if room > 0:
        rows, gains = _greedy(content, weight, keep)
        order[rows] = -gains
        keep = keep.copy()
        keep[within(budgets, content, keep, rows, room)] = True
    return keep, order


def _greedy(content: Content, weight: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are not kept, no duplicates, in the order in which facility location adds them, and what each adds."""
    said, left = content.said(keep).astype(float), ~content.duplicate & ~keep
    here, there, probability = content.here, content.there, content.probability
    last = np.full(content.groups, np.inf)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    while left.any():
        useful = left[here] & (probability > said[there])
        here, there, probability = here[useful], there[useful], probability[useful]
        adds = np.bincount(here, weight[there] * (probability - said[there]), len(content))
        gains = np.round(weight * (1 - said) + adds, 6)
        linked = np.zeros(len(content), dtype=bool)
        linked[here] = linked[there] = True
        rows = np.flatnonzero(left & ~linked)  # what these add will not change any more
        found.append((rows, gains[rows]))
        left &= linked
        rows = np.flatnonzero(left)
        rows = rows[np.lexsort((content.rank[rows], -gains[rows], content.group[rows]))]
        best = rows[first_of_each(content.group[rows])]
        last[content.group[best]] = np.minimum(last[content.group[best]], gains[best])
        found.append((best, last[content.group[best]]))
        said[best], left[best] = 1, False
        taken = np.isin(here, best)
        np.maximum.at(said, there[taken], probability[taken].astype(float))
    rows, gains = (np.concatenate([part[side] for part in found]) for side in (0, 1)) if found else (np.zeros(0, int),) * 2
    step = np.repeat(np.arange(len(found)), [len(part[0]) for part in found]) if found else rows
    order = np.lexsort((content.rank[rows], step, -gains))
    return rows[order], gains[order]


def random(content: Content, plan: Plan, budgets: Budgets) -> Choice:
    """The control: as many rows as `balanced` keeps, or the budget, drawn without looking at groups. Content may be lost."""
    draw, keep = content.draw(plan.seed), content.protected(plan)
    if plan.budget is not None:
        size = int(round(plan.budget * len(content)))
    else:
        size = int(meet(budgets, content, plan, *balanced(content, plan, budgets)).sum())
    free = np.flatnonzero(~keep & ~content.duplicate)
    free = free[np.lexsort((content.rank[free], draw[free]))]
    keep[within(budgets, content, keep, free, size - int(keep.sum()))] = True
    return keep, draw


POLICIES: dict[str, Callable[[Content, Plan, Budgets], Choice]] = {
    "balanced": balanced, "paper": paper, "by_language": by_language, "by_quality": by_quality, "coverage": coverage,
    "random": random,
}


def choose(content: Content, policy: str, plan: Plan) -> tuple[np.ndarray, Budgets]:
    """Rows to keep, (n,) bool, by a policy within the budgets of the plan. Raises `BadPlan` for an unknown policy."""
    if policy not in POLICIES:
        raise BadPlan(f"unknown policy {policy!r}: the kit has {', '.join(POLICIES)}")
    budgets = read_budgets(content, plan)
    keep, order = POLICIES[policy](content, plan, budgets)
    return (keep if policy == "random" else meet(budgets, content, plan, keep, order)), budgets
