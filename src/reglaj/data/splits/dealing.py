"""What the kinds of split share: an order of the groups that a seed decides, and dealing groups out to parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reglaj.core.seeding import derive_seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = 0, 1, 2


def sort_keys(hashes: NDArray[np.uint64], seed: int) -> tuple[NDArray[np.uint64], ...]:
    """Keys for `np.lexsort` that put groups in an order which their (G, 2) hashes and the seed decide, nothing else."""
    import numpy as np

    mixed = _mix(hashes[:, 0] ^ np.uint64(derive_seed(seed, "split")))
    return hashes[:, 0], hashes[:, 1], mixed


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014): every bit of the input moves every bit of the order."""
    import numpy as np

    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def deal(sizes: NDArray[np.int64], counts: Mapping[int, int]) -> NDArray[np.int8]:
    """Parts of groups of these sizes, given in seeded order: each part takes what still fits, train the rest."""
    import numpy as np

    parts = np.zeros(len(sizes), dtype=np.int8)
    left = dict(counts)
    for place, size in enumerate(sizes.tolist()):
        for part in (TEST, VALIDATION):
            if left[part] >= size:
                parts[place] = part
                left[part] -= size
                break
        if not any(left.values()):
            break
    # Large groups and small quotas can leave a part without any: it gets the smallest group of the fullest part.
    for part in (TEST, VALIDATION, TRAIN):
        if not (parts == part).any() and len(parts) > 1:
            spare = np.flatnonzero(parts == np.bincount(parts, minlength=3).argmax())
            if len(spare) > 1:
                parts[spare[np.argmin(sizes[spare])]] = part
    return parts
