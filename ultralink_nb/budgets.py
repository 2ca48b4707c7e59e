"""Budgets: most rows to keep of a language, a kind, both, or all.

A cell is a kind in a language; a budget holds over some of the cells. `meet` changes what a policy chose as little as it can:
what other kept rows say anyway goes first; then contents move to rows of other cells along augmenting paths (Ford & Fulkerson
1956), so that budgets of languages and cells are met wherever any choice of rows meets them while each content is said once.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ultralink_nb.content import BadPlan, Content, Plan, first_of_each


@dataclass(frozen=True)
class Budgets:
    """B budgets over the C cells: names, most rows of each (B,), member (B, C) bool, of_cell: the budgets of each cell."""

    names: list[str]
    most: np.ndarray
    member: np.ndarray

    @property
    def of_cell(self) -> list[list[int]]:
        return [np.flatnonzero(column).tolist() for column in self.member.T]

    def used(self, cells: np.ndarray) -> np.ndarray:
        """Rows that each budget has to pay for, where `cells` are those of the kept rows."""
        return self.member @ np.bincount(cells, minlength=self.member.shape[1])


def _most(name: str, value: float, size: int) -> int:
    """Share or count as a count. Papermill turns 1e6 into a float, so a whole float above 1 is a count too."""
    number = float(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else -1.0
    if not number >= 0 or (number > 1 and not number.is_integer()):
        raise BadPlan(f"the budget {value!r} of {name!r} is neither a share in [0, 1] nor a whole number of rows")
    return int(number) if number > 1 or isinstance(value, int | np.integer) else int(round(number * size))


def read_budgets(content: Content, plan: Plan) -> Budgets:
    """The plan's budgets as counts. Raises `BadPlan` for a name that is no language, kind or language/kind of the rows."""
    languages, kinds = content.languages, content.kinds
    code = np.arange(len(languages) * len(kinds))
    cells = {f"{language}/{kind}": code == k * len(languages) + a
             for a, language in enumerate(languages) for k, kind in enumerate(kinds)}
    cells |= {kind: code // max(1, len(languages)) == k for k, kind in enumerate(kinds)}
    cells |= {language: code % len(languages) == a for a, language in enumerate(languages)}
    sizes = np.bincount(content.cell, minlength=len(code))
    names, most, member = [], [], []
    if plan.budget is not None:
        if not 0 <= plan.budget <= 1:
            raise BadPlan(f"budget is a share of all rows, 0 to 1, and not {plan.budget!r}")
        names, most, member = ["all"], [int(round(plan.budget * len(content)))], [np.ones(len(code), dtype=bool)]
    for name, value in plan.budgets.items():
        if name not in cells or (name in languages and name in kinds):
            raise BadPlan(f"budgets names {name!r}, which is not one language, kind or language/kind of these rows "
                          f"(languages {', '.join(languages)}; kinds {', '.join(kinds)})")
        names.append(name)
        member.append(cells[name])
        most.append(_most(name, value, int(sizes[cells[name]].sum())))
    return Budgets(names, np.array(most, dtype=np.int64), np.array(member, dtype=bool).reshape(len(names), len(code)))


def within(budgets: Budgets, content: Content, keep: np.ndarray, candidates: Iterable[int], room: int) -> np.ndarray:
    """Of the candidates, in their order, those that still fit into every budget beside the kept rows, at most `room`."""
    candidates = np.asarray(candidates, dtype=np.int64)
    cells, of_cell = content.cell, budgets.of_cell
    left = budgets.most - budgets.used(cells[keep])
    overall = budgets.member.all(axis=1)
    room = max(0, int(left[overall].min(initial=room)))
    if overall.all():
        return candidates[:room]
    left = left.tolist()
    chosen: list[int] = []
    for row, cell in zip(candidates.tolist(), cells[candidates].tolist(), strict=True):
        if len(chosen) >= room:
            break
        if all(left[b] > 0 for b in of_cell[cell]):
            chosen.append(row)
            for b in of_cell[cell]:
                left[b] -= 1
    return np.array(chosen, dtype=np.int64)


def over_budget(budgets: Budgets, content: Content, plan: Plan, keep: np.ndarray) -> pd.DataFrame:
    """The budgets that are exceeded: budget, allowed, kept, over, and how many of the kept rows are protected."""
    used = budgets.used(content.cell[keep])
    guarded = budgets.used(content.cell[keep & content.protected(plan)])
    table = pd.DataFrame({"budget": pd.Series(budgets.names, dtype=str), "allowed": budgets.most, "kept": used,
                          "over": used - budgets.most, "protected": guarded})
    return table[table["over"] > 0].reset_index(drop=True)


def meet(budgets: Budgets, content: Content, plan: Plan, keep: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows to keep, (n,) bool, with the budgets met as far as the plan allows; order: rows that a policy prefers come first."""
    if not (budgets.used(content.cell[keep]) > budgets.most).any():
        return keep
    keep, place = keep.copy(), np.empty(len(content), dtype=np.int64)
    place[np.lexsort((content.rank, order))] = np.arange(len(content))
    _trim(budgets, content, plan, keep, place)
    _shift(budgets, content, plan, keep)
    if (budgets.used(content.cell[keep]) > budgets.most).any():  # rows that a policy keeps besides may stand in the way
        wanted = keep.copy()
        _trim(budgets, content, plan, keep, place, everywhere=True)
        besides = wanted & ~keep
        _shift(budgets, content, plan, keep)
        again = np.flatnonzero(besides & ~keep)
        keep[within(budgets, content, keep, again[np.argsort(place[again])], len(again))] = True
    if plan.allow_loss:
        _lose(budgets, content, keep & ~content.protected(plan), keep, place)
    return keep


def _strong(content: Content, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, both directions, sorted, of which either row may stand for the other; with a floor of 0 none is needed."""
    strong = np.flatnonzero(content.probability >= plan.floor)
    strong = strong[np.argsort(content.here[strong], kind="stable")]
    return content.here[strong], content.there[strong]


def _excess(budgets: Budgets, content: Content, keep: np.ndarray) -> tuple[list[int], list[list[int]]]:
    return (budgets.used(content.cell[keep]) - budgets.most).tolist(), budgets.of_cell


def _trim(
    budgets: Budgets, content: Content, plan: Plan, keep: np.ndarray, place: np.ndarray, everywhere: bool = False
) -> None:
    """Drop kept rows over a budget, the least preferred first, that another kept row says and that no dropped row needs."""
    here, there = _strong(content, plan)
    begin = np.searchsorted(here, np.arange(len(content) + 1))
    standing = np.bincount(there[keep[here]], minlength=len(content))
    in_group = np.bincount(content.group[keep], minlength=content.groups)
    excess, of_cell = _excess(budgets, content, keep)
    cells, loose = content.cell, plan.floor <= 0
    candidates = np.flatnonzero(keep & ~content.protected(plan) & (in_group[content.group] > 1))
    for row in candidates[np.argsort(-place[candidates])].tolist():
        if not everywhere and not any(excess[b] > 0 for b in of_cell[cells[row]]):
            continue
        near = there[begin[row] : begin[row + 1]]
        if in_group[content.group[row]] < 2 or not (loose or (standing[row] and (keep[near] | (standing[near] > 1)).all())):
            continue
        keep[row] = False
        standing[near] -= 1
        in_group[content.group[row]] -= 1
        for b in of_cell[cells[row]]:
            excess[b] -= 1


def _lose(budgets: Budgets, content: Content, loses: np.ndarray, keep: np.ndarray, place: np.ndarray) -> None:
    excess, of_cell = _excess(budgets, content, keep)
    candidates = np.flatnonzero(loses)
    for row, cell in zip(*(x[np.argsort(-place[candidates])].tolist() for x in (candidates, content.cell[candidates])),
                         strict=True):
        if any(excess[b] > 0 for b in of_cell[cell]):
            keep[row] = False
            for b in of_cell[cell]:
                excess[b] -= 1


def _alternatives(content: Content, plan: Plan, keep: np.ndarray) -> np.ndarray:
    """Rows of groups with a single kept row, unprotected, that could say alone what the group says, the kept row included."""
    in_group = np.bincount(content.group[keep], minlength=content.groups)
    held = np.zeros(len(in_group), dtype=bool)
    held[content.group[keep & (content.protected(plan) | content.duplicate)]] = True
    open_ = ~content.duplicate & (in_group[content.group] == 1) & ~held[content.group]
    size = np.bincount(content.group[open_], minlength=content.groups)[content.group]
    reached = np.bincount(_strong(content, plan)[0], minlength=len(content)) if plan.floor > 0 else size - 1
    return np.flatnonzero(open_ & (keep | (reached >= size - 1)))


def _shift(budgets: Budgets, content: Content, plan: Plan, keep: np.ndarray) -> None:
    """Let contents be said by rows of other cells, along paths from a cell that is over a budget to one with room."""
    rows, cells = _alternatives(content, plan, keep), content.cell
    rows = rows[np.lexsort((content.rank[rows], content.draw(plan.seed)[rows], ~keep[rows], cells[rows], content.group[rows]))]
    rows = rows[first_of_each(content.group[rows] * (cells.max(initial=0) + 1) + cells[rows])]  # a row a cell and group
    draw = content.draw(plan.seed)
    options: dict[int, list[int]] = defaultdict(list)
    cell_of = dict(zip(rows.tolist(), cells[rows].tolist(), strict=True))
    for row, group in zip(rows.tolist(), content.group[rows].tolist(), strict=True):
        options[group].append(row)
    at = {group: next(row for row in members if keep[row]) for group, members in options.items() if len(members) > 1}
    number = budgets.member.shape[1]
    free = np.zeros((number, number), dtype=np.int64)  # groups said in one cell that could be said in the other
    stack: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    load = np.bincount(cells[keep], minlength=number)
    excess = budgets.used(cells[keep]) - budgets.most

    def enter(group: int, sign: int) -> None:
        u = cell_of[at[group]]
        for row in options[group]:
            if (v := cell_of[row]) != u:
                free[u, v] += sign
                if sign > 0:
                    stack[u, v].append((group, row))

    for group in sorted(at, key=lambda g: (draw[at[g]], content.rank[at[g]])):
        enter(group, 1)
    while (excess > 0).any():
        found = next((path for b in np.flatnonzero(excess > 0) if (path := _path(budgets, free, load, excess, b))), None)
        if found is None:
            return
        moves, amount = found
        for u, v in reversed(moves):  # from the end, so that a content moves once
            moved = 0
            while moved < amount:
                group, row = stack[u, v].pop()
                if cell_of[at[group]] == u:
                    enter(group, -1)
                    keep[at[group]], keep[row] = False, True
                    at[group] = row
                    enter(group, 1)
                    moved += 1
            load[u] -= amount
            load[v] += amount
            excess += amount * (budgets.member[:, v].astype(int) - budgets.member[:, u])


def _path(
    budgets: Budgets, free: np.ndarray, load: np.ndarray, excess: np.ndarray, over: int
) -> tuple[list[tuple[int, int]], int] | None:
    """Moves between cells that take a content out of a budget, to the least loaded cell, and how many contents can move so.

    A content enters a cell by a move; then another leaves that cell, or one of the same budgets where the cell has room.
    """
    member = budgets.member.astype(int)
    passes = (member * (excess >= 0)[:, None]).T @ (1 - member) == 0  # may one enter the first while one leaves the second?
    before: dict[tuple[int, bool], tuple[int, bool] | None] = {(u, False): None for u in np.flatnonzero(member[over]).tolist()}
    queue = list(before)
    for cell, entered in queue:
        for v in np.flatnonzero(passes[cell] if entered else free[cell]).tolist():
            if (v, not entered) not in before:
                before[v, not entered] = (cell, entered)
                queue.append((v, not entered))
    best: tuple[int, int, list[tuple[int, int]], int] | None = None
    for end, entered in queue:
        if not entered or member[over, end]:
            continue
        moves, state = [], (end, True)
        while state is not None:
            start = before[state]
            moves.append((start[0], state[0]))
            state = before[start]
        change = sum(member[:, v] - member[:, u] for u, v in moves)
        paid = change > 0
        amount = min(int((-excess[paid] // change[paid]).min(initial=-(-excess[over] // 16))),  # in parts: the load spreads
                     *(int(free[u, v]) for u, v in moves))
        if amount > 0 and (best is None or (int(load[end]), len(moves)) < best[:2]):
            best = (int(load[end]), len(moves), moves[::-1], amount)
    return best and (best[2], best[3])
