"""From tokens to answers: the supervised tokens are decoded and compared with the conversation they are of.

The renderer finds answers by rendering a conversation up to each of them. Here nothing is searched for: what stands
under the mask is turned into text, and has to be answers that the data holds, in their order, each with its end token.
White space is not told from the template's own that way, so of the first answers the tokens in front are compared too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.rendering.rendered import decode

if TYPE_CHECKING:
    from reglaj.data.rendering import Renderer

PROMPTS = 256
"""Answers whose prompt is rendered again: each costs about as much as the encoding of its example."""
_SHOWN = 40
_HELLO = {"role": "user", "content": "Hello"}


@dataclass(frozen=True)
class Row:
    """A training example. place: for messages. owner: number of its conversation. mask: whether each id is learnt."""

    place: str
    owner: int
    ids: list[int]
    mask: list[bool]

    def with_kept(self, example: Mapping[str, Any]) -> Row:
        """The same example as it was written down when it was learnt."""
        return replace(self, ids=list(example["ids"]), mask=[bool(flag) for flag in example["mask"]])

    def runs(self) -> Iterator[tuple[int, int]]:
        """Start and end of every run of supervised tokens."""
        start = 0
        for is_learnt, run in groupby(self.mask):
            end = start + sum(1 for _ in run)
            if is_learnt:
                yield start, end
            start = end


class Reader:
    """Reads supervised tokens, and counts for the evidence how they compare.

    may_be_cut: examples may be parts of their conversations, so that their prompts cannot be made again from it.
    """

    def __init__(self, tokenizer: Any, renderer: Renderer, *, may_be_cut: bool = False) -> None:
        self._tokenizer = tokenizer
        self._renderer = renderer
        self._may_be_cut = may_be_cut
        self._ends = [decode(tokenizer, [number]) for number in renderer.facts.end_ids] + list(renderer.facts.ends)
        self._front = _front(tokenizer, renderer)
        self.answers = self.prompts = self.spaced = self.shortened = self.calls = self.untrained = self.fronted = 0

    @property
    def keeps_prefix(self) -> bool:
        """Whether the template leaves every answer as it was when it was given, so that each can be learnt."""
        return self._renderer.facts.keeps_prefix

    def problems(
        self, conversation: Conversation, rows: Sequence[Row], *, every: bool, is_whole: bool = True
    ) -> Iterator[str]:
        """What is wrong with the examples of a conversation. every: each answer has to be among them.

        is_whole: these are all of its examples, so that the last answer has to be among them.
        """
        left = [place for place, message in enumerate(conversation.messages) if message["role"] == "assistant"]
        missing = list(left)
        for row in rows:
            for start, end in row.runs():
                body, problem = self._body(row, start, end)
                found = next((turn for turn in left if not problem and self._is_said(conversation, turn, body)), None)
                if found is None:
                    yield f"{row.place}: {problem or f'{_excerpt(body)} is learnt, and is no answer in the data'}"
                    continue
                left = left[left.index(found) + 1 :]
                missing.remove(found)
                self.answers += 1
                if self.prompts < PROMPTS and not self._has_prompt(conversation, found, row.ids[:start]):
                    yield f"{row.place}: the tokens before {_excerpt(body)} are not those of its prompt"
        if is_whole and rows:
            yield from self._missing(conversation, rows[0].place, missing, every=every)

    def remarks(self) -> str:
        """What a reader should know of the comparison."""
        told = {
            "stand behind the very tokens of their prompt": self.prompts,
            "are equal but for white space": self.spaced,
            "are shortened by the template itself": self.shortened,
            f"have {self._front!r} in front, which the template writes": self.fronted,
            "hold calls, which are compared by the names of their functions": self.calls,
            "are not learnt, for the recipe or the template leaves them out": self.untrained,
        }
        return "; ".join(f"{count:,} {words}" for words, count in told.items() if count)

    def _body(self, row: Row, start: int, end: int) -> tuple[str, str]:
        """The text of a run without its end token, or what is wrong with it."""
        last = row.ids[end - 1]
        if last not in self._renderer.facts.end_ids:
            text = decode(self._tokenizer, row.ids[start:end])
            return "", f"{_excerpt(text)} is learnt, and does not end with an end-of-turn token"
        return decode(self._tokenizer, row.ids[start : end - 1]), ""

    def _is_said(self, conversation: Conversation, turn: int, body: str) -> bool:
        """Whether the text is that of the assistant's turn; counts how it compares where it is."""
        message = conversation.messages[turn]
        content = self._without_end(str(message["content"]))
        learnt, wanted = _squeezed(body), _squeezed(content)
        if calls := message.get("tool_calls"):
            names = [str(call["function"]["name"]) for call in calls]
            is_said = wanted in learnt and all(name in body for name in names)
            self.calls += is_said
            return is_said
        if body.strip() == content:
            return True
        if learnt == wanted:
            self.spaced += 1
            return True
        if learnt == self._front + wanted:
            self.fronted += 1
            return True
        is_shortened = bool(learnt) and wanted.endswith(learnt) and not self._writes(content, wanted)
        self.shortened += is_shortened
        return is_shortened

    def _writes(self, content: str, wanted: str) -> bool:
        """Whether the template writes the whole of an answer, and not its end alone (as where it drops reasoning)."""
        turns = [_HELLO, {"role": "assistant", "content": content}]
        return wanted in _squeezed(str(self._tokenizer.apply_chat_template(turns, tokenize=False)))

    def _has_prompt(self, conversation: Conversation, turn: int, before: list[int]) -> bool:
        """Whether these tokens are what the model is given for this answer when it serves."""
        try:
            prompt = self._renderer.prompt(Conversation(conversation.messages[:turn], conversation.tools))
        except BrokenRecord:
            return False
        self.prompts += prompt == before
        return prompt == before or self._may_be_cut

    def _without_end(self, text: str) -> str:
        """An answer's own end token was taken off by the renderer."""
        text = text.strip()
        while found := next((end for end in self._ends if end and text.endswith(end)), ""):
            text = text.removesuffix(found).strip()
        return text

    def _missing(self, conversation: Conversation, place: str, left: list[int], *, every: bool) -> Iterator[str]:
        """Answers that should have been learnt."""
        last = len(conversation.messages) - 1
        if last in left or (every and left):
            turn = left[0] if every else last
            answer = str(conversation.messages[turn]["content"])
            yield f"{place}: the answer {_excerpt(answer)} (turn {turn + 1}) is not learnt"
        else:
            self.untrained += len(left)


def _front(tokenizer: Any, renderer: Renderer) -> str:
    """What the template writes between the generation prompt and an answer, without white space; mostly nothing."""
    prompt = str(tokenizer.apply_chat_template([_HELLO], tokenize=False, add_generation_prompt=True))
    prompt = prompt.removesuffix(renderer.facts.cut_back) + renderer.facts.header
    told = [_HELLO, {"role": "assistant", "content": "answer"}]
    text = str(tokenizer.apply_chat_template(told, tokenize=False))
    return _squeezed(text[len(prompt) :].partition("answer")[0]) if text.startswith(prompt) else ""


def _squeezed(text: str) -> str:
    """The text without white space, which templates add and take away."""
    return "".join(text.split())


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
