"""The cells of all records on disk between the two passes, and the texts among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.data.conversation import Conversation
from reglaj.data.examples import EXTRA
from reglaj.data.ledger import Entries
from reglaj.data.reading.batch import Batch
from reglaj.data.roles import ColumnRoles

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

REASON, EXCERPT = "__reason", "__excerpt"
STAGING = "staging.parquet"
View = Callable[[tuple[str, ...]], str]


class Staging:
    """Takes the records in order. extras: columns of the sources beside those of the task."""

    def __init__(self, folder: Path, roles: ColumnRoles, extras: Sequence[str] = ()) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = folder / STAGING
        self.roles = roles
        self.extras = tuple(extras)
        named = [*roles.names, *(f"{EXTRA}{name}" for name in extras), REASON, EXCERPT]
        self._schema = pa.schema([(name, pa.string()) for name in named])
        self._writer = pq.ParquetWriter(self.path, self._schema, compression="lz4")

    def add(self, batch: Batch, entries: Entries, extras: Sequence[list[str | None]] = ()) -> None:
        """Keep a batch, its cells of the extra columns, and what the ledger already says of it."""
        import pyarrow as pa

        columns = [*batch.cells, *extras, entries.reasons, entries.excerpts]
        arrays = [pa.array(column, pa.string()) for column in columns]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        """Nothing more comes."""
        self._writer.close()

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """What was added, in order; of some columns, or of all."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=columns).combine_chunks().to_batches()

    def column(self, name: str) -> pa.ChunkedArray:
        """All cells of one extra column."""
        import pyarrow as pa

        named = f"{EXTRA}{name}"
        return pa.chunked_array([batch.column(named) for batch in self.batches([named])], pa.string())

    def texts(self, places: NDArray[np.int64], view: View) -> StagedTexts:
        """The texts of the records at these places (ascending), as a view shows them."""
        return StagedTexts(self, places, view)


@dataclass(frozen=True)
class StagedTexts:
    """See `Texts`. One batch of records is in memory at a time."""

    staging: Staging
    places: NDArray[np.int64]
    view: View

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[list[str]]:
        import numpy as np
        import pyarrow as pa

        start = 0
        for batch in self.staging.batches(list(self.staging.roles.inputs)):
            low, high = np.searchsorted(self.places, [start, start + batch.num_rows])
            rows = batch.take(pa.array(self.places[low:high] - start))
            start += batch.num_rows
            if low < high:
                cells = [rows.column(name).to_pylist() for name in self.staging.roles.inputs]
                yield [self.view(texts) for texts in zip(*cells, strict=True)]

    def at(self, row: int) -> str:
        """One of them."""
        low = row
        for batch in self:
            if low < len(batch):
                return batch[low]
            low -= len(batch)
        raise IndexError(row)


@dataclass(frozen=True)
class ListedTexts:
    """See `Texts`: texts that are in memory."""

    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[list[str]]:
        for start in range(0, len(self.texts), 16_384):
            yield self.texts[start : start + 16_384]


def views_of(roles: ColumnRoles) -> dict[str, View]:
    """The ways in which records are compared: as a whole and, where there is an answer or a pair, by the question."""
    if roles.inputs == ("conversation",):
        return {"whole": _whole_conversation, "question": _questions}
    if len(roles.inputs) > 1:
        return {"whole": "\n".join, "question": _first}
    return {"whole": _first}


def _first(cells: tuple[str, ...]) -> str:
    return cells[0]


def _whole_conversation(cells: tuple[str, ...]) -> str:
    messages: Sequence[Any] = Conversation.from_json(cells[0]).messages
    return "\n".join(str(message["content"]) for message in messages if message["role"] != "system")


def _questions(cells: tuple[str, ...]) -> str:
    return "\n".join(Conversation.from_json(cells[0]).questions)


def first_view(roles: ColumnRoles) -> View:
    """What a conversation begins with: the first turn of the user; of other records the first text."""
    return _first_question if roles.inputs == ("conversation",) else _first


def _first_question(cells: tuple[str, ...]) -> str:
    return next(iter(Conversation.from_json(cells[0]).questions), "")
