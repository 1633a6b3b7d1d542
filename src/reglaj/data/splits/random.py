"""Records are shared out by chance: what has no labels to be balanced by.

Rows of one group (equal after folding; for conversations, the same questions) move as one. Which group goes where is
decided by its hash and the seed alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from reglaj.data.splits import SPLITS
from reglaj.data.splits.base import Split, SplitRows
from reglaj.data.splits.dealing import TEST, VALIDATION, deal, sort_keys

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.config import SplitConfig


@SPLITS.register("random")
class RandomSplit(Split):
    """Three parts in the shares asked for, within the size of one group."""

    needs_labels: ClassVar[bool] = False

    def assign(self, rows: SplitRows, config: SplitConfig) -> NDArray[np.int8]:
        """See `Split.assign`. No row is given up."""
        import numpy as np

        sizes = np.bincount(rows.groups)
        hashes = np.zeros((len(sizes), 2), dtype=np.uint64)
        hashes[rows.groups] = rows.hashes
        order = np.lexsort(sort_keys(hashes, config.seed))
        shares = {VALIDATION: config.validation, TEST: config.test}
        counts = {part: max(1, round(share * len(rows.groups))) for part, share in shares.items()}
        parts = np.zeros(len(sizes), dtype=np.int8)
        parts[order] = deal(sizes[order], counts)
        return parts[rows.groups]
