"""Tokens that nobody wrote, before every text: learnt embeddings at the input, or learnt keys and values in each layer.

Legend: P virtual tokens, D width, G key-value heads, H head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class VirtualTokens:
    """What one pass puts before each of its texts. One of the two is there.

    count: P. embeddings: (P, D), as if looked up. keys_values: for each attention module its keys and values,
    (G, P, H) both, as attention takes them (turned by position already).
    """

    count: int
    embeddings: Tensor | None = None
    keys_values: Sequence[tuple[nn.Module, Tensor, Tensor]] = ()
