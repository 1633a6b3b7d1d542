"""Supervised is exactly the answer and its end token; the tokens before it are those that serving will have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chat_templates import SHAPES
from tests.data.rendering.conversations import (
    TALKS,
    TOKENIZERS,
    WITH_TOOL,
    answers_of,
    prompts_of,
    renderer_for,
    starts,
    talk,
    trained,
)

from reglaj.data.conversation import Conversation
from reglaj.data.rendering import Rendered, spans


def check(conversation: Conversation, shape: str, kind: str) -> Rendered:
    """All that the promise says, for a template that keeps its prefix."""
    renderer, tokenizer = renderer_for(shape, kind)
    rendered = renderer.render(conversation)
    wanted = [SHAPES[shape].written(text) + SHAPES[shape].end for text in answers_of(conversation)]
    assert trained(tokenizer, rendered) == wanted
    assert (rendered.answers, rendered.untrained_answers) == (len(wanted), 0)
    assert len(rendered.ids) == len(rendered.mask)
    for place, before in zip(starts(rendered.mask), prompts_of(conversation), strict=True):
        assert renderer.prompt(before) == rendered.ids[:place], "serving has the tokens that training had"
    begins = tokenizer.bos_token_id
    if begins is not None and renderer.facts.beginning != "none":
        assert rendered.ids[0] == begins and rendered.ids[1] != begins, "exactly one beginning"
        assert shape == "smollm2" or rendered.ids.count(begins) == 1
    return rendered


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", TALKS)
def test_only_the_answers_and_their_end_tokens_are_trained(name: str, shape: str, kind: str):
    check(TALKS[name], shape, kind)


# Texts that tokenizers stumble over: spaces and newlines at borders, parts of what templates write, several alphabets.
PIECES = st.sampled_from(
    [
        " ",
        "\n",
        "\n\n",
        "\t",
        "  ",
        "a",
        "card",
        "[/INST]",
        "'s",
        "]",
        "|>",
        "<|",
        "assistant",
        "és",
        "ț",
        "🎉",
        "日",
        "1",
    ]
)
TEXTS = st.one_of(
    st.lists(PIECES, min_size=1, max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
).filter(lambda text: bool(text.strip()) and not any(token in text for token in ("<s>", "</s>")))


@pytest.mark.parametrize("shape", SHAPES)
@given(
    kind=st.sampled_from(TOKENIZERS),
    texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3),
    system=st.none() | TEXTS,
)
def test_any_conversation_keeps_the_promise(shape: str, kind: str, texts: Any, system: str | None):
    conversation = talk(*(text for pair in texts for text in pair), system=system)
    _, tokenizer = renderer_for(shape, kind)
    rendered = check(conversation, shape, kind)
    pieces = spans(tokenizer, rendered)
    assert "".join(text for text, _ in pieces) == tokenizer.decode(rendered.ids, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("shape", ["chatml", "llama3", "gemma", "smollm2"])
def test_where_no_token_straddles_a_border_the_tokens_are_those_of_the_whole_text(shape: str):
    renderer, tokenizer = renderer_for(shape)
    text = tokenizer.apply_chat_template(list(TALKS["many turns"].messages), tokenize=False)
    assert renderer.render(TALKS["many turns"]).ids == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_token_that_would_straddle_the_border_is_cut_there():
    """ "\\n" of the header and "\\n\\n" of the answer are one token in the whole text: no server could have it."""
    renderer, tokenizer = renderer_for("chatml", "legacy")
    conversation = talk("where", "card", "what", "\n\ncard")
    asked = renderer.prompt(prompts_of(conversation)[1])
    assert renderer.render(conversation).ids[: len(asked)] == asked
    renderer, tokenizer = renderer_for("mistral", "first")
    text = "<s>[INST] where [/INST] card</s>"
    conversation = talk("where", "card")
    rendered = renderer.render(conversation)
    assert trained(tokenizer, rendered) == [" card</s>"]
    assert tokenizer.decode(rendered.ids) == text


@pytest.mark.parametrize("shape", SHAPES)
def test_last_answer_leaves_the_others_out(shape: str):
    renderer, tokenizer = renderer_for(shape, "bytes", "last_answer")
    rendered = renderer.render(TALKS["many turns"])
    assert trained(tokenizer, rendered) == [SHAPES[shape].written("yes.") + SHAPES[shape].end]
    assert (rendered.answers, rendered.untrained_answers) == (1, 2)
    every, _ = renderer_for(shape)
    assert rendered.ids == every.render(TALKS["many turns"]).ids


@pytest.mark.parametrize("kind", ["bytes", "bytes+"])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_trains_everything_but_the_beginning(shape: str, kind: str):
    renderer, _ = renderer_for(shape, kind, "all")
    rendered = renderer.render(TALKS["system"])
    assert rendered.mask == [False] + [True] * (len(rendered.ids) - 1)
    assert (rendered.answers, rendered.untrained_answers) == (2, 0)
    assert rendered.ids == renderer_for(shape, kind)[0].render(TALKS["system"]).ids


@pytest.mark.parametrize("shape", SHAPES)
def test_tools_go_as_text_where_the_template_knows_none(shape: str):
    renderer, tokenizer = renderer_for(shape)
    rendered = renderer.render(WITH_TOOL)
    call = '<tool_call>\n{"name": "vremea", "arguments": {"loc": "Iași", "zile": 2}}\n</tool_call>'
    written, end = SHAPES[shape].written, SHAPES[shape].end
    assert trained(tokenizer, rendered) == [written(call) + end, written("21 de grade.") + end]
    text = tokenizer.decode(rendered.ids)
    assert "Vremea într-un loc" in text and "Ajută." in text and '{"grade": 21}' in text
    for place, before in zip(starts(rendered.mask), prompts_of(WITH_TOOL), strict=True):
        assert renderer.prompt(before) == rendered.ids[:place]


@pytest.mark.parametrize("shape", ["zephyr", "llama3", "mistral", "gemma"])
@pytest.mark.parametrize("kind", ["bytes", "bytes+", "legacy+", "never+"])
def test_there_is_one_beginning_whoever_writes_it(shape: str, kind: str):
    renderer, tokenizer = renderer_for(shape, kind)
    wanted = "template" if shape != "zephyr" else "added" if kind.endswith("+") else "none"
    assert renderer.facts.beginning == wanted
    for ids in (renderer.render(TALKS["system"]).ids, renderer.prompt(prompts_of(TALKS["system"])[1])):
        assert ids.count(tokenizer.bos_token_id) == (0 if wanted == "none" else 1)


def test_a_template_that_writes_the_beginning_twice_is_read_with_one():
    from dataclasses import replace

    from tests.chat_templates import tokenizer_for

    from reglaj.data.rendering import Renderer

    twice = replace(SHAPES["gemma"], template="{{ bos_token }}" + SHAPES["gemma"].template)
    rendered = Renderer(tokenizer_for(twice)).render(TALKS["many turns"])
    assert rendered == renderer_for("gemma")[0].render(TALKS["many turns"])
