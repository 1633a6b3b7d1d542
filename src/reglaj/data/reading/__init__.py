"""Reading files: any known format and encoding, plain or gzip, record by record, none lost and none changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reglaj.core.errors import UserError, user_error

if TYPE_CHECKING:
    from reglaj.data.reading.base import Reader
    from reglaj.data.reading.records import Dialect

LOOK_BYTES = 1 << 22


@dataclass(frozen=True)
class Source:
    """One file of a recipe. name: as the user wrote it; columns: role to column name."""

    path: Path
    name: str
    kind: str | None = None
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Preview:
    """The beginning of a file.

    sample: the first good records as column to text (nested values as JSON). rows_seen: records looked at,
    faulty ones included. is_complete: whether that is the whole file. dialect: for tables in text.
    """

    kind: str
    encoding: str | None
    dialect: Dialect | None
    columns: list[str]
    sample: list[dict[str, str]]
    rows_seen: int
    is_complete: bool
    notes: list[str]


def open_reader(path: Path, name: str, kind: str | None = None, *, max_bytes: int | None = None) -> Reader:
    """A reader for the file, its format, encoding and dialect found out.

    max_bytes: how far to look for the encoding; None reads the file to its end, so that it is certain.
    Raises `UserError` when the file cannot be read or is of another kind than said.
    """
    from reglaj.data.reading.base import READERS
    from reglaj.data.reading.encodings import detect_encoding
    from reglaj.data.reading.files import guarded, open_file
    from reglaj.data.reading.kinds import find_kind, is_parquet

    file = open_file(path, name)

    def build() -> Reader:
        if is_parquet(file):
            encoding = None
        else:
            with file.open() as stream:
                encoding = detect_encoding(stream, max_bytes)
        make = cast("Any", READERS.get(find_kind(file, encoding, kind)))
        return cast("Reader", make(file, encoding))

    return next(guarded(name, (build() for _ in range(1))))


def look(path: Path, kind: str | None = None, rows: int = 2000) -> Preview:
    """The first `rows` records of a file, every column, and what was found out about its format.

    Raises `UserError` when the file is missing, empty, a header only, or when none of these records can be read.
    """
    from reglaj.data.reading.batch import Batch
    from reglaj.data.reading.files import guarded

    name = str(path)
    reader = open_reader(path, name, kind, max_bytes=LOOK_BYTES)
    reader.lenient = True
    sample: list[dict[str, str]] = []
    reasons: list[str] = []
    seen, is_complete = 0, True
    batch: Batch
    for batch in guarded(name, reader.read(reader.columns, rows + 1)):
        for place in range(min(len(batch), rows - seen)):
            if place in batch.faults:
                reasons.append(f"line {batch.lines[place]}: {batch.faults[place].reason}")
            else:
                cells = (column[place] or "" for column in batch.cells)
                sample.append(dict(zip(reader.columns, cells, strict=True)))
        is_complete = seen + len(batch) <= rows
        seen = min(rows, seen + len(batch))
        if not is_complete:
            break
    if not sample:
        raise _nothing_good(name, seen, reasons)
    notes = list(reader.notes)
    if reasons:
        notes.append(f"{len(reasons):,} of the first {seen:,} records cannot be read ({reasons[0]})")
    return Preview(
        kind=reader.kind,
        encoding=reader.encoding.label if reader.encoding else None,
        dialect=reader.dialect,
        columns=reader.columns,
        sample=sample,
        rows_seen=seen,
        is_complete=is_complete,
        notes=notes,
    )


def no_records(name: str) -> UserError:
    """The error for a file without a single record."""
    return user_error(
        f"{name!r} has no records",
        allowed="a file with records below its header",
        why="nothing follows the header, or the list of records is empty",
        remedy="check how the file was written, or name another one",
    )


def _nothing_good(name: str, seen: int, reasons: list[str]) -> UserError:
    if not seen:
        return no_records(name)
    return user_error(
        f"none of the first {seen:,} records of {name!r} can be read",
        allowed="records that match the header",
        why=reasons[0],
        remedy="check the delimiter and the encoding, or say which `kind` the file is",
    )
