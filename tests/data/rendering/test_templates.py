"""What is found out about a template by trying it, and what becomes of the odd ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.chat_templates import CHATML, ODD, SHAPES, Shape, tokenizer_for
from tests.data.rendering.conversations import (
    CALL,
    TALKS,
    TOKENIZERS,
    WITH_TOOL,
    prompts_of,
    renderer_for,
    starts,
    talk,
    trained,
)
from tests.tiny_chat import chat_tokenizer

from reglaj.core.errors import UserError
from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.rendering import DEFAULT_TEMPLATE, Renderer, spans

FACTS = {
    "chatml": {"system": "native", "tools": "text", "tool_role": "tool", "beginning": "none", "keeps_prefix": True},
    "llama3": {"system": "native", "beginning": "template", "ends": ("<|eot_id|>",)},
    "mistral": {"system": "merged", "tool_role": "user", "beginning": "template", "ends": ("</s>",), "header": ""},
    "gemma": {"system": "merged", "tool_role": "user", "ends": ("<end_of_turn>",)},
    "zephyr": {"system": "native", "tool_role": "user", "ends": ("</s>",)},
    "smollm2": {"system": "native", "tools": "text", "tool_role": "tool", "keeps_prefix": True},
    "qwen3": {"keeps_prefix": False, "system": "native", "header": "", "cut_back": ""},
    "thinking_prompt": {"cut_back": "<think>\n", "keeps_prefix": True},
    "system_last": {"system": "native", "keeps_prefix": False},
    "system_in_prompts": {"system": "merged", "keeps_prefix": True},
    "no_generation_prompt": {"header": "<|im_start|>assistant\n", "keeps_prefix": True},
    "no_end": {"writes_end": False, "ends": ("<|endoftext|>",), "tail": "\n\n"},
    "no_system": {"system": "dropped"},
    "closed": {"ends": ("<|im_end|>",), "keeps_prefix": True},
    "other_last_end": {"ends": ("<|endoftext|>",), "keeps_prefix": False},
    "dated": {"has_date": True},
    "tools": {"tools": "native", "arguments_as_text": False, "call_ids": False},
    "tools_as_text": {"tools": "native", "arguments_as_text": True, "call_ids": False},
    "tools_with_ids": {"tools": "native", "arguments_as_text": True, "call_ids": True},
}


@pytest.mark.parametrize("shape", FACTS)
def test_a_template_is_known_by_trying(shape: str):
    renderer, tokenizer = renderer_for(shape)
    assert {name: getattr(renderer.facts, name) for name in FACTS[shape]} == FACTS[shape]
    ends = {tokenizer.convert_tokens_to_ids(text) for text in renderer.facts.ends}
    assert renderer.facts.end_ids == ends | {tokenizer.eos_token_id}
    assert set(FACTS) == {*SHAPES, *ODD}


def check_last(renderer: Renderer, conversation: Conversation) -> Any:
    """The last answer is trained, and every trained one has the tokens before it that a prompt has."""
    rendered = renderer.render(conversation)
    found = starts(rendered.mask)
    prompts = prompts_of(conversation)
    assert rendered.answers == len(found) and rendered.answers + rendered.untrained_answers == len(prompts)
    for before in prompts[-len(found) :]:
        assert renderer.prompt(before) == rendered.ids[: found.pop(0)]
    return rendered


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("name", TALKS)
def test_prompts_are_the_beginnings_of_what_was_trained(name: str, shape: str, kind: str):
    renderer, tokenizer = renderer_for(shape, kind)
    rendered = check_last(renderer, TALKS[name])
    last = str(TALKS[name].messages[-1]["content"]).split("</think>")[-1]
    assert trained(tokenizer, rendered)[-1].endswith(last + ODD[shape].end)
    rewrites = {"qwen3", "other_last_end"} | ({"system_last"} if name == "system" else set())
    if shape not in rewrites and name != "code":
        assert rendered.untrained_answers == 0


def test_templates_that_rewrite_earlier_turns_train_the_last_and_count_the_others():
    renderer, tokenizer = renderer_for("qwen3")
    rendered = check_last(renderer, TALKS["many turns"])
    assert trained(tokenizer, rendered) == ["<think>\n\n</think>\n\nyes.<|im_end|>"]
    assert rendered.untrained_answers == 2
    moved, _ = renderer_for("system_last")
    assert check_last(moved, TALKS["system"]).untrained_answers == 1
    assert check_last(moved, TALKS["many turns"]).untrained_answers == 0, "recognised for each conversation by itself"
    other, tokenizer = renderer_for("other_last_end")
    assert trained(tokenizer, check_last(other, TALKS["many turns"])) == ["yes.<|endoftext|>"]


def test_a_prompt_ends_where_the_answer_of_a_finished_conversation_begins():
    renderer, tokenizer = renderer_for("thinking_prompt")
    asked = tokenizer.decode(renderer.prompt(talk("hi")))
    assert asked == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert trained(tokenizer, renderer.render(talk("hi", "ho"))) == ["ho<|im_end|>"]
    renderer, tokenizer = renderer_for("no_generation_prompt")
    assert tokenizer.decode(renderer.prompt(talk("hi"))) == asked
    assert trained(tokenizer, renderer.render(talk("hi", "ho"))) == ["ho<|im_end|>"]


@pytest.mark.parametrize("kind", ["bytes", "legacy", "first"])
def test_an_end_token_is_put_in_where_the_template_writes_none(kind: str):
    renderer, tokenizer = renderer_for("no_end", kind)
    rendered = check_last(renderer, TALKS["many turns"])
    end = "<|endoftext|>"
    assert trained(tokenizer, rendered) == [f" on its way{end}", f" it takes three days{end}", f" yes.{end}"]
    assert rendered.ids.count(tokenizer.convert_tokens_to_ids(end)) == 3
    assert f"{end!r} is put in after every answer" in " ".join(renderer.facts.sentences())


def test_a_dropped_system_prompt_is_said_and_tools_are_described_all_the_same():
    renderer, tokenizer = renderer_for("no_system")
    assert renderer.render(TALKS["system"]).system_was_dropped
    assert not renderer.render(TALKS["one turn"]).system_was_dropped
    assert not renderer_for("chatml")[0].render(TALKS["system"]).system_was_dropped
    text = tokenizer.decode(renderer.render(WITH_TOOL).ids)
    assert "Ajută." not in text and "Vremea într-un loc" in text and "21 de grade." in text


@pytest.mark.parametrize("shape", ["mistral", "gemma", "system_in_prompts"])
def test_a_refused_system_prompt_goes_in_front_of_the_first_question(shape: str):
    renderer, tokenizer = renderer_for(shape)
    text = tokenizer.decode(renderer.render(TALKS["system"]).ids)
    assert "Answer shortly.\n\nwhere is my card?" in text


@pytest.mark.parametrize("shape", ["tools", "tools_as_text", "tools_with_ids"])
@pytest.mark.parametrize("kind", ["bytes", "legacy"])
def test_tools_and_calls_in_the_templates_own_form(shape: str, kind: str):
    renderer, tokenizer = renderer_for(shape, kind)
    rendered = check_last(renderer, WITH_TOOL)
    call, answer = trained(tokenizer, rendered)
    assert '"arguments": {"loc": "Iași", "zile": 2}' in call and call.endswith(ODD[shape].end)
    assert answer == ODD[shape].written("21 de grade.") + ODD[shape].end
    assert "Vremea într-un loc" in spans(tokenizer, rendered)[0][0]
    calls = (*WITH_TOOL.messages[:2], {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]})
    assert renderer.render(Conversation.of(calls, WITH_TOOL.tools)).answers == 1


def test_the_date_is_pinned():
    renderer, tokenizer = renderer_for("dated")
    text = tokenizer.decode(renderer.prompt(talk("hi")))
    assert "Today: 2024-07-26 or 26 Jul 2024" in text
    assert "strftime_now" in renderer.template, "what is saved with the model is its own template"


def test_results_of_tools_that_follow_each_other_are_one_turn_for_templates_that_alternate():
    messages = [*WITH_TOOL.messages[:3], WITH_TOOL.messages[3], WITH_TOOL.messages[3], WITH_TOOL.messages[4]]
    renderer, tokenizer = renderer_for("gemma")
    text = tokenizer.decode(renderer.render(Conversation.of(messages, WITH_TOOL.tools)).ids)
    assert text.count("<tool_response>") == 2 and text.count("<start_of_turn>user") == 2


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('never') }}", "never"),
        ("{{ messages[0]['content'] + nothing }}", "UndefinedError"),
        ("{{ messages | tojson", "TemplateSyntaxError"),
        ("{% for m in messages %}{{ m.content.text }}{% endfor %}", "leaves out the text of the assistant"),
        (CHATML.replace("message['content']", "message['content'] | upper"), "leaves out the text of the assistant"),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
            "leaves out the text",
        ),
        ("{% for m in messages | reverse %}{{ m.role + m.content }}{% endfor %}", "differently once it is answered"),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused(template: str, said: str):
    tokenizer = chat_tokenizer(template)
    with pytest.raises(UserError, match=said) as caught:
        Renderer(tokenizer)
    assert all(part in str(caught.value) for part in ("allowed:", "why:", "do:"))


def test_without_any_end_token_nothing_can_be_trained():
    tokenizer = tokenizer_for(ODD["no_end"])
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="end token"):
        Renderer(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="neither a chat template nor an end token"):
        Renderer(tokenizer)


@pytest.mark.parametrize("eos", ["<|endoftext|>", "<|im_end|>"])
def test_the_default_template_is_stated_saved_and_needs_no_new_token(tmp_path: Path, eos: str):
    from transformers import AutoTokenizer

    tokenizer = chat_tokenizer(None, eos=eos)
    size = len(tokenizer)
    renderer = Renderer(tokenizer)
    assert renderer.is_default and renderer.template == DEFAULT_TEMPLATE and len(tokenizer) == size
    rendered = check_last(renderer, TALKS["system"])
    assert trained(tokenizer, rendered) == [f"on its way{eos}", f"three days{eos}"]
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.chat_template == DEFAULT_TEMPLATE
    assert Renderer(again).is_default and Renderer(again).render(TALKS["system"]) == rendered
    assert not renderer_for("chatml")[0].is_default


def test_several_named_templates():
    tokenizer = tokenizer_for(ODD["tools"])
    tokenizer.chat_template = {"default": CHATML, "tool_use": ODD["tools"].template}
    renderer = Renderer(tokenizer)
    assert renderer.template == CHATML and renderer.facts.tools == "native"
    assert renderer.render(WITH_TOOL) == renderer_for("tools")[0].render(WITH_TOOL)


def test_turns_that_the_template_refuses_are_broken():
    messages = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    for shape in ("gemma", "mistral"):
        with pytest.raises(BrokenRecord, match="must alternate") as caught:
            renderer_for(shape)[0].render(Conversation.of(messages))
        assert caught.value.bucket == "broken_turns"
    assert renderer_for("chatml")[0].render(Conversation.of(messages)).answers == 1


def test_a_conversation_that_a_model_opens_has_an_answer_to_nothing():
    greeting = [{"role": "assistant", "content": "hello"}, *TALKS["one turn"].messages]
    rendered = renderer_for("chatml")[0].render(Conversation.of(greeting))
    assert (rendered.answers, rendered.untrained_answers) == (1, 1)


@pytest.mark.parametrize("on", ["answers", "last_answer"])
def test_a_prompt_that_finished_conversations_do_not_have_is_found_for_each_answer(on: Any):
    """The probes have one turn, and this template prompts otherwise from the second one on."""
    template = CHATML.replace(
        "'<|im_start|>assistant\n' }}", "'<|im_start|>assistant\n' + '<think>' * (messages | length > 2) }}"
    )
    renderer = Renderer(chat_tokenizer(template), on=on)
    assert renderer.render(TALKS["one turn"]).answers == 1
    with pytest.raises(BrokenRecord, match="otherwise than in its prompt") as caught:
        renderer.render(talk("hi", "ho", "and?", "an answer that is longer than the prompt's own end"))
    assert caught.value.bucket == "no_supervised_token"


def test_an_answer_that_the_template_empties_is_not_trained():
    renderer, tokenizer = renderer_for("thinking_prompt")
    with pytest.raises(BrokenRecord) as caught:
        renderer.render(talk("hi", "hm</think>\n"))
    assert caught.value.bucket == "no_supervised_token"
    rendered = renderer.render(talk("hi", "hm</think>", "so?", "yes"))
    assert (rendered.answers, rendered.untrained_answers) == (1, 1)
    assert trained(tokenizer, rendered) == ["yes<|im_end|>"]


def test_special_tokens_that_swallow_spaces_are_no_place_to_cut():
    """A marker that takes the space before it (`lstrip`) changes what comes before: the whole text must be read."""
    from tokenizers import AddedToken

    for swallows in ({"lstrip": True}, {"rstrip": True}):
        tokenizer = tokenizer_for(replace(SHAPES["chatml"], special=("<|endoftext|>", "<|im_end|>"), eos="<|im_end|>"))
        tokenizer.add_tokens([AddedToken("<|im_start|>", special=True, normalized=False, **swallows)])
        renderer = Renderer(tokenizer)
        for name in ("many turns", "newlines", "spaces"):
            rendered = check_last(renderer, TALKS[name])
            text = tokenizer.apply_chat_template(list(TALKS[name].messages), tokenize=False)
            if name == "many turns":
                assert rendered.ids == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_marks_that_are_no_tokens_of_the_model_end_nothing():
    """A base model with a ChatML template: "<|im_end|>" would be many tokens, so its own end token does the work."""
    shape = Shape(CHATML, ("<|endoftext|>",), "<|endoftext|>", None, "<|endoftext|>")
    tokenizer = tokenizer_for(shape)
    renderer = Renderer(tokenizer)
    assert not renderer.facts.writes_end and renderer.facts.end_ids == {tokenizer.eos_token_id}
    rendered = check_last(renderer, TALKS["many turns"])
    assert trained(tokenizer, rendered)[-1] == "yes.<|endoftext|>" and rendered.answers == 3


def test_a_template_without_any_special_token_but_the_end():
    shape = Shape(DEFAULT_TEMPLATE, ("<|endoftext|>",), "<|endoftext|>", None, "<|endoftext|>")
    renderer = Renderer(tokenizer_for(shape))
    assert check_last(renderer, TALKS["newlines"]).answers == 2
