"""What every format hands on: batches of records, each either cells of the wanted columns or a fault."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

BATCH_ROWS = 16_384
BATCH_CHARACTERS = 8_000_000
EXCERPT_CHARACTERS = 200
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record has no cells. bucket: `unreadable` or `ragged`; reason: a sentence; text: how the record begins."""

    bucket: str
    reason: str
    text: str


@dataclass(slots=True)
class Batch:
    """Consecutive records of one source.

    lines: physical line (1-based) where each record begins; for Parquet the number of the row.
    cells: one list per wanted column; None is a JSON or Parquet null, or the place of a faulty record.
    faults: position in the batch to fault.
    """

    lines: list[int] = field(default_factory=list)
    cells: list[list[str | None]] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)


class BatchBuilder:
    """Collects records until a batch is full, by rows or by characters: long texts make small batches."""

    def __init__(self, num_columns: int, max_rows: int = BATCH_ROWS) -> None:
        self.num_columns = num_columns
        self.max_rows = max_rows
        self._characters = 0
        self._batch = self._empty()

    def _empty(self) -> Batch:
        return Batch(cells=[[] for _ in range(self.num_columns)])

    def add(self, line: int, cells: Sequence[str | None]) -> None:
        """Put a good record at the end; `cells` are in the order of the wanted columns."""
        batch = self._batch
        batch.lines.append(line)
        for column, cell in zip(batch.cells, cells, strict=True):
            column.append(cell)
            if cell is not None:
                self._characters += len(cell)

    def add_fault(self, line: int, bucket: str, reason: str, text: str) -> None:
        """Put a faulty record at the end."""
        batch = self._batch
        batch.faults[len(batch.lines)] = Fault(bucket, reason, excerpt(text))
        batch.lines.append(line)
        for column in batch.cells:
            column.append(None)

    @property
    def is_full(self) -> bool:
        """Whether it is time to `take`."""
        return len(self._batch.lines) >= self.max_rows or self._characters >= BATCH_CHARACTERS

    def take(self) -> Batch:
        """The batch so far; the builder starts over."""
        batch, self._batch, self._characters = self._batch, self._empty(), 0
        return batch


def excerpt(text: str) -> str:
    """The beginning of a text, fit for UTF-8: bytes that could not be decoded are shown as \\xNN."""
    start = text[:EXCERPT_CHARACTERS].rstrip("\r\n")
    return start if start.isascii() else _SURROGATE.sub(_show_byte, start)


def has_undecodable(text: str) -> bool:
    """Whether a text holds bytes that did not decode, or half a surrogate pair: no UTF-8 can carry it."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def _show_byte(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC00 <= code <= 0xDCFF else f"\\u{code:04x}"
