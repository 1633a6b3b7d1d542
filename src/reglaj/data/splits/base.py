"""The contract of a split: rows in, one part per row out.

Legend: N rows that may be used, G groups of rows that are equal after folding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from reglaj.core.errors import Problem, UserError, listing, user_error
from reglaj.data.splits import SPLITS
from reglaj.data.splits.sizes import describe_sizes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.config import SplitConfig

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class SplitRows:
    """What a split may know of the rows: no texts, no positions that matter.

    hashes: (N, 2) uint64 of the unit that a row is in: its folded text or, where the split is ours to make, all that
    belongs with it (near-duplicates, a group), of which it is the smallest hash. groups: (N,) number of that hash, 0
    to G - 1, in the order of the hashes; rows that share one share a part where the split is ours. labels: (N,) index
    into label_names, which are sorted. So equal contents give equal numbers in whatever order they came.
    times: (N,) int64 microseconds since 1970, UTC. given: (N,) index into `PARTS` that the data name.
    pinned: (N,) whether a unit must be in train, for an earlier run has learnt from it.
    label_sets: row numbers (M,) and label indices (M,) of rows with several labels each; `labels` is not read then.
    """

    hashes: NDArray[np.uint64]
    groups: NDArray[np.int64]
    labels: NDArray[np.int64]
    label_names: list[str]
    times: NDArray[np.int64] | None = None
    given: NDArray[np.int8] | None = None
    pinned: NDArray[np.bool_] | None = None
    label_sets: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None


class Split(ABC):
    """One kind of split.

    needs_labels: whether it looks at labels, and gives up those that it cannot place. is_ours: whether it may decide
    where a row goes, so that units stay whole; otherwise what leaks is dropped. needs: the key of `data.split` that it
    cannot do without. rule: in words, what may keep it from meeting the sizes asked for.
    """

    needs_labels: ClassVar[bool]
    is_ours: ClassVar[bool] = True
    needs: ClassVar[str | None] = None
    rule: ClassVar[str] = "texts that belong together stay in one part"

    @classmethod
    def check(cls, config: SplitConfig) -> list[Problem]:
        """What this kind cannot do of what the section asks, told before any data are read."""
        return []

    @abstractmethod
    def assign(self, rows: SplitRows, config: SplitConfig) -> NDArray[np.int8]:
        """(N,) index into `PARTS`, or -1 for rows of a label that is given up.

        Depends on seed, sizes and the contents of the rows, never on their order. A part is left empty only where
        there is no other way. Raises `UserError` where the sizes cannot be met.
        """


def check_parts(sizes: dict[str, int], config: SplitConfig, dropped: str = "") -> None:
    """Raise `UserError` when a part has no rows. dropped: a sentence on the records that cannot be used."""
    empty = [part for part in PARTS if not sizes[part]]
    if empty:
        raise _empty_part(empty, sizes, config, dropped)


def _empty_part(empty: list[str], sizes: dict[str, int], config: SplitConfig, dropped: str) -> UserError:
    total = sum(sizes.values())
    rule = SPLITS.get(config.kind).rule if config.kind in SPLITS else Split.rule
    return user_error(
        f"{listing(empty)} would have no rows",
        allowed="at least one distinct text in each part",
        why=f"{total:,} usable rows are shared out as {describe_sizes(config)}, and {rule}"
        + (f"; {dropped}" if dropped else ""),
        remedy="add data, give that part a larger size, or choose another data.split.kind",
        where="data.split",
    )
