"""A conversation in one canonical form, whatever format it came in.

Roles are `system` (first only), `user`, `assistant` and `tool`; contents are texts. An assistant turn may call tools,
in the form of the OpenAI API with the arguments as an object; tools are described by the same API's function schemas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]


class BrokenRecord(Exception):
    """A record that cannot be learnt from. bucket: the ledger's name for why; reason: a sentence."""

    def __init__(self, bucket: str, reason: str) -> None:
        super().__init__(reason)
        self.bucket = bucket
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order, and the tools that the assistant may call."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> str:
        """One line of JSON: the same conversation always gives the same text. Keys keep their order: it is learnt."""
        document: dict[str, Any] = {"messages": list(self.messages)}
        if self.tools:
            document["tools"] = list(self.tools)
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Conversation:
        """What `to_json` wrote."""
        document = json.loads(text)
        return cls(tuple(document["messages"]), tuple(document.get("tools", ())))

    @classmethod
    def of(cls, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Conversation:
        """From any sequences."""
        return cls(tuple(messages), tuple(tools))

    @property
    def questions(self) -> tuple[str, ...]:
        """What the user said, turn by turn."""
        return tuple(str(message["content"]) for message in self.messages if message["role"] == "user")

    def before_last_answer(self) -> Conversation:
        """The turns up to the last answer, without it."""
        last = max(place for place, message in enumerate(self.messages) if message["role"] == "assistant")
        return Conversation(self.messages[:last], self.tools)

    @property
    def last_answer(self) -> str:
        """The text of the last assistant turn; calls of tools as JSON lines."""
        last = next(message for message in reversed(self.messages) if message["role"] == "assistant")
        calls = [json.dumps(call["function"], ensure_ascii=False) for call in last.get("tool_calls", ())]
        return "\n".join(filter(None, [str(last["content"]), *calls]))
