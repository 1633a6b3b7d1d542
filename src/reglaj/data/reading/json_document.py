"""JSON documents: where the records lie in one, and reading them there.

Known shapes: an array of objects; one object with one list of objects inside (`{"data": [...]}`); objects keyed
by id; columns as lists of equal length (`{"text": [...], "label": [...]}`) or as objects keyed by row number (what
pandas writes by default); a single object that is the record.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from reglaj.core.errors import UserError, listing, user_error
from reglaj.data.reading.base import HEADER_RECORDS, READERS, TextReader
from reglaj.data.reading.batch import Batch, BatchBuilder, has_undecodable
from reglaj.data.reading.encodings import Encoding
from reglaj.data.reading.files import SourceFile
from reglaj.data.reading.json_stream import JsonStream
from reglaj.data.reading.json_values import Wanted, display_text, json_texts, pick_cells

Shape = Literal["array", "inside", "keyed", "columns", "single"]


@dataclass
class _Members:
    """The members of a top-level object by the kind of their values.

    columns: names of lists without objects, and their lengths. numbered: names of objects whose keys are numbers,
    and a digest of those keys: columns belong together only if they have the same rows in the same order.
    """

    record_lists: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    numbered: dict[str, str] = field(default_factory=dict)
    num_objects: int = 0
    num_scalars: int = 0


@READERS.register("json")
class JsonDocumentReader(TextReader):
    """Records of one JSON document, streamed; `columns` are the keys of the first records."""

    kind: ClassVar[str] = "json"
    may_have_more: ClassVar[bool] = True

    def __init__(self, file: SourceFile, encoding: Encoding) -> None:
        super().__init__(file, encoding)
        self._inside = ""
        self._list_names: list[str] = []
        self.shape: Shape = self._find_shape()
        if self.shape == "columns":
            self.columns = self._list_names
            return
        records = [value for _, value in itertools.islice(self._records(()), HEADER_RECORDS)]
        objects = [value for value in records if isinstance(value, dict)]
        if records and not objects:
            raise _no_records(file.name, f"none of its first {len(records):,} elements is an object with keys")
        self.columns = list(dict.fromkeys(key for value in objects for key in value))

    @contextmanager
    def _stream(self) -> Iterator[JsonStream]:
        with self.file.open_text(self.encoding.codec, self.encoding.bom_bytes, newline="\n") as text:
            yield JsonStream(text, self.file.name)

    def _find_shape(self) -> Shape:
        with self._stream() as stream:
            first = stream.peek()
            if first == "[":
                return "array"
            if first != "{":
                stream.value()
                stream.end()
                raise _no_records(self.file.name, "it holds a single value, no array and no object")
            members = _look_at_members(stream)
            stream.end()
        return self._shape_of(members)

    def _shape_of(self, members: _Members) -> Shape:
        if len(members.record_lists) == 1:
            self._inside = members.record_lists[0]
            return "inside"
        if len(members.record_lists) > 1:
            raise _no_records(self.file.name, f"several keys hold lists of objects: {listing(members.record_lists)}")
        is_numbered = members.numbered and len(members.numbered) == members.num_objects
        columns = members.numbered if is_numbered else members.columns
        others = members.num_scalars + (len(members.columns) if is_numbered else members.num_objects)
        if columns and not others:
            if len(set(columns.values())) > 1:
                what = (
                    "row numbers" if is_numbered else "length: " + listing(f"{n} {size}" for n, size in columns.items())
                )
                raise _no_records(self.file.name, f"its columns differ in {what}")
            self._list_names = list(columns)
            return "columns"
        return "keyed" if members.num_objects and not members.num_scalars and not members.columns else "single"

    def _records(self, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Line and value of each record. columns: which lists to keep, where the document is made of lists."""
        with self._stream() as stream:
            if self.shape == "array":
                yield from stream.elements()
            elif self.shape == "single":
                stream.peek()
                yield stream.line, stream.value()
            elif self.shape == "columns":
                yield from self._zipped(stream, columns)
            else:
                for line, key in stream.members():
                    if self.shape == "keyed":
                        yield line, stream.value()
                    elif key == self._inside and stream.peek() == "[":
                        yield from stream.elements()
                    else:
                        stream.skip()
            stream.end()

    def _zipped(self, stream: JsonStream, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        lists: dict[str, list[Any]] = {}
        lines: list[int] = []
        for _, key in stream.members():
            if key in columns:
                pairs = list(stream.elements() if stream.peek() == "[" else _member_values(stream))
                lists[key] = [value for _, value in pairs]
                lines = lines or [line for line, _ in pairs]
            else:
                stream.skip()
        for place, line in enumerate(lines):
            yield line, {name: values[place] for name, values in lists.items()}

    def read(
        self,
        columns: Sequence[str],
        max_rows: int,
        *,
        nested: frozenset[str] = frozenset(),
        optional: frozenset[str] = frozenset(),
    ) -> Iterator[Batch]:
        """See `Reader.read`. In a document made of lists a record begins where its cell in the first list does."""
        builder, wanted = BatchBuilder(len(columns), max_rows), Wanted(columns, nested, optional)
        for line, value in self._records(columns):
            cells = pick_cells(value, wanted, lenient=self.lenient)
            if isinstance(cells, tuple):
                builder.add_fault(line, *cells, display_text(value))
            elif self.encoding.may_fail and has_undecodable(_raw_text(value)):
                reason = f"the record holds bytes that are not {self.encoding.label}"
                builder.add_fault(line, "unreadable", reason, _raw_text(value))
            else:
                builder.add(line, cells)
                if nested:
                    self.json_texts.update(json_texts(value, wanted))
            if builder.is_full:
                yield builder.take()
        yield builder.take()


def _raw_text(value: Any) -> str:
    """Every text inside a value, joined: where undecodable bytes would show."""
    if isinstance(value, dict):
        return " ".join(f"{key} {_raw_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(_raw_text(inner) for inner in value)
    return value if isinstance(value, str) else ""


def _look_at_members(stream: JsonStream) -> _Members:
    """Walk over the document once, keeping nothing."""
    members = _Members()
    for _, key in stream.members():
        first = stream.peek()
        if first == "[":
            length, has_objects = 0, False
            for _, value in stream.elements():
                has_objects = has_objects or isinstance(value, dict)
                length += 1
            if has_objects:
                members.record_lists.append(key)
            else:
                members.columns[key] = str(length)
        elif first == "{":
            members.num_objects += 1
            keys = hashlib.sha256()
            is_numbered = True
            for _, name in stream.members():
                is_numbered = is_numbered and name.isdecimal() and stream.peek() not in ("{", "[")
                keys.update(f"{name},".encode(errors="replace"))
                stream.skip()
            if is_numbered:
                members.numbered[key] = keys.hexdigest()
        else:
            stream.value()
            members.num_scalars += 1
    return members


def _member_values(stream: JsonStream) -> Iterator[tuple[int, Any]]:
    """Line and value of each member of the object at the cursor."""
    for line, _ in stream.members():
        yield line, stream.value()


def _no_records(name: str, why: str) -> UserError:
    return user_error(
        f"cannot find the records in {name!r}",
        allowed="an array of objects; one object with one list of objects; objects keyed by id; lists of equal length",
        why=why,
        remedy="write the records as JSON Lines: one object a line",
    )
