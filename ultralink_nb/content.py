"""What a pruning policy looks at: rows, groups and pairs by row number, and the plan.

`arrange` checks that the three belong together and brings them into arrays once; every policy and every comparison then works
on these. A row is said by another with the probability of their pair; a duplicate speaks for the row that stands for it, with
the similarity that the duplicates pass measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ultralink_nb.errors import KitError
from ultralink_nb.grouping import best_counterpart, check_pairs, id_rank, stand_ins


class BadPlan(KitError, ValueError):
    """Rows, groups, pairs and plan that do not fit together; the message says what to do."""


@dataclass(frozen=True)
class Plan:
    """What a policy is told, besides the rows of a group.

    seed: of every random choice. source_language and quota (share in [0, 1]): for `paper`. language_order: for `by_language`.
    protected: kinds that lose nothing, duplicates included. protect_specific: rows without a counterpart in any other language
    lose nothing either; their duplicates may go, since the row that stands for them stays. threshold: the probability from
    which two rows count as the same, for protect_specific. min_drop_probability: a row that no kept row of its group says with
    at least this probability is kept; None: the threshold, but at most 0.5, so that no row is dropped for one that more likely
    than not says something else; 0: being in one group is enough.

    budget: most rows to keep, a share of all; `coverage` and `random` also fill up to it. budgets: most rows to keep of a
    language, a kind or both: {"en": 0.3, "math": 50000, "zh/math": 0.1}; a fraction in [0, 1] is a share of the rows there,
    a whole number (but 1.0 is a share) a count. A policy first drops what other kept rows say anyway, then lets other languages
    say the content. A budget that would still cost a protected row or the last row of a content is exceeded, and
    `Pruned.over_budget` says by how much. With allow_loss the budget wins over content: the rows that the policy prefers least
    are lost, and the ledger names them with no `kept_by`; protected rows stay even then.
    """

    seed: int = 1
    source_language: str = "en"
    quota: float = 0.1
    language_order: Sequence[str] = ()
    budget: float | None = None
    budgets: Mapping[str, float] = field(default_factory=dict)
    allow_loss: bool = False
    protected: frozenset[str] = frozenset({"chat_specific"})
    protect_specific: bool = False
    threshold: float = 0.5
    min_drop_probability: float | None = None

    @property
    def floor(self) -> np.float32:
        """The least probability at which a kept row stands for a dropped one."""
        given = self.min_drop_probability
        return np.float32(min(0.5, self.threshold) if given is None else given)


@dataclass(frozen=True)
class Content:
    """Rows, groups and pairs as arrays over n rows.

    rank: place of the id among the sorted ids. language, kind: codes into languages and kinds, both sorted. quality: (n,) or
    None. group: codes from 0. stands: the row that stands for each row, itself if it is no duplicate; similarity: to that row,
    in [0, 1]; how: the sort of duplicate. counterpart: best probability in another language. here, there, probability: pairs of
    one group without duplicates, in both directions.
    """

    ids: pd.Series
    rank: np.ndarray
    language: np.ndarray
    kind: np.ndarray
    languages: list[str]
    kinds: list[str]
    quality: np.ndarray | None
    group: np.ndarray
    stands: np.ndarray
    similarity: np.ndarray
    how: np.ndarray
    counterpart: np.ndarray
    here: np.ndarray
    there: np.ndarray
    probability: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.group.max(initial=-1)) + 1

    @property
    def duplicate(self) -> np.ndarray:
        """(n,) bool: rows for which another one of the same language stands."""
        return self.stands != np.arange(len(self))

    @property
    def cell(self) -> np.ndarray:
        """(n,) kind and language as one code, kind x number of languages + language."""
        return self.kind * len(self.languages) + self.language

    def protected(self, plan: Plan) -> np.ndarray:
        """(n,) bool: rows that no policy and no budget drops."""
        chosen = np.isin(self.kind, [code for code, name in enumerate(self.kinds) if name in plan.protected])
        if plan.protect_specific:
            chosen |= (self.counterpart < np.float32(plan.threshold)) & ~self.duplicate
        return chosen

    def draw(self, seed: int) -> np.ndarray:
        """(n,) numbers in [0, 1] that depend on the seed and the id alone, so that the order of rows cannot matter."""
        key = f"{seed % 2**64:016x}"
        return pd.util.hash_array(self.ids.to_numpy(dtype=object), hash_key=key, categorize=False) / 2.0**64

    def voices(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each row the kept row with its text, itself or its most similar kept duplicate, else -1; and the similarity."""
        voice = np.where(keep, np.arange(len(self)), -1)
        loud = keep.astype(np.float32)
        late = np.flatnonzero(keep & self.duplicate & ~keep[self.stands])
        late = late[np.lexsort((-self.rank[late], self.similarity[late]))]  # of several the last is written
        voice[self.stands[late]], loud[self.stands[late]] = late, self.similarity[late]
        return voice, loud

    def said(self, keep: np.ndarray) -> np.ndarray:
        """(n,) float32 in [0, 1]: the highest probability with which a kept row says what each row says, 1 for a kept row."""
        loud = self.voices(keep)[1]
        best = loud.copy()
        np.maximum.at(best, self.there, self.probability * loud[self.here])
        return np.where(keep, np.float32(1), best[self.stands] * self.similarity)


