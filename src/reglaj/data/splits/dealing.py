"""What the kinds of split share: units of rows, an order of them that a seed decides, and dealing them out to parts.

Legend: N rows, G units (groups of rows that stay together).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reglaj.core.seeding import derive_seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.splits.base import SplitRows

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Units:
    """sizes: (G,) rows of each. hashes: (G, 2). is_pinned: (G,) whether it must be in train."""

    sizes: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    is_pinned: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: SplitRows, usable: NDArray[np.bool_] | None = None) -> Units:
        """Of all rows; sizes count the usable ones only. One pinned row pins its unit."""
        import numpy as np

        num_units = int(rows.groups.max(initial=-1)) + 1
        hashes = np.zeros((num_units, 2), dtype=np.uint64)
        hashes[rows.groups] = rows.hashes
        is_pinned = np.zeros(num_units, dtype=bool)
        if rows.pinned is not None:
            is_pinned[rows.groups[rows.pinned]] = True
        groups = rows.groups if usable is None else rows.groups[usable]
        return cls(sizes=np.bincount(groups, minlength=num_units), hashes=hashes, is_pinned=is_pinned)

    def order(self, seed: int) -> NDArray[np.int64]:
        """(G,) unit numbers in seeded order."""
        import numpy as np

        return np.lexsort(sort_keys(self.hashes, seed))


def sort_keys(hashes: NDArray[np.uint64], seed: int) -> tuple[NDArray[np.uint64], ...]:
    """Keys for `np.lexsort` that put units in an order which their (G, 2) hashes and the seed decide, nothing else."""
    return hashes[:, 0], hashes[:, 1], seeded_numbers(hashes, seed)


def seeded_numbers(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """(G,) numbers that are spread evenly over 64 bits, each decided by its own (G, 2) hash and the seed."""
    import numpy as np

    return _mix(hashes[:, 0] ^ np.uint64(derive_seed(seed, "split")))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014): every bit of the input moves every bit of the order."""
    import numpy as np

    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def deal(
    sizes: NDArray[np.int64], counts: Mapping[int, int], is_pinned: NDArray[np.bool_] | None = None
) -> NDArray[np.int8]:
    """Parts of units of these sizes, given in seeded order: each part takes what still fits, train the rest.

    counts: rows wanted in each part but train. is_pinned: units that are in train whatever is wanted; where the others
    are too few, the parts share them out as they would have shared out more.
    """
    import numpy as np

    parts = np.zeros(len(sizes), dtype=np.int8)
    free = np.arange(len(sizes)) if is_pinned is None else np.flatnonzero(~is_pinned)
    left = within(counts, int(sizes[free].sum()))
    for place, size in zip(free.tolist(), sizes[free].tolist(), strict=True):
        for part in sorted(left, reverse=True):
            if left[part] >= size:
                parts[place] = part
                left[part] -= size
                break
        if not any(left.values()):
            break
    fill_empty(parts, sizes, free, (*sorted(counts, reverse=True), TRAIN))
    return parts


def within(counts: Mapping[int, int], available: int) -> dict[int, int]:
    """The counts, or what they come to in proportion where they are more than there is."""
    total = sum(counts.values())
    return {part: count if total <= available else count * available // total for part, count in counts.items()}


def fill_empty(
    parts: NDArray[np.int8], sizes: NDArray[np.int64], free: NDArray[np.int64], wanted: tuple[int, ...]
) -> None:
    """Give each part without a unit the smallest free one of the part that has most of them; in place.

    Large units and small quotas bring this about. A part is never left empty for another one but train.
    """
    import numpy as np

    for part in wanted:
        if (parts == part).any():
            continue
        spare = np.bincount(parts[free], minlength=3)
        spare[np.bincount(parts, minlength=3) < 2] = 0
        donor = int(spare.argmax()) if spare.any() else VALIDATION
        places = free[parts[free] == donor]
        # Of two units one is learnt from and one is the test.
        if len(places) and (spare.any() or part == TRAIN):
            parts[places[np.argmin(sizes[places])]] = part
