"""MinHash signatures cut into bands: texts that share a band are candidates.

Broder 1997 for MinHash, Leskovec et al. 2014 (chapter 3.4) for bands; the signatures are rensa's, after Dahlgaard et
al. 2017 (fast similarity sketching). Legend: N texts, b bands of r slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLOTS = 128
"""Length of a signature; rensa is fastest at powers of two."""

_WANTED_RECALL = 0.995  # at the threshold itself; above it recall is higher
_MAX_ROWS = 12
_SEED = 7


@dataclass(frozen=True)
class Banding:
    """b bands of r slots. A pair of Jaccard similarity s shares at least one with a probability of 1 - (1 - s^r)^b."""

    bands: int
    rows: int

    def recall(self, similarity: float) -> float:
        """Probability that a pair of that similarity becomes a candidate."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


def choose_banding(threshold: float) -> Banding:
    """The longest bands (the fewest candidates) with which 128 slots find 99.5% of the pairs at the threshold."""
    for rows in range(_MAX_ROWS, 0, -1):
        miss = 1 - threshold**rows
        bands = 1 if miss <= 0 else math.ceil(math.log(1 - _WANTED_RECALL) / math.log(miss))
        bands = max(bands, 4)  # a threshold of 1 too
        if bands * rows <= SLOTS:
            return Banding(bands, rows)
    raise AssertionError("a single slot per band serves every threshold from 0.05 on")


def band_hashes(shingles: NDArray[np.int32], sizes: NDArray[np.int64], banding: Banding) -> NDArray[np.uint64]:
    """(b, N) a hash of each band of each text. shingles: flat sets of N texts; those without any share no band."""
    import numpy as np
    from rensa import RMinHash

    ends = np.concatenate(([0], np.cumsum(sizes))).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles.astype(np.uint64), ends, SLOTS, _SEED)
    used = banding.bands * banding.rows
    slots = np.array(matrix.to_rows(), dtype=np.uint32).reshape(-1, SLOTS)[:, :used]
    multipliers = np.random.default_rng(_SEED).integers(2**63, size=banding.rows, dtype=np.uint64) * 2 + 1
    cut = slots.reshape(-1, banding.bands, banding.rows)
    hashes = np.zeros(cut.shape[:2], dtype=np.uint64)
    for row in range(banding.rows):
        hashes ^= hashes >> np.uint64(29)
        hashes += (cut[:, :, row].astype(np.uint64) + np.uint64(1)) * np.uint64(multipliers[row])
    return np.ascontiguousarray(hashes.T)
