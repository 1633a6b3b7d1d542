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
from typing import TYPE_CHECKING, Any

from reglaj.core.console import Console
from reglaj.curation.collection import Collection, expand, may_share, shared_shingles, slices

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

CONTAINED = 0.95
"""Share of a text's shingles that lie in the outer text."""

MIN_SHINGLES = 16
"""Shorter texts (about 20 characters) lie inside others by chance: `hello` is no finding."""

POSTINGS = 64

_TABLE_BITS = 24  # at most, of the table of counts: 64 MiB; shingles that share a counter look more frequent
_CHUNK = 2**22
_CHUNK_CANDIDATES = 2**19
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
    wanted = np.zeros(len(frequency), dtype=bool)
    wanted[_counters(probes, wanted)] = True
    expected = int(frequency[wanted].sum())
    edges = np.linspace(0, 2**31, max(-(-expected // _PART_POSTINGS), 1) + 1).astype(np.int64)
    keys = [np.empty(0, dtype=np.uint64)]
    with console.progress("looking for texts inside others", total=len(probes), unit="shingles") as advance:
        for low, high in itertools.pairwise(edges):
            in_part = (probes >= low) & (probes < high)
            postings = _postings(outer, wanted, int(low), int(high))
            for candidates, count in _candidates(inner, outer, probes[in_part], owners[in_part], postings):
                keys.append(candidates)
                advance(count)
    found = np.sort(np.concatenate(keys))  # not `np.unique`: it hashes first, which is ten times as slow here
    yield from _confirm(inner, outer, found[np.concatenate(([True], found[1:] != found[:-1]))[: len(found)]])


def _frequencies(collection: Collection) -> NDArray[np.int32]:
    """Texts per counter of the table; never too few for any shingle."""
    import numpy as np

    bits = min(max(len(collection.shingles).bit_length() + 2, 10), _TABLE_BITS)
    counts = np.zeros(1 << bits, dtype=np.int32)
    for begin in range(0, len(collection.shingles), _CHUNK):
        piece = _counters(collection.shingles[begin : begin + _CHUNK], counts)
        counts += np.bincount(piece, minlength=len(counts)).astype(np.int32)
    return counts


def _counters(shingles: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    """The places of shingles in a table of 2^k entries: their first k bits."""
    return shingles >> (32 - len(table).bit_length())


def _rarest(collection: Collection, frequency: NDArray[np.int32], *, is_same: bool) -> tuple[Rows, Rows]:
    """Shingles to look up and the text that each is of. Those that only their own text has are left out."""
    import numpy as np

    rows = np.flatnonzero(collection.sizes >= MIN_SHINGLES)
    sizes = collection.sizes[rows]
    needed = sizes - np.ceil(CONTAINED * sizes - 1e-9).astype(np.int64) + 1
    probes, owners = [], []
    for chunk in slices(sizes, _CHUNK):
        some, some_sizes = rows[chunk], sizes[chunk]
        shingles = np.asarray(collection.shingles[expand(collection.starts[some], some_sizes)]).astype(np.int64)
        counts = frequency[_counters(shingles, frequency)].astype(np.int64)
        order = np.argsort((np.repeat(np.arange(len(some)), some_sizes) << 32) | counts, kind="stable")
        chosen = order[expand(np.cumsum(some_sizes) - some_sizes, needed[chunk])]
        owner = np.repeat(some, needed[chunk])
        is_useful = counts[chosen] > (1 if is_same else 0)
        probes.append(shingles[chosen][is_useful])
        owners.append(owner[is_useful])
    none = np.empty(0, dtype=np.int64)
    found, of_text = np.concatenate([none, *probes]), np.concatenate([none, *owners])
    order = np.argsort(found, kind="stable")  # neighbours are looked up at neighbouring places: three times as fast
    return found[order], of_text[order]


def _postings(collection: Collection, wanted: NDArray[np.bool_], low: int, high: int) -> NDArray[np.uint64]:
    """Sorted (shingle << 32 | place of its text in canonical order) of the wanted shingles from low to below high."""
    import numpy as np

    order = collection.canonical
    place = np.zeros(len(collection), dtype=np.uint64)
    place[order] = np.arange(len(order), dtype=np.uint64)
    ends = collection.starts + collection.sizes
    pieces = [np.empty(0, dtype=np.uint64)]
    for begin in range(0, len(collection.shingles), _CHUNK):
        piece = np.asarray(collection.shingles[begin : begin + _CHUNK])
        is_taken = wanted[_counters(piece, wanted)] & (piece >= low) & (piece < high)
        where = np.flatnonzero(is_taken)
        texts = np.searchsorted(ends, where + begin, side="right")
        pieces.append((piece[where].astype(np.uint64) << np.uint64(32)) | place[texts])
    keys = np.concatenate(pieces)
    keys.sort()
    keys_text = order[(keys & np.uint64(2**32 - 1)).astype(np.int64)].astype(np.uint64)
    return (keys & ~np.uint64(2**32 - 1)) | keys_text


def _candidates(
    inner: Collection, outer: Collection, probes: Rows, owners: Rows, postings: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.uint64], int]]:
    """(inner << 32 | outer) of texts that a probe is in and that may hold the inner text; and the probes gone through.

    A pair comes once for each of its probes.
    """
    import numpy as np

    heads = postings >> np.uint64(32)
    starts = np.searchsorted(heads, probes.astype(np.uint64), side="left")
    counts = np.searchsorted(heads, probes.astype(np.uint64), side="right") - starts
    counts = np.minimum(counts, POSTINGS)
    del heads
    for chunk in slices(counts, _CHUNK_CANDIDATES):
        right = (postings[expand(starts[chunk], counts[chunk])] & np.uint64(2**32 - 1)).astype(np.int64)
        left = np.repeat(owners[chunk], counts[chunk])
        needed = np.ceil(CONTAINED * inner.sizes[left] - 1e-9)
        may = outer.sizes[right] >= inner.sizes[left]
        if inner is outer:
            may &= left != right
        left, right, needed = left[may], right[may], needed[may]
        kept = may_share(inner, outer, left, right, needed)
        yield (left[kept].astype(np.uint64) << np.uint64(32)) | right[kept].astype(np.uint64), chunk.stop - chunk.start


def _confirm(
    inner: Collection, outer: Collection, keys: NDArray[np.uint64]
) -> Iterator[tuple[Rows, Rows, NDArray[np.float64]]]:
    import numpy as np

    for begin in range(0, len(keys), _CHUNK):
        piece = keys[begin : begin + _CHUNK]
        left = (piece >> np.uint64(32)).astype(np.int64)
        right = (piece & np.uint64(2**32 - 1)).astype(np.int64)
        share = shared_shingles(inner, outer, left, right) / inner.sizes[left]
        is_inside = share >= CONTAINED
        yield left[is_inside], right[is_inside], share[is_inside]
