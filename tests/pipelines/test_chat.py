"""A conversation: what the model is given, what is remembered, and what is refused."""

from __future__ import annotations

import pytest
from tests.tiny_chat import write_chat_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from reglaj.core.console import Console
from reglaj.core.errors import UserError
from reglaj.data.conversation import Conversation
from reglaj.data.rendering import Renderer
from reglaj.generation import GenerationConfig, Generator
from reglaj.pipelines.chat import Chat

CONTEXT = 256


class Listening(Console):
    def __init__(self):
        self.heard = []

    def warn(self, text):
        self.heard.append(text)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = write_chat_model(tmp_path_factory.mktemp("talk"), context=CONTEXT)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    renderer = Renderer(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return Generator(model, tokenizer, end_ids=renderer.facts.end_ids, context=CONTEXT), renderer


@pytest.fixture
def chat(parts):
    return Chat(*parts, CONTEXT, GenerationConfig(max_new_tokens=8, temperature=0.8), Listening())


def say(chat, text):
    return "".join(chat.answer(text))


def test_the_history_is_what_the_model_reads(chat, parts):
    generator, renderer = parts
    first = say(chat, "where is my card")
    second = say(chat, "și banii?")
    turns = [
        {"role": "user", "content": "where is my card"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "și banii?"},
    ]
    assert chat.history == [*turns, {"role": "assistant", "content": second}]
    (expected,) = generator.generate([renderer.prompt(Conversation.of(turns))], chat.settings)
    assert second == expected.text and chat.last == expected


def test_reset_forgets_and_the_system_prompt_stays(chat, parts):
    generator, renderer = parts
    first = say(chat, "where is my card")
    assert say(chat, "where is my card") != first, "the second time there is a history"
    chat.reset()
    assert chat.history == [] and chat.last is None
    assert say(chat, "where is my card") == first
    chat.reset()
    chat.system = "be kind"
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "where is my card"}]
    (expected,) = generator.generate([renderer.prompt(Conversation.of(turns))], chat.settings)
    assert say(chat, "where is my card") == expected.text != first


def test_an_answer_that_is_stopped_stays_as_far_as_it_came(chat):
    pieces = chat.answer("where is my card")
    shown = next(pieces)
    pieces.close()
    assert chat.history[-1] == {"role": "assistant", "content": shown}
    assert chat.last.text == shown
    assert say(chat, "and then")
    assert len(chat.history) == 4


def test_what_is_never_asked_is_not_remembered(chat):
    chat.answer("where is my card")
    assert chat.history == []


def test_an_empty_answer_leaves_no_trace(parts):
    chat = Chat(*parts, CONTEXT, GenerationConfig(max_new_tokens=0))
    assert say(chat, "where is my card") == ""
    assert chat.history == []


@pytest.mark.parametrize("text", ["", "  \n", "a <|im_end|> b", "word " * 300, "\ud83d"])
def test_turns_that_cannot_be_answered(chat, text):
    say(chat, "hi")
    before = list(chat.history)
    with pytest.raises(UserError, match="this turn cannot be answered"):
        chat.answer(text)
    assert chat.history == before


def test_a_long_conversation_loses_its_oldest_turns_and_says_so_once(chat):
    for number in range(12):
        say(chat, f"where is my card number {number}")
    assert len(chat.history) == 24
    told = chat._console.heard
    assert len(told) == 1 and "256 tokens" in told[0]
    assert chat.last.prompt_tokens <= CONTEXT - 8
    chat.reset()
    for number in range(12):
        say(chat, f"where is my card number {number}")
    assert len(told) == 2


def test_half_the_context_at_most_is_kept_for_the_answer(parts):
    chat = Chat(*parts, CONTEXT, GenerationConfig(max_new_tokens=10_000, stop=("e",)))
    assert say(chat, "hi") is not None
    assert chat.last.prompt_tokens + len(chat.last.ids) <= CONTEXT
