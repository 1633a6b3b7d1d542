"""Promise 2, beyond equal texts: near-duplicates, groups and time in the parts as they lie there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from reglaj.data.examples import EXTRA
from reglaj.data.splits.base import PARTS
from reglaj.data.staging import ListedTexts, first_view, views_of
from reglaj.pipelines.verify.stored import Stored
from reglaj.pipelines.verify.subject import Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHOWN = 5


def leaking(subject: Subject, stored: Stored) -> Iterator[str]:
    """What crosses parts although the recipe does not leave it to a report."""
    if is_left_to_report(stored):
        return
    rows = _Rows(stored, subject.task_type.roles.inputs)
    yield from _near(subject, rows)
    yield from _groups(subject, rows)
    yield from _backwards(subject, rows)


def is_left_to_report(stored: Stored) -> bool:
    """Whether leakage is only counted: the recipe says so, or the data were prepared before it was looked for."""
    return (stored.report.get("leakage") or {}).get("policy", "report") == "report"


class _Rows:
    """The rows of all parts one after the other. parts: (N,) index into `PARTS`."""

    def __init__(self, stored: Stored, inputs: Sequence[str]) -> None:
        import numpy as np
        import pyarrow as pa

        self.table = pa.concat_tables([stored.parts[part] for part in PARTS])
        sizes = [stored.parts[part].num_rows for part in PARTS]
        self.parts: NDArray[np.int64] = np.repeat(np.arange(len(PARTS)), sizes)
        columns = [self.table[name].to_pylist() for name in inputs]
        self.cells: list[tuple[str, ...]] = list(zip(*columns, strict=True))

    def place(self, row: int) -> str:
        one = self.table.slice(row, 1)
        return f"line {one['line'][0]} of {one['source'][0]} ({PARTS[self.parts[row]]})"

    def extra(self, name: str) -> list[Any] | None:
        """The cells of a column that was kept for the split, or None where it was not."""
        column = f"{EXTRA}{name}"
        return self.table[column].to_pylist() if column in self.table.column_names else None


def _near(subject: Subject, rows: _Rows) -> Iterator[str]:
    from reglaj.curation.near_duplicates import MinHashMatcher

    config = subject.recipe.data.near_duplicates
    if config is None:
        return
    matcher = MinHashMatcher(config)
    for view in views_of(subject.task_type.roles).values():
        texts = ListedTexts([view(cells) for cells in rows.cells])
        yield from _torn(rows, matcher.find(texts, subject.console).cluster.tolist(), "near-duplicates of each other")


def _groups(subject: Subject, rows: _Rows) -> Iterator[str]:
    name = subject.recipe.data.split.group
    if name is None:
        return
    cells = rows.extra(name)
    if cells is None and name == "source":
        cells = rows.table["source"].to_pylist()
    elif cells is None:
        cells = list(map(first_view(subject.task_type.roles), rows.cells))
    named = [cell.strip() if cell and cell.strip() else None for cell in cells]
    yield from _torn(rows, named, f"of one group by {name!r}")


def _torn(rows: _Rows, keys: Sequence[Any], words: str) -> Iterator[str]:
    """Rows that share a key and no part; None is no key."""
    homes: dict[Any, int] = {}
    found = 0
    for row, key in enumerate(keys):
        home = homes.setdefault(key, row) if key is not None else row
        if rows.parts[home] != rows.parts[row]:
            found += 1
            if found <= _SHOWN:
                yield f"{rows.place(row)} and {rows.place(home)} are {words}"
    if found > _SHOWN:
        yield f"{found - _SHOWN:,} more rows are {words} across parts"


def _backwards(subject: Subject, rows: _Rows) -> Iterator[str]:
    import numpy as np

    from reglaj.data.splits.times import NOT_A_TIME, parse_times

    split = subject.recipe.data.split
    cells = rows.extra(split.time) if split.time else None
    if cells is None:
        return
    times = parse_times(cells)
    for part in (1, 2):
        # Validation that was taken out of a given train lies among it.
        before = rows.parts < part if split.kind == "time" or part == 2 else np.zeros(len(cells), dtype=bool)
        after, known = rows.parts >= part, times != NOT_A_TIME
        if (before & known).any() and (after & known).any():
            last = int(np.flatnonzero(before & known)[times[before & known].argmax()])
            first = int(np.flatnonzero(after & known)[times[after & known].argmin()])
            if times[last] > times[first]:
                yield f"{rows.place(last)} is later than {rows.place(first)}"
