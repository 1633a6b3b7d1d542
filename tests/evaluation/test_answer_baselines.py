"""The conformance suite of baselines that answer: a new file in the room is found and held to it."""

import pytest
from tests.cache_model import conversation, conversations

from reglaj.data.conversation import Conversation
from reglaj.evaluation.baselines import BASELINES
from reglaj.evaluation.baselines.answering import AnswerBaseline, AnswerBaselineData, in_front

NAMES = [name for name in BASELINES.names() if issubclass(BASELINES.get(name), AnswerBaseline)]
CALL = {"type": "function", "function": {"name": "look", "arguments": {}}}


def data(train, examples=3, seed=0):
    return AnswerBaselineData(train=train, examples=examples, seed=seed)


def test_the_suite_finds_baselines():
    assert {"untuned", "few_shot"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_exchanges_are_plain_turns_of_training_conversations_and_the_same_again(name):
    train = conversations(30)
    kind = BASELINES.get(name)
    assert kind.title and kind.summary
    found = kind().exchanges(data(train))
    assert found == kind().exchanges(data(train)) and len(found) <= 3
    pairs = {(row.questions[-1], row.last_answer) for row in train}
    for question, answer in found:
        assert (question["role"], answer["role"]) == ("user", "assistant")
        assert (question["content"], answer["content"]) in pairs
    assert kind.needs_training_rows or kind().exchanges(data(None)) == []


def few_shot(train, **settings):
    return BASELINES.get("few_shot")().exchanges(data(train, **settings))


def test_examples_are_short_ones_drawn_by_the_seed():
    train = [conversation(f"question {i:03}", "word " * (1 + i % 50)) for i in range(400)]
    lengths = [len(answer["content"]) for _, answer in few_shot(train)]
    assert lengths == sorted(lengths) and max(lengths) < 5 * 12
    assert few_shot(train, seed=1) != few_shot(train)
    assert len(few_shot(train, examples=5)) == 5 and len(few_shot(train[:2])) == 2


def test_no_example_is_shown_twice_and_none_calls_a_tool():
    calls = Conversation.of(
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x", "tool_calls": [CALL]}]
    )
    after_tool = Conversation.of(
        [*calls.messages, {"role": "tool", "content": "7"}, {"role": "assistant", "content": "seven"}]
    )
    plain = conversation("a", "b")
    assert few_shot([calls, after_tool, plain, plain]) == [tuple(plain.messages)]
    assert few_shot([calls]) == []


def test_examples_stand_after_the_system_prompt_and_before_the_rest():
    row = conversation("q", "a", system="be kind")
    longer = in_front(few_shot([conversation("x", "y")]), row)
    assert [m["content"] for m in longer.messages] == ["be kind", "x", "y", "q", "a"]
    assert in_front([], row) == row
