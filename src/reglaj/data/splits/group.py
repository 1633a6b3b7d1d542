"""What belongs together by a column, a source document or a conversation is in one part; parts are alike in labels.

Units are dealt out one by one, large ones first (within sizes that are alike, in an order that hashes and the seed
decide), each to the part where it brings the counts of its labels and of all rows nearest to what they should be:
after scikit-learn's `StratifiedGroupKFold`, with the sum of (rows - wanted)^2 / wanted in place of its standard
deviation, so that parts may be of unequal size and a step costs no more than the labels of one unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from reglaj.data.splits import SPLITS
from reglaj.data.splits.base import Split, SplitRows
from reglaj.data.splits.dealing import TEST, TRAIN, VALIDATION, Units, deal, fill_empty
from reglaj.data.splits.label_counts import LabelCounts
from reglaj.data.splits.sizes import wanted_rows, wanted_shares
from reglaj.data.splits.teaching import taught

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.config import SplitConfig


@SPLITS.register("group")
class GroupSplit(Split):
    """Whole groups only; a label may be missing in validation or test where few groups have it, never in train."""

    needs_labels: ClassVar[bool] = True
    needs: ClassVar[str | None] = "group"
    rule: ClassVar[str] = "groups stay in one part"

    def assign(self, rows: SplitRows, config: SplitConfig) -> NDArray[np.int8]:
        """See `Split.assign`. A label is given up (-1) only where without its groups a part would be empty."""
        import numpy as np

        units = Units.of(rows)
        if len(rows.label_names) < 2 and rows.label_sets is None:
            order = units.order(config.seed)
            parts = np.zeros(len(order), dtype=np.int8)
            parts[order] = deal(units.sizes[order], wanted_rows(config, len(rows.groups)), units.is_pinned[order])
            return parts[rows.groups]
        counts = LabelCounts.of(rows)
        parts = _deal_alike(units, counts, wanted_shares(config, len(rows.groups)), config.seed)
        fill_empty(parts, units.sizes, np.flatnonzero(~units.is_pinned), (TEST, VALIDATION, TRAIN))
        return taught(parts, rows, units, counts)


def _deal_alike(units: Units, counts: LabelCounts, shares: dict[int, float], seed: int) -> NDArray[np.int8]:
    """(G,) parts. Each unit goes where the sum over its labels, and over all rows, rises least."""
    import numpy as np

    order = units.order(seed)
    # By powers of two: large units while there is still room for them, the others as chance has them.
    order = order[np.argsort(-np.log2(np.maximum(units.sizes[order], 1)).astype(np.int64), kind="stable")]
    total = int(units.sizes.sum())
    wanted = [total * (1 - sum(shares.values())), total * shares[VALIDATION], total * shares[TEST]]
    targets = np.column_stack((counts.targets(shares), np.maximum(wanted, 1e-9))).tolist()
    filled = [[0.0] * (counts.num_labels + 1) for _ in range(3)]
    labels = list(counts.units())
    parts = np.zeros(len(order), dtype=np.int8)
    pinned, sizes = units.is_pinned.tolist(), units.sizes.tolist()
    # What is in train whatever happens counts before anything is dealt out.
    for unit in sorted(order.tolist(), key=lambda unit: not pinned[unit]):
        pairs = [*labels[unit], (counts.num_labels, sizes[unit])]
        part = TRAIN
        if not pinned[unit]:
            part = min((TRAIN, VALIDATION, TEST), key=lambda part: _rise(filled[part], targets[part], pairs))
        parts[unit] = part
        for label, count in pairs:
            filled[part][label] += count
    return parts


def _rise(filled: list[float], targets: list[float], pairs: list[tuple[int, int]]) -> float:
    """By how much a unit with these counts raises the part's sum of (rows - wanted)^2 / wanted."""
    return sum(
        count * (2 * (filled[label] - targets[label]) + count) / max(targets[label], 1e-9) for label, count in pairs
    )
