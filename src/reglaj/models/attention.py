"""Attention of packed texts: each text sees itself and no other.

Legend: B texts, T tokens of all of them, L tokens of the longest, N query heads, G key-value heads, H head width,
P learnt positions before each text.

Only attention has to know where a text ends; all else sees T tokens in one row. Three ways to the same numbers:

- `per-text`: one `scaled_dot_product_attention` call a text, over `split` and `cat`. Slices would do the same and cost
  more: the backward of each fills a full tensor with zeros. Nothing is computed for padding.
- `grid`: texts are laid out as (B, L) and masked inside attention alone. For very short texts, where a call costs more
  than what it computes.
- `varlen`: torch's variable-length kernel, one call for all texts. Only on CUDA, in half precision, without dropout.

Learnt keys and values (`prefixed.py`) are laid before those of each text, in one copy; then a text has P keys more than
queries, the last of which belong together.
"""

from __future__ import annotations

import inspect
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from reglaj.models.laying import Behind, PadLayout, before_each, on_device, to_grid, to_packed
from reglaj.models.prefixed import Prefix

Kernel = Literal["per-text", "grid", "varlen"]
Attention = Literal["per-text", "grid", "varlen", "by-length"]
"""`by-length` takes, for each micro-batch, `grid` where the texts are short and `per-text` elsewhere."""
ATTENTION_NAME = "reglaj_packed"
GRID_BELOW_TOKENS = 16
"""Tokens of a text on average under which a grid is faster on a processor, forward and backward (12 heads of 32)."""
GRID_WITHIN_TOKENS = 3 * GRID_BELOW_TOKENS
"""Tokens of the longest text that a grid is laid out for: every other text is as long there, in time and in memory."""
_VARLEN_WIDTHS = 256
"""Widest head of the variable-length kernel."""
_UNKNOWN = ("softcap", "s_aux", "head_mask", "position_bias")
"""Options of attention that change its result and that none of the three knows."""


