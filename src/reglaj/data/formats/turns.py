"""Lists of turns: OpenAI's `{"role", "content"}` and ShareGPT's `{"from", "value"}`, told apart turn by turn."""

from __future__ import annotations

from typing import Any, NamedTuple

from reglaj.core.errors import listing, nearest
from reglaj.data.conversation import BrokenRecord
from reglaj.data.formats.order import Turn
from reglaj.data.formats.tools import read_calls
from reglaj.data.formats.values import parse_json, parse_text
from reglaj.data.reading.json_values import Number

_CALL = "call"
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": _CALL,
    "tool_call": _CALL,
}
# Keys of a turn that say something which the canonical form has no place for.
_UNREAD = ("reasoning_content", "reasoning", "thinking", "refusal", "audio", "images")


def read_turns(cell: str | None, role: str, unread: set[str]) -> list[Turn]:
    """The turns in a cell that holds a list of them as JSON, in canonical form.

    role: the column's role, for messages. unread: takes the names of keys that are passed over.
    A system prompt that is empty is left out. Raises `BrokenRecord`.
    """
    document = parse_json(cell, role)
    if document is None:
        raise BrokenRecord("empty_text", f"`{role}` is empty")
    if not isinstance(document, list):
        raise BrokenRecord("broken_turns", f"`{role}` is no list of turns")
    turns: list[Turn] = []
    for number, value in enumerate(document, start=1):
        message = _read_turn(value, number, unread)
        if message["role"] == "system" and not message["content"].strip():
            continue
        if message["role"] == _CALL:
            _add_call(turns, number, message["content"])
        else:
            turns.append(Turn(number, message))
    return turns


def _read_turn(value: Any, number: int, unread: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BrokenRecord("broken_turns", f"turn {number} is no object")
    role = _role_of(value, number)
    unread.update(key for key in _UNREAD if value.get(key))
    if str(value.get("weight", "1")) in ("0", "0.0", "false", "False"):
        raise BrokenRecord(
            "broken_turns", f"turn {number} has the weight 0: single turns cannot be left out of training"
        )
    content = _text_of(value.get("content", value.get("value")), number)
    message: dict[str, Any] = {"role": role, "content": content}
    calls = value.get("tool_calls") or value.get("function_call")
    if role == "assistant" and calls:
        message["tool_calls"] = read_calls(parse_text(calls), number)
    if role == "tool":
        named = {key: value.get(key) for key in ("name", "tool_call_id")}
        message |= {key: str(name) for key, name in named.items() if isinstance(name, str) and name}
    return message


def _role_of(value: dict[str, Any], number: int) -> str:
    given = value.get("role", value.get("from"))
    if given is None:
        allowed = "`role` and `content`, or `from` and `value`"
        raise BrokenRecord("broken_turns", f"turn {number} does not say whose it is: it has no {allowed}")
    name = str(given).strip().lower()
    if name not in _ROLES:
        guess = nearest(name, _ROLES)
        hint = f"did you mean {guess!r}?" if guess else f"known are {listing(_ROLES)}"
        raise BrokenRecord("broken_turns", f"turn {number} has the unknown role {str(given)[:40]!r} ({hint})")
    return _ROLES[name]


def _text_of(content: Any, number: int) -> str:
    """The text of a turn: a text, or OpenAI's list of parts where all of them are texts."""
    if content is None:
        return ""
    if isinstance(content, str):  # a number keeps its digits
        return str(content)
    if not isinstance(content, list):
        what = "an object" if isinstance(content, dict) else "a boolean"
        raise BrokenRecord("broken_turns", f"turn {number} holds {what}, not a text")
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str) or isinstance(text, Number):
            raise BrokenRecord("broken_turns", f"turn {number} holds a part of type {str(kind)[:40]!r}, not only texts")
        texts.append(str(text))
    return "".join(texts)


def _add_call(turns: list[Turn], number: int, content: str) -> None:
    """ShareGPT calls tools in a turn of its own: it joins the answer or the call that it goes with."""
    calls = read_calls(parse_text(content), number)
    if not turns or turns[-1].message["role"] != "assistant":
        turns.append(Turn(number, {"role": "assistant", "content": "", "tool_calls": calls}))
    else:
        message = turns[-1].message
        turns[-1] = turns[-1]._replace(message=message | {"tool_calls": [*message.get("tool_calls", ()), *calls]})


class TurnFacts(NamedTuple):
    """What a cell with a list of turns looks like, for proposals.

    style: `OpenAI` or `ShareGPT`. is_answered: whether the last turn is the assistant's.
    """

    style: str
    turns: int
    is_answered: bool


def turn_facts(cell: str) -> TurnFacts | None:
    """What is told by the first look at a cell; None where it holds no list of turns."""
    try:
        value = parse_text(cell) if cell.lstrip().startswith("[") else None
    except BrokenRecord:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        return None
    is_sharegpt = all("from" in turn and "value" in turn for turn in value)
    if not is_sharegpt and not all("role" in turn for turn in value):
        return None
    last = _ROLES.get(str(value[-1].get("role", value[-1].get("from"))).strip().lower())
    return TurnFacts("ShareGPT" if is_sharegpt else "OpenAI", len(value), last in ("assistant", _CALL))
