"""Learnt keys and values before each text, without transformers' cache, which forbids checkpointed layers.

Legend: B rows, L tokens of a row, P learnt positions, N query heads, G key-value heads, H head width.

They travel as a keyword of the model's forward (`prefix`) to the attention functions, so that a layer whose forward is
made again in the backward pass meets the ones of its own pass, however many passes are in flight. The positions of a
text then start at P, and a token sees a learnt key as it would see one that a cache had kept: Li and Liang 2021.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reglaj.models.virtual import VirtualTokens

OVER = {"sdpa": "reglaj_prefixed", "eager": "reglaj_prefixed_eager"}
"""Attention with learnt keys by the attention that it calls; without such keys each does what that one does."""
_SEEN = "reglaj_seen"


class Prefix:
    """The learnt keys and values of one pass."""

    def __init__(self, virtual: VirtualTokens) -> None:
        self.count = virtual.count
        self._pairs = {module: (key, value) for module, key, value in virtual.keys_values}
        self._biases: dict[nn.Module, Tensor] = {}

    def of(self, module: nn.Module, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """The module's keys and values, (G, P, H) both, in the type of `like`; None where it has none."""
        pair = self._pairs.get(module)
        return pair and (pair[0].to(like.dtype), pair[1].to(like.dtype))

    def with_biases(self, length: int) -> Prefix:
        """With what T5's attention adds to the scores of the learnt positions, for texts of `length` tokens.

        To be called before the pass: one layer makes the bias, others share it.
        """
        shared: Tensor | None = None
        for module in self._pairs:
            if getattr(module, "has_relative_attention_bias", False):
                owner: Any = module
                bias = owner.compute_bias(length, self.count + length, past_seen_tokens=self.count)
                shared = bias[..., : self.count]
            if shared is not None:
                self._biases[module] = shared
        return self

    def bias(self, module: nn.Module) -> Tensor:
        """(1, N, L, P). Raises `NotImplementedError` where nobody made it."""
        if module not in self._biases:
            raise NotImplementedError("its attention adds a bias by position that is not known for learnt positions")
        return self._biases[module]


def _prefixed(own: Callable[..., Any]) -> Callable[..., Any]:
    """Attention over learnt keys and the row's own. own: as transformers has it for the same model."""

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        prefix: Prefix | None = None,
        **options: Any,
    ) -> Any:
        pair = prefix.of(module, value) if prefix is not None else None
        if prefix is None or pair is None:
            return own(module, query, key, value, attention_mask, **options)
        query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast turned ones are float32
        is_causal = options.pop("is_causal", None)
        if is_causal is None:
            is_causal = getattr(module, "is_causal", True)
        mask = _widened(attention_mask, query, prefix.count, options.get("sliding_window"), is_causal=is_causal)
        if (bias := options.get("position_bias")) is not None:
            options["position_bias"] = torch.cat((prefix.bias(module).to(bias.dtype), bias), dim=3)
        rows = len(query)
        key = torch.cat((pair[0].expand(rows, -1, -1, -1), key), dim=2)
        value = torch.cat((pair[1].expand(rows, -1, -1, -1), value), dim=2)
        return own(module, query, key, value, mask, is_causal=False, **options)

    return attend


def _widened(mask: Tensor | None, query: Tensor, count: int, window: int | None, *, is_causal: bool) -> Tensor | None:
    """The mask with P columns more: (..., L, P + L), bool or added to the scores as it was; None where all is seen.

    A layer that sees the last `window` tokens loses learnt positions from sight as it does any other.
    """
    length = query.shape[2]
    if mask is None and is_causal:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()[None, None]
    if window is None or length + count <= window:
        if mask is None:
            return None
        columns = mask.new_ones(()) if mask.dtype == torch.bool else mask.new_zeros(())
        return torch.cat((columns.expand(*mask.shape[:-1], count), mask), dim=-1)
    places = torch.arange(length, device=query.device)[:, None] + count
    is_seen = places - torch.arange(count, device=query.device) < window
    if mask is None:
        mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=query.device)
    if mask.dtype != torch.bool:
        is_seen = torch.zeros_like(is_seen, dtype=mask.dtype).masked_fill_(~is_seen, torch.finfo(mask.dtype).min)
    return torch.cat((is_seen.expand(*mask.shape[:-1], count), mask), dim=-1)


def _sdpa(*args: Any, **options: Any) -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(*args, **options)


def _eager(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
    """The function that the model's own file has."""
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill_(
            ~mask, torch.finfo(query.dtype).min
        )
    own = sys.modules[type(module).__module__].eager_attention_forward
    return own(module, query, key, value, mask, **options)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One self-attention as a pass met it. key, value: (G, L, H) of the row that went through, detached."""

    module: nn.Module
    key: Tensor
    value: Tensor
    has_bias: bool

    @property
    def shape(self) -> tuple[int, int]:
        """G and H."""
        return self.key.shape[0], self.key.shape[2]


def _seen(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    seen: list[Seen] | None = None,
    **options: Any,
) -> Any:
    if seen is not None:
        has_bias = options.get("position_bias") is not None
        seen.append(Seen(module=module, key=key[0].detach(), value=value[0].detach(), has_bias=has_bias))
    return _sdpa(module, query, key, value, mask, **{**options, "softcap": None})


def attentions(model: Any, input_ids: Tensor) -> list[Seen]:
    """The self-attentions that learnt keys can be given to, in the order of a pass: the decoder's where there is one.

    input_ids: (L,), what the pass reads. Empty where the model does not attend through transformers'
    `AttentionInterface`, or does not hand keywords on to it. Raises what the model raises.
    """
    register()
    trunk, seen = model.base_model, list[Seen]()
    is_training = model.training
    model.eval()
    configs = _configs(trunk)
    before = [config._attn_implementation for config in configs]
    row = input_ids[None].to(next(trunk.parameters()).device)
    try:
        for config in configs:
            config._attn_implementation = _SEEN
        with torch.no_grad():
            if not model.config.is_encoder_decoder:
                trunk(input_ids=row, seen=seen)
                return seen
            # Of another length than the source, so that attention to that one can be told from a text's to itself.
            source = trunk.get_encoder()(input_ids=torch.cat((row, row), dim=1))[0]
            trunk.get_decoder()(input_ids=row, encoder_hidden_states=source, seen=seen)
            return [one for one in seen if one.key.shape[1] == row.shape[1]]
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation
        model.train(is_training)


def switch(modules: Sequence[nn.Module], *, is_on: bool) -> None:
    """Let these attentions take learnt keys, or do what they did before. Without such keys both are the same."""
    register()
    names = OVER if is_on else {over: own for own, over in OVER.items()}
    configs = {id(config): config for module in modules if (config := getattr(module, "config", None)) is not None}
    for config in configs.values():
        config._attn_implementation = names.get(config._attn_implementation, config._attn_implementation)


def _configs(trunk: nn.Module) -> list[Any]:
    """Every config that a module of the trunk reads its attention from: an encoder-decoder has copies."""
    found = {id(config): config for m in trunk.modules() if (config := getattr(m, "config", None)) is not None}
    return [config for config in found.values() if hasattr(config, "_attn_implementation")]


def register() -> None:
    """Make these attentions known to transformers; harmless when called again."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask, sdpa_mask

    AttentionInterface.register(OVER["sdpa"], _prefixed(_sdpa))
    AttentionInterface.register(OVER["eager"], _prefixed(_eager))
    AttentionInterface.register(_SEEN, _seen)
    AttentionMaskInterface.register(OVER["sdpa"], sdpa_mask)
    AttentionMaskInterface.register(OVER["eager"], eager_mask)
