"""What a message may hold: no lone surrogates, no special tokens that would be read as turns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reglaj.data.conversation import BrokenRecord, Conversation


class Contents:
    """Checks messages against the special tokens of one tokenizer."""

    def __init__(self, forbidden: Iterable[str], ends: Iterable[str]) -> None:
        self._forbidden = re.compile(_either(forbidden))
        self._ends = tuple(sorted(set(ends), key=len, reverse=True))

    def clean(self, conversation: Conversation) -> tuple[list[dict[str, Any]], bool]:
        """The messages without end tokens at the end of answers, and whether there were any.

        Raises `BrokenRecord`: a special token anywhere else would end a turn in the middle, or forge one.
        """
        messages: list[dict[str, Any]] = []
        stripped = False
        for number, message in enumerate(conversation.messages, start=1):
            content = str(message["content"])
            if message["role"] == "assistant":
                kept = self._without_end(content) if self._forbidden.search(content) else content
                stripped |= kept != content
                content = kept
                if not content.strip() and not message.get("tool_calls"):
                    raise BrokenRecord("broken_turns", f"turn {number}: the answer is empty")
            self._check(content, f"turn {number} ({message['role']})")
            calls = message.get("tool_calls")
            if calls:
                self._check(_written(calls), f"a call in turn {number}")
            messages.append({**message, "content": content})
        if conversation.tools:
            self._check(_written(conversation.tools), "the description of a tool")
        return messages, stripped

    def _without_end(self, text: str) -> str:
        bare = text.rstrip()
        while found := next((end for end in self._ends if bare.endswith(end)), ""):
            text = bare = bare.removesuffix(found).rstrip()
        return text

    def _check(self, text: str, place: str) -> None:
        found = self._forbidden.search(text)
        if found:
            told = f"{place} holds the special token {found.group()!r}: the model would read a mark, not the text"
            raise BrokenRecord("broken_turns", told)
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                told = f"{place} holds half a character (a lone surrogate, U+{ord(text[error.start]):04X})"
                raise BrokenRecord("unreadable", told) from None


def _written(value: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _either(texts: Iterable[str]) -> str:
    ordered = sorted(set(texts), key=lambda text: (-len(text), text))
    return "|".join(re.escape(text) for text in ordered) or r"(?!)"
