"""Iterative stratification of rows with several labels each (Sechidis et al. 2011, algorithm 1).

The label that is rarest among what is left is dealt out first, each of its rows to the part that lacks it most: a rare
label can be placed only while its rows are free. Departures: 1. units of rows are placed, not rows; 2. ties between
parts are broken by the rows that a part lacks and then by its number, and units come in an order that their hashes
and the seed decide, so nothing is left to chance; 3. a label in three units or more is wanted in every part.

Legend: N rows, G units, L labels.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from reglaj.data.splits.dealing import TEST, TRAIN, VALIDATION, Units, fill_empty
from reglaj.data.splits.label_counts import LabelCounts
from reglaj.data.splits.teaching import taught

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.splits.base import SplitRows


def stratify_sets(rows: SplitRows, shares: Mapping[int, float], seed: int) -> NDArray[np.int8]:
    """(N,) parts of the rows, -1 for those of a label that train cannot have. shares: of validation and test."""
    import numpy as np

    units, counts = Units.of(rows), LabelCounts.of(rows)
    state = _State(units, counts, shares)
    order = units.order(seed)
    for unit in order[units.is_pinned[order]].tolist():
        state.place(unit, TRAIN)
    holders = _holders(counts, order)
    while (label := state.rarest()) is not None:
        for unit in holders[label]:
            if state.parts[unit] < 0:
                state.place(unit, state.neediest(label))
    for unit in order.tolist():  # those without a label
        if state.parts[unit] < 0:
            state.place(unit, state.neediest(None))
    parts = np.array(state.parts, dtype=np.int8)
    fill_empty(parts, units.sizes, np.flatnonzero(~units.is_pinned), (TEST, VALIDATION, TRAIN))
    return taught(parts, rows, units, counts)


def _holders(counts: LabelCounts, order: NDArray[np.int64]) -> list[list[int]]:
    """Of each label the units that have it, in seeded order."""
    import numpy as np

    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    by_label = np.lexsort((rank[counts.unit], counts.label))
    bounds = np.searchsorted(counts.label[by_label], np.arange(counts.num_labels + 1))
    held = counts.unit[by_label].tolist()
    return [held[start:end] for start, end in itertools.pairwise(bounds.tolist())]


class _State:
    """What each part still lacks. left: (L,) rows of each label that are not placed yet."""

    def __init__(self, units: Units, counts: LabelCounts, shares: Mapping[int, float]) -> None:
        self._sizes, self._labels = units.sizes.tolist(), list(counts.units())
        self._lacking = counts.targets(shares).tolist()
        total = sum(self._sizes)
        self._rows_lacking = [total * (1 - sum(shares.values())), total * shares[VALIDATION], total * shares[TEST]]
        self._left = counts.totals()
        self.parts = [-1] * len(self._sizes)

    def rarest(self) -> int | None:
        """The label with the fewest rows left, or None when all are placed."""
        import numpy as np

        open_labels = np.flatnonzero(self._left > 0)
        return int(open_labels[np.argmin(self._left[open_labels])]) if len(open_labels) else None

    def neediest(self, label: int | None) -> int:
        """The part that lacks most rows of this label, and among equal ones most rows of any."""

        def need(part: int) -> tuple[float, float]:
            return (0.0 if label is None else self._lacking[part][label]), self._rows_lacking[part]

        return max((TRAIN, VALIDATION, TEST), key=need)

    def place(self, unit: int, part: int) -> None:
        """Put a unit into a part."""
        self.parts[unit] = part
        self._rows_lacking[part] -= self._sizes[unit]
        for label, count in self._labels[unit]:
            self._lacking[part][label] -= count
            self._left[label] -= count
