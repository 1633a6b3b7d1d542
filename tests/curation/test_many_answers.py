"""Prompts with several answers."""

from __future__ import annotations

from reglaj.curation.many_answers import find_many_answers
from reglaj.data.conversation import Conversation


def _chat(question: str, answer: str, system: str = "") -> Conversation:
    first = [{"role": "system", "content": system}] if system else []
    return Conversation.of([*first, {"role": "user", "content": question}, {"role": "assistant", "content": answer}])


def test_the_same_prompt_with_other_answers_is_found_whatever_its_case():
    found = find_many_answers(
        [_chat("Who?", "Me"), _chat("Why?", "So"), _chat("who? ", "You"), _chat("WHY?", "so"), _chat("Who?", "She")]
    )
    assert [(one.prompt, one.rows, one.answers) for one in found] == [("Who?", [0, 2, 4], ["Me", "You", "She"])]


def test_what_stands_before_belongs_to_the_prompt():
    longer = Conversation.of([*_chat("Who?", "Me").messages, *_chat("And?", "You").messages])
    assert find_many_answers([_chat("Who?", "Me"), _chat("Who?", "You", system="Be brief"), longer]) == []


def test_prompts_with_most_answers_come_first():
    pairs = [("a?", "1"), ("a?", "2"), ("b?", "1"), ("b?", "2"), ("b?", "3")]
    assert [one.prompt for one in find_many_answers([_chat(*pair) for pair in pairs])] == ["b?", "a?"]
