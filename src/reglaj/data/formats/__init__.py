"""The forms in which files hold conversations, and reading any of them into the canonical one.

Cells are texts: what a file holds as a list or an object arrives as JSON. What is said is never changed; only roles
get their one name, and calls of tools and their descriptions the form of the OpenAI API.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.formats.order import Turn, check_order
from reglaj.data.formats.tools import read_tools
from reglaj.data.formats.turns import read_turns, turn_facts
from reglaj.data.formats.values import parse_json
from reglaj.data.roles import Cells, ColumnRoles, Layout

__all__ = ["CHAT_ROLES", "num_characters", "opening", "read_conversation", "turn_facts"]


def read_conversation(layout: Layout, cells: Cells, unread: Counter[str] | None = None) -> Conversation:
    """The conversation in a record's cells, whatever its layout.

    unread: counts, for each key of a turn that means something and is not read (`reasoning_content`), its records.
    Raises `BrokenRecord` with a bucket of the ledger and a reason that names the turn as the file counts them.
    """
    passed_over: set[str] = set()
    turns = _READERS[layout.name](cells, passed_over)
    turns = _with_system(turns, cells)
    check_order(turns)
    conversation = Conversation.of([turn.message for turn in turns], read_tools(cells.get("tools")))
    if unread is not None:
        unread.update(passed_over)
    return conversation


def num_characters(conversation: Conversation) -> int:
    """The length of everything that is said in it, calls of tools included."""
    total = 0
    for message in conversation.messages:
        total += len(message["content"])
        for call in message.get("tool_calls", ()):
            total += len(call["function"]["name"]) + sum(map(_size, call["function"]["arguments"].items()))
    return total


def _size(pair: tuple[str, Any]) -> int:
    name, value = pair
    return len(name) + len(value if isinstance(value, str) else str(value))


def opening(layout: Layout, cells: Cells) -> str:
    """How a record begins, as a person would recognise it: what the user says first, or else the first cell."""
    first = next((cells[role] for role in layout.roles if (cells.get(role) or "").strip()), None) or ""
    if layout.required and layout.required[0] in layout.nested and first.lstrip().startswith(("[", "{")):
        return _first_user_text(first) or first
    return first


def _first_user_text(text: str) -> str:
    try:
        turns = read_turns(text, "", set())
    except BrokenRecord:
        return ""
    return next((turn.message["content"] for turn in turns if turn.message["role"] == "user"), "")


def _prompt_completion(cells: Cells, unread: set[str]) -> list[Turn]:
    return [_question(cells.get("prompt"), "the prompt"), _answer(2, cells.get("completion"))]


def _messages(cells: Cells, unread: set[str]) -> list[Turn]:
    return read_turns(cells.get("messages"), "messages", unread)


def _conversations(cells: Cells, unread: set[str]) -> list[Turn]:
    return read_turns(cells.get("conversations"), "conversations", unread)


def _alpaca(cells: Cells, unread: set[str]) -> list[Turn]:
    turns = []
    for number, (question, answer) in enumerate(_history(cells.get("history"))):
        turns += [
            Turn(2 * number + 1, {"role": "user", "content": question}),
            Turn(2 * number + 2, {"role": "assistant", "content": answer}),
        ]
    parts = [part for part in (cells.get("instruction"), cells.get("input")) if part and not part.isspace()]
    last = len(turns) + 1
    return [*turns, _question("\n\n".join(parts), "the instruction", last), _answer(last + 1, cells.get("output"))]


def _question(text: str | None, what: str, number: int = 1) -> Turn:
    if not text or text.isspace():
        raise BrokenRecord("empty_text", f"{what} is empty")
    return Turn(number, {"role": "user", "content": text})


def _answer(number: int, text: str | None) -> Turn:
    if not text or text.isspace():
        raise BrokenRecord("broken_turns", "the answer is empty")
    return Turn(number, {"role": "assistant", "content": text})


def _history(cell: str | None) -> Iterable[tuple[str, str]]:
    """Earlier turns of an Alpaca record: pairs of what the user said and what was answered."""
    pairs = parse_json(cell, "history") or []
    if not isinstance(pairs, list):
        raise BrokenRecord("broken_turns", "`history` is no list of pairs")
    for number, pair in enumerate(pairs, start=1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise BrokenRecord("broken_turns", f"pair {number} of `history` is not two texts")
        yield str(pair[0]), str(pair[1])


def _with_system(turns: list[Turn], cells: Cells) -> list[Turn]:
    """The turns with the system prompt of its own column in front."""
    system = cells.get("system")
    if not system or system.isspace():
        return turns
    if turns and turns[0].message["role"] == "system":
        if turns[0].message["content"] == system:
            return turns
        raise BrokenRecord("broken_turns", "the column `system` and the first turn are two different system prompts")
    return [Turn(0, {"role": "system", "content": system}), *turns]


_READERS: dict[str, Callable[[Cells, set[str]], list[Turn]]] = {
    "prompt_completion": _prompt_completion,
    "messages": _messages,
    "conversations": _conversations,
    "alpaca": _alpaca,
}


def _measure(layout: Layout, cells: Cells) -> int:
    return num_characters(read_conversation(layout, cells))


CHAT_ROLES = ColumnRoles(
    inputs=("conversation",),
    layouts=(
        Layout("prompt_completion", ("prompt", "completion"), ("system", "tools"), frozenset({"tools"})),
        Layout("messages", ("messages",), ("system", "tools"), frozenset({"messages", "tools"})),
        Layout("conversations", ("conversations",), ("system", "tools"), frozenset({"conversations", "tools"})),
        Layout(
            "alpaca",
            ("instruction", "output"),
            ("input", "system", "history", "tools"),
            frozenset({"history", "tools"}),
        ),
    ),
    measure=_measure,
)
"""The columns of a chat: stored is the canonical conversation as JSON."""
