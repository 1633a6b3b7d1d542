"""A row's side is decided by its own folded text and the seed, never by the other rows: data may grow.

The 64-bit hash, mixed with the seed, is a number evenly spread over [0, 1): the lowest of them are the test, the next
ones validation. Sizes are met as chance allows: within 2 rows of a hundred in most tables of a thousand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from reglaj.core.errors import Problem, UserError
from reglaj.data.splits import SPLITS
from reglaj.data.splits.base import Split, SplitRows
from reglaj.data.splits.dealing import TEST, TRAIN, VALIDATION, seeded_numbers
from reglaj.data.splits.sizes import describe_sizes, has_counts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.config import SplitConfig


@SPLITS.register("hash")
class HashSplit(Split):
    """Growing data change no row's side."""

    needs_labels: ClassVar[bool] = False
    is_ours: ClassVar[bool] = False
    rule: ClassVar[str] = "the side of a row is decided by its own text"

    @classmethod
    def check(cls, config: SplitConfig) -> list[Problem]:
        """See `Split.check`. A number of rows cannot be promised without looking at the other rows."""
        if not has_counts(config):
            return []
        return [
            Problem(
                where="data.split",
                given=f"kind hash with {describe_sizes(config)}",
                allowed="shares below 1, such as validation 0.1",
                why="the side of a row depends on its own text alone, so no number of rows can be met",
                remedy="give shares, or choose another kind of split",
            )
        ]

    def assign(self, rows: SplitRows, config: SplitConfig) -> NDArray[np.int8]:
        """See `Split.assign`. No row is given up."""
        import numpy as np

        problems = self.check(config)
        if problems:
            raise UserError(*problems)
        place = seeded_numbers(rows.hashes, config.seed) / 2.0**64
        is_test, is_validation = place < config.test, place < config.test + config.validation
        return np.select([is_test, is_validation], [TEST, VALIDATION], TRAIN).astype(np.int8)
