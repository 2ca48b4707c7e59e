"""Policies, budgets, the ledger of drops and the comparison."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb import grouping, pruning
from ultralink_nb.content import BadPlan
from ultralink_nb.pruning import Plan
from ultralink_nb.records import BadRecord

CODES, KINDS = ("en", "zh", "ru", "fr", "es"), ("math", "chat", "chat_specific")


def pair_frame(pairs):
    return pd.DataFrame(pairs, columns=["left", "right", "probability"]).astype(
        {"left": np.int32, "right": np.int32, "probability": np.float32})


@st.composite
def datasets(draw):
    """Rows, groups, pairs and duplicates; within a group the pairs are of every probability from 0.2 on."""
    random = draw(st.randoms(use_true_random=False))
    rows, pairs, duplicates = [], [], []
    for content in range(draw(st.integers(0, 7))):
        kind, members = random.choice(KINDS), []
        for code in random.sample(CODES, random.randint(1, 5)):
            kind = random.choice(KINDS) if random.random() < 0.2 else kind
            members.append(len(rows))
            rows.append((f"{code}{content}", code, kind, random.randint(0, 3)))
        pairs += [(a, b, round(random.uniform(0.15, 1), random.choice([1, 4]))) for a, b in itertools.combinations(members, 2)]
    for row_id, code, kind, _ in list(rows):
        for number in range(random.choice([0, 0, 0, 1, 2])):
            kind = random.choice(KINDS) if random.random() < 0.3 else kind
            rows.append((f"{row_id}copy{number}", code, kind, random.randint(0, 3)))
            how, similarity = random.choice([("exact", 1.0), ("near", 0.9), ("semantic", 0.8)])
            duplicates.append((rows[-1][0], code, row_id, how, similarity))
    names = ["id", "language", "kind"]
    rows = pd.DataFrame(rows, columns=[*names, "quality"]).astype(dict.fromkeys(names, "str"))
    duplicates = pd.DataFrame(duplicates, columns=["id", "language", "duplicate_of", "how", "similarity"])
    groups = grouping.group_pairs(rows, pair_frame(pairs), draw(st.sampled_from([0.3, 0.5])), duplicates=duplicates)
    return rows, groups, pair_frame(pairs), duplicates, random


def shuffled(data):
    """The same in another order: row numbers, both ends of a pair and the order of every table change."""
    rows, groups, pairs, duplicates, random = data
    order = np.array(random.sample(range(len(rows)), len(rows)), dtype=int)
    place = np.empty(len(rows), dtype=np.int32)
    place[order] = np.arange(len(rows))
    moved = pairs.assign(left=place[pairs["right"]], right=place[pairs["left"]])
    return (rows.iloc[order].reset_index(drop=True), groups.sample(frac=1, random_state=1),
            moved.sample(frac=1, random_state=1), duplicates.iloc[::-1])


def of_budget(rows, name):
    return np.array([name in (language, kind, f"{language}/{kind}", "all")
                     for language, kind in zip(rows["language"], rows["kind"], strict=True)], dtype=bool)


@st.composite
def plans(draw):
    floor = draw(st.sampled_from([None, 0.0, 0.2, 0.7]))
    names = draw(st.lists(st.sampled_from([*CODES, *KINDS, "en/math", "zh/chat", "fr/chat_specific"]), max_size=4, unique=True))
    limits = st.one_of(st.integers(0, 4), st.sampled_from([0.0, 0.3, 0.6, 1.0]))
    return {"seed": draw(st.integers(0, 3)), "quota": draw(st.sampled_from([0.1, 1.0])), "language_order": ["zh", "en"],
            "min_drop_probability": floor, "budget": draw(st.sampled_from([None, 0.2, 0.5, 0.9])),
            "budgets": {name: draw(limits) for name in names}, "allow_loss": draw(st.booleans()),
            "protect_specific": draw(st.booleans())}


@settings(max_examples=250, deadline=None)
@given(datasets(), plans(), st.sampled_from(list(pruning.POLICIES)))
def test_invariants_of_every_policy(data, settings_, policy):
    rows, groups, pairs, duplicates, _ = data
    there = set(rows["language"]) | set(rows["kind"]) | set(rows["language"] + "/" + rows["kind"])
    known = {name: most for name, most in settings_["budgets"].items()
             if name in there or ("/" in name and set(name.split("/")) <= there)}
    plan = Plan(**{**settings_, "budgets": known})
    pruned = pruning.prune(rows, groups, pairs, policy, plan, duplicates)
    dropped, kept = pruned.dropped, set(pruned.kept)

    # kept + dropped = input, both in its order
    assert pruned.kept == rows["id"][pruned.keep].tolist() and dropped["id"].tolist() == rows["id"][~pruned.keep].tolist()
    assert dropped["position"].tolist() == np.flatnonzero(~pruned.keep).tolist()

    # protected rows stay
    is_copy = groups["duplicate_of"].notna().to_numpy()
    measured = grouping.specificity(rows, pairs, 0.5, duplicates)["measured"] == "language-specific"
    protected = (rows["kind"] == "chat_specific").to_numpy() | (plan.protect_specific & measured.to_numpy() & ~is_copy)
    assert pruned.keep[protected].all()
    assert not pruned.keep[is_copy & ~protected].any()  # duplicates go first

    # every budget is met or reported
    reported = pruned.over_budget.set_index("budget")
    for name, most in [*known.items(), *([("all", plan.budget)] if plan.budget is not None else [])]:
        inside = of_budget(rows, name) | (name == "all")
        allowed = int(round(most * inside.sum())) if isinstance(most, float) else most
        used = int(pruned.keep[inside].sum())
        assert (used > allowed) == (name in reported.index)
        if used > allowed:
            assert reported.loc[name, ["allowed", "kept", "over"]].tolist() == [allowed, used, used - allowed]
            assert reported.loc[name, "protected"] == protected[inside].sum()
        if policy == "random" or plan.allow_loss:
            assert used <= max(allowed, protected[inside].sum())

    # every group keeps a row, and what stands for a dropped row is kept, of its group, and probable enough
    group = dict(zip(groups["id"], groups["group"], strict=True))
    if policy != "random" and not plan.allow_loss:
        assert set(groups["group"]) == {group[row] for row in kept} and dropped["kept_by"].notna().all()
        sure = dropped["probability"].fillna(0)[~is_copy[~pruned.keep]]
        assert (sure >= plan.floor - 1e-6).all()
    copies = dict(zip(duplicates["id"], duplicates["duplicate_of"], strict=True))
    for row, by, probability, reason in dropped[["id", "kept_by", "probability", "reason"]].itertuples(index=False):
        if pd.isna(by):
            assert not any(group[other] == group[row] for other in kept) and pd.isna(probability)
            assert "no row says it any more" in reason
        else:
            assert by in kept and group[by] == group[row] and by in reason
            assert by == copies.get(row) or copies.get(row) not in kept  # a duplicate's own row before any other
            assert row not in copies or re.match(f"(exact|near|semantic) duplicate of {copies[row]}", reason)

    # the order of rows does not matter
    again = pruning.prune(*shuffled(data)[:3], policy, plan, shuffled(data)[3])
    assert set(again.kept) == kept
    columns = ["id", "kept_by", "probability", "reason"]
    pd.testing.assert_frame_equal(again.dropped.set_index("id").loc[dropped["id"]].reset_index()[columns], dropped[columns])

    # pruning what was pruned changes nothing
    if policy != "random" and plan.budget is None and not known:
        inside = pruned.keep[pairs["left"]] & pruned.keep[pairs["right"]]
        number = np.cumsum(pruned.keep) - 1
        left = pairs[inside].assign(left=number[pairs["left"][inside]], right=number[pairs["right"][inside]])
        of = groups[pruned.keep].assign(duplicate_of=lambda g: g["duplicate_of"].where(g["duplicate_of"].isin(kept), None))
        assert pruning.prune(rows[pruned.keep].reset_index(drop=True), of, left, policy, plan).kept == pruned.kept


@st.composite
def assignments(draw):
    """Contents of one kind each, all their rows saying each other, and counts for languages and language/kind."""
    rows, pairs, groups = [], [], []
    for content in range(draw(st.integers(2, 6))):
        kind, first = draw(st.sampled_from(KINDS[:2])), len(rows)
        codes = draw(st.lists(st.sampled_from(CODES[:4]), min_size=1, max_size=4, unique=True))
        rows += [(f"{code}{content}", code, kind) for code in codes]
        groups += [content] * len(codes)
        pairs += [(a, b, 0.9) for a, b in itertools.combinations(range(first, len(rows)), 2)]
    rows = pd.DataFrame(rows, columns=["id", "language", "kind"])
    names = sorted(set(rows["language"]) | set(rows["language"] + "/" + rows["kind"]))
    budgets = {name: draw(st.integers(0, 3)) for name in names if draw(st.booleans())}
    return rows, pd.DataFrame({"id": rows["id"], "group": groups}), pair_frame(pairs), budgets


@settings(max_examples=150, deadline=None)
@given(assignments(), st.sampled_from(["balanced", "by_language", "paper", "coverage"]))
def test_budgets_are_met_wherever_one_row_a_content_can_meet_them(data, policy):
    rows, groups, pairs, budgets = data
    inside = {name: of_budget(rows, name) for name in budgets}
    choices = itertools.product(*(np.flatnonzero(groups["group"] == group) for group in sorted(set(groups["group"]))))
    possible = any(all(inside[name][list(rows_)].sum() <= most for name, most in budgets.items()) for rows_ in choices)
    pruned = pruning.prune(rows, groups, pairs, policy, Plan(budgets=budgets, quota=0.5, protected=frozenset()))
    assert set(groups["group"][pruned.keep]) == set(groups["group"])
    assert pruned.over_budget.empty or not possible


@settings(max_examples=100, deadline=None)
@given(assignments(), st.sampled_from(["balanced", "by_language", "paper", "coverage"]), st.randoms(use_true_random=False))
def test_within_budgets_too_a_dropped_row_is_said_surely_enough(data, policy, random):
    rows, groups, pairs, budgets = data
    pairs["probability"] = np.array([random.choice([0.3, 0.9]) for _ in range(len(pairs))], dtype=np.float32)
    pruned = pruning.prune(rows, groups, pairs, policy, Plan(budgets=budgets, quota=1.0, protected=frozenset()))
    assert (pruned.dropped["probability"] >= 0.5).all() and set(groups["group"][pruned.keep]) == set(groups["group"])


def test_a_content_makes_room_in_another_kind_of_the_same_language():
    """fr must go to en, which is full: the content of another kind there moves on to zh."""
    rows = [("fr0", "fr", "math"), ("en0", "en", "math"), ("en1", "en", "chat"), ("zh1", "zh", "chat")]
    rows = pd.DataFrame(rows, columns=["id", "language", "kind"])
    groups = pd.DataFrame({"id": rows["id"], "group": [0, 0, 1, 1]})
    plan = Plan(language_order=["fr", "en"], budgets={"fr": 0, "en": 1})
    pruned = pruning.prune(rows, groups, pair_frame([(0, 1, 0.9), (2, 3, 0.9)]), "by_language", plan)
    assert pruned.kept == ["en0", "zh1"] and pruned.over_budget.empty


def test_rows_of_equal_quality_are_lost_by_id_and_not_by_place():
    rows = pd.DataFrame({"id": [f"r{n:02d}" for n in range(60)], "language": "en", "kind": "math", "quality": 1.0})
    plan = Plan(budgets={"en": 20}, allow_loss=True)
    kept = []
    for order in (np.arange(60), np.random.default_rng(0).permutation(60)):
        placed = rows.iloc[order].reset_index(drop=True)
        groups = grouping.group_pairs(placed, pair_frame([]))
        kept.append(set(pruning.prune(placed, groups, pair_frame([]), "by_quality", plan).kept))
    assert kept[0] == kept[1] and len(kept[0]) == 20


def full(contents=40, codes=CODES, kind="math", p=0.9):
    rows = [(f"{code}{n}", code, kind) for n in range(contents) for code in codes]
    rows = pd.DataFrame(rows, columns=["id", "language", "kind"])
    groups = pd.DataFrame({"id": rows["id"], "group": np.repeat(np.arange(contents), len(codes))})
    size = len(codes)
    pairs = [(size * n + a, size * n + b, p) for n in range(contents) for a, b in itertools.combinations(range(size), 2)]
    return rows, groups, pair_frame(pairs)


def shares(pruned):
    return pd.Series([row[:2] for row in pruned.kept]).value_counts().to_dict()


def test_balanced_gives_every_language_the_same():
    assert shares(pruning.prune(*full())) == dict.fromkeys(CODES, 8)


def test_balanced_counts_what_a_language_has_anyway():
    rows, groups, pairs = full(10, ("en", "zh"))
    extra = pd.DataFrame({"id": [f"en{n}" for n in range(100, 106)], "language": "en", "kind": "math"})  # in English alone
    groups = pd.concat([groups, pd.DataFrame({"id": extra["id"], "group": range(100, 106)})])
    assert shares(pruning.prune(pd.concat([rows, extra], ignore_index=True), groups, pairs)) == {"en": 8, "zh": 8}


def test_balanced_within_budgets_moves_contents_to_other_languages():
    rows, groups, pairs = full()
    pruned = pruning.prune(rows, groups, pairs, "balanced", Plan(budgets={"en": 0.05, "zh/math": 3}))
    got = shares(pruned)
    assert got["en"] == 2 and got["zh"] == 3 and {got[code] for code in CODES[2:]} <= {11, 12} and pruned.over_budget.empty


def test_a_budget_gives_way_to_the_last_row_of_a_content_unless_loss_is_allowed():
    rows, groups, pairs = full(10, ("en", "zh"))
    pruned = pruning.prune(rows, groups, pairs, "balanced", Plan(budgets={"math": 4}))
    assert len(pruned.kept) == 10
    assert pruned.over_budget.to_dict("records") == [{"budget": "math", "allowed": 4, "kept": 10, "over": 6, "protected": 0}]
    lossy = pruning.prune(rows, groups, pairs, "balanced", Plan(budgets={"math": 4}, allow_loss=True))
    assert len(lossy.kept) == 4 and lossy.over_budget.empty
    lost = lossy.dropped[lossy.dropped["kept_by"].isna()]
    assert len(lost) == 12 and (lost["reason"] == "over a budget; no row says it any more").all()
    plan = Plan(budgets={"en": 0}, allow_loss=True, protected=frozenset({"math"}))
    guarded = pruning.prune(rows, groups, pairs, "balanced", plan)
    assert guarded.keep.all() and guarded.over_budget["protected"].tolist() == [10]


def test_the_papers_policy_keeps_the_source_and_a_quota():
    kept = shares(pruning.prune(*full(400), "paper", Plan(quota=0.1)))
    assert kept["en"] == 400 and all(20 <= kept[code] <= 62 for code in CODES[1:])
    assert shares(pruning.prune(*full(), "paper", Plan(quota=0.0))) == {"en": 40}
    assert shares(pruning.prune(*full(), "paper", Plan(quota=1.0))) == dict.fromkeys(CODES, 40)
    half = pruning.prune(*full(), "paper", Plan(quota=0.5, budgets={"en": 0.5}))  # in the source, what others say goes first
    assert shares(half)["en"] == 20 and half.over_budget.empty


def test_by_language_and_by_quality():
    assert shares(pruning.prune(*full(), "by_language", Plan(language_order=["ru"]))) == {"ru": 40}
    rows, groups, pairs = full(2, ("en", "fr"))
    longer = rows.assign(quality=[9.0, 1.0, 2.0, 1.5])  # fr1 is the better French row, though shorter than en1
    assert pruning.prune(longer, groups, pairs, "by_quality").kept == ["en0", "fr1"]
    with pytest.raises(BadPlan, match="needs a column quality"):
        pruning.prune(rows, groups, pairs, "by_quality")


def test_coverage_spends_its_budget_on_what_adds_most():
    rows, groups, _ = full(1, ("en", "zh", "ru"))
    pairs = pair_frame([(0, 1, 0.95), (0, 2, 0.6), (1, 2, 0.5)])
    assert pruning.prune(rows, groups, pairs, "coverage").kept == ["en0"]
    assert pruning.prune(rows, groups, pairs, "coverage", Plan(budget=0.67)).kept == ["en0", "ru0"]  # zh0 is nearly said by en0
    assert pruning.prune(rows, groups, pairs, "coverage", Plan(budget=0.67, budgets={"ru": 0})).kept == ["en0", "zh0"]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.8]))
def test_coverage_is_greedy_facility_location(seed, budget):
    """Against the definition: add, again and again, the row whose sum of gains over all rows is largest."""
    random = np.random.default_rng(seed)
    group = np.sort(random.integers(0, 5, 16))
    rows = pd.DataFrame({"id": [f"r{k:02d}" for k in range(16)], "language": [f"l{k}" for k in range(16)], "kind": "math"})
    says = np.eye(16)
    pairs = [(a, b, random.uniform(0.2, 1)) for a, b in itertools.combinations(range(16), 2) if group[a] == group[b]]
    for a, b, p in pairs:
        says[a, b] = says[b, a] = np.float32(p)
    kept: list[int] = []

    def gain(row):
        said = says[kept].max(axis=0) if kept else np.zeros(16)
        return np.maximum(0, says[row] - said).sum()

    while len(kept) < int(round(budget * 16)):
        kept.append(max((row for row in range(16) if row not in kept), key=gain))
    plan = Plan(budget=budget, allow_loss=True, protected=frozenset())
    pruned = pruning.prune(rows, pd.DataFrame({"id": rows["id"], "group": group}), pair_frame(pairs), "coverage", plan)
    assert np.flatnonzero(pruned.keep).tolist() == sorted(kept)


def test_the_control_loses_content_that_the_policies_keep():
    rows, groups, pairs = full()
    control = pruning.prune(rows, groups, pairs, "random")
    assert len(control.kept) == 40 and pruning.coverage_kept(groups, control.kept) < 0.9
    lost = control.dropped[control.dropped["kept_by"].isna()]
    assert len(lost) and lost["reason"].str.contains("no row says it any more").all()
    other = pruning.prune(rows, groups, pairs, "random", Plan(seed=2))
    assert set(other.kept) != set(control.kept) and len(other.kept) == 40


def test_a_row_that_no_kept_row_says_surely_enough_is_kept():
    rows, groups, _ = full(1, ("en", "zh", "ru"))
    pairs = pair_frame([(0, 1, 0.9), (0, 2, 0.3), (1, 2, 0.55)])
    order = Plan(language_order=["en"])
    assert pruning.prune(rows, groups, pairs, "by_language", order).kept == ["en0", "ru0"]
    assert pruning.prune(rows, groups, pairs, "balanced").kept == ["zh0"]  # the one row that says both others
    lax = pruning.prune(rows, groups, pairs, "by_language", Plan(language_order=["en"], min_drop_probability=0.2))
    assert lax.kept == ["en0"] and lax.dropped["probability"].tolist() == pytest.approx([0.9, 0.3])
    assert lax.dropped["reason"].tolist() == ["says the same as en0 (p = 0.90)", "says the same as en0 (p = 0.30)"]


def test_groups_alone_are_enough_where_no_probability_is_asked_for():
    rows, groups, _ = full(3, ("en", "zh"))
    pruned = pruning.prune(rows, groups, pair_frame([]), "by_language", Plan(min_drop_probability=0, language_order=["zh"]))
    assert pruned.kept == ["zh0", "zh1", "zh2"] and pruned.dropped["probability"].isna().all()
    assert pruned.dropped["reason"].tolist() == [f"says the same as zh{n}" for n in range(3)]


def test_protect_specific_guards_what_no_other_language_says():
    rows, groups, pairs = full(20, ("en", "zh"))
    alone = pd.DataFrame({"id": [f"ru{n}" for n in range(20)], "language": "ru", "kind": "math"})
    rows = pd.concat([rows, alone], ignore_index=True)
    groups = pd.concat([groups, pd.DataFrame({"id": alone["id"], "group": range(100, 120)})])
    assert shares(pruning.prune(rows, groups, pairs, "random", Plan(budget=0.5))).get("ru", 0) < 20
    assert shares(pruning.prune(rows, groups, pairs, "random", Plan(budget=0.5, protect_specific=True)))["ru"] == 20
    plan = Plan(budgets={"ru": 5, "en": 5}, allow_loss=True, protect_specific=True)
    pruned = pruning.prune(rows, groups, pairs, "balanced", plan)
    assert shares(pruned)["ru"] == 20 and shares(pruned)["en"] <= 5 and pruned.over_budget["budget"].tolist() == ["ru"]


def test_a_duplicate_names_its_own_row_or_what_says_that():
    rows = pd.DataFrame({"id": ["en", "zh", "zh copy"], "language": ["en", "zh", "zh"], "kind": "math"})
    duplicates = pd.DataFrame({"id": ["zh copy"], "duplicate_of": ["zh"], "how": ["near"], "similarity": [0.8]})
    pairs = pair_frame([(0, 1, 0.9)])
    groups = grouping.group_pairs(rows, pairs, duplicates=duplicates)

    def ledger(rows, **plan):
        pruned = pruning.prune(rows, groups, pairs, "by_language", Plan(**plan), duplicates)
        return pruned.dropped.set_index("id")[["kept_by", "probability", "reason"]].T.to_dict("list")

    chinese = ledger(rows, language_order=["zh"])
    assert chinese["zh copy"] == ["zh", pytest.approx(0.8), "near duplicate of zh"]
    english = ledger(rows, language_order=["en"])
    assert english["zh copy"] == ["en", pytest.approx(0.72), "near duplicate of zh; en says the same (p = 0.72)"]
    # a copy that is protected speaks for the row that it copies, and so for that row's translations
    guarded = ledger(rows.assign(kind=["math", "math", "mine"]), language_order=["en"], protected=frozenset({"mine"}))
    assert guarded == {"en": ["zh copy", pytest.approx(0.72), "says the same as zh copy (p = 0.72)"],
                       "zh": ["zh copy", pytest.approx(0.8), "says the same as zh copy (p = 0.80)"]}


def test_a_hundred_thousand_copies_leave_one():
    n = 100_000
    rows = pd.DataFrame({"id": [f"c{k:06d}" for k in range(n)], "language": "en", "kind": "chat", "quality": 1.0})
    duplicates = pd.DataFrame({"id": rows["id"][1:], "duplicate_of": "c000000", "how": "exact", "similarity": 1.0})
    groups = grouping.group_pairs(rows, pair_frame([]), duplicates=duplicates)
    for policy in pruning.POLICIES:
        pruned = pruning.prune(rows, groups, pair_frame([]), policy, duplicates=duplicates)
        assert pruned.kept == ["c000000"] and (pruned.dropped["reason"] == "exact duplicate of c000000").all()
    guarded = pruning.prune(rows, groups, pair_frame([]), plan=Plan(protected=frozenset({"chat"})))
    assert guarded.keep.all()


@pytest.mark.parametrize("policy", list(pruning.POLICIES))
def test_no_rows_and_one_language(policy):
    nothing = pd.DataFrame({"id": [], "language": [], "kind": []}, dtype="str").assign(quality=0.0)
    assert pruning.prune(nothing, grouping.group_pairs(nothing, pair_frame([])), pair_frame([]), policy).kept == []
    rows, groups, pairs = full(5, ("en",))
    assert len(pruning.prune(rows.assign(quality=1.0), groups, pairs, policy).kept) == 5


def test_the_policies_are_compared_the_papers_among_them():
    rows, groups, pairs = full(p=0.8)
    table = pruning.compare(rows, groups, pairs).set_index("policy")
    assert set(table.index) == set(pruning.POLICIES) - {"by_quality"}  # there is no column quality
    assert table.loc["balanced", "rows kept"] == 40 and table.loc["balanced", "contents kept"] == 1
    assert table.loc["balanced", ["coverage", "evenness"]].tolist() == pytest.approx([0.2 + 0.8 * 0.8, 1])
    assert table.loc["balanced", "drops expected wrong"] == pytest.approx(160 * 0.2, rel=1e-5)
    assert table.loc["by_language", "evenness"] == 0 and table.loc["paper", "rows kept"] > 40
    assert table.loc["random", "coverage"] < 0.7 and table.loc["random", "contents kept"] < 0.9


def test_the_coverage_curve_grows_and_random_lies_below():
    curve = pruning.coverage_curve(*full(p=0.8), shares=(0.1, 0.3, 0.5, 0.7, 1.0))
    of = {name: part.set_index("share asked") for name, part in curve.groupby("policy")}
    assert set(of) == {"coverage", "random", "paper"}
    assert of["coverage"]["rows kept"].to_dict() == {0.1: 40, 0.3: 60, 0.5: 100, 0.7: 140, 1.0: 200}
    assert of["random"]["rows kept"].tolist() == [20, 60, 100, 140, 200]
    assert of["coverage"]["coverage"].is_monotonic_increasing and of["coverage"].loc[1.0, "coverage"] == 1
    assert (of["random"]["coverage"] <= of["coverage"]["coverage"]).all()
    assert of["random"].loc[0.3, "coverage"] < of["coverage"].loc[0.3, "coverage"] - 0.1
    assert (of["paper"]["share kept"] - of["paper"].index).abs().loc[[0.3, 0.5, 0.7, 1.0]].max() < 0.06
    lossy = pruning.coverage_curve(*full(p=0.8), Plan(allow_loss=True), shares=(0.1,), policies=("coverage",))
    assert lossy["rows kept"].tolist() == [20] and lossy["contents kept"].tolist() == [0.5]


def test_evenness_is_one_when_even_and_zero_when_one_language_has_all():
    codes = ["en", "zh"] * 4
    assert pruning.evenness(codes, np.ones(8, dtype=bool)) == pytest.approx(1)
    assert pruning.evenness(codes, np.array([True, False] * 4)) == pytest.approx(0)


@pytest.mark.parametrize(("plan", "message"), [
    ({"budgets": {"xx": 3}}, "'xx', which is not one language, kind or language/kind"),
    ({"budgets": {"en": 1.5}}, "neither a share in \\[0, 1\\] nor a whole number"),
    ({"budgets": {"en": -1}}, "neither a share"),
    ({"budgets": {"en": True}}, "neither a share"),
    ({"budget": 2}, "budget is a share of all rows"),
])
def test_a_plan_that_does_not_fit_is_named(plan, message):
    with pytest.raises(BadPlan, match=message):
        pruning.prune(*full(2), "balanced", Plan(**plan))


def test_a_whole_number_is_a_count_even_as_a_float():
    rows, groups, pairs = full(40, ("en", "zh"))
    for most, expected in ((10, 10), (10.0, 10), (0.25, 10), (1, 1)):
        assert shares(pruning.prune(rows, groups, pairs, "balanced", Plan(budgets={"en": most})))["en"] == expected


def test_wrong_input_is_named():
    rows, groups, pairs = full(2)
    with pytest.raises(BadPlan, match="unknown policy 'best'"):
        pruning.prune(rows, groups, pairs, "best")
    with pytest.raises(BadPlan, match="do not hold the same ids .*'en0'"):
        pruning.prune(rows[1:].reset_index(drop=True), groups, pair_frame([]), "balanced")
    with pytest.raises(BadPlan, match="do not hold the same ids .*one occurs twice"):
        pruning.prune(rows, pd.concat([groups, groups[:1]]), pairs, "balanced")
    with pytest.raises(BadRecord, match="'zh0' occurs twice"):
        pruning.prune(rows.assign(id=["zh0", *rows["id"][1:]]), groups, pairs, "balanced")
    with pytest.raises(BadPlan, match="'en1' is a duplicate of a row in another group"):
        pruning.prune(rows, groups.assign(duplicate_of=["en0" if row == "en1" else None for row in groups["id"]]), pairs)
    duplicates = pd.DataFrame({"id": ["zh0"], "duplicate_of": ["en0"], "how": ["exact"], "similarity": [1.0]})
    with pytest.raises(BadPlan, match="made without these duplicates"):
        pruning.prune(rows, groups, pairs, duplicates=duplicates)


def test_drops_are_counted_against_the_truth():
    dropped = pd.DataFrame({"id": ["b", "d", "e"], "kept_by": ["a", "c", None]})
    found = pruning.drops_against_truth(dropped, {"a": "x", "b": "x", "c": "y", "d": "z", "e": "z"})
    assert (found["repeated rows"], found["dropped"], found["right"]) == (2, 3, 1)
    assert found["precision"] == pytest.approx(1 / 3) and found["recall"] == 0.5


def test_quality_is_the_length_of_the_answers():
    messages = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "42"}]
    assert pruning.quality_of({"messages": messages}) == 2
