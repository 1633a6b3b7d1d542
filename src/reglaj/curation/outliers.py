"""Texts unlike all others: far from their nearest neighbours in embedding space.

The distance is the mean cosine distance to the K nearest of at most `_REFERENCE` texts (Ramaswamy, Rastogi and Shim
2000, with the mean in place of the K-th: Angiulli and Pizzuti 2002), so the cost grows with N and not with its square.
The threshold is robust: the upper quartile and a multiple of the spread above the median, so that what is flagged does
not move it. Legend: N texts, D width, M reference texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reglaj.core.console import SILENT, Console

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEIGHBOURS = 10
FACTOR = 5.0
_REFERENCE = 20_000
_BLOCK = 1024
FEWEST = 50
"""Below this many texts nothing is called unusual."""


@dataclass(frozen=True)
class Outliers:
    """distance: (N,) float32, 0 to 2. is_outlier: (N,) bool. threshold: from which distance on, and the median."""

    distance: NDArray[np.float32]
    is_outlier: NDArray[np.bool_]
    threshold: float
    median: float


def find_outliers(embeddings: NDArray[np.float32], *, seed: int = 0, console: Console = SILENT) -> Outliers:
    """Which of N unit vectors (N, D) lie far from all others. The same vectors and seed give the same answer."""
    import numpy as np

    count = len(embeddings)
    if count < FEWEST:
        return Outliers(np.zeros(count, dtype=np.float32), np.zeros(count, dtype=bool), 2.0, 0.0)
    distance = _distances(embeddings, seed, console)
    median, upper = np.quantile(distance, [0.5, 0.75]).tolist()
    threshold = median + FACTOR * max(upper - median, 0.01)
    return Outliers(distance, distance > threshold, float(threshold), float(median))


def _distances(embeddings: NDArray[np.float32], seed: int, console: Console) -> NDArray[np.float32]:
    """(N,) mean cosine distance to the nearest reference texts, itself left out."""
    import numpy as np

    count = len(embeddings)
    chosen = np.arange(count)
    if count > _REFERENCE:
        chosen = np.sort(np.random.default_rng(seed).choice(count, _REFERENCE, replace=False))
    reference = embeddings[chosen]
    place_of = np.full(count, -1, dtype=np.int64)
    place_of[chosen] = np.arange(len(chosen))
    distance = np.empty(count, dtype=np.float32)
    with console.progress("looking for outliers", count) as advance:
        for start in range(0, count, _BLOCK):
            end = min(count, start + _BLOCK)
            near = embeddings[start:end] @ reference.T
            own = place_of[start:end]
            rows = np.flatnonzero(own >= 0)
            near[rows, own[rows]] = -2.0
            best = np.partition(near, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
            distance[start:end] = 1.0 - best.mean(axis=1)
            advance(end - start)
    return distance
