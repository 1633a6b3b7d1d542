"""How often each label is in each unit, which is what keeps the label mix of parts alike.

Legend: G units, K pairs of a unit and a label that it has, L labels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reglaj.data.splits.dealing import TRAIN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.splits.base import SplitRows


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """unit, label, count: (K,) each, sorted by unit and then by label. starts: (G + 1,) where a unit's pairs begin."""

    unit: NDArray[np.int64]
    label: NDArray[np.int64]
    count: NDArray[np.int64]
    starts: NDArray[np.int64]
    num_labels: int

    @classmethod
    def of(cls, rows: SplitRows) -> LabelCounts:
        """From one label of each row, or from its set of labels."""
        import numpy as np

        num_units, num_labels = int(rows.groups.max(initial=-1)) + 1, len(rows.label_names)
        places, labels = label_pairs(rows)
        pairs, count = np.unique(rows.groups[places] * num_labels + labels, return_counts=True)
        unit = pairs // num_labels
        starts = np.searchsorted(unit, np.arange(num_units + 1))
        return cls(unit=unit, label=pairs % num_labels, count=count, starts=starts, num_labels=num_labels)

    def units(self) -> Iterator[list[tuple[int, int]]]:
        """Of each unit its labels with their counts."""
        pairs = list(zip(self.label.tolist(), self.count.tolist(), strict=True))
        bounds = self.starts.tolist()
        for start, end in itertools.pairwise(bounds):
            yield pairs[start:end]

    def of_unit(self, unit: int) -> NDArray[np.int64]:
        """The labels that a unit has."""
        return self.label[self.starts[unit] : self.starts[unit + 1]]

    def totals(self) -> NDArray[np.int64]:
        """(L,) rows of each label."""
        import numpy as np

        return np.bincount(self.label, weights=self.count, minlength=self.num_labels).astype(np.int64)

    def targets(self, shares: Mapping[int, float]) -> NDArray[np.float64]:
        """(3, L) rows of each label that each part should have, by the shares of all parts but train.

        At least one in every part where a label is in three units or more, so that it can be learnt and tested.
        """
        import numpy as np

        totals = self.totals()
        least = np.where(np.bincount(self.label, minlength=self.num_labels) >= 3, 1.0, 0.0)
        targets = np.zeros((3, self.num_labels))
        for part, share in shares.items():
            targets[part] = np.maximum(totals * share, least)
        targets[TRAIN] = np.maximum(totals - targets.sum(axis=0), least)
        return targets


def label_pairs(rows: SplitRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers and labels, a pair for each label that a row has."""
    import numpy as np

    if rows.label_sets is not None:
        return rows.label_sets
    return np.arange(len(rows.labels)), rows.labels
