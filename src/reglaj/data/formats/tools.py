"""Calls of tools and their descriptions, in the form of the OpenAI API whatever form they came in."""

from __future__ import annotations

from typing import Any

from reglaj.data.conversation import BrokenRecord
from reglaj.data.formats.values import parse_json, parse_text, plain


def read_tools(cell: str | None) -> list[dict[str, Any]]:
    """The function schemas in a cell: a list of them, wrapped in `{"type": "function"}` or not; none in an empty cell.

    A schema may be a text with JSON inside. Raises `BrokenRecord`.
    """
    document = parse_json(cell, "tools")
    if document in (None, "", {}):
        return []
    schemas = document if isinstance(document, list) else [document]
    return [_schema(parse_text(schema), number) for number, schema in enumerate(schemas, start=1)]


def _schema(value: Any, number: int) -> dict[str, Any]:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not _is_name(function.get("name")):
        raise BrokenRecord("broken_turns", f"tool {number} in `tools` has no name")
    return {"type": "function", "function": plain(function)}


def read_calls(value: Any, number: int) -> list[dict[str, Any]]:
    """The calls of turn `number`: one or a list of `{"name", "arguments"}`, wrapped in `function` or not."""
    calls = value if isinstance(value, list) else [value]
    return [_call(parse_text(call), number) for call in calls if call is not None]


def _call(value: Any, number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BrokenRecord("broken_turns", f"turn {number}: a call of a tool is no object with `name` and `arguments`")
    function = parse_text(value.get("function", value))
    if not isinstance(function, dict) or not _is_name(function.get("name")):
        raise BrokenRecord("broken_turns", f"turn {number}: a call of a tool has no name")
    name = str(function["name"])
    call: dict[str, Any] = {
        "type": "function",
        "function": {"name": name, "arguments": _arguments(function, name, number)},
    }
    if isinstance(value.get("id"), str) and value["id"]:
        call["id"] = str(value["id"])
    return call


def _arguments(function: dict[str, Any], name: str, number: int) -> dict[str, Any]:
    given = function.get("arguments", function.get("parameters"))
    if given is None or (isinstance(given, str) and not given.strip()):
        return {}
    arguments = parse_text(given)
    if not isinstance(arguments, dict):
        raise BrokenRecord("broken_turns", f"turn {number}: the arguments of {name!r} are no JSON object")
    found = plain(arguments)
    assert isinstance(found, dict)
    return found


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
