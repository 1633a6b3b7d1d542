"""Conversations longer than the context: what goes, what is kept, and that no answer is ever cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.rendering.conversations import (
    TALKS,
    WITH_TOOL,
    answers_of,
    renderer_for,
    starts,
    talk,
    trained,
)

from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.rendering.fitting import _most

LONG = talk(*(f"{word} {number}" for number in range(12) for word in ("question", "answer")), system="Be short.")


def lengths(conversation: Conversation, shape: str = "chatml") -> int:
    return len(renderer_for(shape)[0].render(conversation).ids)


@pytest.mark.parametrize("too_long", ["drop", "truncate_prompt", "split_turns"])
def test_what_fits_is_left_alone(too_long: Any):
    renderer, _ = renderer_for("chatml")
    fit = renderer.fit(LONG, lengths(LONG), too_long)
    assert fit.examples == [renderer.render(LONG)] and not fit.prompt_was_cut


def test_drop_says_how_long_it_is():
    renderer, _ = renderer_for("chatml")
    with pytest.raises(BrokenRecord) as caught:
        renderer.fit(LONG, lengths(LONG) - 1, "drop")
    assert caught.value.bucket == "too_long"
    assert f"{lengths(LONG)} tokens" in caught.value.reason and f"{lengths(LONG) - 1} fit" in caught.value.reason


@pytest.mark.parametrize("shape", ["chatml", "gemma", "mistral", "no_end"])
def test_truncating_drops_the_oldest_exchanges_and_counts_their_answers(shape: str):
    renderer, tokenizer = renderer_for(shape)
    limit = lengths(LONG, shape) // 2
    fit = renderer.fit(LONG, limit, "truncate_prompt")
    (example,) = fit.examples
    kept = example.answers
    assert fit.prompt_was_cut and 0 < kept < 12 and example.untrained_answers == 12 - kept
    window = Conversation.of([LONG.messages[0], *LONG.messages[-2 * kept :]])
    assert example.ids == renderer.render(window).ids and len(example.ids) <= limit
    one_more = Conversation.of([LONG.messages[0], *LONG.messages[-2 * kept - 2 :]])
    assert lengths(one_more, shape) > limit, "as much as fits is kept"
    assert [text.strip().split("<")[0] for text in trained(tokenizer, example)] == answers_of(window)


def test_truncating_cuts_the_start_of_the_last_question_when_nothing_else_is_left():
    renderer, tokenizer = renderer_for("chatml")
    question = " ".join(f"word{number}" for number in range(200)) + " so when does it arrive?"
    conversation = talk("hello", "hi", question, "in three days", system="Be short.")
    for limit in range(70, 300, 23):
        fit = renderer.fit(conversation, limit, "truncate_prompt")
        (example,) = fit.examples
        assert fit.prompt_was_cut and limit - 12 < len(example.ids) <= limit
        assert trained(tokenizer, example) == ["in three days<|im_end|>"]
        assert (example.answers, example.untrained_answers) == (1, 1)
        text = tokenizer.decode(example.ids)
        assert "so when does it arrive?<|im_end|>" in text and "Be short." in text and "hello" not in text
        kept = text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
        assert f" {kept}" in question, "it starts with a whole word"


def test_an_answer_that_does_not_fit_is_never_cut():
    renderer, _ = renderer_for("chatml")
    conversation = talk("short?", "a very long answer " * 30)
    with pytest.raises(BrokenRecord, match=r"the answer with the system prompt has \d+ tokens") as caught:
        renderer.fit(conversation, 60, "truncate_prompt")
    assert caught.value.bucket == "too_long"
    with pytest.raises(BrokenRecord, match="exchange 2 by itself"):
        renderer.fit(talk("a", "b", *(str(m["content"]) for m in conversation.messages)), 60, "split_turns")


@pytest.mark.parametrize("shape", ["chatml", "gemma", "mistral", "zephyr", "smollm2", "no_end"])
@pytest.mark.parametrize("share", [0.2, 0.35, 0.6, 0.9])
def test_split_turns_trains_every_answer_exactly_once(shape: str, share: float):
    renderer, tokenizer = renderer_for(shape)
    limit = max(
        int(lengths(LONG, shape) * share), lengths(talk(LONG.questions[-1], "answer 11", system="Be short."), shape)
    )
    fit = renderer.fit(LONG, limit, "split_turns")
    assert len(fit.examples) > 1 and all(len(example.ids) <= limit for example in fit.examples)
    assert not fit.prompt_was_cut
    texts = [text for example in fit.examples for text in trained(tokenizer, example)]
    assert [text.strip().split("<")[0] for text in texts] == answers_of(LONG)
    assert sum(example.answers for example in fit.examples) == 12
    assert all("Be short." in tokenizer.decode(example.ids) for example in fit.examples)
    assert all(example.untrained_answers == 0 for example in fit.examples)


def test_split_turns_fills_its_windows():
    renderer, _ = renderer_for("chatml")
    limit = lengths(LONG) // 3
    counts = [example.answers for example in renderer.fit(LONG, limit, "split_turns").examples]
    done = 0
    for count in counts[:-1]:
        longer = Conversation.of([LONG.messages[0], *LONG.messages[1 + 2 * done : 1 + 2 * (done + count + 1)]])
        assert lengths(longer) > limit
        done += count


def test_where_only_the_last_answer_counts_the_windows_before_it_teach_nothing():
    renderer, tokenizer = renderer_for("chatml", "bytes", "last_answer")
    fit = renderer.fit(LONG, lengths(LONG) // 2, "split_turns")
    (example,) = fit.examples
    assert fit.prompt_was_cut and trained(tokenizer, example) == ["answer 11<|im_end|>"]
    assert (example.answers, example.untrained_answers) == (1, 11)
    with pytest.raises(BrokenRecord, match="the last exchange by itself"):
        renderer.fit(LONG, 10, "split_turns")


def test_short_questions_and_stripped_answers():
    renderer, tokenizer = renderer_for("chatml")
    conversation = talk("question " * 30, "a<|im_end|>", "q", "b")
    windows = renderer.fit(conversation, lengths(talk("question " * 30, "a")), "split_turns").examples
    assert len(windows) == 2 and all(window.stripped_end_tokens for window in windows)
    (example,) = renderer.fit(conversation, lengths(talk("q", "b")), "truncate_prompt").examples
    assert example.ids == renderer.render(talk("q", "b")).ids and example.stripped_end_tokens
    (example,) = renderer.fit(talk("q" * 40, "b"), lengths(talk("q", "b")), "truncate_prompt").examples
    assert trained(tokenizer, example) == ["b<|im_end|>"] and "q<|im_end|>" in tokenizer.decode(example.ids)


@given(limit=st.integers(0, 60), right=st.integers(0, 60), guess=st.integers(0, 80))
def test_what_fits_is_found_in_a_few_tries(limit: int, right: int, guess: int):
    tried: list[int] = []

    def fits(count: int) -> bool:
        assert 1 <= count <= limit
        tried.append(count)
        return count <= right

    assert _most(limit, fits, guess) == min(limit, right)
    assert len(tried) <= 12 and len(tried) == len(set(tried))
    if limit and guess == right:
        assert len(tried) <= 2


def test_a_call_stays_with_its_result():
    renderer, tokenizer = renderer_for("tools")
    conversation = Conversation.of([*WITH_TOOL.messages, *TALKS["one turn"].messages], WITH_TOOL.tools)
    fit = renderer.fit(conversation, lengths(conversation, "tools") - 1, "split_turns")
    first, second = fit.examples
    assert (first.answers, second.answers) == (2, 1)
    assert first.ids == renderer.render(WITH_TOOL).ids
    assert "Vremea într-un loc" in tokenizer.decode(second.ids)


def test_a_greeting_stays_with_the_first_question():
    renderer, _ = renderer_for("chatml")
    greeting = {"role": "assistant", "content": "hello"}
    greeted = Conversation.of([greeting, *LONG.messages[1:]])
    limit = lengths(Conversation.of(greeted.messages[:3]))
    fit = renderer.fit(greeted, limit, "split_turns")
    assert sum(example.answers for example in fit.examples) == 12
    assert [example.untrained_answers for example in fit.examples] == [1] + [0] * (len(fit.examples) - 1)


def test_serving_forgets_the_oldest_turns_first():
    renderer, tokenizer = renderer_for("chatml")
    asked = Conversation.of(LONG.messages[:-1])
    whole = renderer.prompt(asked)
    assert renderer.fit_prompt(asked, len(whole)) == (whole, False)
    ids, was_cut = renderer.fit_prompt(asked, len(whole) // 2)
    assert was_cut and len(ids) <= len(whole) // 2
    text = tokenizer.decode(ids)
    assert "Be short." in text and "question 11" in text and "question 0" not in text
    places = [
        place
        for place in range(1, 24, 2)
        if ids == renderer.prompt(Conversation.of([LONG.messages[0], *LONG.messages[place:-1]]))
    ]
    assert len(places) == 1, "whole exchanges went"
    alone = len(renderer.prompt(Conversation.of([LONG.messages[0], LONG.messages[-2]])))
    assert len(renderer.fit_prompt(asked, alone)[0]) == alone
    with pytest.raises(BrokenRecord, match="the last question with the system prompt") as caught:
        renderer.fit_prompt(asked, alone - 1)
    assert caught.value.bucket == "too_long"


WORDS = st.lists(st.sampled_from(["card", "money", "țară", "🎉", "\n", "when", "x"]), min_size=1, max_size=30).map(
    " ".join
)


@pytest.mark.parametrize("shape", ["chatml", "gemma", "qwen3"])
@given(
    texts=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6),
    limit=st.integers(10, 300),
    too_long=st.sampled_from(["drop", "truncate_prompt", "split_turns"]),
)
def test_nothing_is_lost_without_a_count(shape: str, texts: Any, limit: int, too_long: Any):
    renderer, tokenizer = renderer_for(shape)
    texts = [(question + " q", answer + " a") for question, answer in texts]
    conversation = talk(*(text for pair in texts for text in pair))
    try:
        fit = renderer.fit(conversation, limit, too_long)
    except BrokenRecord as error:
        assert error.bucket == "too_long"
        return
    wanted = [answer.strip() for _, answer in texts]
    for example in fit.examples:
        assert len(example.ids) <= limit and any(example.mask)
        assert len(starts(example.mask)) == example.answers
    counted = sum(example.answers + example.untrained_answers for example in fit.examples)
    assert counted == len(texts), "every answer is trained or counted"
    found = [text.split("</think>")[-1].split("<")[0].strip() for e in fit.examples for text in trained(tokenizer, e)]
    assert [text for text in wanted if text in found][-1] == wanted[-1]
    assert all(text in wanted for text in found), "whole answers only"
