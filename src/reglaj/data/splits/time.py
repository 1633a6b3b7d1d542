"""Validation and test are the latest rows, as they will be when the model is used.

Rows of one moment stay on one side, so a cut lies between two moments: the one that comes nearest to the size asked
for and leaves no part empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from reglaj.data.splits import SPLITS
from reglaj.data.splits.base import Split, SplitRows
from reglaj.data.splits.dealing import TEST, TRAIN, VALIDATION
from reglaj.data.splits.sizes import wanted_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.config import SplitConfig


@SPLITS.register("time")
class TimeSplit(Split):
    """Train, then validation, then test: no row of a part is older than one of the part before it, or as old."""

    needs_labels: ClassVar[bool] = False
    is_ours: ClassVar[bool] = False
    needs: ClassVar[str | None] = "time"
    rule: ClassVar[str] = "rows of one time stay in one part"

    def assign(self, rows: SplitRows, config: SplitConfig) -> NDArray[np.int8]:
        """See `Split.assign`. With fewer than three moments a part stays empty. No row is given up."""
        import numpy as np

        assert rows.times is not None, "a split by time is handed times"
        moments, moment, counts = np.unique(rows.times, return_inverse=True, return_counts=True)
        wanted = wanted_rows(config, len(rows.times))
        # until[m]: rows before moment m. A cut at m puts moment m and the later ones behind it.
        until = np.concatenate(([0], np.cumsum(counts)))
        parts = np.full(len(moments), TRAIN, dtype=np.int8)
        last = len(moments)
        # Where there are only two moments, the test has one and there is no validation.
        for part, room in ((TEST, 2), (VALIDATION, 1)):
            if last > 1:
                first = _nearest_cut(until, int(until[last]) - wanted[part], min(room, last - 1), last - 1)
                parts[first:last] = part
                last = first
        return parts[moment.reshape(-1)]


def _nearest_cut(until: NDArray[np.int64], wanted: int, low: int, high: int) -> int:
    """The moment in [low, high] before which about `wanted` rows lie; the later one of two as near."""
    import numpy as np

    distance = np.abs(until[low : high + 1] - wanted)
    return high - int(np.argmin(distance[::-1]))
