"""JSON inside cells and inside texts."""

from __future__ import annotations

import json
import math
from typing import Any

from reglaj.data.conversation import BrokenRecord
from reglaj.data.reading.batch import has_undecodable
from reglaj.data.reading.json_values import DECODER, Number


def parse_json(cell: str | None, role: str) -> Any:
    """The value in a cell, numbers still in their digits; None for an empty cell. Raises `BrokenRecord`."""
    if cell is None or not cell.strip():
        return None
    try:
        value = DECODER.decode(cell.strip())
    except json.JSONDecodeError as error:
        reason = f"`{role}` is broken JSON: {error.msg} at character {error.pos + 1}"
        raise BrokenRecord("unreadable", reason) from error
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BrokenRecord("unreadable", f"`{role}` is broken JSON: {why}") from error
    return _whole(value, cell)


def parse_text(value: Any) -> Any:
    """The JSON inside a text, or the value itself where it is no text, or no JSON. Raises `BrokenRecord`."""
    if not isinstance(value, str) or isinstance(value, Number):
        return value
    try:
        return _whole(DECODER.decode(value.strip()), value)
    except (ValueError, RecursionError):
        return value


def _whole(value: Any, text: str) -> Any:
    """The value, unless half a surrogate pair was hidden in its JSON behind an escape such as \\ud83d."""
    if "\\u" in text and has_undecodable(json.dumps(value, ensure_ascii=False)):
        raise BrokenRecord("unreadable", "it holds half of a surrogate pair, which no UTF-8 can carry")
    return value


def plain(value: Any) -> Any:
    """A value with its numbers as Python's: whole ones exactly, others as the nearest double. Raises `BrokenRecord`."""
    if isinstance(value, Number):
        return _number(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def _number(digits: Number) -> int | float:
    try:
        return int(digits)
    except ValueError:
        number = float(digits)
    if not math.isfinite(number):
        raise BrokenRecord("broken_turns", f"the number {digits[:40]} is too large")
    return number