def first_of_each(labels: np.ndarray) -> np.ndarray:
    """Positions at which a sorted array of labels changes, the first position included."""
    return np.flatnonzero(np.append(True, labels[1:] != labels[:-1])) if len(labels) else np.zeros(0, dtype=np.int64)


def _names(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    codes, names = pd.factorize(column, sort=True)
    return codes.astype(np.int64), [str(name) for name in names]


def arrange(
    rows: pd.DataFrame, groups: pd.DataFrame, pairs: pd.DataFrame, duplicates: pd.DataFrame | None = None
) -> Content:
    """Rows (id, language, kind, perhaps quality), groups and pairs as arrays; duplicates add how and how similar.

    groups: id, group, perhaps duplicate_of, in any order. pairs: left, right (row numbers), probability.
    Raises `BadPlan` or `BadRecord` if ids occur twice or do not match, or if a duplicate is not in the group of the row that
    stands for it.
    """
    rank = id_rank(rows["id"])
    found = pd.Index(groups["id"])
    if not found.is_unique or len(found) != len(rows) or (place := found.get_indexer(rows["id"])).min(initial=0) < 0:
        odd = [str(name) for name in found.symmetric_difference(pd.Index(rows["id"]))[:3]] or "one occurs twice"
        raise BadPlan(f"rows and groups do not hold the same ids ({odd}): make the groups of these rows again (notebook 04)")
    of = groups.iloc[place].reset_index(drop=True)
    given = of[of["duplicate_of"].notna()] if "duplicate_of" in of else of[:0].assign(duplicate_of=None)
    stands = stand_ins(rows, given)
    group = pd.factorize(of["group"])[0].astype(np.int64)
    if (apart := group[stands] != group).any():
        row = rows["id"].iloc[int(np.argmax(apart))]
        raise BadPlan(f"{row!r} is a duplicate of a row in another group: give the duplicates to group_pairs, then prune")
    similarity, how = np.ones(len(rows), dtype=np.float32), np.full(len(rows), "", dtype=object)
    if duplicates is not None and len(duplicates):
        if (stand_ins(rows, duplicates) != stands).any():
            raise BadPlan("the groups were made without these duplicates: give the duplicates to group_pairs, then prune")
        who = pd.Index(rows["id"]).get_indexer(duplicates["id"])
        similarity[who], how[who] = duplicates["similarity"], duplicates["how"]
    (language, languages), (kind, kinds) = _names(rows["language"]), _names(rows["kind"])
    check_pairs(len(rows), pairs, language)
    left, right, probability = (pairs[name].to_numpy() for name in ("left", "right", "probability"))
    alone = stands == np.arange(len(rows))
    inner = (group[left] == group[right]) & alone[left] & alone[right]
    left, right, probability = left[inner], right[inner], probability[inner].astype(np.float32)
    return Content(
        ids=rows["id"].reset_index(drop=True), rank=rank, language=language, kind=kind, languages=languages, kinds=kinds,
        quality=rows["quality"].to_numpy(dtype=float) if "quality" in rows else None, group=group, stands=stands,
        similarity=similarity, how=how, counterpart=best_counterpart(len(rows), pairs)[stands],
        here=np.concatenate([left, right]), there=np.concatenate([right, left]), probability=np.tile(probability, 2),
    )
