"""The next token of every row, from its logits.

Legend: B rows, V vocabulary, C candidates. The order is that of transformers: repetition penalty, temperature,
top-k, top-p.

Every row draws with numbers of its own, one a token, which follow from the seed and the row's prompt alone: an answer
does not depend on what else is in the batch. One number picks a token by the cumulative probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from reglaj.core.seeding import derive_seed
from reglaj.generation.config import GenerationConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOT_A_NUMBER = -1
_CANDIDATES = 512
"""Tokens that are sorted for top-p before all are: a nucleus is nearly always smaller."""


def draws(config: GenerationConfig, prompt: Sequence[int], count: int) -> NDArray[np.float64]:
    """The numbers in [0, 1) that a row's first `count` tokens are drawn with; none for a greedy answer."""
    if config.temperature == 0:
        return np.empty(0)
    return np.random.default_rng(derive_seed(config.seed, "generation", *prompt)).random(count)


def choose(config: GenerationConfig, logits: Tensor, seen: Sequence[Sequence[int]], chance: Sequence[float]) -> Tensor:
    """A token for every row: (B,) long, `NOT_A_NUMBER` where its logits are not finite.

    logits: (B, V) float32. seen: the tokens of prompt and answer. chance: a number in [0, 1) each; unread when greedy.
    """
    is_broken = ~logits.amax(-1).isfinite()
    if config.repetition_penalty != 1:
        logits = _penalized(logits, seen, config.repetition_penalty)
    if config.temperature == 0:
        tokens = logits.argmax(-1)
    else:
        numbers = torch.tensor(chance, dtype=torch.float64).to(logits.device)
        tokens = _drawn(config, logits / config.temperature, numbers)
    return tokens.masked_fill(is_broken, NOT_A_NUMBER)


def _penalized(logits: Tensor, seen: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Keskar et al. 2019, arXiv:1909.05858, with the sign taken into account as in transformers."""
    longest = max(map(len, seen))
    # A row is filled up with a token of its own: writing a score twice changes nothing.
    padded = [[*row, *[row[0]] * (longest - len(row))] for row in seen]
    tokens = torch.tensor(padded, device=logits.device)
    scores = logits.gather(1, tokens)
    return logits.scatter(1, tokens, torch.where(scores < 0, scores * penalty, scores / penalty))


def _drawn(config: GenerationConfig, logits: Tensor, numbers: Tensor) -> Tensor:
    """logits: (B, V). numbers: (B,) float64."""
    vocabulary = logits.shape[-1]
    if config.top_k == 0 and config.top_p == 1:
        return _pick(logits.softmax(-1), numbers)
    count = min(config.top_k or _CANDIDATES, vocabulary)
    scores, tokens = logits.topk(count, dim=-1)
    if not config.top_k and count < vocabulary:
        held = (scores.logsumexp(-1) - logits.logsumexp(-1)).exp()
        if bool((held < config.top_p).any()):
            scores, tokens = logits.sort(dim=-1, descending=True)
    # top-p alone is a share of everything; after top-k it is a share of what that left.
    total = (scores if config.top_k else logits).logsumexp(-1, keepdim=True)
    probabilities = (scores - total).exp()
    # Kept: those before which less than top_p has been gathered (Holtzman et al. 2020, arXiv:1904.09751).
    before = probabilities.cumsum(-1) - probabilities
    outside = before >= config.top_p
    return tokens.gather(-1, _pick(probabilities.masked_fill(outside, 0), numbers)[:, None])[:, 0]


def _pick(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """Where the cumulative sum first exceeds each number: (B,) long. probabilities: (B, C), of any total."""
    cumulative = probabilities.double().cumsum(-1)
    wanted = numbers[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted, right=True)[:, 0].clamp_(max=probabilities.shape[-1] - 1)
