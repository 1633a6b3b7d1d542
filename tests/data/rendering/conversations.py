"""Conversations and renderers that the tests of this room share."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.chat_templates import ODD, SHAPES, sentencepiece_tokenizer, tokenizer_for

from reglaj.data.conversation import Conversation
from reglaj.data.rendering import Renderer, spans

# What stands behind "+" is put in front of every text by the tokenizer itself.
TOKENIZERS = ("bytes", "bytes+", "legacy", "legacy+", "metaspace", "first", "never", "never+")


@cache
def renderer_for(shape: str, tokenizer: str = "bytes", on: Any = "answers") -> tuple[Renderer, Any]:
    """A renderer and its tokenizer."""
    made = {**SHAPES, **ODD}[shape]
    kind, adds = tokenizer.rstrip("+"), tokenizer.endswith("+") and made.bos is not None
    if kind == "bytes":
        chosen = tokenizer_for(made, adds_beginning=adds)
    else:
        chosen = sentencepiece_tokenizer(made, kind, adds_beginning=adds)
    return Renderer(chosen, on=on), chosen


def talk(*texts: str, system: str | None = None) -> Conversation:
    """Turns of user and assistant by turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]
    first = [{"role": "system", "content": system}] if system is not None else []
    return Conversation.of([*first, *messages])


CALL = {"type": "function", "function": {"name": "vremea", "arguments": {"loc": "Iași", "zile": 2}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "vremea",
        "description": "Vremea într-un loc",
        "parameters": {"type": "object", "properties": {"loc": {"type": "string"}, "zile": {"type": "integer"}}},
    },
}

TALKS = {
    "one turn": talk("where is my card?", "your card is on its way"),
    "many turns": talk("where is my card?", "on its way", "and when?", "it takes three days", "please help", "yes."),
    "system": talk("where is my card?", "on its way", "when?", "three days", system="Answer shortly."),
    "Romanian": talk("Unde este cardul și când ajunge?", "Întârzie; așteptați trei zile, vă rugăm.", "Țară?", "Da"),
    "emoji": talk("👩‍💻 🎉?", "👍🏽 日本語 🇷🇴", "é é", "ok 🎉"),
    "newlines": talk("\n\nwhere?\n", "\n\n- one\n- two\n\n", "  and?  ", "\n three \n"),
    "spaces": talk(" a ", "  b  ", " c", " d"),
    "punctuation": talk("a]", "'s ] [/INST", ":", ") <|im_en"),
    "code": talk("how?", "```python\n\tdef f():\n\n        return 1\n```", "so", "<think>\nhm\n</think>\n\nyes </p>"),
}
WITH_TOOL = Conversation.of(
    [
        {"role": "system", "content": "Ajută."},
        {"role": "user", "content": "Cum e vremea la Iași?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "name": "vremea", "content": '{"grade": 21}'},
        {"role": "assistant", "content": "21 de grade."},
    ],
    [TOOL],
)


def answers_of(conversation: Conversation) -> list[str]:
    """The texts of the assistant."""
    return [str(message["content"]) for message in conversation.messages if message["role"] == "assistant"]


def trained(tokenizer: Any, rendered: Any) -> list[str]:
    """The pieces of text that are supervised."""
    return [text for text, is_trained in spans(tokenizer, rendered) if is_trained]


def prompts_of(conversation: Conversation) -> list[Conversation]:
    """The conversation before each of its answers."""
    return [
        Conversation.of(conversation.messages[:place], conversation.tools)
        for place, message in enumerate(conversation.messages)
        if message["role"] == "assistant"
    ]


def starts(mask: list[bool]) -> list[int]:
    """Where each supervised run starts."""
    return [place for place, flag in enumerate(mask) if flag and (not place or not mask[place - 1])]
