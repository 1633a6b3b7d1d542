"""Parquet: only the wanted columns are read, batch by batch. A record's `line` is the number of its row."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

from reglaj.core.errors import UserError, user_error
from reglaj.data.reading.base import READERS, Reader
from reglaj.data.reading.batch import BATCH_CHARACTERS, Batch, BatchBuilder, has_undecodable
from reglaj.data.reading.dialects import column_names
from reglaj.data.reading.files import SourceFile

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


@READERS.register("parquet")
class ParquetReader(Reader):
    """Numbers and booleans become their JSON text, dates their ISO text; lists and structs are refused."""

    kind: ClassVar[str] = "parquet"

    def __init__(self, file: SourceFile, encoding: None = None) -> None:
        super().__init__(file, None)
        with self._opened() as parquet:
            self.columns, notes = column_names(parquet.schema_arrow.names)
        self.notes += notes

    def _opened(self) -> pq.ParquetFile:
        import pyarrow as pa
        import pyarrow.parquet as pq

        source: Any = self.file.path
        if self.file.compression:
            # Parquet is read from its end, and gzip only from its start.
            source = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the ParquetFile)
            with self.file.open() as packed:
                shutil.copyfileobj(packed, cast("IO[bytes]", source))
            source.seek(0)
        try:
            return pq.ParquetFile(source)
        except (pa.ArrowException, OSError) as error:
            raise _broken(self.file.name, error) from error

    def read(
        self,
        columns: Sequence[str],
        max_rows: int,
        *,
        nested: frozenset[str] = frozenset(),
        optional: frozenset[str] = frozenset(),
    ) -> Iterator[Batch]:
        """See `Reader.read`."""
        import pyarrow as pa
        import pyarrow.types as types

        with self._opened() as parquet:
            places = [self.columns.index(name) for name in columns]
            fields = [parquet.schema_arrow.field(place) for place in places]
            for name, arrow_field in zip(columns, fields, strict=True):
                if not self.lenient and name not in nested:
                    _refuse_nested(self.file.name, name, arrow_field.type)
            soft = [name in optional for name in columns]
            texts = [i for i, one in enumerate(fields) if columns[i] in nested and not types.is_nested(one.type)]
            builder, row = BatchBuilder(len(columns), max_rows), 0
            try:
                for table in parquet.iter_batches(_batch_rows(parquet, max_rows), columns=[f.name for f in fields]):
                    found = _columns_of(table, parquet.schema_arrow.names, places)
                    for cells in zip(*found, strict=True):
                        row += 1
                        _add(builder, row, cells, soft)
                        self.json_texts.update(columns[i] for i in texts if cells[i] is not None)
                        if builder.is_full:
                            yield builder.take()
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, UserError):
                    raise
                raise _broken(self.file.name, error) from error
            yield builder.take()


def _add(builder: BatchBuilder, row: int, cells: Sequence[str | bytes | None], soft: Sequence[bool]) -> None:
    """soft: columns that a record may lack; there bytes that are no text are nothing, and elsewhere a fault."""
    try:
        builder.add(row, [_decoded(cell, is_soft) for cell, is_soft in zip(cells, soft, strict=True)])
    except UnicodeDecodeError:
        shown = " ".join(c.decode("utf-8", "backslashreplace") if isinstance(c, bytes) else c or "" for c in cells)
        builder.add_fault(row, "unreadable", "the row holds bytes that are not UTF-8", shown)


def _decoded(cell: str | bytes | None, is_soft: bool) -> str | None:
    if not isinstance(cell, bytes):
        return cell
    try:
        return cell.decode("utf-8")
    except UnicodeDecodeError:
        if is_soft:
            return None
        raise


def _columns_of(table: pa.RecordBatch, names: list[str], places: list[int]) -> list[list[Any]]:
    """Texts of the wanted columns; of two columns with one name the right one is taken by its position."""
    chosen = []
    for place in places:
        pairs = zip(table.columns, table.schema.names, strict=True)
        same_name = [column for column, name in pairs if name == names[place]]
        which = names[:place].count(names[place]) if len(same_name) > 1 else 0
        chosen.append(_texts(same_name[which]))
    return chosen


def _texts(column: pa.Array) -> list[Any]:
    import pyarrow as pa
    import pyarrow.types as types

    kind = column.type
    if types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if types.is_nested(kind):
        return [_nested_cell(value) for value in column]
    if types.is_floating(kind) or types.is_boolean(kind):
        return [None if value is None else json.dumps(value) for value in column.to_pylist()]
    if not _is_text(kind):
        column = column.cast(pa.string())
    try:
        return cast("list[Any]", column.to_pylist())
    except UnicodeDecodeError:  # a writer that did not check; the bad rows are found one by one
        return cast("list[Any]", column.cast(pa.binary()).to_pylist())


def _nested_cell(value: pa.Scalar) -> str | bytes | None:
    """A list or struct as compact JSON; where its texts are not UTF-8 as bytes, which are found out by that."""
    try:
        found = value.as_py()
        if found is None:
            return None
        text = json.dumps(_without_nulls(found), ensure_ascii=False, separators=(",", ":"), default=_json_value)
    except UnicodeDecodeError:
        return b"\xff"
    return text.encode("utf-8", "surrogateescape") if has_undecodable(text) else text


def _without_nulls(value: Any) -> Any:
    """Arrow gives every struct of a list the fields of all of them: those that one does not have are null."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _json_value(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    checks = (types.is_string, types.is_large_string, types.is_string_view)
    binary = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(check(kind) for check in checks + binary)


def _refuse_nested(file: str, column: str, kind: pa.DataType) -> None:
    import pyarrow.types as types

    if types.is_nested(kind):
        raise user_error(
            f"the column {column!r} of {file!r} holds {kind}",
            allowed="texts, numbers, booleans or dates",
            why="a cell has to be one text",
            remedy="choose another column, or write the values as texts",
        )


def _batch_rows(parquet: pq.ParquetFile, max_rows: int) -> int:
    """Rows of a batch so that long texts do not fill the memory."""
    metadata = parquet.metadata
    total = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    per_row = max(1, total // max(1, metadata.num_rows))
    return max(1, min(max_rows, BATCH_CHARACTERS // per_row))


def _broken(name: str, error: Exception) -> UserError:
    return user_error(
        f"{name!r} is broken Parquet",
        allowed="a whole Parquet file",
        why=str(error).splitlines()[0],
        remedy="copy or write it again",
    )
