"""What completions cost: prices that the user states, and the bill of a ledger. A price that nobody stated is not known: None.

Prices are in US dollars for a million tokens, as services list them; the YAML in `prices_path` gives them by model:

    Qwen/Qwen3-8B: {prompt: 0.05, completion: 0.20}
    gpt-4o-mini: {prompt: 0.15, completion: 0.60}
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ultralink_nb.errors import KitError
from ultralink_nb.ledger import Ledger

BILL = ("model", "task", "answered", "failed", "prompt_tokens", "completion_tokens", "cost", "cached", "saved")


class BadPrices(KitError, ValueError):
    """Prices that cannot be read or make no sense; the message names the file, the model and the key."""


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens of prompts and of completions."""

    prompt: float
    completion: float


def cost(price: Price | None, prompt_tokens: float, completion_tokens: float) -> float | None:
    """US dollars; None where the price is not known."""
    if price is None:
        return None
    return (price.prompt * prompt_tokens + price.completion * completion_tokens) / 1e6


def _amount(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise BadPrices(f"{where} must be US dollars for a million tokens, 0 or more, not {value!r}")
    return float(value)


def read_prices(path: str | Path) -> dict[str, Price]:
    """The prices of a YAML file by model. Raises `BadPrices` naming the file, the model and what is wrong with it."""
    path = Path(path)
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadPrices(f"cannot read the prices in {path}: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise BadPrices(f"{path} must hold lines such as: a-model: {{prompt: 0.15, completion: 0.60}}")
    prices = {}
    for model, entry in given.items():
        if not isinstance(entry, dict) or set(entry) != {"prompt", "completion"}:
            raise BadPrices(f"{path}: {model} must give prompt and completion, and nothing else, not {entry!r}")
        prices[str(model)] = Price(*(_amount(entry[part], f"{path}: {model}, {part}") for part in ("prompt", "completion")))
    return prices


def price_of(model: str, *, prices_path: str | Path | None = None, price_prompt: float | None = None,
             price_completion: float | None = None) -> Price | None:
    """A model's price: the two numbers where they are given, else its entry in the file, else None (not known).

    Raises `BadPrices` where one number of the two is missing.
    """
    if price_prompt is not None and price_completion is not None:
        return Price(_amount(price_prompt, "price_prompt"), _amount(price_completion, "price_completion"))
    if price_prompt is not None or price_completion is not None:
        raise BadPrices("price_prompt and price_completion belong together: give both, or neither")
    return read_prices(prices_path).get(model) if prices_path else None


def bill(ledger: Ledger, prices: Mapping[str, Price] | None = None, since: float = 0.0) -> pd.DataFrame:
    """What the ledger's requests cost, one row a model and task: the columns of `BILL`.

    cost: US dollars, NaN where the model has no price. cached: answers that were taken from the ledger instead of asked for
    again, by any session; saved: what they would have cost. since: Unix seconds. A failed request counts no tokens: no server
    tells them.
    """
    rows = {(row["model"], row["task"] or ""): dict(row, cached=0, saved=0.0) for row in ledger.summary(since)}
    for reuse in ledger.reuses(since):
        empty = {"model": reuse["model"], "task": reuse["task"], "answered": 0, "failed": 0, "prompt_tokens": 0,
                 "completion_tokens": 0}
        row = rows.setdefault((reuse["model"], reuse["task"]), empty)
        row["cached"] = reuse["answers"]
        row["saved"] = cost((prices or {}).get(reuse["model"]), reuse["prompt_tokens"], reuse["completion_tokens"])
    for row in rows.values():
        row["cost"] = cost((prices or {}).get(row["model"]), row["prompt_tokens"], row["completion_tokens"])
    table = pd.DataFrame(list(rows.values()), columns=list(BILL)).sort_values(["model", "task"], ignore_index=True)
    return table.astype({"cost": float, "saved": float})


def read_since(text: str, now: datetime | None = None) -> float:
    """Unix seconds of a day (`2026-03-01`), a time (`2026-03-01T12:30`, local) or a span back from now (`90m`, `36h`, `7d`).

    Raises `ValueError` with a sentence.
    """
    span = re.fullmatch(r"(\d+)\s*([mhd])", text.strip())
    if span:
        unit = {"m": "minutes", "h": "hours", "d": "days"}[span[2]]
        return ((now or datetime.now(UTC)) - timedelta(**{unit: int(span[1])})).timestamp()
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: write 2026-03-01, 2026-03-01T12:30, 90m, 36h or 7d") from None
