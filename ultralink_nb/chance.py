"""Random orders that depend on ids and a seed alone, so that neither the order of rows nor their number changes a draw."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np


def place_in_draw(row_id: str, seed: int) -> int:
    """A row's place, 64 bits, in a random order; the first n places of rows are a sample of n without replacement."""
    return int.from_bytes(blake2b(f"{seed}:{row_id}".encode(), digest_size=8).digest(), "big")


def places_in_draw(row_ids: Sequence[str], seed: int) -> np.ndarray:
    """(n,) uint64: `place_in_draw` of many rows."""
    return np.fromiter((place_in_draw(row_id, seed) for row_id in row_ids), np.uint64, len(row_ids))
