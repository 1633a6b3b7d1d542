"""A handful of prompts with their token ids, saved beside a model: whoever serves it can show that theirs are equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reglaj.data.conversation import BrokenRecord, Conversation

if TYPE_CHECKING:
    from reglaj.data.rendering.renderer import Renderer

_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "description": "Name of the place"}},
            "required": ["place"],
        },
    },
}
_CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Iași"}}}

_CONVERSATIONS = (
    Conversation.of([{"role": "user", "content": "Where is my card?"}]),
    Conversation.of(
        [{"role": "system", "content": "Answer in one sentence."}, {"role": "user", "content": "Where is my card?"}]
    ),
    Conversation.of(
        [
            {"role": "user", "content": "Where is my card?"},
            {"role": "assistant", "content": "On its way. It takes three days."},
            {"role": "user", "content": "And my PIN?\n\n  It came by post:\n- once\n- twice"},
        ]
    ),
    Conversation.of([{"role": "user", "content": "Unde este cardul meu și când ajunge în țară?"}]),
    Conversation.of([{"role": "user", "content": "👩‍💻 works? 🎉 日本語"}]),
    Conversation.of(
        [
            {"role": "user", "content": "Cum e vremea la Iași?"},
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {"role": "tool", "name": "weather", "content": '{"degrees": 21}'},
        ],
        [_WEATHER],
    ),
)


def golden_prompts(renderer: Renderer) -> list[dict[str, Any]]:
    """Fixed conversations with the ids of their prompts: `messages`, `tools`, `ids`. Those that the template refuses
    are left out."""
    prompts: list[dict[str, Any]] = []
    for conversation in _CONVERSATIONS:
        try:
            ids = renderer.prompt(conversation)
        except BrokenRecord:
            continue
        prompts.append({"messages": list(conversation.messages), "tools": list(conversation.tools), "ids": ids})
    return prompts


def check_golden(renderer: Renderer, prompts: Iterable[Mapping[str, Any]]) -> list[str]:
    """What differs from the saved prompts, a sentence for each; empty where all is equal."""
    differences: list[str] = []
    for number, saved in enumerate(prompts, start=1):
        try:
            ids = renderer.prompt(Conversation.of(saved["messages"], saved["tools"]))
        except BrokenRecord as error:
            differences.append(f"golden prompt {number} is refused: {error.reason}")
            continue
        if ids == saved["ids"]:
            continue
        place = next(
            (place for place, pair in enumerate(zip(ids, saved["ids"], strict=False)) if pair[0] != pair[1]),
            min(len(ids), len(saved["ids"])),
        )
        differences.append(
            f"golden prompt {number} has {len(ids)} tokens instead of {len(saved['ids'])}, other from token {place} on"
        )
    return differences
