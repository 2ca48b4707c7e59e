import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb import pruning

CODES, KINDS = ("en", "zh", "ru", "fr", "es"), ("math", "chat_agnostic", "chat_specific")


def sample(row_id, language, kind="math", answer="42"):
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    return {"id": row_id, "language": language, "kind": kind, "messages": messages}


@st.composite
def datasets(draw):
    """Samples in groups of at most one row a language, with a probability for every pair within a group."""
    samples, groups, pairs = [], [], []
    for group in range(draw(st.integers(1, 12))):
        codes = draw(st.lists(st.sampled_from(CODES), min_size=1, max_size=5, unique=True))
        members = []
        for code in codes:
            row = sample(f"{code}{group}", code, draw(st.sampled_from(KINDS)), "x" * draw(st.integers(0, 30)))
            samples.append(row)
            groups.append({"id": row["id"], "group": group, "size": len(codes)})
            pairs += [{"left_id": other, "right_id": row["id"], "probability": draw(st.floats(0.2, 1))} for other in members]
            members.append(row["id"])
    return samples, pd.DataFrame(groups), pd.DataFrame(pairs, columns=["left_id", "right_id", "probability"])


@settings(max_examples=80, deadline=None)
@given(datasets(), st.sampled_from(list(pruning.POLICIES)), st.integers(0, 5), st.sampled_from([None, 0.3, 0.8, 1.0]),
       st.randoms(use_true_random=False))
def test_invariants_of_every_policy(data, policy, seed, budget, random):
    samples, groups, pairs = data
    plan = pruning.Plan(seed=seed, budget=budget, language_order=["zh", "en"])
    pruned = pruning.prune(samples, groups, pairs, policy, plan)
    ids = [row["id"] for row in samples]
    dropped = [row["id"] for row in pruned.dropped]
    assert sorted(pruned.kept + dropped) == sorted(ids)  # kept + dropped = input
    assert [row for row in ids if row in set(pruned.kept)] == pruned.kept  # in the order of the input
    protected = {row["id"] for row in samples if row["kind"] == "chat_specific"}
    assert protected <= set(pruned.kept)  # a protected kind loses nothing
    group_of = dict(zip(groups["id"], groups["group"], strict=True))
    if policy == "random":
        if budget is not None:
            assert len(pruned.kept) == max(len(protected), int(round(budget * len(ids))))
    else:
        assert {group_of[row] for row in pruned.kept} == set(group_of.values())  # every group keeps a row
        assert pruning.coverage_kept(groups, pruned.kept) == 1
        for row in pruned.dropped:  # what stands for a dropped row is kept and of its group
            assert row["kept_by"] in pruned.kept and group_of[row["kept_by"]] == group_of[row["id"]]
            assert row["policy"] == policy and 0.2 <= row["probability"] <= 1
    order = random.sample(range(len(ids)), len(ids))
    shuffled = pruning.prune([samples[n] for n in order], groups.sample(frac=1, random_state=1), pairs.iloc[::-1], policy, plan)
    assert set(shuffled.kept) == set(pruned.kept)  # same seed, same result, whatever the order
    left = [row for row in samples if row["id"] in set(pruned.kept)]
    if policy in ("balanced", "by_language", "by_quality"):  # pruning what was pruned changes nothing
        again = pruning.prune(left, groups[groups["id"].isin(pruned.kept)], pairs, policy, plan)
        assert again.kept == [row["id"] for row in left]


def full(contents=40, codes=CODES, kind="math"):
    samples = [sample(f"{code}{n}", code, kind) for n in range(contents) for code in codes]
    groups = pd.DataFrame({"id": [row["id"] for row in samples], "group": [n for n in range(contents) for _ in codes]})
    pairs = pd.DataFrame([(a, b, 0.9) for n in range(contents) for i, a in enumerate(f"{c}{n}" for c in codes)
                          for b in [f"{c}{n}" for c in codes[:i]]], columns=["left_id", "right_id", "probability"])
    return samples, groups, pairs


