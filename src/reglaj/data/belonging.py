"""What belongs together: texts that are equal or nearly so, and groups that the data name.

Legend: N records that may be used, in the order of `places`; U units of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.data.folding import digest, fold, group_numbers, to_hashes
from reglaj.data.relations import NearDuplicates, TextMatcher, Texts

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


class SameWhenFolded(TextMatcher):
    """Texts are the same where folding makes them equal: what is left where near-duplicates are not looked for."""

    def identity(self) -> Mapping[str, Any]:
        return {"matcher": "folded"}

    def find(self, texts: Texts, console: Console = SILENT) -> NearDuplicates:
        import numpy as np

        cluster = _first_rows(group_numbers(_hashes(texts)))
        none = np.zeros((0, 2), dtype=np.int64)
        pairs = np.stack([cluster, np.arange(len(cluster))], axis=1)[cluster != np.arange(len(cluster))]
        similarity = np.ones(len(pairs), dtype=np.float32)
        nothing = np.zeros(0, dtype=np.float32)
        return NearDuplicates(cluster=cluster, pairs=pairs, similarity=similarity, contained=none, containment=nothing)

    def seen(self, texts: Texts, others: Texts, console: Console = SILENT) -> NDArray[np.int64]:
        import numpy as np

        theirs: dict[bytes, int] = {}
        for place, value in enumerate(_hashes(others)):
            theirs.setdefault(value.tobytes(), place)
        return np.array([theirs.get(value.tobytes(), -1) for value in _hashes(texts)], dtype=np.int64)


def _hashes(texts: Texts) -> NDArray[np.uint64]:
    return to_hashes(digest([fold(text)]) for batch in texts for text in batch)


def _first_rows(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the first row of the group that each is in."""
    import numpy as np

    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Units:
    """number: (N,) the unit that each record is in, 0 to U - 1. hashes: (N, 2) uint64 of each."""

    number: NDArray[np.int64]
    hashes: NDArray[np.uint64]

    @property
    def count(self) -> int:
        return int(self.number.max(initial=-1)) + 1


def join(hashes: NDArray[np.uint64], labellings: Sequence[NDArray[np.int64]]) -> Units:
    """The smallest units that keep whole what shares a hash, or a number of one of the labellings.

    hashes: (N, 2) uint64 of each record. labellings: (N,) int64 each; a negative number binds to nothing. A unit is
    named by the smallest hash in it, so that equal contents give equal units in whatever order they came.
    """
    import numpy as np

    number = group_numbers(hashes)
    for labelling in labellings:
        number = _merged(number, labelling)
    order = np.lexsort((hashes[:, 1], hashes[:, 0], number))
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = number[order][1:] != number[order][:-1]
    smallest = hashes[order[is_first]]  # in the order of the numbers, which have no gaps
    named = smallest[number]
    return Units(number=group_numbers(named), hashes=named)


def _merged(number: NDArray[np.int64], labelling: NDArray[np.int64]) -> NDArray[np.int64]:
    """Connected components of records that share either number."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    bound = labelling >= 0
    _, theirs = np.unique(labelling[bound], return_inverse=True)
    size = int(number.max(initial=-1)) + 1
    total = size + int(theirs.max(initial=-1)) + 1
    ones = np.ones(len(theirs), dtype=np.int8)
    graph = coo_matrix((ones, (number[bound], size + theirs)), shape=(total, total))
    _, component = connected_components(graph, directed=False)
    _, merged = np.unique(component[number], return_inverse=True)
    return np.asarray(merged, dtype=np.int64)


def group_codes(cells: pa.ChunkedArray) -> NDArray[np.int64]:
    """(N,) a number for each distinct cell; -1 where it is null or holds nothing but white space."""
    import numpy as np
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(cells)
    encoded = trimmed.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    names = encoded.dictionary.to_pylist()
    if "" in names:
        codes[codes == names.index("")] = -1
    return codes
