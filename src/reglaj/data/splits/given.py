"""The data say which part a row is in, by a column or by files of their own: nothing is rearranged.

Where they name no validation rows, these are taken out of train, for without them nothing could be chosen but by
looking at the test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from reglaj.core.errors import listing, user_error
from reglaj.data.splits import SPLITS
from reglaj.data.splits.base import Split, SplitRows
from reglaj.data.splits.dealing import TEST, TRAIN, VALIDATION, deal, sort_keys
from reglaj.data.splits.sizes import wanted_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.config import SplitConfig

_NAMES = {
    "train": TRAIN, "training": TRAIN,
    "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION, "development": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip


def parts_of_cells(cells: Sequence[str | None], name: str, place: Callable[[int], str]) -> NDArray[np.int8]:
    """(N,) index into `PARTS` that each cell of the column names, in any case.

    place: file and line of a row. Raises `UserError` where a cell names none, or none names train or test.
    """
    import numpy as np

    known = {cell: _NAMES.get((cell or "").strip().casefold(), -1) for cell in set(cells)}
    parts = np.array([known[cell] for cell in cells], dtype=np.int8)
    unknown = np.flatnonzero(parts < 0)
    if len(unknown):
        names = sorted({"an empty cell" if not (cells[i] or "").strip() else repr(cells[i]) for i in unknown.tolist()})
        first = ", ".join(place(i) for i in unknown[:3].tolist())
        raise user_error(
            f"the column {name!r} has {listing(names, 8)} in {len(unknown):,} of {len(cells):,} rows",
            allowed="train; validation, valid, val or dev; test (in any case)",
            why=f"the part of those rows is not known; the first are {first}",
            remedy="mend the cells, leave the rows out, or choose another data.split.kind",
            where="data.split.column",
        )
    missing = [part for part, code in (("train", TRAIN), ("test", TEST)) if not (parts == code).any()]
    if missing:
        raise user_error(
            f"no row of the column {name!r} says {' or '.join(missing)}",
            allowed="rows for train and for test; validation is taken out of train where no row is given for it",
            why="nothing could be learnt or nothing tested",
            remedy="mend the column, or choose another data.split.kind",
            where="data.split.column",
        )
    return parts


@SPLITS.register("given")
class GivenSplit(Split):
    """Parts as they were named; only validation may be made, of `validation` (a share of the train rows, or rows)."""

    needs_labels: ClassVar[bool] = False
    is_ours: ClassVar[bool] = False
    needs: ClassVar[str | None] = "column"
    rule: ClassVar[str] = "the data say which part a row is in"

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
