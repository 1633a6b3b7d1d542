"""What the shaper of conversations counts and says."""

from __future__ import annotations

import json

import pytest
from tests.tiny_chat import chat_tokenizer

from reglaj.data.conversation import BrokenRecord
from reglaj.data.formats import CHAT_ROLES
from reglaj.data.rendering import Renderer
from reglaj.tasks.chat_records import ConversationShaper

MESSAGES = next(layout for layout in CHAT_ROLES.layouts if layout.name == "messages")


def test_keys_of_turns_that_are_not_read_are_said() -> None:
    shaper = ConversationShaper(Renderer(chat_tokenizer()), 256, "drop", "answers")
    for number in range(3):
        answer = {"role": "assistant", "content": "b"} | ({"reasoning_content": "hm"} if number else {})
        shaper.shape(MESSAGES, {"messages": json.dumps([{"role": "user", "content": "a"}, answer])})
    assert "2 conversations say `reasoning_content`, which is not read" in shaper.remarks()[1]


def test_what_does_not_fit_is_refused_in_tokens() -> None:
    shaper = ConversationShaper(Renderer(chat_tokenizer()), 8, "drop", "answers")
    turns = [{"role": "user", "content": "where is my card " * 4}, {"role": "assistant", "content": "b"}]
    with pytest.raises(BrokenRecord) as caught:
        shaper.shape(MESSAGES, {"messages": json.dumps(turns)})
    assert caught.value.bucket == "too_long" and "8" in caught.value.reason
