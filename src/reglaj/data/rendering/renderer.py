"""Conversations to tokens and loss masks: the same for training, evaluation and serving."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from reglaj.core.errors import user_error
from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.rendering.answers import Answer, AnswerFinder, Located
from reglaj.data.rendering.contents import Contents
from reglaj.data.rendering.dialect import adapt
from reglaj.data.rendering.facts import TemplateFacts
from reglaj.data.rendering.fitting import Fitting
from reglaj.data.rendering.probing import added_tokens, probe, written_tokens
from reglaj.data.rendering.rendered import Fit, Rendered
from reglaj.data.rendering.template import DEFAULT_TEMPLATE, TemplateRaised, TemplateText
from reglaj.data.rendering.tokens import TokenWriter

# Goes into the identity of what was rendered: raise it with any change that gives other tokens or another mask.
RENDERER_VERSION = 1

On = Literal["answers", "last_answer", "all"]
TooLong = Literal["drop", "truncate_prompt", "split_turns"]


class Renderer:
    """Makes the tokens of conversations with a tokenizer's chat template.

    on: which tokens are supervised: those of every answer, of the last one, or all but the beginning token. An answer
    is its text as the template writes it, and the one end token behind it.
    """

    def __init__(self, tokenizer: Any, *, on: On = "answers") -> None:
        """Tries the template out. Raises `UserError` where it cannot be trained with."""
        self._tokenizer = tokenizer
        self._on: On = on
        if not tokenizer.chat_template:
            _refuse_without_end(tokenizer)
            tokenizer.chat_template = DEFAULT_TEMPLATE
        template = TemplateText(tokenizer)
        self.template = template.text
        self.is_default = template.text == DEFAULT_TEMPLATE
        facts = probe(tokenizer, template)
        added = added_tokens(tokenizer)
        written = written_tokens(template, facts, list(added))
        self._tokens = TokenWriter(tokenizer, anchors=written, ends=facts.ends)
        self.facts: TemplateFacts = replace(facts, beginning=self._tokens.beginning(template.render([_HELLO])))
        self._finder = AnswerFinder(template, self.facts)
        special = [token for token, is_special in added.items() if is_special]
        markers = _turn_markers(template, added)
        ends = [tokenizer.convert_ids_to_tokens(number) for number in facts.end_ids]
        self._contents = Contents([*special, *markers, *facts.ends], [*facts.ends, *ends])
        self._source = template.source

    @property
    def largest_id(self) -> int:
        """The largest token id that the tokenizer can produce: the model's embeddings must reach that far."""
        return max(self._tokenizer.get_vocab().values())

    def identity(self) -> str:
        """sha256 over all that decides which tokens and which mask a conversation gets."""
        parts = [RENDERER_VERSION, self._on, self._source, _contents(self._tokenizer)]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()

    def render(self, conversation: Conversation) -> Rendered:
        """Tokens and mask of a finished conversation.

        Raises `BrokenRecord`: `no_supervised_token` where nothing can be trained, `broken_turns` where the template
        refuses the turns or a message holds a special token.
        """
        messages, stripped = self._contents.clean(conversation)
        if not any(message["role"] == "assistant" for message in messages):
            raise BrokenRecord("no_supervised_token", "no turn of the assistant")
        if messages[-1]["role"] != "assistant":
            raise BrokenRecord("broken_turns", f"turn {len(messages)}: the conversation does not end with an answer")
        located = self._locate(messages, conversation.tools, finished=True)
        ids, mask, answers = self._supervise(located)
        return Rendered(
            ids=ids,
            mask=mask,
            answers=answers,
            untrained_answers=len(located.answers) - answers,
            system_was_dropped=self.facts.system == "dropped" and _has_system(messages),
            stripped_end_tokens=stripped,
        )

    def prompt(self, conversation: Conversation) -> list[int]:
        """Token ids up to and including the generation prompt: what training had before the answer that comes next.

        Raises `BrokenRecord` as `render` does.
        """
        messages, _ = self._contents.clean(conversation)
        if not messages or messages[-1]["role"] not in ("user", "tool"):
            raise BrokenRecord("broken_turns", "a prompt ends with a question or with the result of a tool")
        located = self._locate(messages, conversation.tools, finished=False)
        ids, _ = self._tokens.write(located.text, _starts(located))
        return ids

    def fit(self, conversation: Conversation, max_tokens: int, too_long: TooLong) -> Fit:
        """The conversation in at most `max_tokens` tokens an example.

        drop: raises. truncate_prompt: leaves out the oldest exchanges, then the start of the last question.
        split_turns: consecutive exchanges in several examples, every answer in one of them.
        Raises `BrokenRecord("too_long", ...)` where that does not help: an answer is never cut.
        """
        return Fitting(self.render, self.prompt, max_tokens).fit(
            conversation, too_long, last_answer_only=self._on == "last_answer"
        )

    def fit_prompt(self, conversation: Conversation, max_tokens: int) -> tuple[list[int], bool]:
        """The prompt without as many of the oldest exchanges as have to go, and whether any went.

        Raises `BrokenRecord("too_long", ...)` where the last question alone is too long.
        """
        return Fitting(self.render, self.prompt, max_tokens).fit_prompt(conversation)

    def _locate(self, messages: Sequence[Mapping[str, Any]], tools: Any, *, finished: bool) -> Located:
        turns, native_tools = adapt(messages, tools, self.facts)
        try:
            if finished:
                return self._finder.whole(turns, native_tools)
            return self._finder.prompt(turns, native_tools)
        except TemplateRaised as error:
            raise BrokenRecord("broken_turns", f"the chat template refuses the turns ({error})") from error

    def _supervise(self, located: Located) -> tuple[list[int], list[bool], int]:
        """ids, mask, and how many answers are supervised."""
        trained = self._trained(located)
        borders = sorted({*_starts(located), *(answer.end for answer in trained if answer.end is not None)})
        ids, counts = self._tokens.write(located.text, borders)
        if self._on == "all":
            return ids, [False] + [True] * (len(ids) - 1), len(located.answers)
        place = dict(zip(borders, counts, strict=True))
        mask = [False] * len(ids)
        for answer in trained:
            assert answer.start is not None and answer.end is not None
            start, end = place[answer.start], place[answer.end]
            assert ids[end] in self.facts.end_ids, "an answer's last supervised token is its end token"
            mask[start : end + 1] = [True] * (end + 1 - start)
        return ids, mask, len(trained)

    def _trained(self, located: Located) -> list[Answer]:
        if self._on == "all":
            return []
        whole = [answer for answer in located.answers if answer.end is not None]
        if not whole or whole[-1] is not located.answers[-1]:
            told = "the chat template writes the last answer, or the turns before it, otherwise than in its prompt"
            raise BrokenRecord("no_supervised_token", told)
        return whole if self._on == "answers" else whole[-1:]


