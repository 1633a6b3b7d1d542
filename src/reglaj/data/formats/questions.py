"""Records that end with a question: what a model is to answer, read as training reads its conversations."""

from __future__ import annotations

import json
from typing import Any

from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.formats import CHAT_ROLES, read_conversation
from reglaj.data.roles import Cells, ColumnRoles, Layout

_ANSWERS = {"prompt_completion": "completion", "alpaca": "output"}
_PLACEHOLDER = "."  # stands where the answer will, so that the one reader of conversations checks the rest


def _without_answer(layout: Layout) -> Layout:
    answer = _ANSWERS.get(layout.name)
    required = tuple(role for role in layout.required if role != answer)
    return Layout(layout.name, required, layout.optional, layout.nested)


QUESTION_ROLES = ColumnRoles(inputs=("conversation",), layouts=tuple(map(_without_answer, CHAT_ROLES.layouts)))
"""As `CHAT_ROLES`, but no layout asks for the answer."""


def read_question(layout: Layout, cells: Cells) -> Conversation:
    """The conversation up to the turn that is to be answered; an answer that is there already is left out.

    Raises `BrokenRecord` as `read_conversation` does.
    """
    answer = _ANSWERS.get(layout.name)
    if answer:
        return read_conversation(layout, {**cells, answer: _PLACEHOLDER}).before_last_answer()
    (role,) = layout.required
    return read_conversation(layout, {**cells, role: _answered(cells.get(role), role)}).before_last_answer()


def question_of(messages: list[Any]) -> Conversation:
    """The same from turns in memory, in the form of the OpenAI API or of ShareGPT."""
    layout = next(one for one in QUESTION_ROLES.layouts if one.name == "messages")
    try:
        text = json.dumps(messages, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise BrokenRecord("unreadable", f"the turns are no JSON values: {error}") from error
    return read_question(layout, {"messages": text})


def _answered(cell: str | None, role: str) -> str | None:
    """The turns as JSON, with an answer at their end where the last is not the assistant's."""
    try:
        turns = json.loads(cell or "")
    except ValueError:
        return cell  # the reader of conversations says what is wrong
    if not isinstance(turns, list) or not turns or not isinstance(turns[-1], dict):
        return cell
    if turns[-1].get("role", turns[-1].get("from")) in ("assistant", "gpt", "chatgpt", "model", "bing"):
        return cell
    if "from" in turns[-1]:
        turns.append({"from": "gpt", "value": _PLACEHOLDER})
    else:
        turns.append({"role": "assistant", "content": _PLACEHOLDER})
    return json.dumps(turns, ensure_ascii=False)
