"""What the shaper of conversations counts and says."""

from __future__ import annotations

import dataclasses
import json

import pytest
from tests.tiny_chat import chat_tokenizer

from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.formats import CHAT_ROLES
from reglaj.data.rendering import Renderer
from reglaj.tasks.chat_records import ConversationShaper, encode_conversations, supervision_of

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


def test_what_is_learnt_from_is_summed_up_and_a_shifted_mask_is_another() -> None:
    turns = [[{"role": "user", "content": f"a {n}"}, {"role": "assistant", "content": "b" * n}] for n in range(1, 11)]
    renderer = Renderer(chat_tokenizer())
    encoded = encode_conversations(renderer, [Conversation.of(one) for one in turns], ["x, line 1"] * 10, 256, "drop")
    found = supervision_of(encoded)
    assert (found["rows"], found["tokens"]) == (10, len(encoded.rows.flat))
    assert found["supervised_tokens"] == int(encoded.targets.flags.sum()) > 0
    assert json.loads(json.dumps(found)) == found and len(found["examples"]) == 8
    first = found["examples"][0]
    assert first["ids"] == encoded.rows[0].tolist() and len(first["mask"]) == len(first["ids"])
    learnt = [token for token, flag in zip(first["ids"], first["mask"], strict=True) if flag]
    assert chat_tokenizer().decode(learnt) == "b<|im_end|>"
    flags = encoded.targets.flags
    shifted = dataclasses.replace(encoded.targets, flags=flags[[-1, *range(len(flags) - 1)]])
    assert supervision_of(dataclasses.replace(encoded, targets=shifted))["sha256"] != found["sha256"]
