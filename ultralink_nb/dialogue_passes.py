"""Passes over finished dialogues: what a turn's gates cannot see, because it takes all dialogues or is cheaper on many at once.

Each returns (samples, rejected rows) in the order of the samples. As in generation a dialogue is cut at the turn refused, what
follows builds on it; a dialogue of which nothing is left is dropped.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ultralink_nb import grounded
from ultralink_nb.dialogues import KIND, MISSING, STAGE, passage_text
from ultralink_nb.duplicates import find_duplicates
from ultralink_nb.embedding import Encoder
from ultralink_nb.obeying import without_instructions
from ultralink_nb.prompts import load_prompts
from ultralink_nb.records import rejected

Samples = Sequence[Mapping[str, Any]]
REPEATED, GROUNDING = "repeated_in_run", "grounding"  # the gates of the passes


def _turns(samples: Samples) -> pd.DataFrame:
    """A row for each turn: sample (its row number), turn (from 0), id, language, question, answer."""
    return pd.DataFrame(
        [(row, turn, f"{row}/{turn}", sample["language"], sample["messages"][2 * turn]["content"],
          sample["messages"][2 * turn + 1]["content"])
         for row, sample in enumerate(samples) for turn in range(len(sample["messages"]) // 2)],
        columns=["sample", "turn", "id", "language", "question", "answer"],
    )


def _cut(sample: Mapping[str, Any], turn: int) -> dict[str, Any]:
    extra = json.loads(sample["extra"])
    extra["turns"] = extra["turns"][:turn]
    return {**sample, "messages": list(sample["messages"][: 2 * turn]), "extra": json.dumps(extra, ensure_ascii=False)}


def _cut_all(samples: Samples, refused: Mapping[int, tuple[int, str]], gate: str) -> tuple[list[dict], list[dict]]:
    """The samples cut where `refused` says (row number: turn, reason), and a rejected row for each."""
    kept, rows = [], []
    for number, sample in enumerate(samples):
        if number not in refused:
            kept.append(dict(sample))
            continue
        turn, reason = refused[number]
        extra = json.loads(sample["extra"])
        record = {"passage_id": sample["id"].partition(f"_{KIND}_")[2], "title": extra["title"], "turn": turn + 1,
                  "turns_kept": turn, "move": extra["turns"][turn]["move"],
                  "question": sample["messages"][2 * turn]["content"], "answer": sample["messages"][2 * turn + 1]["content"]}
        rows.append(rejected(sample["id"], sample["language"], STAGE, gate, reason, record))
        if turn:
            kept.append(_cut(sample, turn))
    return kept, rows


def drop_repeated_questions(samples: Samples, threshold: float = 0.4, min_follow_up: int = 60) -> tuple[list[dict], list[dict]]:
    """The dialogues without questions that an earlier dialogue of the run asks too; the gate is `repeated_in_run`.

    Earlier means further up among the samples, which stand in the order of the passages: what ended first does not matter.
    Compared are the first questions and, of the others, those of at least `min_follow_up` characters (a third in Chinese):
    "Why was that?" is another question in another dialogue. threshold: of `find_duplicates`, in (0, 1]; two questions are the
    same that differ in slips only, so that a pattern of a question about two subjects is two questions.
    A question that was cut with its dialogue refuses no other.
    """
    turns = _turns(samples)
    least = turns["language"].map(lambda code: min_follow_up // 3 if code == "zh" else min_follow_up)
    turns = turns[(turns["turn"] == 0) | (turns["question"].str.len() >= least)].reset_index(drop=True)
    rows = turns[["id", "language"]].assign(quality=-np.arange(len(turns), dtype=float))
    found = find_duplicates(list(turns["question"]), rows, semantic=False, near_threshold=threshold)
    same = dict(zip(found["id"], found["duplicate_of"], strict=True))
    refused: dict[int, tuple[int, str]] = {}
    asked: dict[str, str] = {}
    for one in turns.itertuples():
        if one.sample in refused:
            continue
        content = same.get(one.id, one.id)
        if content in asked:
            refused[one.sample] = (one.turn, f"asked already in {asked[content]}")
        else:
            asked[content] = samples[one.sample]["id"]
    return _cut_all(samples, refused, REPEATED)


def drop_ungrounded(
    samples: Samples, passages: Samples, min_grounding: float = 0.1, encoder: Encoder | None = None,
    cache_dir: str | Path = ".cache", rarity: Mapping[str, np.ndarray] | None = None,
) -> tuple[list[dict], list[dict]]:
    """The dialogues cut at the first answer that its passage supports less than `min_grounding`; `extra` has the new scores.

    passages: rows of `PASSAGES`, among them each sample's. encoder: measures similarity as well, which sees rewordings; without
    it the score is the one of generation. rarity: by default of these passages.
    """
    by_id = {f"{passage['language']}_{KIND}_{passage['id']}": passage for passage in passages}
    if missing := next((sample["id"] for sample in samples if sample["id"] not in by_id), None):
        raise ValueError(f"no passage for the sample {missing!r}: give the passages that the dialogues were made from")
    if rarity is None:
        rarity = grounded.measure_rarity([passage_text(one) for one in passages], [one["language"] for one in passages])
    turns = _turns(samples)
    support = {sample["id"]: without_instructions(passage_text(by_id[sample["id"]]),
                                                  load_prompts(sample["language"])["dialogue"]["patterns"]) for sample in samples}
    texts = [support[samples[row]["id"]] for row in turns["sample"]]
    scores = grounded.score(list(turns["question"]), list(turns["answer"]), texts, list(turns["language"]), encoder, cache_dir,
                            rarity)
    scored = [dict(sample) for sample in samples]
    refused: dict[int, tuple[int, str]] = {}
    for one, text, score in zip(turns.itertuples(), texts, scores.tolist(), strict=True):
        extra = json.loads(scored[one.sample]["extra"])
        extra["turns"][one.turn]["grounding"] = round(score, 3)
        scored[one.sample]["extra"] = json.dumps(extra, ensure_ascii=False)
        if score < min_grounding and one.sample not in refused:
            lacks = ", ".join(grounded.unsupported(one.answer, text, one.language)[:MISSING]) or "most of its words"
            refused[one.sample] = (one.turn, f"support {score:.2f}; not in the passage: {lacks}")
    return _cut_all(scored, refused, GROUNDING)
