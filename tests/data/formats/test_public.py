"""Public data sets in every format, whole: what is read, and what is not and why."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from tests.data.tables import public

from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.formats import CHAT_ROLES, read_conversation

LAYOUTS = {layout.name: layout for layout in CHAT_ROLES.layouts}


def read_file(name: str, layout: str, columns: dict[str, str]) -> tuple[list[Conversation], Counter[str]]:
    path = public(name)
    text = path.read_text(encoding="utf-8")
    records: list[dict[str, Any]] = (
        [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    )
    good, dropped = [], Counter[str]()
    for record in records:
        values = {role: record.get(columns.get(role, role)) for role in LAYOUTS[layout].roles}
        cells = {
            role: value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False)
            for role, value in values.items()
        }
        try:
            good.append(read_conversation(LAYOUTS[layout], cells))
        except BrokenRecord as problem:
            dropped[problem.bucket] += 1
    return good, dropped


@pytest.mark.parametrize(
    ("name", "layout", "columns", "count", "dropped"),
    [
        ("llamafactory_demo/alpaca_en_demo.json", "alpaca", {}, 999, {}),
        ("llamafactory_demo/identity.json", "alpaca", {}, 91, {}),
        ("llamafactory_demo/glaive_toolcall_en_demo.json", "conversations", {}, 300, {}),
        ("llamafactory_demo/kto_en_demo.json", "messages", {}, 300, {}),
        (
            "llamafactory_demo/dpo_en_demo.json",
            "conversations",
            {},
            0,
            {"no_supervised_token": 194, "broken_turns": 106},
        ),
        ("gpteacher/Codegen/codegen-instruct.json", "alpaca", {"output": "response"}, 4535, {}),
        (
            "gpteacher/Roleplay/roleplay-simple-deduped-roleplay-instruct.json",
            "alpaca",
            {"output": "response"},
            1923,
            {},
        ),
        ("medquad/qa.jsonl", "prompt_completion", {"prompt": "question", "completion": "answer"}, 2902, {}),
    ],
)
def test_public_data_sets(name: str, layout: str, columns: dict[str, str], count: int, dropped: dict[str, int]) -> None:
    good, bad = read_file(name, layout, columns)
    assert (len(good), bad) == (count, dropped)
    assert all(Conversation.from_json(one.to_json()) == one for one in good)


def test_the_tool_calls_of_glaive() -> None:
    good, _ = read_file("llamafactory_demo/glaive_toolcall_en_demo.json", "conversations", {})
    calls = [call for one in good for message in one.messages for call in message.get("tool_calls", ())]
    results = [message for one in good for message in one.messages if message["role"] == "tool"]
    assert len(calls) == len(results) > 200
    assert calls[0]["function"] == {
        "name": "search_recipes",
        "arguments": {"ingredients": ["chicken", "bell peppers", "rice"]},
    }
    assert sum(bool(one.tools) for one in good) == 300 - 109
