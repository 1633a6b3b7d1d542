"""Train has every label that is kept: what it lacks is brought there, or given up.

Legend: N rows, G units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.data.splits.dealing import TRAIN, Units
from reglaj.data.splits.label_counts import LabelCounts, label_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.splits.base import SplitRows


def taught(parts: NDArray[np.int8], rows: SplitRows, units: Units, counts: LabelCounts) -> NDArray[np.int8]:
    """(N,) parts of the rows, from the (G,) parts of their units; -1 for rows of a label that is given up."""
    import numpy as np

    parts = parts.copy()
    lost = _teach_every_label(parts, units, counts)
    places, labels = label_pairs(rows)
    result = parts[rows.groups]
    result[places[np.isin(labels, lost)]] = -1
    return result


def _teach_every_label(parts: NDArray[np.int8], units: Units, counts: LabelCounts) -> list[int]:
    """Move a unit of each label that train lacks to train, in place; the labels for which none could go.

    The smallest one goes. Where it is the last of its part, one that train can spare takes its place; where train can
    spare none, the label is given up: better that than a part without rows.
    """
    import numpy as np

    lost = []
    # held[l]: units of train that have label l.
    held = np.bincount(counts.label[parts[counts.unit] == TRAIN], minlength=counts.num_labels)
    present = np.bincount(counts.label, minlength=counts.num_labels)
    for label in np.flatnonzero((present > 0) & (held == 0)).tolist():
        if held[label]:  # came with another label
            continue
        holders = counts.unit[counts.label == label]
        for unit in holders[np.argsort(units.sizes[holders], kind="stable")].tolist():
            part = parts[unit]
            held[counts.of_unit(unit)] += 1
            parts[unit] = TRAIN
            if (parts == part).any():
                break
            spare = _spare(parts, units, counts, held, unit)
            if spare is not None:
                held[counts.of_unit(spare)] -= 1
                parts[spare] = part
                break
            held[counts.of_unit(unit)] -= 1
            parts[unit] = part
        else:
            lost.append(label)
    return lost


def _spare(
    parts: NDArray[np.int8], units: Units, counts: LabelCounts, held: NDArray[np.int64], kept: int
) -> int | None:
    """The smallest unit of train, other than `kept`, that holds no label of train alone; None if there is none."""
    import numpy as np

    able = np.flatnonzero((parts == TRAIN) & ~units.is_pinned)
    for unit in able[np.argsort(units.sizes[able], kind="stable")].tolist():
        if unit != kept and (held[counts.of_unit(unit)] > 1).all():
            return int(unit)
    return None
