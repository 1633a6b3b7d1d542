"""Random tables for the tests of splits, and the way to hand them to one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reglaj.data.config import SplitConfig
from reglaj.data.folding import group_numbers
from reglaj.data.splits import SPLITS
from reglaj.data.splits.base import SplitRows

Parts = NDArray[np.int8]
SHARES = st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.34, 0.33, 0.33), (0.98, 0.01, 0.01), (0.1, 0.1, 0.8)])
SEEDS = st.integers(0, 5)


@dataclass(frozen=True)
class Row:
    """What a split may know of a row. unit: number of the text, or of all that belongs with it."""

    label: int = 0
    unit: int = 0
    moment: int = 0
    given: int = 0
    pinned: bool = False


ROW = st.builds(
    Row,
    label=st.integers(0, 3),
    unit=st.integers(0, 40),
    moment=st.integers(0, 30),
    given=st.sampled_from([0, 0, 0, 1, 2]),
)
TABLES = st.lists(ROW, min_size=1, max_size=80)


def examples(number: int) -> Callable[[Any], Any]:
    """So many random tables; under `make torture` as many times more as its profile has, and new ones each time."""
    return settings(max_examples=max(1, number * settings().max_examples // 100))


def texts(pairs: Iterable[tuple[int, int]]) -> list[Row]:
    """Rows of these labels and units; the later a row, the later its moment."""
    return [Row(label=label, unit=unit, moment=place) for place, (label, unit) in enumerate(pairs)]


def hashes_of(units: Iterable[int]) -> NDArray[np.uint64]:
    """(N, 2) as folding gives them."""
    data = b"".join(hashlib.blake2b(str(unit).encode(), digest_size=16).digest() for unit in units)
    return np.frombuffer(data, dtype="<u8").reshape(-1, 2)


def make_rows(table: Sequence[Row], *, label_sets: Sequence[Sequence[int]] | None = None) -> SplitRows:
    """The table as a split sees it, with everything that any kind may need."""
    hashes = hashes_of(row.unit for row in table)
    labels = np.array([row.label for row in table], dtype=np.int64)
    used = {label for labels in label_sets for label in labels} if label_sets is not None else set(labels.tolist())
    sets = None
    if label_sets is not None:
        pairs = [(place, label) for place, found in enumerate(label_sets) for label in found]
        sets = np.array([p for p, _ in pairs], dtype=np.int64), np.array([x for _, x in pairs], dtype=np.int64)
    return SplitRows(
        hashes=hashes,
        groups=group_numbers(hashes),
        labels=labels,
        label_names=[f"label {i}" for i in range(max(used, default=0) + 1)],
        times=np.array([row.moment * 86_400_000_000 for row in table], dtype=np.int64),
        given=np.array([row.given for row in table], dtype=np.int8),
        pinned=np.array([row.pinned for row in table]) if any(row.pinned for row in table) else None,
        label_sets=sets,
    )


def make_config(shares: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0, kind: str = "auto") -> SplitConfig:
    return SplitConfig(kind=kind, train=shares[0], validation=shares[1], test=shares[2], seed=seed)


def assign(kind: str, table: Sequence[Row], config: SplitConfig | None = None, **more: Any) -> Parts:
    """The part of each row."""
    return SPLITS.get(kind)().assign(make_rows(table, **more), config or make_config())


def sizes(parts: Parts) -> list[int]:
    """Rows of train, validation and test."""
    return [int((parts == part).sum()) for part in range(3)]
