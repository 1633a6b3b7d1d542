"""A collection of texts, made comparable: distinct texts, their shingles and the bands of their signatures.

Legend: N texts, U distinct ones after folding, S shingles of the distinct ones, b bands.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reglaj.core.console import Console
from reglaj.curation.banding import Banding, band_hashes
from reglaj.curation.shingles import ShingleStore, bit_sets, shingle
from reglaj.data.folding import digest, fold, to_hashes
from reglaj.data.relations import Texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

_BATCH_CHARACTERS = 2**17  # of texts that are shingled at once: what stays in a processor's cache
_CHUNK_SHINGLES = 2**18  # that are compared at once, for the same reason
# Bytes that are neither a letter nor a digit, deleted by one C call where a text is plain ASCII.
_ASCII_OTHERS = bytes(byte for byte in range(128) if not chr(byte).isalnum())


@dataclass(frozen=True, eq=False)
class Collection:
    """Distinct texts, numbered as they were first met."""

    distinct: NDArray[np.int64]
    """(N,) the distinct text that a row holds."""
    first: NDArray[np.int64]
    """(U,) smallest row of each distinct text."""
    folded: NDArray[np.uint64]
    """(U, 2) hash of the folded text."""
    bare: NDArray[np.uint64]
    """(U, 2) hash of its letters and digits; of the folded text where it has none."""
    sizes: NDArray[np.int64]
    """(U,) number of different shingles."""
    starts: NDArray[np.int64]
    """(U,) where a text's shingles begin in `shingles`."""
    shingles: NDArray[np.int32]
    """(S,) sorted within each text."""
    bits: NDArray[np.uint64]
    """(4, U) see `bit_sets`."""
    bands: NDArray[np.uint64]
    """(b, U) hashes of the signature's bands; meaningless where `sizes` is 0."""

    def __len__(self) -> int:
        return len(self.first)

    @functools.cached_property
    def canonical(self) -> NDArray[np.int64]:
        """Distinct texts with shingles, in an order that depends on the texts alone, not on where they stood."""
        import numpy as np

        order = np.lexsort((self.folded[:, 1], self.folded[:, 0]))
        return order[self.sizes[order] > 0]


@dataclass
class _Builder:
    banding: Banding
    numbers: dict[bytes, int] = field(default_factory=dict)
    distinct: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    bare: list[bytes] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    pending_characters: int = 0
    store: ShingleStore = field(default_factory=ShingleStore)
    sizes: list[NDArray[np.int64]] = field(default_factory=list)
    bits: list[NDArray[np.uint64]] = field(default_factory=list)
    bands: list[NDArray[np.uint64]] = field(default_factory=list)

    def add(self, text: str) -> None:
        folded = fold(text)
        name = digest([folded])
        number = self.numbers.setdefault(name, len(self.numbers))
        if number == len(self.first):
            self.first.append(len(self.distinct))
            self.bare.append(_bare_digest(folded) or name)
            self.pending.append(folded)
            self.pending_characters += len(folded)
            if self.pending_characters >= _BATCH_CHARACTERS:
                self.sketch()
        self.distinct.append(number)

    def sketch(self) -> None:
        shingles, sizes = shingle(self.pending)
        self.store.add(shingles)
        self.sizes.append(sizes)
        self.bits.append(bit_sets(shingles, sizes))
        self.bands.append(band_hashes(shingles, sizes, self.banding))
        self.pending.clear()
        self.pending_characters = 0


def collect(texts: Texts, banding: Banding, console: Console, *, doing: str) -> Collection:
    """Go through the texts once. doing: what the progress bar says."""
    import numpy as np

    builder = _Builder(banding)
    with console.progress(doing, total=len(texts), unit="texts") as advance:
        for batch in texts:
            for text in batch:
                builder.add(text)
            advance(len(batch))
        builder.sketch()
    sizes = np.concatenate(builder.sizes)
    return Collection(
        distinct=np.array(builder.distinct, dtype=np.int64),
        first=np.array(builder.first, dtype=np.int64),
        folded=to_hashes(builder.numbers),
        bare=to_hashes(builder.bare),
        sizes=sizes,
        starts=np.cumsum(sizes) - sizes,
        shingles=builder.store.all(),
        bits=np.concatenate(builder.bits, axis=1),
        bands=np.concatenate(builder.bands, axis=1),
    )


def _bare_digest(folded: str) -> bytes | None:
    """Digest of the letters and digits alone, None where there are none. White space goes too: `e-mail` is `e mail`."""
    if folded.isascii():
        bare = folded.encode("ascii").translate(None, _ASCII_OTHERS).decode("ascii")
    else:
        # Not by `str.isalnum`: combining marks are part of words in many scripts.
        import regex

        bare = regex.sub(r"[\p{P}\p{S}\p{Z}\p{C}]+", "", folded)
    return digest([bare]) if bare else None


def expand(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """starts[0], starts[0] + 1, ... counts[0] of them, then those of starts[1], and so on."""
    import numpy as np

    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum()), dtype=np.int64) + np.repeat(starts - before, counts)


def shared_shingles(
    a: Collection, b: Collection, rows_a: NDArray[np.int64], rows_b: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(P,) shingles that text rows_a[i] of `a` and text rows_b[i] of `b` have in common."""
    import numpy as np

    found = np.empty(len(rows_a), dtype=np.int64)
    for chunk in slices(a.sizes[rows_a] + b.sizes[rows_b], _CHUNK_SHINGLES):
        left, right = _matrix(a, rows_a[chunk]), _matrix(b, rows_b[chunk])
        # scipy merges sorted rows in C++, some 3 ns a shingle.
        found[chunk] = np.diff(left.multiply(right).indptr)
    return found


def may_share(
    a: Collection, b: Collection, rows_a: NDArray[np.int64], rows_b: NDArray[np.int64], needed: NDArray[Any]
) -> NDArray[np.int64]:
    """Which of the pairs (their places) have perhaps `needed` shingles in common; the others have fewer for certain."""
    import numpy as np

    left = np.arange(len(rows_a))
    spare = np.floor(a.sizes[rows_a] - needed + 1e-6).astype(np.int64)
    # Word by word: the first 64 bits refuse nearly all, so the others are hardly ever read. Some 20 ns a pair.
    for of_a, of_b in zip(a.bits, b.bits, strict=True):
        spare -= np.bitwise_count(of_a[rows_a] & ~of_b[rows_b])
        kept = np.flatnonzero(spare >= 0)
        left, rows_a, rows_b, spare = left[kept], rows_a[kept], rows_b[kept], spare[kept]
    return left


def _matrix(collection: Collection, rows: NDArray[np.int64]) -> csr_array:
    import numpy as np
    from scipy.sparse import csr_array

    sizes = collection.sizes[rows]
    columns = np.asarray(collection.shingles[expand(collection.starts[rows], sizes)])
    ends = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    matrix = csr_array((np.ones(len(columns), dtype=bool), columns, ends), shape=(len(rows), 2**31 - 1))
    matrix.has_canonical_format = True
    return matrix


def slices(weights: NDArray[np.int64], limit: int) -> Iterator[slice]:
    """Slices whose weights sum to at most `limit`, or a single item of more."""
    import numpy as np

    total = np.cumsum(weights)
    begin = 0
    while begin < len(weights):
        before = int(total[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(total, before + limit, side="right")), begin + 1)
        yield slice(begin, end)
        begin = end
