"""What came out of generation, by language, beside the paper's table."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ultralink_nb.card import PUBLISHED, in_order
from ultralink_nb.checks import GATES, ngrams, units
from ultralink_nb.release import statistics
from ultralink_nb.tokens import DEFAULT_TOKENIZER

Samples = Sequence[Mapping[str, Any]]
UNITS = 20_000  # of a language's questions or answers: distinct-n falls with the length of the text, so all are given the same


def distinct(texts: Sequence[str], n: int = 2, at_most: int = UNITS) -> float | None:
    """Distinct-n (Li et al. 2016): of the runs of n words (Chinese: characters) in the texts, the share that are different.

    The texts are read in their order until they have `at_most` runs. None where they have none.
    """
    runs: list = []
    for text in texts:
        runs += ngrams(units(text), n)
        if len(runs) >= at_most:
            break
    return len(set(runs[:at_most])) / len(runs[:at_most]) if runs else None


def by_language(samples: Samples, tokenizer: str = DEFAULT_TOKENIZER) -> pd.DataFrame:
    """A row for each language and one for all: language, dialogues, turns, turns per dialogue, question, answer, turn (mean
    tokens), depth, width (shares of the turns after the first), distinct-2 of questions and of answers, grounding (mean).

    `all` has no distinct-2: what several languages share is nothing. Samples: at least one, of `dialogues.generate_dialogues`.
    """
    counted = {row["name"]: row for row in statistics(samples, tokenizer) if row["part"] in ("all", "language")}
    rows = []
    for name in [*in_order(sample["language"] for sample in samples), "all"]:
        own = [sample for sample in samples if name in ("all", sample["language"])]
        turns = [turn for sample in own for turn in json.loads(sample["extra"])["turns"]]
        moves = pd.Series([turn["move"] for turn in turns if turn["move"] != "first"], dtype=object)
        said = {role: [message["content"] for sample in own for message in sample["messages"] if message["role"] == role]
                for role in ("user", "assistant")}
        rows.append({
            "language": name, "dialogues": counted[name]["dialogues"], "turns": counted[name]["turns"],
            "turns per dialogue": counted[name]["turns"] / counted[name]["dialogues"],
            **{column: counted[name][column] for column in ("question", "answer", "turn")},
            "depth": (moves == "depth").mean(), "width": (moves == "width").mean(),
            "distinct-2 questions": None if name == "all" else distinct(said["user"]),
            "distinct-2 answers": None if name == "all" else distinct(said["assistant"]),
            "grounding": sum(turn["grounding"] for turn in turns) / len(turns),
        })
    return pd.DataFrame(rows)


def beside_paper(samples: Samples, name: str, tokenizer: str = DEFAULT_TOKENIZER) -> pd.DataFrame:
    """The columns of the paper's statistics table for this run, under `name`, and for the datasets that the paper compares."""
    ours = {**statistics(samples, tokenizer)[0], "name": name}
    table = pd.DataFrame([ours, *PUBLISHED])[["name", "dialogues", "turns", "question", "answer", "turn"]]
    table.insert(3, "turns per dialogue", table["turns"] / table["dialogues"])
    return table.rename(columns={"name": "dataset"})


def refusal_counts(refused: Sequence[Mapping[str, Any]], languages: Sequence[str]) -> pd.DataFrame:
    """Refusals by gate (index, those of `checks.GATES` first and always there) and language (columns)."""
    counted = pd.DataFrame(list(refused), columns=["gate", "language"]).value_counts().unstack(fill_value=0)
    gates = [*GATES, *sorted(set(counted.index) - set(GATES))]
    return counted.reindex(index=gates, columns=list(languages), fill_value=0).astype(int).rename_axis(index=None, columns=None)
