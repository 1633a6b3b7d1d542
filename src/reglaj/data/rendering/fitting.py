"""Conversations that are longer than the context: what goes, and what is never cut.

Legend: an exchange is a question with all that follows up to the next question. Lengths hardly ever shrink when an
exchange is added, so the number of exchanges that fit is found by halving; what is returned was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.rendering.rendered import Fit, Rendered

Exchange = list[Mapping[str, Any]]


class Fitting:
    """Makes conversations fit into `max_tokens` tokens."""

    def __init__(
        self,
        render: Callable[[Conversation], Rendered],
        prompt: Callable[[Conversation], list[int]],
        max_tokens: int,
    ) -> None:
        self._render = render
        self._prompt = prompt
        self._max = max_tokens

    def fit(
        self,
        conversation: Conversation,
        too_long: Literal["drop", "truncate_prompt", "split_turns"],
        *,
        last_answer_only: bool,
    ) -> Fit:
        """See `Renderer.fit`."""
        rendered = self._render(conversation)
        if len(rendered.ids) <= self._max:
            return Fit([rendered])
        if too_long == "drop":
            raise self._too_long(len(rendered.ids), "the conversation")
        # Only the last answer is trained: the exchanges before it are its prompt, and windows of them teach nothing.
        if too_long == "truncate_prompt" or last_answer_only:
            return self._truncate(conversation, rendered, cut_question=too_long == "truncate_prompt")
        return self._split(conversation)

    def fit_prompt(self, conversation: Conversation) -> tuple[list[int], bool]:
        """See `Renderer.fit_prompt`."""
        ids = self._prompt(conversation)
        if len(ids) <= self._max:
            return ids, False
        head, exchanges = _exchanges(conversation)
        kept = _most(
            len(exchanges) - 1,
            lambda count: len(self._prompt(_join(conversation, head, exchanges[-count:]))) <= self._max,
        )
        ids = self._prompt(_join(conversation, head, exchanges[-max(kept, 1) :]))
        if len(ids) > self._max:
            raise self._too_long(len(ids), "the last question with the system prompt")
        return ids, True

    def _truncate(self, conversation: Conversation, rendered: Rendered, *, cut_question: bool) -> Fit:
        head, exchanges = _exchanges(conversation)
        every = rendered.answers + rendered.untrained_answers
        kept = _most(len(exchanges) - 1, lambda count: self._fits(_join(conversation, head, exchanges[-count:])))
        if kept:
            short = self._render(_join(conversation, head, exchanges[-kept:]))
        elif cut_question:
            short = self._cut_question(conversation, head, exchanges[-1])
        else:
            alone = self._render(_join(conversation, head, exchanges[-1:]))
            raise self._too_long(len(alone.ids), "the last exchange by itself")
        short.untrained_answers = every - short.answers
        short.stripped_end_tokens = rendered.stripped_end_tokens
        return Fit([short], prompt_was_cut=True)

    def _cut_question(self, conversation: Conversation, head: Exchange, exchange: Exchange) -> Rendered:
        """The exchange with the end of its question: the start goes, as what is asked stands mostly at the end."""
        text = str(exchange[0]["content"])

        def with_last(characters: int) -> Conversation:
            turn = {**exchange[0], "content": text[len(text) - characters :].lstrip()}
            return _join(conversation, head, [[turn, *exchange[1:]]])

        has_question = exchange[0]["role"] == "user"
        kept = _most(len(text) - 1, lambda count: self._fits(with_last(count))) if has_question else 0
        kept = _to_word(text, kept)
        if not text[len(text) - kept :].strip():
            least = self._render(with_last(1) if has_question else _join(conversation, head, [exchange]))
            raise self._too_long(len(least.ids), "the answer with the system prompt")
        short = self._render(with_last(kept))
        assert len(short.ids) <= self._max, "what was measured is what is returned"
        return short

    def _split(self, conversation: Conversation) -> Fit:
        head, exchanges = _exchanges(conversation)
        examples: list[Rendered] = []
        start = 0
        while start < len(exchanges):
            rest = exchanges[start:]
            count = _most(len(rest), lambda count, rest=rest: self._fits(_join(conversation, head, rest[:count])))  # type: ignore[misc]
            window = self._render(_join(conversation, head, rest[: max(count, 1)]))
            if not count:
                raise self._too_long(len(window.ids), f"exchange {start + 1} by itself")
            examples.append(window)
            start += count
        return Fit(examples)

    def _fits(self, conversation: Conversation) -> bool:
        return len(self._render(conversation).ids) <= self._max

    def _too_long(self, tokens: int, what: str) -> BrokenRecord:
        return BrokenRecord("too_long", f"{what} has {tokens:,} tokens, and at most {self._max:,} fit")


def _exchanges(conversation: Conversation) -> tuple[Exchange, list[Exchange]]:
    """The system prompt, and the exchanges after it; turns before the first question belong to the first exchange."""
    messages = conversation.messages
    head = list(messages[:1]) if messages[0]["role"] == "system" else []
    exchanges: list[Exchange] = []
    has_question = False
    for message in messages[len(head) :]:
        is_question = message["role"] == "user"
        if not exchanges or (is_question and has_question):
            exchanges.append([])
        has_question |= is_question
        exchanges[-1].append(message)
    return head, exchanges


def _join(conversation: Conversation, head: Exchange, exchanges: Sequence[Exchange]) -> Conversation:
    return Conversation((*head, *(message for exchange in exchanges for message in exchange)), conversation.tools)


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest count up to `limit` that fits, 0 if none does."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _to_word(text: str, kept: int) -> int:
    """Fewer characters, so that the text starts with a whole word where one is near."""
    start = len(text) - kept
    if not kept or text[start].isspace() or text[start - 1].isspace():
        return kept
    for place in range(start, min(start + 24, len(text))):
        if text[place].isspace() and text[place:].strip():
            return len(text) - place
    return kept
