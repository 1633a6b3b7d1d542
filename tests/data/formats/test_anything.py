"""Whatever a cell holds, a record is read or refused with a reason, and what is read is canonical."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.formats import CHAT_ROLES, num_characters, opening, read_conversation, turn_facts
from reglaj.data.ledger import REASONS

ROLE = st.sampled_from(["system", "user", "assistant", "tool", "human", "gpt", "function_call", "observation", "", "x"])
TEXT = st.sampled_from(["a", "", " ", "ș 🚚", '{"name": "f", "arguments": {"x": 1}}', "[]", "null", "{", '"\\ud83d"'])
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
CALL = st.fixed_dictionaries(
    {}, optional={"name": TEXT, "arguments": LEAF | st.dictionaries(TEXT, LEAF), "id": LEAF, "function": LEAF}
)
VALUE = st.recursive(LEAF | CALL, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": ROLE,
        "from": ROLE | LEAF,
        "content": VALUE,
        "value": VALUE,
        "tool_calls": VALUE | st.lists(CALL),
        "function_call": VALUE,
        "name": VALUE,
        "tool_call_id": VALUE,
        "weight": LEAF,
    },
)
GOOD_TURN = st.fixed_dictionaries({"role": ROLE, "content": TEXT}, optional={"tool_calls": st.lists(CALL, max_size=2)})
NAMED_CALL = st.fixed_dictionaries({"name": st.just("f")}, optional={"arguments": LEAF | st.dictionaries(TEXT, LEAF)})
ASKED = st.fixed_dictionaries({"role": st.just("user"), "content": TEXT})
TOLD = st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT})
CALLED = st.fixed_dictionaries(
    {"role": st.just("assistant"), "tool_calls": NAMED_CALL | st.lists(NAMED_CALL, max_size=2)}
)
FOUND = st.fixed_dictionaries({"role": st.just("tool"), "content": TEXT})
EXCHANGES = st.lists(
    st.tuples(ASKED, TOLD) | st.tuples(ASKED, CALLED) | st.tuples(ASKED, CALLED, FOUND, TOLD), max_size=3
)
CONVERSATION = EXCHANGES.map(lambda every: [turn for exchange in every for turn in exchange])
CELL = (
    (CONVERSATION.map(json.dumps))
    | (VALUE | st.lists(TURN, max_size=5) | st.lists(GOOD_TURN, max_size=5)).map(json.dumps)
    | TEXT
    | st.none()
)


def check(conversation: Conversation) -> None:
    assert Conversation.from_json(conversation.to_json()) == conversation
    conversation.to_json().encode()
    assert num_characters(conversation) > 0
    roles = [message["role"] for message in conversation.messages]
    assert set(roles) <= {"system", "user", "assistant", "tool"} and "system" not in roles[1:]
    assert roles[-1] == "assistant" and "user" in roles and conversation.last_answer.strip()
    assert all(question.strip() for question in conversation.questions)
    for message in conversation.messages:
        assert type(message["content"]) is str
        for call in message.get("tool_calls", ()):
            assert type(call["function"]["name"]) is str and type(call["function"]["arguments"]) is dict
    for tool in conversation.tools:
        assert tool["type"] == "function" and tool["function"]["name"]


@given(data=st.data())
@settings(max_examples=400)
def test_only_conversations_and_reasons_come_out(data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(CHAT_ROLES.layouts))
    cells: dict[str, Any] = {
        role: data.draw(CELL if role in layout.nested else TEXT | st.none()) for role in layout.roles
    }
    opening(layout, cells)
    for cell in cells.values():
        turn_facts(cell or "")
    try:
        found = read_conversation(layout, cells)
    except BrokenRecord as problem:
        assert problem.bucket in REASONS and problem.reason
    else:
        check(found)
