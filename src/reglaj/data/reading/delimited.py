"""CSV and TSV: tables in text whose first line names the columns."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import ClassVar

from reglaj.core.errors import user_error
from reglaj.data.reading.base import READERS, TextReader
from reglaj.data.reading.batch import Batch, BatchBuilder, excerpt, has_undecodable
from reglaj.data.reading.dialects import SAMPLE_RECORDS, column_names, detect_dialect, header_doubt
from reglaj.data.reading.encodings import Encoding
from reglaj.data.reading.files import SourceFile
from reglaj.data.reading.records import Dialect, Record, parse_records


@READERS.register("csv")
class DelimitedReader(TextReader):
    """Tables in text whose first line names the columns."""

    kind: ClassVar[str] = "csv"
    fixed_delimiter: ClassVar[str | None] = None

    def __init__(self, file: SourceFile, encoding: Encoding) -> None:
        super().__init__(file, encoding)
        head = file.head[encoding.bom_bytes :].decode(encoding.codec, errors="reglaj.mark")
        if not file.is_whole_head:  # the last line may be cut off
            head = head[: head.rfind("\n") + 1] or head
        self.dialect: Dialect = detect_dialect(head, is_whole=file.is_whole_head, delimiter=self.fixed_delimiter)
        sample = list(itertools.islice(parse_records(io.StringIO(head, newline=""), self.dialect), SAMPLE_RECORDS))
        header = next(iter(self._records(None)), None)
        if header is None or header.cells is None:
            raise user_error(
                f"{file.name!r} has no header that can be read",
                allowed="a first line with the names of the columns",
                why=header.problem if header else "it holds empty lines only",
                remedy="mend the first line",
            )
        self.columns, notes = column_names([excerpt(name) for name in header.cells])
        self.notes += notes
        self._width = len(self.columns)
        doubt = header_doubt(header.cells, [record.cells for record in sample[1:] if record.cells])
        if doubt:
            self.notes.append(doubt)

    def _records(self, width: int | None) -> Iterator[Record]:
        with self.file.open_text(self.encoding.codec, self.encoding.bom_bytes, newline="") as text:
            lines = iter(text)
            for _ in range(self.dialect.preamble_lines):
                next(lines, None)
            for record in parse_records(lines, self.dialect, width=width):
                yield record._replace(line=record.line + self.dialect.preamble_lines)

    def read(
        self,
        columns: Sequence[str],
        max_rows: int,
        *,
        nested: frozenset[str] = frozenset(),
        optional: frozenset[str] = frozenset(),
    ) -> Iterator[Batch]:
        """See `Reader.read`."""
        places = [self.columns.index(name) for name in columns]
        builder = BatchBuilder(len(places), max_rows)
        width, may_fail = self._width, self.encoding.may_fail
        records = self._records(width)
        next(records)  # the header
        for line, cells, raw, problem in records:
            if cells is None:
                builder.add_fault(line, "unreadable", problem, raw)
            elif may_fail and (has_undecodable(raw) or any(map(has_undecodable, cells))):
                reason = f"the line holds bytes that are not {self.encoding.label}"
                builder.add_fault(line, "unreadable", reason, raw)
            elif len(cells) != width:
                builder.add_fault(line, "ragged", f"{_cells(len(cells))} where the header has {width}", raw)
            else:
                builder.add(line, [cells[place] for place in places])
                if nested:
                    self.json_texts.update(name for name in nested if cells[self.columns.index(name)])
            if builder.is_full:
                yield builder.take()
        yield builder.take()


@READERS.register("tsv")
class TabReader(DelimitedReader):
    """Tables in text with tabs between the cells."""

    kind: ClassVar[str] = "tsv"
    fixed_delimiter: ClassVar[str | None] = "\t"


def _cells(count: int) -> str:
    return f"{count} cell" if count == 1 else f"{count} cells"
