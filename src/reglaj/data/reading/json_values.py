"""JSON as it stands: numbers keep their digits, nothing beyond the standard is let through, cells are texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from reglaj.data.reading.batch import has_undecodable


class Number(str):
    """A number in the digits of the file: 1.10 stays 1.10, and 2**70 is no float."""

    __slots__ = ()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


DECODER = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=_refuse)


class BadCell(Exception):
    """A value that cannot be a cell; the message says why."""


def cell_text(value: Any) -> str | None:
    """A value as a cell: a text stays itself, a number or boolean is its JSON text, null is None.

    Raises `BadCell` for lists and objects, and for texts that UTF-8 cannot carry.
    """
    if isinstance(value, str):
        if has_undecodable(value):
            raise BadCell("it holds bytes that do not decode, or half of a surrogate pair")
        return str(value)
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    raise BadCell(f"it is {'a list' if isinstance(value, list) else 'an object'}, not a text")


def pick_cells(record: Any, columns: Sequence[str], *, lenient: bool) -> list[str | None] | tuple[str, str]:
    """The wanted cells of a record, or (bucket, reason) where it has none.

    lenient: a missing value is None and a nested one is shown as JSON.
    """
    if not isinstance(record, Mapping):
        return "ragged", f"the record is {_named(record)}, not an object with keys"
    if lenient:
        return [display_text(record.get(name)) for name in columns]
    cells: list[str | None] = []
    for name in columns:
        if name not in record:
            return "ragged", f"the record has no key {name!r}"
        try:
            cells.append(cell_text(record[name]))
        except BadCell as problem:
            return "unreadable", f"the value of {name!r} cannot be used: {problem}"
    return cells


def display_text(value: Any) -> str:
    """A value for a preview: nested ones as compact JSON."""
    try:
        return cell_text(value) or ""
    except BadCell:
        return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def _named(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "a list"
    return "a number" if isinstance(value, Number) else "a boolean" if isinstance(value, bool) else "a text"
