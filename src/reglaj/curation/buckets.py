"""Candidate pairs out of bands: the pairs inside a bucket, and what is done where a bucket is too large for that.

A bucket holds the texts that share a band. Its pairs are k^2 / 2, so a bucket of more than `FULL_PAIRS` texts (the
copies of one text with another number in it, or texts that share a long footer) is gone through in another way:

1. Leaders: the first text that no leader is linked to is compared with every text of the bucket, up to
   `LEADER_ROUNDS` times. It settles families of near-copies with a handful of rounds, k comparisons each. Where leaders
   settle less than 1/64 of a bucket each, it is no family, and they are given up.
2. Two bands: what is left is cut into smaller buckets of texts that share a second band in an oversized bucket, and
   the pairs of those are compared.

What is guaranteed: every pair that shares a bucket of up to `FULL_PAIRS` texts is compared. Of pairs that share
oversized buckets only, those of one family are linked through its leader, and others at the threshold of 0.8 share a
second band with a probability of 0.97 (18 bands of 6 slots); where the bucket of both bands is oversized as well,
only its leaders count.

Legend: b bands, U texts, k texts of a bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reglaj.curation.collection import expand

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

FULL_PAIRS = 64
"""Texts of a bucket up to which all of its pairs are compared."""

LEADER_ROUNDS = 16
"""Texts of an oversized bucket that are compared with all of its others."""

_ROUNDS_OF_GRACE = 3
_CHUNK_PAIRS = 2**20


@dataclass(frozen=True, eq=False)
class Buckets:
    """Texts grouped by equal keys, groups of two or more only."""

    members: Rows
    starts: Rows
    sizes: Rows

    def take(self, chosen: NDArray[np.bool_]) -> Buckets:
        """The chosen ones among them."""
        import numpy as np

        sizes = self.sizes[chosen]
        members = self.members[expand(self.starts[chosen], sizes)]
        return Buckets(members, np.cumsum(sizes) - sizes, sizes)


def group(keys: NDArray[np.uint64], texts: Rows) -> Buckets:
    """Texts (in their canonical order) by their keys; members keep that order."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if len(keys) else np.empty(0, int)
    sizes = np.diff(np.append(starts, len(keys)))
    return Buckets(texts[order], starts, sizes).take(sizes > 1)


def pairs_within(buckets: Buckets) -> Iterator[tuple[Rows, Rows]]:
    """All pairs of every bucket, in pieces of about a million."""
    import numpy as np

    for size in np.unique(buckets.sizes):
        left, right = np.triu_indices(size, k=1)
        starts = buckets.starts[buckets.sizes == size]
        at_once = max(_CHUNK_PAIRS // len(left), 1)
        for begin in range(0, len(starts), at_once):
            some = starts[begin : begin + at_once, None]
            yield buckets.members[(some + left).ravel()], buckets.members[(some + right).ravel()]


def leader_rounds(buckets: Buckets, components: Callable[[], Rows]) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of a leader and a text of its bucket; `components()` is the number of the cluster of every text, by now."""
    import numpy as np

    bucket_of = np.repeat(np.arange(len(buckets.sizes)), buckets.sizes)
    members = buckets.members
    is_settled = np.zeros(len(members), dtype=bool)
    is_given_up = np.zeros(len(buckets.sizes), dtype=bool)
    for done in range(LEADER_ROUNDS):
        is_open = ~is_settled & ~is_given_up[bucket_of]
        open_buckets, places = np.unique(bucket_of[is_open], return_index=True)
        if not len(open_buckets):
            return
        leaders = np.full(len(buckets.sizes), -1)
        leaders[open_buckets] = members[is_open][places]
        leader = leaders[bucket_of]
        cluster = components()
        is_other = (leader >= 0) & (cluster[leader] != cluster[members])
        yield leader[is_other], members[is_other]
        cluster = components()
        is_settled |= (leader >= 0) & (cluster[leader] == cluster[members])
        settled = np.bincount(bucket_of, weights=is_settled, minlength=len(buckets.sizes))
        is_given_up = (done + 1 >= _ROUNDS_OF_GRACE) & (settled < (done + 1) * buckets.sizes / FULL_PAIRS)


def oversized_in_two(bands: NDArray[np.uint64], is_oversized: NDArray[np.bool_], texts: Rows) -> Iterator[Buckets]:
    """Buckets of texts that share two bands, both in oversized buckets. is_oversized: (b, U)."""
    import numpy as np

    texts = texts[is_oversized[:, texts].sum(axis=0) > 1]
    for first in range(len(bands)):
        for second in range(first + 1, len(bands)):
            both = texts[is_oversized[first, texts] & is_oversized[second, texts]]
            if len(both) > 1:
                keys = bands[first, both] * np.uint64(0x9E3779B97F4A7C15) + bands[second, both]
                yield group(keys, both)
