"""Prompts that are answered in several ways: the same conversation up to its last answer, with different answers.

A model learns the average of them, so either they are variants on purpose, or some are wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from reglaj.data.conversation import Conversation, Message
from reglaj.data.folding import digest, fold


@dataclass(frozen=True)
class ManyAnswers:
    """prompt: the last question. rows: the records that ask it, in order; answers: those that differ, in order."""

    prompt: str
    rows: list[int]
    answers: list[str]


def find_many_answers(conversations: Iterable[Conversation]) -> list[ManyAnswers]:
    """Prompts with several answers after folding, most answers first."""
    asked: dict[bytes, list[int]] = {}
    answers: list[bytes] = []
    kept: dict[int, Conversation] = {}
    for row, conversation in enumerate(conversations):
        before = conversation.before_last_answer()
        tools = [json.dumps(tool, sort_keys=True) for tool in before.tools]
        rows = asked.setdefault(digest([*map(_folded, before.messages), *tools, ""]), [])
        rows.append(row)
        answers.append(digest([fold(conversation.last_answer)]))
        kept[row] = conversation
    found = []
    for rows in asked.values():
        different = {answers[row]: row for row in reversed(rows)}
        if len(different) > 1:
            questions = kept[rows[0]].questions
            spoken = [kept[row].last_answer for row in sorted(different.values())]
            found.append(ManyAnswers(questions[-1] if questions else "", rows, spoken))
    return sorted(found, key=lambda one: (-len(one.answers), one.rows[0]))


def _folded(message: Message) -> str:
    """A turn, so that turns which differ by case and white space only are equal."""
    beside = {key: value for key, value in message.items() if key != "content"}
    return json.dumps([beside, fold(str(message.get("content", "")))], sort_keys=True)
