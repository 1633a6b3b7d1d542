"""Turns in the form that a template takes: system prompts it refuses and tools it does not know become plain text.

Every change leaves the turns before an answer as they would be without it, so that a prompt is the beginning of the
finished conversation. Calls as text follow the form that Hermes and Qwen models were trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from reglaj.data.rendering.facts import TemplateFacts

Turn = dict[str, Any]

_TOOLS = """You may call tools. These are their signatures, one to a line:
<tools>
{signatures}
</tools>
To call one, answer with its name and its arguments as JSON:
<tool_call>
{{"name": "...", "arguments": {{}}}}
</tool_call>"""


def adapt(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], facts: TemplateFacts
) -> tuple[list[Turn], tuple[Mapping[str, Any], ...]]:
    """Turns and tools as the template takes them."""
    turns = [dict(message) for message in messages]
    if facts.tools == "text":
        turns = _results_as_text([_calls_as_text(turn) for turn in turns], facts)
        if tools:
            turns = _describe(turns, tools, facts)
        tools = ()
    else:
        turns = _native_calls(turns, facts)
    if facts.system == "merged" and turns and turns[0]["role"] == "system":
        turns = _in_front(turns[1:], str(turns[0]["content"]))
    return turns, tuple(tools)


def _in_front(turns: list[Turn], text: str) -> list[Turn]:
    """The turns with `text` in front of the first question."""
    if not text.strip():
        return turns
    if turns and turns[0]["role"] == "user":
        return [{**turns[0], "content": f"{text}\n\n{turns[0]['content']}"}, *turns[1:]]
    return [{"role": "user", "content": text}, *turns]


def _describe(turns: list[Turn], tools: Sequence[Mapping[str, Any]], facts: TemplateFacts) -> list[Turn]:
    signatures = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = _TOOLS.format(signatures=signatures)
    has_system = bool(turns) and turns[0]["role"] == "system"
    if facts.system == "dropped":
        # Written there, nobody would read it.
        return [*turns[:1], *_in_front(turns[1:], text)] if has_system else _in_front(turns, text)
    if has_system:
        parts = filter(None, [str(turns[0]["content"]), text])
        return [{**turns[0], "content": "\n\n".join(parts)}, *turns[1:]]
    return [{"role": "system", "content": text}, *turns]


def _calls_as_text(turn: Turn) -> Turn:
    if not turn.get("tool_calls"):
        return turn
    calls = [f"<tool_call>\n{_call(call)}\n</tool_call>" for call in turn["tool_calls"]]
    content = "\n".join(filter(None, [str(turn["content"]), *calls]))
    return {"role": turn["role"], "content": content}


def _call(call: Mapping[str, Any]) -> str:
    function = call["function"]
    return json.dumps({"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)


def _results_as_text(turns: list[Turn], facts: TemplateFacts) -> list[Turn]:
    """Results of tools in the role that the template takes; as user turns, those that follow each other are one."""
    if facts.tool_role == "tool" or not any(turn["role"] == "tool" for turn in turns):
        return turns
    joined: list[Turn] = []
    for turn in turns:
        is_result = turn["role"] == "tool"
        if is_result:
            turn = {"role": "user", "content": f"<tool_response>\n{turn['content']}\n</tool_response>"}
        if turn["role"] == "user" and joined and joined[-1]["role"] == "user":
            joined[-1] = {**joined[-1], "content": f"{joined[-1]['content']}\n{turn['content']}"}
        else:
            joined.append(turn)
    return joined


def _native_calls(turns: list[Turn], facts: TemplateFacts) -> list[Turn]:
    """Calls with what this template wants: arguments as text, or ids that results refer to."""
    if not (facts.arguments_as_text or facts.call_ids):
        return turns
    written: list[Turn] = []
    asked: list[str] = []
    for turn in turns:
        if turn.get("tool_calls"):
            calls = [_native_call(call, facts, len(asked) + number) for number, call in enumerate(turn["tool_calls"])]
            asked = asked + [call["id"] for call in calls] if facts.call_ids else asked
            turn = {**turn, "tool_calls": calls}
        elif turn["role"] == "tool" and facts.call_ids:
            # In the order of the calls: canonical turns need not say which call they answer.
            number = sum(1 for earlier in written if earlier["role"] == "tool")
            turn = {**turn, "tool_call_id": asked[min(number, len(asked) - 1)] if asked else call_id(0)}
        written.append(turn)
    return written


def _native_call(call: Mapping[str, Any], facts: TemplateFacts, number: int) -> Turn:
    function = dict(call["function"])
    if facts.arguments_as_text:
        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": function, **({"id": call_id(number)} if facts.call_ids else {})}


def call_id(number: int) -> str:
    """Nine characters, as Mistral's templates demand."""
    return f"call{number:05d}"
