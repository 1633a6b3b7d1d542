"""Where the answers lie in the text of a conversation, found by rendering it up to each of them.

Legend: text is what the template wrote for all turns; P_i what it writes up to answer i with the generation prompt;
E_i what it writes up to and including answer i.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reglaj.data.rendering.facts import TemplateFacts
from reglaj.data.rendering.template import TemplateText


@dataclass(frozen=True, slots=True)
class Answer:
    """text[start:end] is the answer, text[end:after] its end token. end is None where the text has it otherwise than
    it was when it was given (then it cannot be trained), start too where even the turns before it differ."""

    start: int | None
    end: int | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """A text with its answers, one for each assistant turn, in order."""

    text: str
    answers: tuple[Answer, ...]


class AnswerFinder:
    """Finds the answers of adapted turns."""

    def __init__(self, template: TemplateText, facts: TemplateFacts) -> None:
        self._template = template
        self._facts = facts

    def whole(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Located:
        """The finished conversation. Raises `TemplateRaised`."""
        return self._locate(self._template.render(turns, tools), turns, tools)

    def prompt(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Located:
        """The conversation before an answer, generation prompt included. Raises `TemplateRaised`."""
        return self._locate(self._before(turns, tools), turns, tools)

    def _before(self, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> str:
        text = self._template.render(turns, tools, prompt=True)
        return text.removesuffix(self._facts.cut_back) + self._facts.header

    def _locate(self, text: str, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Located:
        places = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
        answers = [self._answer(text, turns, tools, place) for place in places]
        return Located(text, tuple(answers)) if self._facts.writes_end else _with_ends(text, answers, self._facts)

    def _answer(
        self, text: str, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], place: int
    ) -> Answer:
        if not place:
            return Answer(None)  # an answer to nothing: templates cannot write the prompt before it
        before = self._before(turns[:place], tools)
        if not text.startswith(before):
            return Answer(None)
        start = len(before)
        is_last = place + 1 == len(turns)
        until = text if is_last else self._template.render(turns[: place + 1], tools)
        found = self._end(until, start)
        if found is None or not until[start : found[0]].strip() or not text.startswith(until[: found[1]]):
            return Answer(start)
        return Answer(start, *found)

    def _end(self, until: str, start: int) -> tuple[int, int] | None:
        """Where the answer ends and where its end token does; the contents hold no such token, so the first one is
        the template's own."""
        if not self._facts.writes_end:
            end = len(until) - len(self._facts.tail) if until.endswith(self._facts.tail) else len(until)
            return (end, end) if end >= start else None
        ends = [(until.find(text, start), len(text)) for text in self._facts.ends]
        found = min((end for end in ends if end[0] >= 0), default=None)
        return None if found is None else (found[0], found[0] + found[1])


def _with_ends(text: str, answers: Sequence[Answer], facts: TemplateFacts) -> Located:
    """Puts an end token after every answer: the template writes none, and a model that never saw one never stops."""
    token = facts.ends[0]
    parts: list[str] = []
    moved: list[Answer] = []
    done = added = 0
    for answer in answers:
        if answer.start is None or answer.end is None:
            moved.append(Answer(None if answer.start is None else answer.start + added))
            continue
        parts += [text[done : answer.end], token]
        start, end = answer.start + added, answer.end + added
        moved.append(Answer(start, end, end + len(token)))
        done, added = answer.end, added + len(token)
    return Located("".join([*parts, text[done:]]), tuple(moved))
