"""Conversations of unequal length in one forward pass of a decoder, none seeing another.

Legend: T tokens of all texts together, N query heads, G key-value heads, H head width.

Only attention has to know where a text ends: one `scaled_dot_product_attention` call per text, over `split` and
`cat`. Slices would do the same and cost more: the backward of each fills a full tensor with zeros.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ATTENTION_NAME = "reglaj_causal"
# Decoders that hand keywords of their forward on to attention and take their positions from `position_ids`.
# Whether a packed pass is right is then seen, not believed: see `choose_layout`.
PACKABLE_DECODERS = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "smollm3", "phi3", "olmo", "olmo2", "granite", "gemma",
     "starcoder2", "cohere", "ministral", "helium"}
)  # fmt: skip


def causal_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention of each token to those before it in its own text, for transformers' `AttentionInterface`.

    query: (1, N, T, H); key, value: (1, G, T, H). Returns (1, T, N, H). options: `dropout`, `scaling` and
    `sliding_window` from the layer, and `lengths` (tokens of each text), which travels as a keyword of the forward.
    """
    lengths: tuple[int, ...] = options["lengths"]
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    window = options.get("sliding_window")
    settings: dict[str, Any] = {"dropout_p": options.get("dropout") or 0.0, "scale": options.get("scaling")}
    attended = [
        nn.functional.scaled_dot_product_attention(q, k, v, **_mask(q, window), **settings)
        for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    ]
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _mask(query: Tensor, window: int | None) -> dict[str, Any]:
    """The plain causal mask, or a band where the layer sees only the last `window` tokens."""
    length = query.shape[2]
    if window is None or length <= window:
        return {"is_causal": True}
    place = torch.arange(length, device=query.device)
    distance = place[:, None] - place[None, :]
    return {"attn_mask": (distance >= 0) & (distance < window)}


def register_causal_attention() -> None:
    """Make `reglaj_causal` known to transformers; harmless when called again."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, causal_attention)
