"""JSON Lines: one JSON object in each physical line. A broken line is lost by itself."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from reglaj.core.errors import user_error
from reglaj.data.reading.base import HEADER_RECORDS, READERS, TextReader
from reglaj.data.reading.batch import Batch, BatchBuilder, has_undecodable
from reglaj.data.reading.encodings import Encoding
from reglaj.data.reading.files import SourceFile
from reglaj.data.reading.json_values import DECODER, Wanted, json_texts, pick_cells


@READERS.register("jsonl")
class JsonLinesReader(TextReader):
    """The columns are the keys of the first records. Lines of nothing but white space are no records."""

    kind: ClassVar[str] = "jsonl"
    may_have_more: ClassVar[bool] = True

    def __init__(self, file: SourceFile, encoding: Encoding) -> None:
        super().__init__(file, encoding)
        records = [value for _, _, value in itertools.islice(self._values(), HEADER_RECORDS)]
        objects = [value for value in records if isinstance(value, dict)]
        if records and not objects:
            raise user_error(
                f"{file.name!r} is not JSON Lines",
                allowed="one JSON object with keys in each line",
                why=f"none of its first {len(records):,} lines is one",
                remedy="name the kind that it is (csv, tsv, json), or write one object a line",
            )
        self.columns = list(dict.fromkeys(key for value in objects for key in value))

    def _values(self) -> Iterator[tuple[int, str, Any]]:
        """Line number, line, and its value, or the exception that says what is wrong with it."""
        # Split at \n only: a bare \r is white space between the tokens of JSON.
        with self.file.open_text(self.encoding.codec, self.encoding.bom_bytes, newline="\n") as text:
            for number, line in enumerate(text, start=1):
                body = line.strip(" \t\r\n")
                if not body:
                    continue
                try:
                    yield number, line, DECODER.decode(body)
                except (ValueError, RecursionError) as error:
                    yield number, line, error

    def read(
        self,
        columns: Sequence[str],
        max_rows: int,
        *,
        nested: frozenset[str] = frozenset(),
        optional: frozenset[str] = frozenset(),
    ) -> Iterator[Batch]:
        """See `Reader.read`."""
        builder, wanted = BatchBuilder(len(columns), max_rows), Wanted(columns, nested, optional)
        may_fail = self.encoding.may_fail
        for number, line, value in self._values():
            if isinstance(value, Exception):
                builder.add_fault(number, "unreadable", f"the line is broken JSON: {_why(value)}", line)
            elif may_fail and has_undecodable(line):
                reason = f"the line holds bytes that are not {self.encoding.label}"
                builder.add_fault(number, "unreadable", reason, line)
            else:
                cells = pick_cells(value, wanted, lenient=self.lenient)
                if isinstance(cells, tuple):
                    builder.add_fault(number, *cells, line)
                else:
                    builder.add(number, cells)
                    if nested:
                        self.json_texts.update(json_texts(value, wanted))
            if builder.is_full:
                yield builder.take()
        yield builder.take()


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
