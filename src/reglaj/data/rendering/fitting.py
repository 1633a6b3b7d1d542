"""Conversations that are longer than the context: what goes, and what is never cut.

Legend: an exchange is a question with all that follows up to the next question. How much fits is guessed from the
characters, then found by rendering: a handful of renderings for each example. Lengths hardly ever shrink when
something is added; what is returned was measured in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate
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
        return self._split(conversation, rendered)

    def fit_prompt(self, conversation: Conversation) -> tuple[list[int], bool]:
        """See `Renderer.fit_prompt`."""
        ids = self._prompt(conversation)
        if len(ids) <= self._max:
            return ids, False
        head, exchanges = _exchanges(conversation)

        @cache
        def with_last(count: int) -> list[int]:
            return self._prompt(_join(conversation, head, exchanges[-count:]))

        sizes = [_characters(exchange) for exchange in reversed(exchanges)]
        guess = _count(sizes, self._max * _characters(conversation.messages) / len(ids))
        kept = _most(len(exchanges) - 1, lambda count: len(with_last(count)) <= self._max, guess)
        if not kept:
            alone = len(with_last(1)) if len(exchanges) > 1 else len(ids)
            raise self._too_long(alone, "the last question with the system prompt")
        return with_last(kept), True

    def _truncate(self, conversation: Conversation, rendered: Rendered, *, cut_question: bool) -> Fit:
        head, exchanges = _exchanges(conversation)
        characters = _characters(conversation.messages) / len(rendered.ids)

        @cache
        def with_last(count: int) -> Rendered:
            return self._render(_join(conversation, head, exchanges[-count:])) if count < len(exchanges) else rendered

        sizes = [_characters(exchange) for exchange in reversed(exchanges)]
        guess = _count(sizes, self._max * characters)
        kept = _most(len(exchanges) - 1, lambda count: len(with_last(count).ids) <= self._max, guess)
        if kept:
            short = with_last(kept)
        elif cut_question:
            short = self._cut_question(_join(conversation, head, exchanges[-1:]), len(head), characters)
        else:
            raise self._too_long(len(with_last(1).ids), "the last exchange by itself")
        short.untrained_answers = rendered.answers + rendered.untrained_answers - short.answers
        short.stripped_end_tokens = rendered.stripped_end_tokens
        return Fit([short], prompt_was_cut=True)

    def _cut_question(self, exchange: Conversation, place: int, characters: float) -> Rendered:
        """The exchange with the end of its question: the start goes, as what is asked stands mostly at the end.

        place: of the question. characters: how many make a token, about.
        """
        question = exchange.messages[place]
        text = str(question["content"]).rstrip()
        if question["role"] != "user":
            raise self._too_long(len(self._render(exchange).ids), "the last exchange by itself")

        @cache
        def with_last(count: int) -> Rendered:
            turn = {**question, "content": text[len(text) - count :].lstrip()}
            messages = (*exchange.messages[:place], turn, *exchange.messages[place + 1 :])
            return self._render(Conversation(messages, exchange.tools))

        least = len(with_last(1).ids)
        if least > self._max:
            raise self._too_long(least, "the answer with the system prompt")
        guess = int((self._max - least) * characters)
        kept = _most(len(text) - 1, lambda count: len(with_last(count).ids) <= self._max, guess)
        short = with_last(_to_word(text, max(kept, 1)))
        assert len(short.ids) <= self._max, "what was measured is what is returned"
        return short

    def _split(self, conversation: Conversation, rendered: Rendered) -> Fit:
        head, exchanges = _exchanges(conversation)
        sizes = [_characters(exchange) for exchange in exchanges]
        characters = _characters(conversation.messages) / len(rendered.ids)
        examples: list[Rendered] = []
        start = 0
        while start < len(exchanges):
            guess = _count(sizes[start:], self._max * characters)
            count, window = self._longest(conversation, head, exchanges[start:], guess)
            if not count:
                raise self._too_long(len(window.ids), f"exchange {start + 1} by itself")
            window.stripped_end_tokens = rendered.stripped_end_tokens
            examples.append(window)
            start += count
        return Fit(examples)

    def _longest(
        self, conversation: Conversation, head: Exchange, exchanges: Sequence[Exchange], guess: int
    ) -> tuple[int, Rendered]:
        """How many of the first exchanges fit, and they rendered; if none does, 0 and the first one."""

        @cache
        def first(count: int) -> Rendered:
            return self._render(_join(conversation, head, exchanges[:count]))

        count = _most(len(exchanges), lambda count: len(first(count).ids) <= self._max, guess)
        return count, first(max(count, 1))

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


def _characters(messages: Iterable[Mapping[str, Any]]) -> int:
    """About how much a model has to read: a few more for what the template writes around each turn."""
    return sum(len(str(message["content"])) + 20 + len(str(message.get("tool_calls", ""))) for message in messages)


def _count(sizes: Sequence[int], characters: float) -> int:
    """How many of the first sizes stay below so many characters."""
    for count, total in enumerate(accumulate(sizes)):
        if total > characters:
            return count
    return len(sizes)


def _most(limit: int, fits: Callable[[int], bool], guess: int) -> int:
    """The largest count from 1 to `limit` that fits, 0 if none does: outwards from a guess, then by halving."""
    low, high = 0, limit
    step, tried = 1, max(1, guess)
    while low < high:
        tried = min(tried, high)
        if fits(tried):
            low, tried = tried, tried + step
        else:
            high, tried = tried - 1, max(tried - step, (low + tried) // 2, 1)
        step *= 2
        if not low < tried <= high:
            tried = (low + high + 1) // 2
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
