"""The data say which part a row is in, by a column or by files of their own: nothing is rearranged.

Where they name no validation rows, these are taken out of train, for without them nothing could be chosen but by
looking at the test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from reglaj.core.errors import Problem, user_error
from reglaj.data.splits import SPLITS
from reglaj.data.splits.base import Split, SplitRows
from reglaj.data.splits.dealing import TRAIN, VALIDATION, deal, sort_keys
from reglaj.data.splits.sizes import wanted_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.config import SplitConfig


@SPLITS.register("given")
class GivenSplit(Split):
    """Parts as they were named; only validation may be made, of `validation` (a share of the train rows, or rows)."""

    needs_labels: ClassVar[bool] = False
    is_ours: ClassVar[bool] = False
    needs: ClassVar[str | None] = "column"
    rule: ClassVar[str] = "the data say which part a row is in"

    @classmethod
    def check(cls, config: SplitConfig) -> list[Problem]:
        """See `Split.check`. No column is needed where the sources say their part, which is not known here."""
        return []

    def assign(self, rows: SplitRows, config: SplitConfig) -> NDArray[np.int8]:
        """See `Split.assign`. No row is given up."""
        assert rows.given is not None, "a given split is handed the parts"
        parts = rows.given.copy()
        if not (parts == VALIDATION).any():
            _carve(parts, rows, config)
        return parts


def _carve(parts: NDArray[np.int8], rows: SplitRows, config: SplitConfig) -> None:
    """Turn whole units of train into validation; in place."""
    import numpy as np

    train = np.flatnonzero(parts == TRAIN)
    if not len(train):
        return
    groups, first, unit, sizes = np.unique(
        rows.groups[train], return_index=True, return_inverse=True, return_counts=True
    )
    wanted = wanted_of(config.validation, len(train))
    if config.validation >= 1 and wanted >= len(train):
        raise user_error(
            f"validation is to have {wanted:,} rows of the {len(train):,} that are given for train",
            allowed="a number of rows that leaves something to learn from",
            why="no row is given for validation, so it is taken out of train",
            remedy="ask for fewer rows, or for a share such as 0.1",
            where="data.split.validation",
        )
    order = np.lexsort(sort_keys(rows.hashes[train[first]], config.seed))
    dealt = np.empty(len(groups), dtype=np.int8)
    dealt[order] = deal(sizes[order], {VALIDATION: wanted})
    parts[train] = dealt[unit.reshape(-1)]
