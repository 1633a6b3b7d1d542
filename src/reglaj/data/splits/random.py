"""Records are shared out by chance: what has no labels to be balanced by.

Rows of one unit (equal after folding, nearly the same; for conversations, the same questions) move as one. Which unit
goes where is decided by its hash and the seed alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from reglaj.data.splits import SPLITS
from reglaj.data.splits.base import Split, SplitRows
from reglaj.data.splits.dealing import Units, deal
from reglaj.data.splits.sizes import wanted_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.config import SplitConfig


@SPLITS.register("random")
class RandomSplit(Split):
    """Three parts of the sizes asked for, within the size of one unit."""

    needs_labels: ClassVar[bool] = False

    def assign(self, rows: SplitRows, config: SplitConfig) -> NDArray[np.int8]:
        """See `Split.assign`. No row is given up."""
        import numpy as np

        units = Units.of(rows)
        order = units.order(config.seed)
        parts = np.zeros(len(order), dtype=np.int8)
        parts[order] = deal(units.sizes[order], wanted_rows(config, len(rows.groups)), units.is_pinned[order])
        return parts[rows.groups]
