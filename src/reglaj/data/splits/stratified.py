"""Each label is shared out alike: every part has every label, in the shares asked for.

Rows of one unit (equal after folding, or nearly the same) move as one. Each label's quota in validation and test is
rounded up or down so that the parts as a whole hit their shares, and is at least one unit. Which units go where is
decided by their hash and the seed alone. Rows with several labels are shared out by iterative stratification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from reglaj.data.splits import SPLITS
from reglaj.data.splits.base import Split, SplitRows
from reglaj.data.splits.dealing import TEST, VALIDATION, Units, deal, sort_keys
from reglaj.data.splits.iterative import stratify_sets
from reglaj.data.splits.sizes import wanted_shares

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.config import SplitConfig


@SPLITS.register("stratified")
class StratifiedSplit(Split):
    """Three parts with the same mix of labels."""

    needs_labels: ClassVar[bool] = True

    def assign(self, rows: SplitRows, config: SplitConfig) -> NDArray[np.int8]:
        """See `Split.assign`. A label is given up (-1) only where its units are bound to those of other labels.

        Where rows have several labels, one that few units have may be missing in validation or test, never in train.
        """
        import numpy as np

        if rows.label_sets is not None:
            return stratify_sets(rows, wanted_shares(config, len(rows.groups)), config.seed)
        usable = np.ones(len(rows.labels), dtype=bool)
        while True:
            parts = _assign_usable(rows, usable, config)
            lost = _uncovered_labels(rows.labels, parts, usable)
            lost = lost[~np.isin(lost, _only_pinned(rows))]
            if not len(lost):
                return parts
            # One at a time: without this label's rows the others may well fit.
            usable &= rows.labels != lost[0]


def _assign_usable(rows: SplitRows, usable: NDArray[np.bool_], config: SplitConfig) -> NDArray[np.int8]:
    """Parts of the usable rows, -1 for the others."""
    import numpy as np

    units = Units.of(rows, usable)
    sizes, is_pinned = units.sizes, units.is_pinned
    owner, order = _owned_groups(rows, units, usable, config.seed)
    part_of_group = np.full(len(sizes), -1, dtype=np.int8)
    quotas = _Quotas(wanted_shares(config, int(usable.sum())))
    bounds = np.searchsorted(owner[order], np.arange(len(rows.label_names) + 1))
    for label in range(len(rows.label_names)):
        groups = order[bounds[label] : bounds[label + 1]]
        if len(groups):
            counts = quotas.next(int(sizes[groups].sum()))
            part_of_group[groups] = deal(sizes[groups], counts, is_pinned[groups])
    _repair(rows, usable, part_of_group, is_pinned)
    return np.where(usable, part_of_group[rows.groups], -1).astype(np.int8)


def _owned_groups(
    rows: SplitRows, units: Units, usable: NDArray[np.bool_], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(G,) the label that each group counts for, and the usable groups by that label, in seeded order.

    A group of several labels (equal texts but for case, say) counts for its rarest one, which needs it most.
    """
    import numpy as np

    frequency = np.bincount(rows.labels[usable], minlength=len(rows.label_names))
    places = np.flatnonzero(usable)
    labels = rows.labels[places]
    first = places[np.lexsort((labels, frequency[labels], rows.groups[places]))]
    groups, where = np.unique(rows.groups[first], return_index=True)
    owner = np.full(len(units.sizes), len(rows.label_names), dtype=np.int64)
    owner[groups] = rows.labels[first[where]]
    return owner, groups[np.lexsort((*sort_keys(units.hashes[groups], seed), owner[groups]))]


class _Quotas:
    """Rows of validation and test, label by label; what rounding takes from one label the next ones give back."""

    def __init__(self, shares: Mapping[int, float]) -> None:
        self._shares = shares
        self._carry = {VALIDATION: 0.0, TEST: 0.0}

    def next(self, num_rows: int) -> dict[int, int]:
        """Rows of the next label for each part but train: its quota rounded up or down, at least 1."""
        counts = {}
        for part, share in self._shares.items():
            quota = num_rows * share
            wanted = math.floor(quota + self._carry[part] + 0.5)
            counts[part] = max(1, min(math.ceil(quota), max(math.floor(quota), wanted)))
            # What a tiny label gets beyond its quota is not taken from the others: their shares matter more.
            self._carry[part] += quota - (counts[part] if quota >= 1 else quota)
        return counts


def _label_parts(labels: NDArray[np.int64], parts: NDArray[np.int8], num_labels: int) -> NDArray[np.int64]:
    """(labels, 3) how often each label is in each part."""
    import numpy as np

    return np.bincount(labels * 3 + parts, minlength=num_labels * 3).reshape(num_labels, 3)


def _repair(
    rows: SplitRows, usable: NDArray[np.bool_], part_of_group: NDArray[np.int8], is_pinned: NDArray[np.bool_]
) -> None:
    """Give each label that misses a part one of its groups there, where that costs no other label its last one.

    Only groups of several labels, or pinned ones, can bring this about, so it is rare.
    """
    import numpy as np

    labels, groups = rows.labels[usable], rows.groups[usable]
    num_labels, num_groups = len(rows.label_names), len(part_of_group)
    counts = _label_parts(labels, part_of_group[groups], num_labels)
    missing = np.argwhere((counts == 0) & (counts.sum(axis=1) > 0)[:, None]).tolist()
    if not missing:
        return
    pairs = np.unique(labels * num_groups + groups)
    pair_labels, pair_groups = pairs // num_groups, pairs % num_groups
    counts = _label_parts(pair_labels, part_of_group[pair_groups], num_labels)
    for label, part in missing:
        for group in pair_groups[pair_labels == label].tolist():
            sharing = pair_labels[pair_groups == group]
            old = part_of_group[group]
            if old != part and not is_pinned[group] and (counts[sharing, old] > 1).all():
                counts[sharing, old] -= 1
                counts[sharing, part] += 1
                part_of_group[group] = part
                break


def _only_pinned(rows: SplitRows) -> NDArray[np.int64]:
    """Labels all rows of which must be in train: they are learnt, and that no other part has them is no one's fault."""
    import numpy as np

    if rows.pinned is None:
        return np.zeros(0, dtype=np.int64)
    return np.setdiff1d(np.unique(rows.labels), np.unique(rows.labels[~rows.pinned]))


def _uncovered_labels(
    labels: NDArray[np.int64], parts: NDArray[np.int8], usable: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Labels that are missing in a part, rarest first."""
    import numpy as np

    counts = _label_parts(labels[usable], parts[usable], int(labels.max(initial=-1)) + 1)
    totals = counts.sum(axis=1)
    lost = np.flatnonzero((totals > 0) & (counts == 0).any(axis=1))
    return lost[np.argsort(totals[lost], kind="stable")]
