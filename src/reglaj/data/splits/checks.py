"""What has to be right about a column before a split is made by it. Each raises `UserError` that names what is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reglaj.core.errors import listing, user_error
from reglaj.data.splits.times import NOT_A_TIME

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNREADABLE_SHARE = 0.03
"""From this share of the rows on, times that cannot be read are a wrong column and not a few broken cells."""
_SHOWN = 5


def check_group_column(codes: NDArray[np.int64], name: str) -> None:
    """Refuse a column of fewer than three groups. codes: (N,) number of each row's group, -1 for a row alone."""
    import numpy as np

    num_values = len(np.unique(codes[codes >= 0]))
    if num_values + int((codes < 0).sum()) >= 3:
        return
    counted = "one value" if num_values == 1 else f"{num_values} values"
    raise user_error(
        f"the column {name!r} has {counted} in {len(codes):,} usable rows",
        allowed="at least 3 different values, one for each part",
        why="rows of one value stay in one part, so another part would be empty",
        remedy="name another column under data.split.group, or remove it: data.split.kind auto looks for one",
        where="data.split.group",
    )


def check_times(cells: Sequence[str | None], times: NDArray[np.int64], place: Callable[[int], str], name: str) -> None:
    """Refuse a column of which 3% or more of the rows hold no time that can be read. place: file and line of a row."""
    import numpy as np

    lost = np.flatnonzero(times == NOT_A_TIME)
    if not len(cells) or len(lost) / len(cells) < UNREADABLE_SHARE:
        return
    first = "; ".join(f"{place(row)}: {_shown(cells[row])}" for row in lost[:_SHOWN].tolist())
    more = f"; and {len(lost) - _SHOWN:,} more" if len(lost) > _SHOWN else ""
    raise user_error(
        f"the column {name!r} holds no readable time in {len(lost):,} of {len(cells):,} usable rows "
        f"({len(lost) / len(cells):.1%})",
        allowed="ISO dates (2024-05-31, 2024-05-31T10:00Z), seconds or milliseconds since 1970, 31.5.2024, 5/31/2024, "
        "31 May 2024",
        why=f"below {UNREADABLE_SHARE:.0%} such rows are left out as no_time, but these are too many: {first}{more}",
        remedy="mend those rows, or name another column under data.split.time",
        where="data.split.time",
    )


def _shown(cell: str | None) -> str:
    if cell is None or not cell.strip():
        return "empty"
    return repr(cell if len(cell) <= 40 else cell[:39] + "…")


def check_given_labels(
    labels: NDArray[np.int64], parts: NDArray[np.int8], label_names: Sequence[str], dropped: str = ""
) -> None:
    """Refuse parts of which validation or test holds labels that train lacks. dropped: what leakage took, in words.

    labels: (N,) index into label_names. parts: (N,) index into `PARTS`, or -1 for rows that are left out.
    """
    import numpy as np

    learnt = np.unique(labels[parts == 0])
    lost = (parts > 0) & ~np.isin(labels, learnt)
    if not lost.any():
        return
    codes, counts = np.unique(labels[lost], return_counts=True)
    names = [f"{label_names[code]!r} ({count:,})" for code, count in zip(codes.tolist(), counts.tolist(), strict=True)]
    raise user_error(
        f"train lacks {len(names):,} label{'s'[: len(names) != 1]} of {int(lost.sum()):,} rows of validation and test: "
        + listing(names, 8),
        allowed="parts of which train has every label",
        why="what is never seen in training cannot be answered, and every such row would count as a mistake"
        + (f"; what leaks into a later part was taken out of the earlier one: {dropped}" if dropped else ""),
        remedy="move rows with these labels to train, leave the labels out with data.exclude_labels, or let another "
        "data.split.kind deal out the rows",
        where="data.split",
    )
