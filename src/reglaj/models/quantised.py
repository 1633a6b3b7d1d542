"""Linear layers in four bits, made by bitsandbytes and answered here, so that no evaluation can change them.

Legend: T tokens, I inputs, O outputs.

Departures from bitsandbytes' own `Linear4bit`, of which ours is a kind (so PEFT and transformers know it):
1. Nothing is packed anew. On a processor with bfloat16 units theirs repacks the weight in a forward pass of evaluation
   without gradient, and every later pass goes through an operation that has none: a training after a baseline
   evaluation then learns nothing in the layers below, silently.
2. The bias stays as it is; theirs is cast in place to the type of the first input.
3. Products are made in the type of the pass (autocast's, else the input's). Theirs takes the type of the first input
   it ever sees for good, so that a model first looked at in float32 never uses bfloat16.
4. The backward pass makes the weight again instead of keeping it: a layer costs four bits a value while it waits.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import dequantize_blockwise
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from reglaj.models.fused_lora import FUSED, FusedLinear, Weight
from reglaj.models.storage import Storage


def quantisation_config(storage: Storage) -> BitsAndBytesConfig:
    """What makes transformers quantise each linear layer while it reads it. The output matrix stays as it is."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=storage.kind,
        bnb_4bit_use_double_quant=storage.is_double,
        bnb_4bit_compute_dtype=torch.float32,  # of their forward pass, which is not used
        llm_int8_skip_modules=["lm_head"],
    )


class _Product(torch.autograd.Function):
    """x W' + b. x: (T, I). Returns (T, O). Only x gets a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear, bias: Tensor | None) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        return nn.functional.linear(x, layer.dequantised(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        to_x = gradient @ ctx.layer.dequantised(ctx.dtype) if ctx.needs_input_grad[0] else None
        to_bias = gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return to_x, None, to_bias


class QuantisedLinear(bnb.nn.Linear4bit):
    """A frozen linear layer in four bits: its weight is made in the type of the pass, used and forgotten."""

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """The weight (O, I) in another type, made anew."""
        state = self.weight.quant_state
        scales = state.absmax
        if state.nested:
            scales = dequantize_blockwise(scales, state.state2) + state.offset
        made: Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(
            self.weight.data, scales.float(), state.blocksize, state.quant_type, state.shape, dtype
        )
        return made

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        with torch.autocast(device, enabled=False):
            result: Tensor = _Product.apply(x.to(dtype), self, bias)
        return result


class FusedQuantised(FusedLinear):
    """The update beside such a layer, in one operation with it."""

    def frozen_weight(self, dtype: torch.dtype) -> Weight:
        base = self.get_base_layer()
        return (lambda: base.dequantised(dtype)) if isinstance(base, QuantisedLinear) else super().frozen_weight(dtype)

    def exact_weight(self) -> Tensor:
        base = self.get_base_layer()
        return base.dequantised(torch.float32) if isinstance(base, QuantisedLinear) else super().exact_weight()


FUSED_OR_QUANTISED: dict[type[nn.Module], type[nn.Module]] = {QuantisedLinear: FusedQuantised, **FUSED}


def adopt(model: nn.Module) -> int:
    """Make every four-bit layer of a model one of ours. Returns how many there are."""
    layers = [module for module in model.modules() if type(module) is bnb.nn.Linear4bit]
    for layer in layers:
        layer.__class__ = QuantisedLinear
        setattr(layer, "support_avx512bf16_for_cpu", False)  # noqa: B010  (typed as a tensor)
    return len(layers)
