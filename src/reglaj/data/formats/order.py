"""Whose turn it is: what the order of a conversation's turns has to be."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from reglaj.data.conversation import BrokenRecord

_WHOSE = {
    "system": "the system prompt",
    "user": "the user's",
    "assistant": "the assistant's",
    "tool": "a tool's result",
}


class Turn(NamedTuple):
    """number: its place in the file's own list, from 1 (0: from a column of its own). message: in canonical form."""

    number: int
    message: dict[str, Any]


def check_order(turns: list[Turn]) -> None:
    """Raise `BrokenRecord` unless user and assistant take turns, tools answer calls, and the last turn is an answer."""
    if not any(turn.message["role"] == "assistant" for turn in turns):
        raise BrokenRecord("no_supervised_token", "no turn is the assistant's" if turns else "there are no turns")
    before: Turn | None = None
    open_calls = 0
    for turn in turns:
        role = turn.message["role"]
        if role == "tool":
            open_calls = _answer_call(turn, before, open_calls)
        else:
            if open_calls:
                _broken(f"turn {turn.number} is {_WHOSE[role]}, and a call before it has no result yet")
            _check_pair(turn, before)
            open_calls = len(turn.message.get("tool_calls", ()))
        _check_content(turn)
        before = turn
    assert before is not None
    if before.message["role"] != "assistant":
        _broken(f"the last turn ({before.number}) is {_WHOSE[before.message['role']]}, and nothing answers it")


def _answer_call(turn: Turn, before: Turn | None, open_calls: int) -> int:
    """The calls that are still open after this result of a tool."""
    if not open_calls:
        called = before is not None and before.message["role"] == "tool"
        why = "every call has one already" if called else "no call comes before it"
        _broken(f"turn {turn.number} is a tool's result, and {why}")
    return open_calls - 1


def _check_pair(turn: Turn, before: Turn | None) -> None:
    role, number = turn.message["role"], turn.number
    last = before.message["role"] if before else None
    if role == "system":
        if before is not None:
            _broken(f"turn {number} is the system prompt, which can only be the first")
    elif role == last:
        _broken(f"turns {before.number if before else 0} and {number} are both {_WHOSE[role]}")
    elif role == "assistant" and last in (None, "system"):
        _broken(f"turn {number} is the assistant's, and nobody has asked anything")


def _check_content(turn: Turn) -> None:
    role, content = turn.message["role"], turn.message["content"]
    if content and not content.isspace():
        return
    if role == "user":
        raise BrokenRecord("empty_text", f"turn {turn.number}, the user's, is empty")
    if role == "assistant" and not turn.message.get("tool_calls"):
        _broken(f"turn {turn.number}: the answer is empty")


def _broken(reason: str) -> NoReturn:
    raise BrokenRecord("broken_turns", reason)