class Texts:
    """Where texts end in a packed pass: made once a micro-batch, used in every layer. It travels as a keyword.

    lengths: tokens of each text. is_causal: whether a token sees only those before it. prefix: what is learnt before
    each text, in every layer.
    """

    def __init__(
        self,
        lengths: tuple[int, ...],
        device: torch.device,
        *,
        is_causal: bool,
        attention: Attention = "by-length",
        prefix: Prefix | None = None,
    ) -> None:
        self.lengths = lengths
        self.device = device
        self.is_causal = is_causal
        self.prefix = prefix
        self._bands: dict[int | None, Tensor] = {}
        self.kernel: Kernel = self.by_length if attention == "by-length" else attention

    @property
    def by_length(self) -> Kernel:
        """What is taken where the variable-length kernel cannot be had. A device has calls that wait, not padding."""
        is_short = sum(self.lengths) < GRID_BELOW_TOKENS * len(self.lengths) and self.longest <= GRID_WITHIN_TOKENS
        return "grid" if (is_short or self.device.type != "cpu") and not self.is_causal else "per-text"

    @cached_property
    def grid(self) -> PadLayout:
        return PadLayout.of(self.lengths, self.device)

    @cached_property
    def starts(self) -> Tensor:
        """(B + 1,) int32: where each text begins, and the end."""
        return on_device(np.cumsum((0, *self.lengths), dtype=np.int32), self.device)

    @cached_property
    def longest(self) -> int:
        return max(self.lengths)

    @cached_property
    def keys(self) -> Texts:
        """The same texts as keys see them: longer by the learnt positions."""
        if self.prefix is None:
            return self
        lengths = tuple(self.prefix.count + length for length in self.lengths)
        return Texts(lengths, self.device, is_causal=self.is_causal)

    @cached_property
    def behind(self) -> Behind:
        """How keys of texts lie behind learnt ones."""
        assert self.prefix is not None
        return Behind(self.lengths, self.prefix.count, self.device)

    def with_prefix(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (1, G, T, H) with what the layer learnt before each text: (1, G, B*P + T, H) both."""
        if self.prefix is None:
            return key, value
        pair = self.prefix.of(module, value)
        if pair is None:
            raise NotImplementedError("one of its layers has no learnt keys")
        laid = [
            before_each(states[0].transpose(0, 1), learnt.transpose(0, 1), self.behind).transpose(0, 1)[None]
            for states, learnt in zip((key, value), pair, strict=True)
        ]
        return laid[0], laid[1]

    def mask(self, length: int, window: int | None) -> dict[str, Any]:
        """Everything, the tokens before, or a band where the layer sees only the last `window` tokens."""
        behind = self.keys.longest - self.longest
        if not self.is_causal or (not behind and (window is None or length <= window)):
            return {"is_causal": self.is_causal}
        if window not in self._bands:
            places = torch.arange(self.keys.longest, device=self.device)
            distance = places[behind:, None] - places
            self._bands[window] = (distance >= 0) & (distance < (window or self.keys.longest))
        return {"attn_mask": self._bands[window][:length, : behind + length]}


def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention of each text to itself, for transformers' `AttentionInterface`.

    query: (1, N, T, H); key, value: (1, G, T, H). Returns (1, T, N, H). options: `dropout`, `scaling` and
    `sliding_window` from the layer, and `texts`, which travels as a keyword of the model's forward. Raises
    `NotImplementedError` for what it does not know, so that nothing is left out in silence.
    """
    unknown = [name for name in _UNKNOWN if options.get(name) is not None]
    if unknown:
        raise NotImplementedError(f"its attention takes {unknown[0]!r}")
    texts: Texts = options["texts"]
    dropout, scale = options.get("dropout") or 0.0, options.get("scaling")
    window = options.get("sliding_window")
    if window is not None and not texts.is_causal:
        raise NotImplementedError("its attention takes a window that looks both ways")
    # Under autocast rotated queries and keys are float32 and values are not.
    query, key = query.to(value.dtype), key.to(value.dtype)
    key, value = texts.with_prefix(module, key, value)
    if texts.kernel == "varlen" and not dropout and _has_varlen(value):
        return _varlen(query, key, value, texts, scale, window), None
    kernel = texts.by_length if texts.kernel == "varlen" else texts.kernel
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if kernel == "grid" and not texts.is_causal:
        return _grid(query, key, value, texts, {"dropout_p": dropout, "scale": scale}), None
    return _per_text(query, key, value, texts, {"dropout_p": dropout, "scale": scale}, window), None


def _per_text(
    query: Tensor, key: Tensor, value: Tensor, texts: Texts, settings: dict[str, Any], window: int | None
) -> Tensor:
    pieces = query.split(texts.lengths, 2), key.split(texts.keys.lengths, 2), value.split(texts.keys.lengths, 2)
    attended = [
        nn.functional.scaled_dot_product_attention(q, k, v, **texts.mask(q.shape[2], window), **settings)
        for q, k, v in zip(*pieces, strict=True)
    ]
    return torch.cat(attended, dim=2).transpose(1, 2)


def _grid(query: Tensor, key: Tensor, value: Tensor, texts: Texts, settings: dict[str, Any]) -> Tensor:
    _, heads, tokens, width = query.shape

    def by_row(states: Tensor, layout: PadLayout) -> Tensor:
        rows = states.transpose(1, 2).reshape(-1, heads * width)
        return to_grid(rows, layout).view(*layout.mask.shape, heads, width).transpose(1, 2)

    keys = texts.keys.grid
    attended = nn.functional.scaled_dot_product_attention(
        by_row(query, texts.grid),
        by_row(key, keys),
        by_row(value, keys),
        attn_mask=keys.mask[:, None, None, :],
        **settings,
    )
    grid = attended.transpose(1, 2).reshape(-1, heads * width)
    return to_packed(grid, texts.grid).view(1, tokens, heads, width)


def _has_varlen(value: Tensor) -> bool:
    width = value.shape[-1]
    return (
        value.is_cuda
        and value.dtype in (torch.float16, torch.bfloat16)
        and width <= _VARLEN_WIDTHS
        and width % 8 == 0
        and _is_new_enough(value.device)
    )


@lru_cache
def _is_new_enough(device: torch.device) -> bool:
    """Ampere or later, and not ROCm: what torch's kernel is built for."""
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _varlen(query: Tensor, key: Tensor, value: Tensor, texts: Texts, scale: float | None, window: int | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    groups: dict[str, Any] = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    if groups and not _knows_groups():
        repeats, groups = query.shape[1] // key.shape[1], {}
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    attended = varlen_attn(
        query,
        key,
        value,
        texts.starts,
        texts.keys.starts,
        texts.longest,
        texts.keys.longest,
        scale=scale,
        # Of transformers' window the token itself is one, of the kernel's it is not.
        window_size=((window or 0) - 1, 0) if texts.is_causal else (-1, -1),
        **groups,
    )
    assert isinstance(attended, Tensor)
    return attended[None]


@lru_cache
def _knows_groups() -> bool:
    """Whether the kernel takes fewer key heads than query heads: older versions of torch do not say so."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def register_attention() -> None:
    """Make `reglaj_packed` known to transformers; harmless when called again."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, packed_attention)