_HELLO = {"role": "user", "content": "Hello"}


def _starts(located: Located) -> list[int]:
    return [answer.start for answer in located.answers if answer.start is not None]


def _has_system(messages: Sequence[Mapping[str, Any]]) -> bool:
    return messages[0]["role"] == "system" and bool(str(messages[0]["content"]).strip())


def _turn_markers(template: TemplateText, added: Mapping[str, bool]) -> list[str]:
    """Tokens that open or close a question, special or not: in a message they would forge a turn."""
    text = template.render([_HELLO])
    return [token for token in added if token.strip() and token in text]


def _refuse_without_end(tokenizer: Any) -> None:
    if tokenizer.eos_token is None:
        raise user_error(
            "the tokenizer has neither a chat template nor an end token",
            allowed="a tokenizer with a chat_template, or with an eos_token for the default one",
            why="a model that never saw the end of an answer never stops",
            remedy="set eos_token in tokenizer_config.json to a token that the model knows, or use a chat model",
        )


def _contents(tokenizer: Any) -> str:
    """The tokenizer as text: what it makes of a text depends on nothing else."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    names = {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())}
    if backend is None:
        vocabulary = sorted(tokenizer.get_vocab().items())
        return json.dumps([type(tokenizer).__name__, names, vocabulary], ensure_ascii=False)
    text = backend.to_str()
    # In front of this stand padding and truncation: what the last caller asked for, not what the tokenizer is.
    return json.dumps([names, text[text.index('"added_tokens"') :]], ensure_ascii=False)
