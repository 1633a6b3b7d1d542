"""Texts that say the same in other words: pairs of near embeddings. Reported, never acted on.

Legend: N texts, D width of the embedding, P pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.core.console import SILENT, Console

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK = 2048  # rows and columns of a block of similarities: 16 MiB


def semantic_pairs(
    embeddings: NDArray[np.float32], threshold: float, limit: int, console: Console = SILENT
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `limit` nearest pairs with a cosine similarity of at least `threshold`, the nearest first.

    embeddings: (N, D) float32 of length 1 each. Returns (P, 2) int64 rows, smaller first, and (P,) float32.
    Takes N^2 * D operations, and memory for `limit` pairs and one block, whatever N is.
    """
    import numpy as np

    total = -(-len(embeddings) // _BLOCK)
    pairs, similarity = np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32)
    with console.progress("comparing embeddings", total=total * (total + 1) // 2, unit="blocks") as advance:
        for top in range(0, len(embeddings), _BLOCK):
            for left in range(top, len(embeddings), _BLOCK):
                near = embeddings[top : top + _BLOCK] @ embeddings[left : left + _BLOCK].T
                is_near = near >= threshold
                rows, columns = np.nonzero(np.triu(is_near, k=1) if left == top else is_near)
                found = np.stack((rows + top, columns + left), axis=1)
                pairs = np.concatenate((pairs, found))
                similarity = np.concatenate((similarity, near[rows, columns]))
                if len(pairs) > limit:
                    pairs, similarity = _nearest(pairs, similarity, limit)
                advance(1)
    return _nearest(pairs, similarity, limit)


def _nearest(
    pairs: NDArray[np.int64], similarity: NDArray[np.float32], limit: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    import numpy as np

    order = np.lexsort((pairs[:, 1], pairs[:, 0], -similarity))[:limit]
    return pairs[order], similarity[order]
