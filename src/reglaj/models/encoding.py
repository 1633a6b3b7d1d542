"""Texts to token ids, cut at the model's context and counted."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from reglaj.models.packing import TokenBatch
    from reglaj.models.trunk import RowStates

TokenArray = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class TokenRows:
    """Token ids of many texts, one after the other: four bytes a token however many texts there are.

    flat: (all tokens,) int32. starts: (rows + 1,) int64. states: what frozen layers make of each, where it is kept.
    """

    flat: TokenArray
    starts: np.ndarray[Any, np.dtype[np.int64]]
    states: RowStates | None = None

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> TokenRows:
        """From a list of token ids per text."""
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        starts = np.concatenate(([0], np.cumsum(lengths)))
        flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(starts[-1]))
        return cls(flat, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> TokenArray:
        return self.flat[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Tokens of each row: (rows,)."""
        return np.diff(self.starts)

    def batch(self, rows: Sequence[int], device: torch.device | str = "cpu") -> TokenBatch:
        """Some rows as the model takes them, in the order given."""
        from reglaj.models.packing import TokenBatch

        tokens = TokenBatch.of([self[row] for row in rows], device)
        return tokens if self.states is None else replace(tokens, states=self.states.of(rows, device))


_PLAIN = {"return_attention_mask": False, "return_token_type_ids": False}
CHUNK_TEXTS = 10_000
CHUNK_CHARACTERS = 2_000_000
"""Texts that are tokenised at once: enough for all processors, and the tokenizer takes some 100 bytes a token while it
is at it, where the result is four."""


def encode_texts(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> tuple[TokenRows, list[int]]:
    """Token ids of each text with the model's special tokens, and the numbers of the texts that were cut at the end.

    A text that becomes no token at all (possible without special tokens) is one end token: every row is answered.
    """
    encode = _encode_fast if _is_plain(tokenizer) else _encode_called
    fallback = [tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.unk_token_id or 0]
    flats: list[TokenArray] = [np.zeros(0, dtype=np.int32)]
    lengths: list[int] = []
    cut: list[int] = []
    for start, end in _chunks(texts):
        rows, too_long = encode(tokenizer, list(texts[start:end]), max_tokens)
        rows = [row or fallback for row in rows]
        cut += [start + place for place in too_long]
        sizes = [len(row) for row in rows]
        flats.append(np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32, count=sum(sizes)))
        lengths += sizes
    starts = np.concatenate(([0], np.cumsum(np.array(lengths, dtype=np.int64))))
    return TokenRows(np.concatenate(flats), starts), cut


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where texts that are tokenised at once begin and end."""
    start, characters = 0, 0
    for end, text in enumerate(texts, 1):
        characters += len(text)
        if characters >= CHUNK_CHARACTERS or end - start == CHUNK_TEXTS or end == len(texts):
            yield start, end
            start, characters = end, 0


def _is_plain(tokenizer: Any) -> bool:
    """Whether a call of the tokenizer does nothing but ask its Rust backend, so that it can be asked directly."""
    from transformers import TokenizersBackend

    return (
        isinstance(tokenizer, TokenizersBackend)
        and type(tokenizer).__call__ is TokenizersBackend.__call__
        and type(tokenizer)._encode_plus is TokenizersBackend._encode_plus
    )


def _encode_fast(tokenizer: Any, texts: list[str], max_tokens: int) -> tuple[list[list[int]], list[int]]:
    """Ids, and the places of those that were cut, from the backend: no dictionary per text, and no second pass.

    Cut by the backend, so that a closing special token stays; what it cut off shows which were longer.
    """
    backend = tokenizer.backend_tokenizer
    with untruncated(backend):
        backend.encode_special_tokens = tokenizer.split_special_tokens
        backend.enable_truncation(max_tokens, direction=tokenizer.truncation_side)
        encodings = backend.encode_batch_fast(texts)
    rows = [encoding.ids for encoding in encodings]
    # What was cut off is copied to be looked at: only where a text is as long as can be.
    full = [place for place, row in enumerate(rows) if len(row) >= max_tokens]
    return rows, [place for place in full if encodings[place].overflowing]


@contextlib.contextmanager
def untruncated(backend: Any) -> Iterator[None]:
    """A backend that neither cuts nor pads inside the block, and does afterwards what it did before."""
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    try:
        yield
    finally:
        backend.no_truncation()
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def _encode_called(tokenizer: Any, texts: list[str], max_tokens: int) -> tuple[list[list[int]], list[int]]:
    """The same by calling a tokenizer that has ways of its own: asked for one more, it shows which were longer."""
    rows = tokenizer(texts, truncation=True, max_length=max_tokens + 1, **_PLAIN)["input_ids"]
    too_long = [place for place, row in enumerate(rows) if len(row) > max_tokens]
    if too_long:
        chosen = [texts[place] for place in too_long]
        again = tokenizer(chosen, truncation=True, max_length=max_tokens, **_PLAIN)["input_ids"]
        for place, row in zip(too_long, again, strict=True):
            rows[place] = row
    return rows, too_long
