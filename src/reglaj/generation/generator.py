"""The one generator: any number of prompts in batches, or one prompt as a stream.

Legend: B rows (answers in the making), V vocabulary.

Prompts are taken in by length, the longest first, as many as the token budget allows; where an answer ends, its place
goes to the next prompt. What all prompts begin with (a system prompt, examples) is read once. None of that shows in an
answer: rows see only themselves and draw with their own numbers.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from reglaj.core.console import SILENT, Advance, Console
from reglaj.core.errors import Problem, ReglajError, user_error
from reglaj.generation.config import GenerationConfig
from reglaj.generation.decoders import CachedDecoder, Decoder, PlainDecoder, why_not_cached
from reglaj.generation.sampling import NOT_A_NUMBER, choose, draws
from reglaj.generation.text import TextStream, decode
from reglaj.models.virtual import VirtualTokens

Ending = Literal["end", "stop", "length"]
Virtual = Callable[[], "VirtualTokens | None"]
"""What stands before every prompt, asked for whenever an answering begins, for weights move; always as many tokens."""
BATCH_TOKENS = 16_384
"""Rows times the tokens of the longest: 46 KB each on SmolLM2-135M in float32, so 0.75 GB at most."""
_PREFIX_TOKENS = 16
"""A common beginning that is shorter is not worth a pass of its own."""
_REFILL_SHARE = 8
"""New rows wait until there is room for an eighth of those that run: a pass costs time, however small."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """An answer. ids: its tokens without the end token; where a stop string cut the text, the last reach into it.

    ended: `end` by an end token, `stop` by a stop string, `length` by `max_new_tokens` or the end of the context.
    """

    ids: list[int]
    text: str
    ended: Ending
    prompt_tokens: int


class Generator:
    """Answers of one model. The model's mode, its attention and its weights are afterwards what they were.

    end_ids: tokens that end an answer. context: tokens that prompt and answer may have together, with the virtual ones
    before them. autocast: the context of a forward pass. batch_tokens: the bound on memory, rows times the tokens of
    the longest; a single row may exceed it. `is_cached` says whether rows run together; where not, `reason` says why.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        end_ids: Collection[int],
        context: int,
        autocast: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
        batch_tokens: int = BATCH_TOKENS,
        virtual: Virtual = lambda: None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._end_ids = frozenset(end_ids)
        self._context = context
        self._autocast = autocast
        self._batch_tokens = batch_tokens
        self._virtual = virtual
        with self._session():
            first = virtual()
            self.reason = why_not_cached(model, context, first)
        self._taken = first.count if first else 0
        self.is_cached = self.reason is None

    def generate(
        self, prompts: Sequence[Sequence[int]], config: GenerationConfig, console: Console = SILENT
    ) -> list[Generated]:
        """An answer to every prompt (token ids), in order. Raises `UserError` for one that does not fit the context."""
        rows = [self._row(prompt, config, place) for place, prompt in enumerate(prompts)]
        if self.reason is not None:
            console.warn(f"answers are generated one by one, which is slow: {self.reason}")
        waiting = deque(sorted((row for row in rows if row.limit), key=lambda row: -row.most))
        with console.progress("generating", len(rows), "answers") as advance:
            advance(len(rows) - len(waiting))
            if waiting:
                with self._session():
                    self._run(waiting, config, advance)
        return [row.generated(self._tokenizer) for row in rows]

    def stream(self, prompt: Sequence[int], config: GenerationConfig, after: Stream | None = None) -> Stream:
        """The answer in pieces of text: the same answer that `generate` gives. `.close()` stops it.

        after: an earlier stream, which ends now. What this prompt has in common with what that one has read is not
        read again. Only where the weights have not changed since.
        """
        row = self._row(prompt, config, 0)
        row.stream = row.stream or TextStream(self._tokenizer)
        decoder = self._continued(after, row.prompt)
        return Stream(row, decoder, self._pieces(row, decoder, config), self._tokenizer)

    def _continued(self, after: Stream | None, prompt: Sequence[int]) -> Decoder:
        if after is not None and isinstance(after.decoder, CachedDecoder):
            after.close()
            known = common_prefix([after.read, prompt[:-1]])
            if known >= _PREFIX_TOKENS:
                after.decoder.restart(known)
                return after.decoder
        return self._decoder([prompt])

    def _pieces(self, row: _Row, decoder: Decoder, config: GenerationConfig) -> Iterator[str]:
        """Between two pieces the model is as it was: the one who listens may use it."""
        while row.ended is None:
            with self._session():
                logits = decoder.step([row.ids[-1]]) if row.ids else decoder.admit([row.prompt], row.most)
                piece = self._take([row], logits, config)
            if piece:
                yield piece

    def _run(self, waiting: deque[_Row], config: GenerationConfig, advance: Advance) -> None:
        """Answer every waiting row."""
        decoder = self._decoder([row.prompt for row in waiting])
        rows: list[_Row] = []
        while waiting or rows:
            fresh = self._admissible(waiting, rows)
            if fresh:
                rows += fresh
                most = max(row.most for row in rows)
                self._take(fresh, decoder.admit([row.prompt for row in fresh], most), config)
            else:
                self._take(rows, decoder.step([row.ids[-1] for row in rows]), config)
            ended = [place for place, row in enumerate(rows) if row.ended is not None]
            if ended:
                rows = [rows[place] for place in decoder.retire(ended)]
                advance(len(ended))

    def _decoder(self, prompts: Sequence[Sequence[int]]) -> Decoder:
        with self._session():
            virtual = self._virtual()
        if not self.is_cached:
            return PlainDecoder(self._model, virtual)
        known = common_prefix([prompt[:-1] for prompt in prompts]) if len(prompts) > 1 else 0
        return CachedDecoder(self._model, prompts[0][:known] if known >= _PREFIX_TOKENS else (), virtual)

    def _admissible(self, waiting: deque[_Row], rows: list[_Row]) -> list[_Row]:
        """Take from `waiting` what the budget has room for. Longest first, so the first one sets the width."""
        if not waiting:
            return []
        longest = max(row.most for row in [*rows, waiting[0]])
        room = self._batch_tokens // (self._taken + longest) - len(rows)
        if rows and room < min(len(waiting), len(rows) // _REFILL_SHARE + 1):
            return []
        return [waiting.popleft() for _ in range(min(len(waiting), max(room, 1)))]

    def _take(self, rows: Sequence[_Row], logits: Tensor, config: GenerationConfig) -> str:
        """Choose a token for each row; some end by it. Returns the last row's new text, where that is followed."""
        needs_tokens = config.repetition_penalty != 1
        tokens = choose(
            config,
            logits,
            [[*row.said, *row.ids] for row in rows] if needs_tokens else [],
            [row.draws[len(row.ids)] for row in rows] if config.temperature else [],
        ).tolist()
        if NOT_A_NUMBER in tokens:
            raise _not_finite()
        return [row.take(token, self._end_ids) for row, token in zip(rows, tokens, strict=True)][-1]

    def _row(self, prompt: Sequence[int], config: GenerationConfig, place: int) -> _Row:
        ids = [int(token) for token in prompt]
        room = self._context - self._taken
        if not 0 < len(ids) <= room:
            beside = f" beside {self._taken:,} virtual tokens" if self._taken else ""
            raise user_error(
                f"prompt {place + 1} has {len(ids):,} tokens",
                allowed=f"1 to {room:,} tokens{beside}",
                why="a prompt must fit the model's context, and an answer begins after some token",
                remedy="shorten it, or raise train.max_tokens where the model allows it" if ids else "give it a text",
            )
        limit = min(config.max_new_tokens, room - len(ids))
        stream = TextStream(self._tokenizer, config.stop) if config.stop else None
        # Every turn of a prompt ends with an end token. Penalised with the rest, as transformers does, it would keep
        # an answer from ending at all.
        said = [token for token in ids if token not in self._end_ids] or ids
        return _Row(ids, said, limit, draws(config, ids, limit), stream)

    @contextlib.contextmanager
    def _session(self) -> Iterator[None]:
        """No dropout, no gradients, the precision that was handed in; every module's mode comes back afterwards."""
        training = [module for module in self._model.modules() if module.training]
        try:
            for module in training:
                module.training = False
            with torch.inference_mode(), self._autocast():
                yield
        finally:
            for module in training:
                module.training = True


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens all rows share."""
    first, *others = sorted(map(list, rows))  # whatever lies between the first and the last begins as they do
    last = others[-1] if others else first
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(last)))


class Stream(Iterator[str]):
    """Pieces of an answer as they come."""

    def __init__(self, row: _Row, decoder: Decoder, pieces: Iterator[str], tokenizer: Any) -> None:
        self._row = row
        self._pieces: Any = pieces
        self._tokenizer = tokenizer
        self.decoder = decoder

    def __next__(self) -> str:
        piece: str = next(self._pieces)
        return piece

    def close(self) -> None:
        """Stop generating."""
        self._pieces.close()

    @property
    def generated(self) -> Generated:
        """The answer as far as it has come; one that was closed early has ended by `length`."""
        return self._row.generated(self._tokenizer)

    @property
    def read(self) -> list[int]:
        """Tokens that have gone through the model. Before the last one that was drawn, all have, interrupted or not."""
        return [*self._row.prompt, *self._row.ids][:-1] if self._row.ids else []


class _Row:
    """An answer in the making.

    said: the prompt's tokens as far as they count as repeated. limit: tokens that the answer may have. draws: a number
    in [0, 1) for each, when sampled.
    """

    def __init__(self, prompt: list[int], said: list[int], limit: int, draws: Any, stream: TextStream | None) -> None:
        self.prompt = prompt
        self.said = said
        self.limit = limit
        self.draws = draws
        self.stream = stream
        self.ids: list[int] = []
        self.ended: Ending | None = None if limit else "length"

    @property
    def most(self) -> int:
        """Tokens that the row can come to."""
        return len(self.prompt) + self.limit

    def take(self, token: int, end_ids: Collection[int]) -> str:
        """Append a token, or end. Returns the text that it made certain, where that is followed."""
        if token in end_ids:
            self.ended = "end"
        else:
            self.ids.append(token)
            self.ended = "length" if len(self.ids) == self.limit else None
        if self.stream is None:
            return ""
        piece = self.stream.push(token) if self.ended != "end" else ""
        if self.ended is not None:
            piece += self.stream.finish()
        if self.stream.is_stopped:
            self.ended = "stop"
        return piece

    def generated(self, tokenizer: Any) -> Generated:
        text = decode(tokenizer, self.ids) if self.stream is None else self.stream.text
        return Generated(ids=list(self.ids), text=text, ended=self.ended or "length", prompt_tokens=len(self.prompt))


def _not_finite() -> ReglajError:
    return ReglajError(
        Problem(
            given="the model's scores are not finite",
            allowed="numbers",
            why="a token drawn from them would mean nothing; the weights are broken, or the precision is too low",
            remedy="train again with a lower learning rate, or generate in float32",
        )
    )
