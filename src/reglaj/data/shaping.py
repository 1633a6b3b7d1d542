"""Between reading and the ledger: what the cells of a record become, or why nothing can be learnt from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from reglaj.data.conversation import BrokenRecord
from reglaj.data.formats import opening
from reglaj.data.layouts import Chosen
from reglaj.data.reading.batch import Batch, Fault, excerpt
from reglaj.data.roles import Cells, Layout


@dataclass(frozen=True, slots=True)
class Shaped:
    """A record as it is stored.

    cells: the stored columns, in the order of their roles; records equal in all of them are duplicates.
    group: texts that decide which records must share a part. examples: how many a record gives.
    characters: length of its texts, for the report.
    """

    cells: tuple[str, ...]
    group: tuple[str, ...]
    examples: int = 1
    characters: int = 0


class Shaper(ABC):
    """Turns the cells of a record into what the task learns from, or says why it cannot."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides what `shape` answers, as JSON values: it enters the key of the data."""

    @abstractmethod
    def shape(self, layout: Layout, cells: Cells) -> Shaped:
        """A record of a file in that layout. Raises `BrokenRecord` with its bucket and the reason."""

    def remarks(self) -> tuple[dict[str, Any], list[str]]:
        """After all records: figures for the report under `rendering`, and sentences for its notes."""
        return {}, []


class ShapedBatch(NamedTuple):
    """A batch whose cells are the stored ones, and each record as it was shaped; None for those with a fault."""

    batch: Batch
    records: list[Shaped | None]


def shape_batch(batch: Batch, chosen: Chosen, shaper: Shaper, num_stored: int) -> ShapedBatch:
    """The records of a batch as they are stored; those that the shaper refuses get a fault.

    batch: cells in the order of the columns of `chosen`. num_stored: how many stored columns there are.
    """
    layout, roles = chosen.layout, list(chosen.columns)
    stored = Batch(lines=batch.lines, cells=[[] for _ in range(num_stored)], faults=dict(batch.faults))
    records: list[Shaped | None] = []
    for place, row in enumerate(zip(*batch.cells, strict=True)):
        shaped = None
        if place not in batch.faults:
            cells = dict(zip(roles, row, strict=True))
            try:
                shaped = shaper.shape(layout, cells)
            except BrokenRecord as problem:
                stored.faults[place] = Fault(problem.bucket, problem.reason, excerpt(opening(layout, cells)))
        records.append(shaped)
        for column, cell in zip(stored.cells, shaped.cells if shaped else [None] * num_stored, strict=True):
            column.append(cell)
    return ShapedBatch(stored, records)
