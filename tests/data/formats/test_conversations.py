"""Every known form of a conversation becomes the same one; what is broken says where."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.formats import CHAT_ROLES, num_characters, opening, read_conversation, turn_facts

LAYOUTS = {layout.name: layout for layout in CHAT_ROLES.layouts}
SCHEMA = {"name": "find", "description": "finds", "parameters": {"type": "object", "properties": {"b": {}, "a": {}}}}


def read(name: str, **cells: Any) -> Conversation:
    """Values that are no texts become JSON, as readers hand them on."""
    texts = {
        role: value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False)
        for role, value in cells.items()
    }
    return read_conversation(LAYOUTS[name], texts)


def turns(*texts: str) -> list[dict[str, str]]:
    """OpenAI messages out of `user: text`."""
    pairs = (text.partition(": ") for text in texts)
    return [{"role": role, "content": content} for role, _, content in pairs]


def said(conversation: Conversation) -> list[str]:
    return [f"{message['role']}: {message['content']}" for message in conversation.messages]


def broken(name: str, **cells: Any) -> tuple[str, str]:
    with pytest.raises(BrokenRecord) as caught:
        read(name, **cells)
    return caught.value.bucket, caught.value.reason


TWO_TURNS = ["user: Unde e cardul?", "assistant: Pe drum 🚚"]


@pytest.mark.parametrize(
    ("layout", "cells"),
    [
        ("prompt_completion", {"prompt": "Unde e cardul?", "completion": "Pe drum 🚚"}),
        ("alpaca", {"instruction": "Unde e cardul?", "output": "Pe drum 🚚"}),
        ("alpaca", {"instruction": "Unde e cardul?", "input": "  ", "output": "Pe drum 🚚", "history": []}),
        ("messages", {"messages": turns(*TWO_TURNS)}),
        ("messages", {"messages": json.dumps(turns(*TWO_TURNS))}),
        ("messages", {"messages": turns("human: Unde e cardul?", "gpt: Pe drum 🚚")}),
        ("messages", {"messages": turns(" User: Unde e cardul?", "Assistant: Pe drum 🚚")}),
        (
            "messages",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "Unde e "}, {"type": "text", "text": "cardul?"}],
                    },
                    {"role": "assistant", "content": "Pe drum 🚚", "tool_calls": None},
                ]
            },
        ),
        (
            "conversations",
            {"conversations": [{"from": "human", "value": "Unde e cardul?"}, {"from": "gpt", "value": "Pe drum 🚚"}]},
        ),
        ("messages", {"messages": turns("system:  ", *TWO_TURNS)}),
    ],
)
def test_one_conversation_in_all_its_forms(layout: str, cells: dict[str, Any]) -> None:
    found = read(layout, **cells)
    assert said(found) == TWO_TURNS
    assert found.to_json() == read("prompt_completion", prompt="Unde e cardul?", completion="Pe drum 🚚").to_json()
    assert Conversation.from_json(found.to_json()) == found


def test_texts_are_never_changed() -> None:
    found = read("prompt_completion", prompt=" a\n\n", completion="\t1.10 \r\n")
    assert [message["content"] for message in found.messages] == [" a\n\n", "\t1.10 \r\n"]
    assert read(
        "messages", messages='[{"role":"user","content":1.10},{"role":"assistant","content":2e5}]'
    ).questions == ("1.10",)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_system_prompt_of_a_column_comes_first(layout: str) -> None:
    cells: dict[str, dict[str, Any]] = {
        "prompt_completion": {"prompt": "a", "completion": "b"},
        "alpaca": {"instruction": "a", "output": "b"},
        "messages": {"messages": turns("user: a", "assistant: b")},
        "conversations": {"conversations": turns("user: a", "assistant: b")},
    }
    assert said(read(layout, **cells[layout], system="Be brief.")) == ["system: Be brief.", "user: a", "assistant: b"]
    assert said(read(layout, **cells[layout], system=" ", tools="[]")) == ["user: a", "assistant: b"]


def test_two_system_prompts_are_one_only_where_they_agree() -> None:
    messages = turns("developer: Be brief.", "user: a", "assistant: b")
    assert said(read("messages", messages=messages, system="Be brief."))[0] == "system: Be brief."
    assert broken("messages", messages=messages, system="Be long.")[0] == "broken_turns"


def test_alpaca_joins_instruction_and_input_and_knows_what_was_said_before() -> None:
    found = read("alpaca", instruction="Translate:", input="casă", output="house", history=[["Hi", "Hello"]])
    assert said(found) == ["user: Hi", "assistant: Hello", "user: Translate:\n\ncasă", "assistant: house"]
    assert said(read("alpaca", instruction="", input="casă", output="house"))[0] == "user: casă"
    assert broken("alpaca", instruction="a", output="b", history=[["Hi"]])[1] == "pair 1 of `history` is not two texts"
    assert broken("alpaca", instruction=" ", input=None, output="b")[0] == "empty_text"


CALL = {"type": "function", "function": {"name": "find", "arguments": {"b": 1, "a": [2.5, None]}}}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "find", "arguments": '{"b": 1, "a": [2.5, null]}'}}],
        },
        {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "content": "", "function_call": CALL["function"]},
        {"from": "function_call", "value": json.dumps(CALL["function"])},
        {"from": "tool_call", "value": json.dumps([CALL["function"]])},
    ],
)
def test_one_call_of_a_tool_in_all_its_forms(turn: dict[str, Any]) -> None:
    messages = [*turns("user: find it"), turn, {"role": "function", "content": "found", "name": "find"}]
    found = read("messages", messages=[*messages, *turns("assistant: here")], tools=[SCHEMA])
    assert found.messages[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert found.messages[2] == {"role": "tool", "content": "found", "name": "find"}
    assert found.tools == ({"type": "function", "function": SCHEMA},)
    for place in (found, Conversation.from_json(found.to_json())):
        arguments = place.messages[1]["tool_calls"][0]["function"]["arguments"]
        assert list(arguments) == ["b", "a"], "the model learns them in this order"
        assert list(place.tools[0]["function"]["parameters"]["properties"]) == ["b", "a"]


def test_sharegpt_joins_a_call_to_the_words_before_it_and_to_other_calls() -> None:
    call = {"from": "function_call", "value": '{"name": "find", "arguments": {}}'}
    seen = {"from": "observation", "value": "found"}
    values = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "wait"}, call, call, seen, seen]
    found = read("conversations", conversations=[*values, {"from": "gpt", "value": "here"}])
    assert [message["role"] for message in found.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert found.messages[1]["content"] == "wait" and len(found.messages[1]["tool_calls"]) == 2


def test_ids_of_calls_stay() -> None:
    calls = [CALL | {"id": "x1"}]
    messages = [*turns("user: a"), {"role": "assistant", "tool_calls": calls}]
    found = read(
        "messages", messages=[*messages, {"role": "tool", "content": "", "tool_call_id": "x1"}, *turns("assistant: b")]
    )
    assert found.messages[1]["tool_calls"][0]["id"] == found.messages[2]["tool_call_id"] == "x1"


def test_numbers_in_arguments() -> None:
    call = '[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"name":"f","arguments":{"x":%s}}]}]'
    found = read("messages", messages=call % "123456789012345678901234567890")
    assert found.messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": 123456789012345678901234567890}
    assert "123456789012345678901234567890" in found.to_json()
    assert broken("messages", messages=call % "1e999")[0] == "broken_turns"
    assert broken("messages", messages=call % "NaN")[0] == "unreadable"


@pytest.mark.parametrize(
    "tools",
    [[SCHEMA], [{"type": "function", "function": SCHEMA}], json.dumps([SCHEMA]), SCHEMA, [json.dumps(SCHEMA)]],
)
def test_tools_in_all_their_forms(tools: Any) -> None:
    assert read("prompt_completion", prompt="a", completion="b", tools=tools).tools == (
        {"type": "function", "function": SCHEMA},
    )


@pytest.mark.parametrize(
    ("texts", "bucket", "reason"),
    [
        ([], "no_supervised_token", "there are no turns"),
        (["user: a"], "no_supervised_token", "no turn is the assistant's"),
        (["system: a", "user: b"], "no_supervised_token", "no turn is the assistant's"),
        (["user: a", "assistant: b", "user: c"], "broken_turns", "the last turn (3) is the user's"),
        (["user: a", "user: b", "assistant: c"], "broken_turns", "turns 1 and 2 are both the user's"),
        (["user: a", "assistant: b", "assistant: c"], "broken_turns", "turns 2 and 3 are both the assistant's"),
        (["assistant: a", "user: b", "assistant: c"], "broken_turns", "turn 1 is the assistant's, and nobody"),
        (["user: a", "system: b", "assistant: c"], "broken_turns", "turn 2 is the system prompt"),
        (["system: a", "system: b", "user: c", "assistant: d"], "broken_turns", "turn 2 is the system prompt"),
        (["user: a", "tool: b", "assistant: c"], "broken_turns", "no call comes before it"),
        (
            ["user: a", "asistant: b"],
            "broken_turns",
            "turn 2 has the unknown role 'asistant' (did you mean 'assistant'?)",
        ),
        (["user: a", "xyzzy: b"], "broken_turns", "known are system, developer"),
        (["user: a", "assistant:  \n"], "broken_turns", "turn 2: the answer is empty"),
        (["user:  ", "assistant: b"], "empty_text", "turn 1, the user's, is empty"),
        (["user: a", "assistant: b", "user: ", "assistant: d"], "empty_text", "turn 3, the user's, is empty"),
    ],
)
def test_what_is_wrong_with_the_turns(texts: list[str], bucket: str, reason: str) -> None:
    found = broken("messages", messages=turns(*texts))
    assert found[0] == bucket and reason in found[1]
    values = [{"from": turn["role"], "value": turn["content"]} for turn in turns(*texts)]
    assert broken("conversations", conversations=values) == found, "both forms are told alike"


def test_calls_and_results_belong_together() -> None:
    call = {"role": "assistant", "tool_calls": [CALL]}
    result = {"role": "tool", "content": "found"}
    start, end = turns("user: a"), turns("assistant: b")
    assert read("messages", messages=[*start, call]).messages[-1]["tool_calls"], "the call itself may be the answer"
    for messages, reason in (
        ([*start, call, *end], "turn 3 is the assistant's, and a call before it has no result yet"),
        ([*start, call, result, result, *end], "turn 4 is a tool's result, and every call has one already"),
        ([*start, call, result], "the last turn (3) is a tool's result"),
    ):
        bucket, found = broken("messages", messages=messages)
        assert bucket == "broken_turns" and reason in found


@pytest.mark.parametrize(
    ("cell", "bucket", "reason"),
    [
        (None, "empty_text", "`messages` is empty"),
        ("  ", "empty_text", "`messages` is empty"),
        ("[{]", "unreadable", "`messages` is broken JSON"),
        ('{"a": 1}', "broken_turns", "no list of turns"),
        ('"text"', "broken_turns", "no list of turns"),
        ("[1]", "broken_turns", "turn 1 is no object"),
        ('[{"text": "a"}]', "broken_turns", "turn 1 does not say whose it is"),
        ('[{"role": "user", "content": {"a": 1}}]', "broken_turns", "turn 1 holds an object"),
        ('[{"role": "user", "content": true}]', "broken_turns", "turn 1 holds a boolean"),
        ('[{"role": "user", "content": [{"type": "image_url"}]}]', "broken_turns", "part of type 'image_url'"),
        ('[{"role": "user", "content": "\\ud83d"}]', "unreadable", "half of a surrogate pair"),
        ("[" * 100_000, "unreadable", "nested too deeply"),
        ('[{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":0}]', "broken_turns", "weight 0"),
        ('[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[1]}]', "broken_turns", "turn 2: a call"),
        ('[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{}]}]', "broken_turns", "has no name"),
        (
            '[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"name":"f","arguments":"x"}]}]',
            "broken_turns",
            "the arguments of 'f' are no JSON object",
        ),
        (
            '[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"name":"f","arguments":"{\\"x\\":\\"\\\\ud83d\\"}"}]}]',
            "unreadable",
            "half of a surrogate pair",
        ),
    ],
)
def test_what_is_wrong_with_the_cell(cell: str | None, bucket: str, reason: str) -> None:
    found = broken("messages", messages=cell)
    assert found[0] == bucket and reason in found[1]


@pytest.mark.parametrize(
    ("cells", "bucket"),
    [
        ({"prompt": "", "completion": "b"}, "empty_text"),
        ({"prompt": None, "completion": "b"}, "empty_text"),
        ({"prompt": "a", "completion": " \n"}, "broken_turns"),
        ({"prompt": "a", "completion": None}, "broken_turns"),
        ({"prompt": "a", "completion": "b", "tools": "[{"}, "unreadable"),
        ({"prompt": "a", "completion": "b", "tools": [{"description": "no name"}]}, "broken_turns"),
    ],
)
def test_what_is_wrong_with_a_prompt_and_its_answer(cells: dict[str, Any], bucket: str) -> None:
    assert broken("prompt_completion", **cells)[0] == bucket


def test_keys_that_say_something_and_are_not_read_are_counted() -> None:
    unread: Counter[str] = Counter()
    messages = [*turns("user: a"), {"role": "assistant", "content": "b", "reasoning_content": "hm"}]
    for _ in range(3):
        read_conversation(LAYOUTS["messages"], {"messages": json.dumps(messages)}, unread)
    assert unread == {"reasoning_content": 3}


def test_what_a_person_recognises_a_record_by() -> None:
    messages = json.dumps(turns("system: s", "user: first words", "user: second"))
    assert opening(LAYOUTS["messages"], {"messages": messages}) == "first words"
    assert opening(LAYOUTS["messages"], {"messages": "[{broken"}) == "[{broken"
    assert opening(LAYOUTS["messages"], {"messages": None, "system": "s"}) == "s"
    assert opening(LAYOUTS["prompt_completion"], {"prompt": "[1] and [2]?", "completion": ""}) == "[1] and [2]?"


def test_characters_are_those_of_what_is_said() -> None:
    assert num_characters(read("prompt_completion", prompt="abc", completion="de", system="f")) == 6
    messages = [*turns("user: a"), {"role": "assistant", "tool_calls": [{"name": "find", "arguments": {"x": "yz"}}]}]
    assert num_characters(read("messages", messages=messages)) == 1 + len("find") + len("x") + len("yz")


def test_a_look_at_a_cell() -> None:
    facts = turn_facts(json.dumps(turns("user: a", "assistant: b")))
    assert facts and facts.style == "OpenAI" and facts.turns == 2 and facts.is_answered
    facts = turn_facts('[{"from": "human", "value": "a"}]')
    assert facts and facts.style == "ShareGPT" and not facts.is_answered
    for cell in ("", "text", "[]", "[1]", '[{"name": "a"}]', '{"role": "user"}', '[{"role": "\\ud83d"}]', "[" * 99_999):
        assert turn_facts(cell) is None
