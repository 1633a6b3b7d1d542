"""Texts that lie inside others: a question inside a longer one, a paragraph inside a document.

MinHash finds sets of like size only. A text lies inside another where at least `CONTAINED` of its shingles do, so that
of its n shingles every choice of n - ceil(CONTAINED * n) + 1 holds one that the outer text has too (the prefix filter
of Chaudhuri et al. 2006 and Bayardo et al. 2007). The rarest ones are chosen, looked up among the shingles of all
texts, and what they lead to is counted exactly.

What is guaranteed: every outer text is found where each of those rarest shingles is in at most `POSTINGS` texts.
Where one is in more (an inner text that is a footer of thousands), `POSTINGS` of them are looked at.

Legend: U distinct texts, S shingles.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from reglaj.core.console import Console
from reglaj.curation.collection import Collection, expand, shared_shingles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

CONTAINED = 0.95
"""Share of a text's shingles that lie in the outer text."""

MIN_SHINGLES = 16
"""Shorter texts (about 20 characters) lie inside others by chance: `hello` is no finding."""

POSTINGS = 64

_TABLE_BITS = 24  # of the table of counts: 16 million counters in 64 MiB; shingles that share one look more frequent
_CHUNK = 2**22
_PART_POSTINGS = 2**26  # looked up at once: 0.5 GiB


def find_contained(
    inner: Collection, outer: Collection, console: Console
) -> Iterator[tuple[Rows, Rows, NDArray[np.float64]]]:
    """Pieces of (text of `inner`, text of `outer`, share of the inner's shingles), each pair once.

    The outer text is at least as long; the same collection may be both, and no text is told to be inside itself.
    """
    import numpy as np

    frequency = _frequencies(outer)
    probes, owners = _rarest(inner, frequency, is_same=inner is outer)
    bits = 31 - _TABLE_BITS
    wanted = np.zeros(1 << _TABLE_BITS, dtype=bool)
    wanted[probes >> bits] = True
    expected = int(frequency[wanted].sum())
    parts = max(-(-expected // _PART_POSTINGS), 1)
    edges = np.linspace(0, 2**31, parts + 1).astype(np.int64)
    found = np.empty(0, dtype=np.uint64)
    with console.progress("looking for texts inside others", total=parts, unit="parts") as advance:
        for low, high in itertools.pairwise(edges):
            in_part = (probes >= low) & (probes < high)
            postings = _postings(outer, wanted, int(low), int(high))
            keys = np.unique(_candidates(probes[in_part], owners[in_part], postings))
            keys = keys[~np.isin(keys, found, assume_unique=True)] if len(found) else keys
            found = np.union1d(found, keys) if parts > 1 else found
            yield from _confirm(inner, outer, keys)
            advance(1)


def _frequencies(collection: Collection) -> NDArray[np.int32]:
    """Texts per counter of the table; never too few for any shingle."""
    import numpy as np

    counts = np.zeros(1 << _TABLE_BITS, dtype=np.int32)
    for begin in range(0, len(collection.shingles), _CHUNK):
        piece = collection.shingles[begin : begin + _CHUNK] >> (31 - _TABLE_BITS)
        counts += np.bincount(piece, minlength=1 << _TABLE_BITS).astype(np.int32)
    return counts


def _rarest(collection: Collection, frequency: NDArray[np.int32], *, is_same: bool) -> tuple[Rows, Rows]:
    """Shingles to look up and the text that each is of. Those that only their own text has are left out."""
    import numpy as np

    rows = np.flatnonzero(collection.sizes >= MIN_SHINGLES)
    sizes = collection.sizes[rows]
    needed = sizes - np.ceil(CONTAINED * sizes - 1e-9).astype(np.int64) + 1
    probes, owners = [], []
    ends = np.cumsum(sizes)
    begin = 0
    while begin < len(rows):
        before = int(ends[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(ends, before + _CHUNK, side="right")), begin + 1)
        some, some_sizes = rows[begin:end], sizes[begin:end]
        shingles = np.asarray(collection.shingles[expand(collection.starts[some], some_sizes)]).astype(np.int64)
        counts = frequency[shingles >> (31 - _TABLE_BITS)].astype(np.int64)
        order = np.argsort((np.repeat(np.arange(end - begin), some_sizes) << 32) | counts, kind="stable")
        chosen = order[expand(np.cumsum(some_sizes) - some_sizes, needed[begin:end])]
        owner = np.repeat(some, needed[begin:end])
        is_useful = counts[chosen] > (1 if is_same else 0)
        probes.append(shingles[chosen][is_useful])
        owners.append(owner[is_useful])
        begin = end
    none = np.empty(0, dtype=np.int64)
    return np.concatenate([none, *probes]), np.concatenate([none, *owners])


def _postings(collection: Collection, wanted: NDArray[np.bool_], low: int, high: int) -> NDArray[np.uint64]:
    """Sorted (shingle << 32 | place of its text in canonical order) of the wanted shingles from low to below high."""
    import numpy as np

    order = collection.canonical()
    place = np.zeros(len(collection), dtype=np.uint64)
    place[order] = np.arange(len(order), dtype=np.uint64)
    ends = collection.starts + collection.sizes
    pieces = [np.empty(0, dtype=np.uint64)]
    for begin in range(0, len(collection.shingles), _CHUNK):
        piece = np.asarray(collection.shingles[begin : begin + _CHUNK])
        is_taken = wanted[piece >> (31 - _TABLE_BITS)] & (piece >= low) & (piece < high)
        where = np.flatnonzero(is_taken)
        texts = np.searchsorted(ends, where + begin, side="right")
        pieces.append((piece[where].astype(np.uint64) << np.uint64(32)) | place[texts])
    keys = np.concatenate(pieces)
    keys.sort()
    keys_text = order[(keys & np.uint64(2**32 - 1)).astype(np.int64)].astype(np.uint64)
    return (keys & ~np.uint64(2**32 - 1)) | keys_text


def _candidates(probes: Rows, owners: Rows, postings: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """(inner << 32 | outer) of texts that a probe is in."""
    import numpy as np

    heads = postings >> np.uint64(32)
    starts = np.searchsorted(heads, probes.astype(np.uint64), side="left")
    counts = np.searchsorted(heads, probes.astype(np.uint64), side="right") - starts
    counts = np.minimum(counts, POSTINGS)
    outer = postings[expand(starts, counts)] & np.uint64(2**32 - 1)
    return (np.repeat(owners, counts).astype(np.uint64) << np.uint64(32)) | outer


def _confirm(
    inner: Collection, outer: Collection, keys: NDArray[np.uint64]
) -> Iterator[tuple[Rows, Rows, NDArray[np.float64]]]:
    import numpy as np

    for begin in range(0, len(keys), _CHUNK):
        piece = keys[begin : begin + _CHUNK]
        left = (piece >> np.uint64(32)).astype(np.int64)
        right = (piece & np.uint64(2**32 - 1)).astype(np.int64)
        may = outer.sizes[right] >= inner.sizes[left]
        if inner is outer:
            may &= left != right
        left, right = left[may], right[may]
        share = shared_shingles(inner, outer, left, right) / inner.sizes[left]
        is_inside = share >= CONTAINED
        yield left[is_inside], right[is_inside], share[is_inside]
