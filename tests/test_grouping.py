"""Groups, and what the pairs say of each row."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultralink_nb import grouping
from ultralink_nb.records import BadRecord

CODES = ("en", "zh", "ru", "fr", "es")


def frame(rows):
    return pd.DataFrame(rows, columns=["id", "language"]).assign(kind="math")


def pair_frame(pairs):
    return pd.DataFrame(pairs, columns=["left", "right", "probability"]).astype(
        {"left": np.int32, "right": np.int32, "probability": np.float32})


def plainly_grouped(ids, codes, pairs, threshold, plausible):
    """Complete linkage as one would write it down: ids as keys, every pair of every two groups looked up."""
    code = dict(zip(ids, codes, strict=True))
    floor = np.float32(min(plausible, threshold))
    known = {frozenset((ids[a], ids[b])): np.float32(p) for a, b, p in pairs if np.float32(p) >= floor}
    group = {row: frozenset([row]) for row in ids}
    sure = [(-p, *sorted(pair)) for pair, p in known.items() if p >= np.float32(threshold)]
    for _, a, b in sorted(sure):
        ours, theirs = group[a], group[b]
        if ours == theirs or {code[row] for row in ours} & {code[row] for row in theirs}:
            continue
        if all(frozenset((x, y)) in known for x in ours for y in theirs):
            group.update(dict.fromkeys(ours | theirs, ours | theirs))
    best = {}
    for members in set(group.values()):
        total = {x: sum(float(known.get(frozenset((x, y)), 0)) for y in members if y != x) for x in members}
        best |= dict.fromkeys(members, min(members, key=lambda row, total=total: (-round(total[row], 6), row)))
    return group, best


@st.composite
def graphs(draw):
    """Rows in random order and pairs, many of them equally probable; dense, so that components are messy."""
    names = draw(st.lists(st.tuples(st.sampled_from(CODES), st.integers(0, 6)), max_size=24, unique=True))
    rows = [(f"{code}{number}", code) for code, number in names]
    across = [(a, b) for a, b in itertools.combinations(range(len(rows)), 2) if rows[a][1] != rows[b][1]]
    density = draw(st.sampled_from([0.1, 0.3, 0.7]))
    random = draw(st.randoms(use_true_random=False))
    digits = draw(st.sampled_from([1, 3]))
    pairs = [(a, b, round(random.random(), digits)) for a, b in across if random.random() < density]
    same = [(a, b, 0.9) for a, b in across if rows[a][0][2:] == rows[b][0][2:] and draw(st.booleans())]
    return rows, list({(a, b): (a, b, p) for a, b, p in pairs + same}.values()), random


@settings(max_examples=150, deadline=None)
@given(graphs(), st.sampled_from([0.1, 0.3, 0.5, 0.8]), st.sampled_from([0.2, 0.35]))
def test_groups_are_what_plain_complete_linkage_makes(graph, threshold, plausible):
    rows, pairs, random = graph
    ids, codes = [row for row, _ in rows], [code for _, code in rows]
    groups = grouping.group_pairs(frame(rows), pair_frame(pairs), threshold, plausible)
    expected, best = plainly_grouped(ids, codes, pairs, threshold, plausible)
    assert groups["id"].tolist() == ids and groups["duplicate_of"].isna().all()
    assert groups["group"].drop_duplicates().tolist() == list(range(groups["group"].nunique()))
    for row, group, size, representative in groups[["id", "group", "size", "representative"]].itertuples(index=False):
        members = frozenset(groups.loc[groups["group"] == group, "id"])
        assert members == expected[row] and size == len(members) and representative == best[row]
    order = random.sample(range(len(ids)), len(ids))  # row `order[k]` becomes row k
    place = {row: k for k, row in enumerate(order)}
    moved = [(place[b], place[a], p) for a, b, p in random.sample(pairs, len(pairs))]
    other = grouping.group_pairs(frame([rows[k] for k in order]), pair_frame(moved), threshold, plausible)
    again = {frozenset(g["id"]): g["representative"].iloc[0] for _, g in other.groupby("group")}
    assert again == {frozenset(g["id"]): g["representative"].iloc[0] for _, g in groups.groupby("group")}


@settings(max_examples=60, deadline=None)
@given(graphs(), st.lists(st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0]), min_size=1, max_size=5, unique=True))
def test_the_threshold_curve_counts_the_groups_of_each_threshold(graph, thresholds):
    rows, pairs, _ = graph
    curve = grouping.threshold_curve(frame(rows), pair_frame(pairs), thresholds)
    assert curve["threshold"].tolist() == sorted(thresholds)
    for threshold, groups, together, droppable in curve.itertuples(index=False):
        made = grouping.group_pairs(frame(rows), pair_frame(pairs), threshold)
        assert groups == made["group"].nunique() and together == (made["size"] > 1).sum()
        assert droppable == len(rows) - groups


def test_groups_do_not_chain():
    rows = frame([("e", "en"), ("z", "zh"), ("r", "ru")])
    chain = [(0, 1, 0.9), (1, 2, 0.8)]
    assert grouping.group_pairs(rows, pair_frame(chain))["size"].tolist() == [2, 2, 1]
    groups = grouping.group_pairs(rows, pair_frame([*chain, (0, 2, 0.3)]))  # plausible, though below the threshold
    assert groups["size"].tolist() == [3, 3, 3] and set(groups["representative"]) == {"z"}


def test_translations_in_five_languages_end_up_together():
    rows = frame([(f"{code}{content}", code) for content in range(4) for code in CODES])
    pairs = [(5 * n + a, 5 * n + b, 0.9) for n in range(4) for a, b in itertools.combinations(range(5), 2)]
    assert grouping.group_pairs(rows, pair_frame(pairs))["group"].tolist() == [n for n in range(4) for _ in CODES]


def test_a_pair_given_twice_counts_once_and_by_its_best_probability():
    rows = frame([("e", "en"), ("z", "zh")])
    assert grouping.group_pairs(rows, pair_frame([(0, 1, 0.3), (1, 0, 0.6)]))["size"].tolist() == [2, 2]


def test_one_giant_component_is_no_trouble():
    """A chain through all rows, and a hub that all rows of a language match: one component, joined in a single pass."""
    n = 60_000
    rows = frame([(f"{k:06d}", CODES[k % 2]) for k in range(n)] + [("hub", "ru")])
    chain = pd.DataFrame({"left": np.arange(n - 1), "right": np.arange(1, n), "probability": np.linspace(0.99, 0.6, n - 1)})
    hub = pd.DataFrame({"left": np.arange(0, n, 2), "right": n, "probability": 0.55})
    groups = grouping.group_pairs(rows, pair_frame(pd.concat([chain, hub])))
    assert (groups["size"][:n] == 2).all() and groups["size"].iloc[n] == 1  # the hub knows one half of each couple only


def test_row_numbers_beyond_the_square_root_of_two_to_the_31():
    """2**17 rows, of which two at a distance of 2**15 match a third: a product of row numbers must not run over."""
    rows = pd.DataFrame({"id": [f"{n:06d}" for n in range(2**17)], "language": "en"})
    rows.loc[2**15, "language"], rows.loc[2**16, "language"] = "zh", "fr"
    rows.loc[2**16 + 1 :: 2, "language"] = "ru"
    surer = [(n, n + 1, 0.9) for n in range(2**17 - 20, 2**17, 2)]
    groups = grouping.group_pairs(rows, pair_frame([*surer, (0, 2**15, 0.6), (0, 2**16, 0.7), (2**15, 2**16, 0.65)]))
    assert groups["size"][[0, 2**15, 2**16]].tolist() == [3, 3, 3] and (groups["size"] == 2).sum() == 20


def test_a_duplicate_joins_the_group_of_the_row_that_stands_for_it():
    rows = frame([("d", "en"), ("e", "en"), ("z", "zh"), ("w", "zh"), ("x", "zh")])
    duplicates = pd.DataFrame({"id": ["d", "x"], "duplicate_of": ["e", "w"]})
    pairs = pair_frame([(1, 2, 0.9), (0, 2, 0.99), (0, 3, 0.98)])  # the last two are of a duplicate and are not looked at
    groups = grouping.group_pairs(rows, pairs, duplicates=duplicates)
    assert groups["group"].tolist() == [0, 0, 0, 1, 1] and groups["size"].tolist() == [3, 3, 3, 2, 2]
    assert groups["representative"].tolist() == ["e", "e", "e", "w", "w"]
    assert groups["duplicate_of"].fillna("").tolist() == ["e", "", "", "", "w"]
    curve = grouping.threshold_curve(rows, pairs, [0.5, 0.95], duplicates=duplicates)
    assert curve["groups"].tolist() == [2, 3] and curve["rows in groups of more than one"].tolist() == [5, 4]


def test_a_hundred_thousand_copies_are_one_group():
    n = 100_000
    rows = pd.DataFrame({"id": [f"c{k:06d}" for k in range(n)], "language": "en", "kind": "chat"})
    duplicates = pd.DataFrame({"id": rows["id"][1:], "duplicate_of": "c000000"})
    groups = grouping.group_pairs(rows, pair_frame([]), duplicates=duplicates)
    assert (groups["size"] == n).all() and (groups["representative"] == "c000000").all()


@pytest.mark.parametrize("rows", [[], [("a", "en"), ("b", "en")]])
def test_no_rows_or_one_language(rows):
    rows = frame(rows)
    groups = grouping.group_pairs(rows, pair_frame([]))
    assert groups["size"].tolist() == [1] * len(rows) and groups["representative"].tolist() == rows["id"].tolist()
    assert grouping.threshold_curve(rows, pair_frame([]), [0.5])["groups"].tolist() == [len(rows)]
    assert grouping.redundancy_matrix(rows, pair_frame([])).shape == (rows["language"].nunique(),) * 2
    measured = grouping.specificity(rows, pair_frame([]))
    assert (measured["measured"] == "language-specific").all() and len(grouping.specific_share(measured)) == min(1, len(rows))


@pytest.mark.parametrize(("pairs", "duplicates", "message"), [
    ([(0, 3, 0.9)], None, "row numbers outside 0 to 2"),
    ([(-1, 2, 0.9)], None, "row numbers outside 0 to 2"),
    ([(0, 2, 1.5)], None, "not in \\[0, 1\\]"),
    ([(0, 2, float("nan"))], None, "not in \\[0, 1\\]"),
    ([(0, 1, 0.9)], None, "rows 0 and 1 are of one language"),
    ([], [("a", "x")], "column duplicate_of: 'x' is not among the rows"),
    ([], [("x", "a")], "column id: 'x' is not among the rows"),
    ([], [("b", "a"), ("b", "z")], "'b' is listed twice"),
    ([], [("b", "a"), ("z", "b")], "'b' is a duplicate itself"),
])
def test_what_does_not_fit_is_named(pairs, duplicates, message):
    rows = frame([("a", "en"), ("b", "en"), ("z", "zh")])
    given_ = None if duplicates is None else pd.DataFrame(duplicates, columns=["id", "duplicate_of"])
    with pytest.raises(BadRecord, match=message):
        grouping.group_pairs(rows, pair_frame(pairs), duplicates=given_)


def test_an_id_given_twice_is_named():
    with pytest.raises(BadRecord, match="'a' occurs twice"):
        grouping.group_pairs(frame([("a", "en"), ("b", "en"), ("a", "zh")]), pair_frame([]))


def test_counterparts_specificity_and_matrix():
    rows = frame([("e1", "en"), ("e2", "en"), ("z1", "zh"), ("z2", "zh"), ("e3", "en")])
    pairs = pair_frame([(0, 2, 0.9), (1, 2, 0.4)])
    duplicates = pd.DataFrame({"id": ["e3"], "duplicate_of": ["e1"]})
    assert grouping.best_counterpart(5, pairs).tolist() == pytest.approx([0.9, 0.4, 0.9, 0, 0])
    measured = grouping.specificity(rows, pairs, 0.5, duplicates)
    assert measured["counterpart"].tolist() == pytest.approx([0.9, 0.4, 0.9, 0, 0.9])
    assert (measured["measured"] == "language-specific").tolist() == [False, True, False, True, False]
    share = grouping.specific_share(measured).set_index(["language", "kind"])
    assert share.loc[("en", "math"), ["rows", "specific"]].tolist() == [3, 1] and share.loc[("zh", "math"), "share"] == 0.5
    matrix = grouping.redundancy_matrix(rows, pairs, 0.5, duplicates)
    assert matrix.loc["en", "zh"] == pytest.approx(2 / 3) and matrix.loc["zh", "en"] == 0.5 and np.isnan(matrix.loc["en", "en"])
