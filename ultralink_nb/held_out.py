"""The loss of a language model on rows that it was not trained on, per language and kind.

The loss of a token is -log p(token | what stands before it), in nats; that of a set is the mean over its learnt tokens, so that a
long answer counts for more than a short one. Its exponential is the **perplexity**: as unsure as among that many equally likely
tokens. Losses of two models compare only if their tokenizers are the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ultralink_nb.training_data import IGNORED, Encoded, EncodedRows

BATCH_TOKENS = 8_192  # of a padded batch: bounds the memory of its logits
HELD_OUT = pa.schema([("language", pa.string()), ("kind", pa.string()), ("rows", pa.int64()), ("tokens", pa.int64()),
                      ("loss_before", pa.float64()), ("loss_after", pa.float64())])


def batches(encoded: Sequence[Encoded], batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Row numbers in batches of similar length, at most `batch_tokens` each with padding unless a row alone has more."""
    found: list[list[int]] = []
    for row in sorted(range(len(encoded)), key=lambda row: len(encoded[row].input_ids)):
        if found and len(encoded[row].input_ids) * (len(found[-1]) + 1) <= batch_tokens:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def row_losses(model: Any, encoded: Sequence[Encoded], batch_tokens: int = BATCH_TOKENS) -> np.ndarray:
    """(n,) the sum of the losses of each row's learnt tokens, in nats; the model's mode is as before afterwards."""
    import torch

    sums, mode, device = np.zeros(len(encoded)), model.training, model.device
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches(encoded, batch_tokens):
                width = max(len(encoded[row].input_ids) for row in batch)
                ids, labels, mask = (torch.full((len(batch), width), fill, dtype=torch.long) for fill in (0, IGNORED, 0))
                for place, row in enumerate(batch):
                    length = len(encoded[row].input_ids)
                    ids[place, :length] = torch.from_numpy(encoded[row].input_ids)
                    labels[place, :length] = torch.from_numpy(encoded[row].labels)
                    mask[place, :length] = 1
                logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, :-1].float()
                losses = torch.nn.functional.cross_entropy(
                    logits.transpose(1, 2), labels[:, 1:].to(device), reduction="none", ignore_index=IGNORED)
                sums[batch] = losses.sum(1).double().cpu().numpy()
    finally:
        model.train(mode)
    return sums


def losses(model: Any, rows: EncodedRows) -> pd.DataFrame:
    """A row for each language and kind: language, kind, rows, tokens (learnt), loss (nats a token)."""
    table = pd.DataFrame({
        "language": [sample["language"] for sample in rows.samples], "kind": [sample["kind"] for sample in rows.samples],
        "rows": 1, "tokens": [row.learnt for row in rows.encoded], "sum": row_losses(model, rows.encoded),
    })
    table = table.groupby(["language", "kind"], sort=False, as_index=False).sum()
    return table.assign(loss=table["sum"] / table["tokens"]).drop(columns="sum")


def by(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A table of losses summed up by some columns (none: over all), each loss weighted with its tokens, perplexity added."""
    names = [name for name in ("loss", "loss_before", "loss_after") if name in table]
    weighted = table.assign(**{name: table[name] * table["tokens"] for name in names})
    keys = list(columns) or [lambda row: "all"]
    found = weighted.groupby(keys, sort=False)[["rows", "tokens", *names]].sum()
    for name in names:
        found[name] /= found["tokens"]
        found[name.replace("loss", "perplexity")] = np.exp(found[name])
    return found.rename_axis(index=None) if not columns else found


def before_and_after(measured: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The first and the last measurement of a training (rows with step, language, kind, rows, tokens, loss), as `HELD_OUT`."""
    table = pd.DataFrame(measured, columns=["step", "language", "kind", "rows", "tokens", "loss"])
    keys = ["language", "kind", "rows", "tokens"]
    first, last = (table[table["step"] == step].set_index(keys)["loss"] for step in (table["step"].min(), table["step"].max()))
    return pd.DataFrame({"loss_before": first, "loss_after": last}).reset_index()
