"""Texts as sets of 5 characters in a row, each a 31-bit hash, kept flat and sorted.

Legend: N texts, S the sum of their sets' sizes.

A hash stands for its 5 characters. Two texts of m and n shingles share one by chance with a probability of about
m * n / 2^31: 2e-6 for sentences of 60 characters, and for two books of 50,000 shingles one false shingle in 50,000.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WIDTH = 5
"""Characters of a shingle."""

_HELD_SHINGLES = 256 * 2**20  # 1 GiB in memory; beyond it they lie in a file that is read where it is needed
_SEPARATOR = "\n"  # folded texts hold no line break
# Random odd numbers: a sum of products with them is a universal hash of the characters (Dietzfelbinger et al. 1997).
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F)
_MIXER = 0xE7037ED1A0B428DB


def shingle(texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Sets of shingles, one after the other and sorted, and (N,) the size of each.

    texts: folded. A text of fewer than 5 characters has none: it is like nothing but its equals.
    """
    import numpy as np

    joined = _SEPARATOR.join(texts)
    codes = (
        np.frombuffer(joined.encode("ascii"), dtype=np.uint8)
        if joined.isascii()
        else np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    )
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    if len(codes) < WIDTH:
        return np.empty(0, dtype=np.int32), np.zeros(len(texts), dtype=np.int64)
    hashes = _hash_windows(codes)
    # The text that each window begins in. Those that reach over a text's end are no shingles.
    rows = np.repeat(np.arange(len(texts), dtype=np.uint64), lengths + 1)[: len(hashes)]
    begins = np.cumsum(lengths + 1) - (lengths + 1)
    ends = begins + lengths
    is_inside = np.arange(len(hashes)) + WIDTH <= np.repeat(ends, lengths + 1)[: len(hashes)]
    keys = np.sort((rows[is_inside] << np.uint64(31)) | hashes[is_inside])
    if len(keys):
        is_first = np.ones(len(keys), dtype=bool)
        np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
        keys = keys[is_first]
    sizes = np.bincount((keys >> np.uint64(31)).astype(np.int64), minlength=len(texts)).astype(np.int64)
    return (keys & np.uint64(2**31 - 1)).astype(np.int32), sizes


def _hash_windows(codes: NDArray[np.generic]) -> NDArray[np.uint64]:
    import numpy as np

    count = len(codes) - WIDTH + 1
    hashes = np.zeros(count, dtype=np.uint64)
    for place, multiplier in enumerate(_MULTIPLIERS):
        hashes += (codes[place : place + count].astype(np.uint64) + np.uint64(1)) * np.uint64(multiplier)
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(_MIXER)
    hashes >>= np.uint64(33)
    return hashes


def bit_sets(shingles: NDArray[np.int32], sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(4, N) 256 bits of each set: bit k is set where a shingle is k modulo 256.

    A bit that one set has and another lacks is at least one shingle that the other lacks, so that most pairs are
    refused without looking at their shingles. Sets of thousands have all bits and are never refused.
    """
    import numpy as np

    bits = np.zeros((len(sizes), 256), dtype=bool)
    bits[np.repeat(np.arange(len(sizes)), sizes), shingles & 255] = True
    return np.ascontiguousarray(np.packbits(bits, axis=1).view(np.uint64).T)


class ShingleStore:
    """Sets of shingles that come batch by batch; beyond 1 GiB they go to a file without a name."""

    def __init__(self, held_shingles: int = _HELD_SHINGLES) -> None:
        self._held_shingles = held_shingles
        self._held: list[NDArray[np.int32]] = []
        self._count = 0
        self._file: IO[bytes] | None = None

    def add(self, shingles: NDArray[np.int32]) -> None:
        """Keep the sets of one more batch."""
        self._held.append(shingles)
        self._count += len(shingles)
        if self._count > self._held_shingles:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed with us, and has no name to leave behind)
        for shingles in self._held:
            shingles.tofile(self._file)
        self._held.clear()

    def all(self) -> NDArray[np.int32]:
        """(S,) everything that was added; nothing may be added after it."""
        import numpy as np

        if self._file is not None:
            self._spill()
            self._file.flush()
            return np.memmap(self._file, dtype=np.int32, mode="r")
        flat = np.concatenate(self._held) if self._held else np.empty(0, dtype=np.int32)
        self._held.clear()
        return flat