def shares(kept):
    return pd.Series([row[:2] for row in kept]).value_counts().to_dict()


def test_balanced_gives_every_language_the_same():
    assert shares(pruning.prune(*full(), "balanced").kept) == dict.fromkeys(CODES, 8)


def test_balanced_counts_what_a_language_has_anyway():
    samples, groups, pairs = full(10, ("en", "zh"))
    extra = [sample(f"en{n}", "en") for n in range(100, 106)]  # six contents that only English has
    groups = pd.concat([groups, pd.DataFrame({"id": [row["id"] for row in extra], "group": range(100, 106)})])
    kept = pruning.prune(samples + extra, groups, pairs, "balanced").kept
    assert shares(kept) == {"en": 8, "zh": 8}


def test_the_papers_policy_keeps_the_source_and_a_quota():
    kept = shares(pruning.prune(*full(400), "paper", pruning.Plan(quota=0.1)).kept)
    assert kept["en"] == 400 and all(20 <= kept[code] <= 62 for code in CODES[1:])
    assert shares(pruning.prune(*full(), "paper", pruning.Plan(quota=0.0)).kept) == {"en": 40}
    assert shares(pruning.prune(*full(), "paper", pruning.Plan(quota=1.0)).kept) == dict.fromkeys(CODES, 40)


def test_by_language_and_by_quality():
    assert shares(pruning.prune(*full(), "by_language", pruning.Plan(language_order=["ru"])).kept) == {"ru": 40}
    samples, groups, pairs = full(2, ("en", "fr"))
    samples = [sample(row["id"], row["language"], answer="long " * (9 if row["id"] in ("en0", "fr1") else 1)) for row in samples]
    assert pruning.prune(samples, groups, pairs, "by_quality").kept == ["en0", "fr1"]


def test_coverage_spends_its_budget_on_what_adds_most():
    samples, groups, _ = full(1, ("en", "zh", "ru"))
    pairs = pd.DataFrame([("en0", "zh0", 0.95), ("en0", "ru0", 0.3), ("zh0", "ru0", 0.2)],
                         columns=["left_id", "right_id", "probability"])
    assert pruning.prune(samples, groups, pairs, "coverage").kept == ["en0"]
    two_thirds = pruning.prune(samples, groups, pairs, "coverage", pruning.Plan(budget=0.67))
    assert two_thirds.kept == ["en0", "ru0"]  # zh0 is nearly said by en0, ru0 is not


def test_the_control_loses_content_that_the_policies_keep():
    samples, groups, pairs = full()
    control = pruning.prune(samples, groups, pairs, "random")
    assert len(control.kept) == 40 and pruning.coverage_kept(groups, control.kept) < 0.9
    lost = [row for row in control.dropped if row["kept_by"] is None]
    assert lost and all("no row says it any more" in row["reason"] for row in lost)


def test_evenness_is_one_when_even_and_zero_when_one_language_has_all():
    codes, ids = ["en", "zh"] * 4, list("abcdefgh")
    assert pruning.evenness(codes, ids, ids) == pytest.approx(1)
    assert pruning.evenness(codes, ids, ["a", "c"]) == pytest.approx(0)


def test_wrong_input_is_named():
    samples, groups, pairs = full(2)
    with pytest.raises(ValueError, match="unknown policy 'best'"):
        pruning.prune(samples, groups, pairs, "best")
    with pytest.raises(ValueError, match="do not hold the same ids"):
        pruning.prune(samples[1:], groups, pairs, "balanced")


def test_drops_are_counted_against_the_truth():
    dropped = [{"id": "b", "kept_by": "a"}, {"id": "d", "kept_by": "c"}, {"id": "e", "kept_by": None}]
    found = pruning.drops_against_truth(dropped, {"a": "x", "b": "x", "c": "y", "d": "z", "e": "z"})
    assert (found["repeated rows"], found["dropped"], found["right"]) == (2, 3, 1)
    assert found["precision"] == pytest.approx(1 / 3) and found["recall"] == 0.5
