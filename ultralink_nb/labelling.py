"""Labels for pairs of samples: a small form in JupyterLab, and the file of labels that it writes.

A label is a line of JSON, {"left_id", "right_id", "same"}, on disk as soon as it is given. Pairs are offered evenly over all
probabilities, since the middling ones teach a calibration most and the others show whether it can be trusted.
"""

import html
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from ipywidgets import HTML, Button, HBox, VBox

from ultralink_nb.records import BadRecord, read_rows

TEXT = "white-space:pre-wrap; overflow-wrap:anywhere; max-width:60em; line-height:1.5; margin:0.6em 0; padding-left:0.8em; " \
       "border-left:3px solid #0072B2"  # how a text to label looks: what one text is and what the other must be seen at once

def to_label(pairs: pd.DataFrame, count: int = 200, seed: int = 1) -> np.ndarray:
    """Row positions of up to `count` pairs, spread evenly over ten bands of probability, in random order."""
    rng = np.random.default_rng(seed)
    bands = np.minimum((pairs["probability"].to_numpy() * 10).astype(int), 9)
    chosen = [rng.permutation(np.flatnonzero(bands == band))[: -(-count // 10)] for band in range(10)]
    return rng.permutation(np.concatenate(chosen))[:count]


def read_labels(path: str | Path, pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Which of the pairs are labelled, (m,) row positions, and how, (m,) of 0 and 1; the last label of a pair counts.

    pairs: left_id, right_id. Labels of pairs that are not among them are passed over. Raises `BadRecord` for a line that is no
    label.
    """
    labels: dict[tuple[str, str], int] = {}
    for place, row in read_rows(path):
        if not isinstance(row.get("same"), bool) or not {"left_id", "right_id"} <= set(row):
            raise BadRecord(f"{place}: a label is {{left_id, right_id, same}}, same being true or false")
        labels[str(row["left_id"]), str(row["right_id"])] = int(row["same"])
    ends = list(zip(pairs["left_id"], pairs["right_id"], strict=True))
    found = [(row, labels.get(pair, labels.get(pair[::-1]))) for row, pair in enumerate(ends)
             if pair in labels or pair[::-1] in labels]
    return np.array([row for row, _ in found], dtype=np.int64), np.array([same for _, same in found], dtype=np.int64)


def label_form(pairs: pd.DataFrame, text_of: Mapping[str, str], path: str | Path, count: int = 200, seed: int = 1) -> VBox:
    """A form that shows one unlabelled pair after the other, with buttons for same, different and skip.

    pairs: left_id, right_id, probability (not shown, so that it cannot sway you); text_of: the texts by id. Every answer is
    appended to `path` at once.
    """
    done = set(read_labels(path, pairs)[0].tolist()) if Path(path).is_file() else set()
    waiting = [row for row in to_label(pairs, count, seed).tolist() if row not in done]
    shown, given = HTML(), len(done)

    def show() -> None:
        head = f"<b>Do the two ask the same?</b> {given} labelled, {len(waiting)} to go"
        if waiting:
            ends = (pairs[name].iloc[waiting[0]] for name in ("left_id", "right_id"))
            head += "".join(f"<div class='label-text' style='{TEXT}'>{html.escape(text_of[end][:1000])}</div>" for end in ends)
        shown.value = head
        for button in buttons:
            button.disabled = not waiting

    def answer(same: bool | None) -> None:
        nonlocal given
        row = waiting.pop(0)
        if same is not None:
            label = {"left_id": pairs["left_id"].iloc[row], "right_id": pairs["right_id"].iloc[row], "same": same}
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(label, ensure_ascii=False) + "\n")
            given += 1
        show()

    buttons = [Button(description=name) for name in ("same", "different", "skip")]
    for button, same in zip(buttons, (True, False, None), strict=True):
        button.on_click(lambda _, same=same: answer(same))
    show()
    return VBox([HBox(buttons), shown])  # the buttons above, so that they stay where they are as texts of any length pass
