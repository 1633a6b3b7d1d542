"""When two texts count as the same: exactly equal (duplicates), or equal after folding (never in two parts).

Texts are compared by 128-bit BLAKE2b digests, so that memory does not depend on their length; two different
texts out of a billion share a digest with a probability below 1e-20.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

_DIGEST_BYTES = 16


def fold(text: str) -> str:
    """Unicode NFKC, case folding, runs of white space to one space, none at the ends."""
    # Folding case can undo the normal form (U+0345 and friends), so the form is taken again where it may matter.
    folded = unicodedata.normalize("NFKC", text).casefold()
    if not folded.isascii():
        folded = unicodedata.normalize("NFKC", folded)
    return " ".join(folded.split())


def digest(texts: Sequence[str]) -> bytes:
    """128 bits of a record's texts; (a, bc) and (ab, c) differ."""
    if len(texts) == 1:
        return hashlib.blake2b(texts[0].encode(), digest_size=_DIGEST_BYTES).digest()
    hasher = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for text in texts:
        data = text.encode()
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.digest()


def digest_pair(texts: Sequence[str]) -> tuple[bytes, bytes]:
    """Digests of a record's texts as they are, and folded."""
    exact = digest(texts)
    folded = [fold(text) for text in texts]
    return exact, exact if folded == list(texts) else digest(folded)


def to_hashes(digests: Iterable[bytes]) -> Hashes:
    """Digests as an (N, 2) array of 64-bit halves."""
    import numpy as np

    return np.frombuffer(b"".join(digests), dtype=np.dtype("<u8")).reshape(-1, 2)


def group_numbers(hashes: Hashes) -> NDArray[np.int64]:
    """(N,) number of the group of equal hashes that each row is in, counted in the order of the hashes."""
    import numpy as np

    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    is_first = np.ones(len(ordered), dtype=bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = np.empty(len(ordered), dtype=np.int64)
    numbers[order] = np.cumsum(is_first) - 1
    return numbers
