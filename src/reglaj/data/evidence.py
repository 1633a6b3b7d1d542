"""What the accounts ask beyond the ledger's own columns: near-duplicates, groups, times, other texts.

Legend: N records in the order they were read; K extra columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from reglaj.core.console import SILENT, Console
from reglaj.data.belonging import SameWhenFolded, group_codes
from reglaj.data.cleaning import Cleaner
from reglaj.data.config import DataConfig
from reglaj.data.relations import TextMatcher, Texts
from reglaj.data.splits.base import PARTS
from reglaj.data.staging import Staging, first_view, views_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.ledger import Columns

SPLIT_BUILTINS = ("source", "conversation")


@dataclass(frozen=True, kw_only=True)
class OtherTexts:
    """Texts that records are compared with: an evaluation set, or what an earlier run learnt from.

    name: for messages. texts: by view, see `views_of`. lines: of each text, where it has one.
    """

    kind: Literal["evaluation_set", "earlier_run"]
    name: str
    texts: dict[str, Texts]
    lines: Sequence[int] = ()

    def place(self, row: int) -> str:
        """Where a text stands, in words."""
        return f"line {self.lines[row]} of {self.name}" if self.lines else f"text {row + 1} of {self.name}"


@dataclass
class Evidence:
    """Asked while the accounts are made; what it finds is for the report.

    parts: (N,) int8 part that the source of each record names, -1 for none.
    """

    config: DataConfig
    staging: Staging
    matcher: TextMatcher = field(default_factory=SameWhenFolded)
    cleaner: Cleaner | None = None
    others: Sequence[OtherTexts] = ()
    source_parts: Sequence[str | None] = ()
    console: Console = SILENT
    near: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def views(self) -> dict[str, Any]:
        return views_of(self.staging.roles)

    def group(self, columns: Columns) -> NDArray[np.int64] | None:
        """(N,) the group of each record, -1 for none; None where the recipe names no group."""
        import numpy as np

        name = self.config.split.group
        if name is None:
            return None
        if name in self.staging.extras:
            return group_codes(self.staging.column(name))
        if name == "source":
            return columns.source.astype(np.int64)
        every = np.arange(len(columns))
        codes: dict[str, int] = {}
        first = first_view(self.staging.roles)
        texts = self.staging.texts(every, lambda cells: first(cells) if cells[0] else "")
        numbers = [codes.setdefault(text, len(codes)) if text else -1 for batch in texts for text in batch]
        return np.array(numbers, dtype=np.int64)

    def cells(self, name: str) -> list[str | None]:
        """The cells of an extra column."""
        values: list[str | None] = self.staging.column(name).to_pylist()
        return values

    def given_parts(self, columns: Columns) -> NDArray[np.int8] | None:
        """(N,) index into `PARTS` that the sources name, where they do; -1 for none."""
        import numpy as np

        if not any(self.source_parts):
            return None
        numbers = [PARTS.index(part) if part else -1 for part in self.source_parts]
        return np.array(numbers, dtype=np.int8)[columns.source]

    def near_duplicates(self, places: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        """A labelling (N,) for each view: the cluster of each of these records (ascending), -1 for the others."""
        import numpy as np

        labellings = []
        for name, view in self.views.items():
            found = self.matcher.find(self.staging.texts(places, view), self.console)
            labelling = np.full(size, -1, dtype=np.int64)
            labelling[places] = places[found.cluster]
            labellings.append(labelling)
            self.near[name] = (places, found)
        return labellings

    def seen(self, places: NDArray[np.int64], kind: str) -> tuple[NDArray[np.int64], list[str]]:
        """Those of the records that nearly repeat other texts of a kind, and for each the name of where they stand."""
        import numpy as np

        names: dict[int, str] = {}
        for other in self.others:
            if other.kind != kind:
                continue
            for view, texts in other.texts.items():
                if view not in self.views:
                    continue
                where = self.matcher.seen(self.staging.texts(places, self.views[view]), texts, self.console)
                for row in np.flatnonzero(where >= 0).tolist():
                    names.setdefault(int(places[row]), other.place(int(where[row])))
        rows = np.array(sorted(names), dtype=np.int64)
        return rows, [names[row] for row in rows.tolist()]

    def texts_at(self, places: Sequence[int]) -> dict[int, str]:
        """The beginnings of the texts of a few records (ascending)."""
        import numpy as np

        from reglaj.data.reading.batch import excerpt

        texts = self.staging.texts(np.array(places, dtype=np.int64), self.views["whole"])
        every = [text for batch in texts for text in batch]
        return {place: excerpt(text) for place, text in zip(places, every, strict=True)}
