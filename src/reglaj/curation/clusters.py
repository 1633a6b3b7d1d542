"""Clusters of near-duplicates: connected components of the pairs that are confirmed.

Legend: U distinct texts, P pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.core.console import Console
from reglaj.curation.buckets import FULL_PAIRS, group, leader_rounds, oversized_in_two, pairs_within
from reglaj.curation.collection import Collection, may_share, shared_shingles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]


class Linker:
    """Confirms pairs of a collection by their true Jaccard similarity, and keeps what is linked."""

    def __init__(self, collection: Collection, threshold: float) -> None:
        self._collection = collection
        self._threshold = threshold
        self._left: list[Rows] = []
        self._right: list[Rows] = []
        self._similarity: list[NDArray[np.float32]] = []
        self._components: Rows | None = None

    def link(self, left: Rows, right: Rows, similarity: NDArray[np.float32]) -> None:
        """Take pairs as confirmed."""
        if len(left):
            self._left.append(left)
            self._right.append(right)
            self._similarity.append(similarity)
            self._components = None

    def confirm(self, left: Rows, right: Rows) -> None:
        """Keep those of the pairs that are at least as similar as the threshold."""
        import numpy as np

        similarity = similarities(self._collection, self._collection, left, right, self._threshold)
        is_near = similarity >= self._threshold
        self.link(left[is_near], right[is_near], similarity[is_near].astype(np.float32))

    def components(self) -> Rows:
        """(U,) the number of the cluster that each distinct text is in."""
        import numpy as np
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if self._components is None:
            left, right, _ = self.pairs()
            links = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(len(self._collection),) * 2)
            self._components = connected_components(links, directed=False)[1].astype(np.int64)
        return self._components

    def pairs(self) -> tuple[Rows, Rows, NDArray[np.float32]]:
        """Confirmed pairs of distinct texts and their similarity; some may be there twice."""
        import numpy as np

        none = np.empty(0, dtype=np.int64)
        return (
            np.concatenate([none, *self._left]),
            np.concatenate([none, *self._right]),
            np.concatenate([none.astype(np.float32), *self._similarity]),
        )


def similarities(a: Collection, b: Collection, left: Rows, right: Rows, threshold: float) -> NDArray[np.float64]:
    """(P,) Jaccard similarity of texts that have shingles; perhaps 0 where it is below the threshold."""
    import numpy as np

    both = a.sizes[left] + b.sizes[right]
    found = np.zeros(len(left))
    # s / (both - s) >= threshold, solved for the shared shingles s.
    may = may_share(a, b, left, right, threshold / (1 + threshold) * both)
    shared = shared_shingles(a, b, left[may], right[may])
    found[may] = shared / (both[may] - shared)
    return found


def link_near(linker: Linker, collection: Collection, console: Console) -> None:
    """Compare what shares a band (see `buckets` for what is compared where a bucket is large)."""
    import numpy as np

    order, bands = collection.canonical, collection.bands
    is_oversized = np.zeros(bands.shape, dtype=bool)
    small = []
    with console.progress("comparing", total=2 * len(bands), unit="bands") as advance:
        for number, band in enumerate(bands):
            buckets = group(band[order], order)
            large = buckets.take(buckets.sizes > FULL_PAIRS)
            small.append(buckets.take(buckets.sizes <= FULL_PAIRS))
            is_oversized[number, large.members] = True
            for left, right in leader_rounds(large, linker.components):
                linker.confirm(left, right)
            advance(1)
        for buckets in oversized_in_two(bands, is_oversized, order):
            is_large = buckets.sizes > FULL_PAIRS
            for left, right in leader_rounds(buckets.take(is_large), linker.components):
                linker.confirm(left, right)
            for left, right in pairs_within(buckets.take(~is_large)):
                cluster = linker.components()
                apart = cluster[left] != cluster[right]
                linker.confirm(left[apart], right[apart])
        for number, buckets in enumerate(small):
            for left, right in pairs_within(buckets):
                was_compared = bands[:number, left] == bands[:number, right]
                was_compared &= ~is_oversized[:number, left]
                is_new = ~was_compared.any(axis=0)
                linker.confirm(left[is_new], right[is_new])
            advance(1)
