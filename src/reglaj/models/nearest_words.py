"""The words of the vocabulary that lie nearest to learnt embeddings, and how much that says.

Legend: P virtual tokens, V vocabulary, D width.

Nearest by cosine, as in Lester et al. 2021 (arXiv:2104.08691, section 7). What is found is a hint, not a reading:
Khashabi et al. 2022 (arXiv:2112.08348) learn prompts that solve a task about as well and lie next to any text they are
asked for. So two measures go with it: how near a word's own neighbour is, and how near a random direction comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_CHUNK = 16_384
"""Words at a time: 64 MB of a table that is 1,024 wide."""
_SAMPLE = 64
"""Words, and random directions, that the two measures are the means of."""
_NO_TEXT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, kw_only=True)
class NearWord:
    """text: as the tokenizer writes it; one that goes on with a word begins with an ellipsis. distance: Euclidean."""

    token: int
    text: str
    cosine: float
    distance: float


def nearest_words(embeddings: Tensor, table: Tensor, tokenizer: Any, count: int = 5) -> list[list[NearWord]]:
    """For each embedding the `count` nearest words by cosine, the nearest first; of equals the one with the lower id.

    embeddings: (P, D). table: (V, D), of which rows that the tokenizer has no word for are left out.
    """
    ours = embeddings.detach().float().cpu()
    words = _words(table, tokenizer)
    cosines, ids = _nearest(ours, words, count)
    distances = (ours[:, None] - words[ids].float()).norm(dim=-1)
    return [
        [
            NearWord(token=token, text=word_text(tokenizer, token), cosine=round(cosine, 6), distance=round(far, 6))
            for token, cosine, far in zip(*columns, strict=True)
        ]
        for columns in zip(ids.tolist(), cosines.tolist(), distances.tolist(), strict=True)
    ]


def prompt_facts(embeddings: Tensor, table: Tensor, tokenizer: Any, count: int = 5) -> dict[str, Any]:
    """What a report shows of a learnt prompt, as JSON values.

    virtual_tokens: for each its norm and its nearest words. word_norm: the mean norm of the vocabulary's words.
    neighbour_cosine: how near the nearest other word is to a word, random_cosine: to a direction drawn at random, both
    as means.
    """
    words = _words(table, tokenizer)
    found = nearest_words(embeddings, table, tokenizer, count)
    norms = embeddings.detach().float().cpu().norm(dim=-1).tolist()
    some = torch.linspace(0, len(words) - 1, min(_SAMPLE, len(words))).long()
    neighbours = _nearest(words[some].float(), words, 2)[0]
    directions = torch.randn(_SAMPLE, words.shape[1], generator=torch.Generator().manual_seed(2104))
    return {
        "virtual_tokens": [
            {"norm": round(norm, 6), "words": [vars(word) for word in near]}
            for norm, near in zip(norms, found, strict=True)
        ],
        "word_norm": round(sum(chunk.norm(dim=-1).sum().item() for chunk in _chunks(words)) / len(words), 6),
        "neighbour_cosine": round(neighbours[:, -1].mean().item(), 6),
        "random_cosine": round(_nearest(directions, words, 1)[0].mean().item(), 6),
    }


def word_text(tokenizer: Any, token: int) -> str:
    """A token as somebody can read it, never empty.

    It is decoded behind another one, which shows whether it begins a word. A piece of a character, of which no text can
    be made, is called by the vocabulary's own name.
    """
    before = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("a"))[-1:]  # some vocabularies have no letters
    alone, both = _decode(tokenizer, before), _decode(tokenizer, [*before, token])
    text = both[len(alone) :] if both.startswith(alone) else _decode(tokenizer, [token])
    if not text or _NO_TEXT in text:
        return str(tokenizer.convert_ids_to_tokens(token))
    if not text.strip() or not text.isprintable():
        return repr(text)
    is_piece = text[0].isalnum() and token not in tokenizer.all_special_ids
    return f"…{text}" if is_piece else text.strip()


def _decode(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _words(table: Tensor, tokenizer: Any) -> Tensor:
    """(V, D) on the processor. A table is often wider than its vocabulary, for the kernels' sake."""
    return table.detach()[: len(tokenizer)].cpu()


def _chunks(words: Tensor) -> Iterator[Tensor]:
    for chunk in words.split(_CHUNK):
        yield chunk.float()


def _nearest(ours: Tensor, words: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cosines and ids of the nearest words: (P, count) both. The sorts are stable: many tables hold equal rows."""
    ours = torch.nn.functional.normalize(ours, dim=-1)
    cosines, ids = torch.empty(len(ours), 0), torch.empty(len(ours), 0, dtype=torch.long)
    first = 0
    for chunk in _chunks(words):
        near = ours @ torch.nn.functional.normalize(chunk, dim=-1).T
        places = torch.arange(first, first + len(chunk)).expand(len(ours), -1)
        cosines, ids = torch.cat([cosines, near], dim=1), torch.cat([ids, places], dim=1)
        cosines, order = cosines.sort(dim=1, descending=True, stable=True)
        cosines, ids = cosines[:, :count], ids.gather(1, order[:, :count])
        first += len(chunk)
    return cosines, ids
