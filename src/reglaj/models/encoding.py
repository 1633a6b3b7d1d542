"""Texts to token ids, cut at the model's context and counted."""

from __future__ import annotations

from collections.abc import Sequence
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
CHUNK_TEXTS = 10_000  # bounds the tokenizer's Python lists; the result itself is four bytes a token


def encode_texts(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> tuple[TokenRows, list[int]]:
    """Token ids of each text with the model's special tokens, and the numbers of the texts that were cut at the end.

    A text that becomes no token at all (possible without special tokens) is one end token: every row is answered.
    """
    rows: list[list[int]] = []
    cut: list[int] = []
    for start in range(0, len(texts), CHUNK_TEXTS):
        chunk = list(texts[start : start + CHUNK_TEXTS])
        # Cut by the tokenizer, so that a closing special token stays; asked for one more, it shows which were longer.
        longer = tokenizer(chunk, truncation=True, max_length=max_tokens + 1, **_PLAIN)["input_ids"]
        too_long = [i for i, row in enumerate(longer) if len(row) > max_tokens]
        if too_long:
            again = tokenizer([chunk[i] for i in too_long], truncation=True, max_length=max_tokens, **_PLAIN)[
                "input_ids"
            ]
            for i, row in zip(too_long, again, strict=True):
                longer[i] = row
        cut += [start + i for i in too_long]
        rows += longer
    fallback = [tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.unk_token_id or 0]
    return TokenRows.of([row or fallback for row in rows]), cut
