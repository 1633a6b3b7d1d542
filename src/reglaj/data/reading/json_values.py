"""JSON as it stands: numbers keep their digits, nothing beyond the standard is let through, cells are texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any, NamedTuple, NoReturn

from reglaj.data.reading.batch import has_undecodable


class Number(str):
    """A number in the digits of the file: 1.10 stays 1.10, and 2**70 is no float."""

    __slots__ = ()


class Wanted(NamedTuple):
    """The columns to read. nested: those that may hold lists and objects. optional: those that may be missing."""

    columns: Sequence[str]
    nested: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


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


def nested_text(value: Any) -> str:
    """A list or an object as compact JSON: numbers in the digits of the file, letters as themselves.

    Raises `BadCell` for what UTF-8 cannot carry, and for values nested deeper than Python's stack.
    """
    try:
        text = "".join(_pieces(value))
    except RecursionError as error:
        raise BadCell("it is nested too deeply") from error
    if has_undecodable(text):
        raise BadCell("it holds bytes that do not decode, or half of a surrogate pair")
    return text


def _pieces(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = ["{"]
        for key, inner in value.items():
            found += [encode_basestring(key), ":", *_pieces(inner), ","]
    elif isinstance(value, list):
        found = ["["]
        for inner in value:
            found += [*_pieces(inner), ","]
    else:
        return [_scalar(value)]
    closing = "}" if isinstance(value, dict) else "]"
    if len(found) > 1:
        found[-1] = closing
    else:
        found.append(closing)
    return found


def _scalar(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    return encode_basestring(value) if isinstance(value, str) else json.dumps(value)


def pick_cells(record: Any, wanted: Wanted, *, lenient: bool) -> list[str | None] | tuple[str, str]:
    """The wanted cells of a record, or (bucket, reason) where it has none.

    lenient: a missing value is None and a nested one is shown as JSON.
    """
    if not isinstance(record, Mapping):
        return "ragged", f"the record is {_named(record)}, not an object with keys"
    if lenient:
        return [display_text(record.get(name)) for name in wanted.columns]
    cells: list[str | None] = []
    for name in wanted.columns:
        if name not in record and name not in wanted.optional:
            return "ragged", f"the record has no key {name!r}"
        value = record.get(name)
        try:
            is_nested = name in wanted.nested and isinstance(value, list | dict)
            cells.append(nested_text(value) if is_nested else cell_text(value))
        except BadCell as problem:
            return "unreadable", f"the value of {name!r} cannot be used: {problem}"
    return cells


def display_text(value: Any) -> str:
    """A value for a preview: nested ones as compact JSON."""
    try:
        return (nested_text(value) if isinstance(value, list | dict) else cell_text(value)) or ""
    except BadCell:
        return _escaped(value)


def _escaped(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    except RecursionError:
        return ""


def json_texts(record: Any, wanted: Wanted) -> list[str]:
    """The nested columns for which the record has a text in place of a list or an object."""
    return [name for name in wanted.nested if isinstance(record.get(name), str)]


def _named(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "a list"
    return "a number" if isinstance(value, Number) else "a boolean" if isinstance(value, bool) else "a text"
