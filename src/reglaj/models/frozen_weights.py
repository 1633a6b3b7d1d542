"""Frozen linear weights in the type that they are multiplied in anyway: half the memory, the same products bitwise.

Under autocast a float32 weight is rounded to bfloat16 before each product, and the copy is kept beside it. What is
rounded once is the same numbers. Only weights that nothing but their layer's own product reads are touched: norms,
embeddings, output matrices tied to them and biases stay, and so does what a method reads by itself (DoRA's norms).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

_READ_BY_PRODUCT = ("Linear", "SVDLinear", "FusedLinear", "FusedConv1D")
"""Layers of PEFT's LoRA, IA3, VeRA and AdaLoRA, and ours: their base weight goes into its own product alone."""
_TUNERS = ("peft.tuners.lora.", "peft.tuners.ia3.", "peft.tuners.vera.", "peft.tuners.adalora.", "reglaj.models.")


def narrow_frozen(model: nn.Module, dtype: torch.dtype) -> int:
    """Keep frozen linear weights in `dtype` from now on; returns the bytes that this freed.

    For good: `using(None)` is then the rounded base, which under autocast gives what the base gave, bitwise. Products
    outside of autocast are no longer possible. An update that is folded or merged into such a weight is rounded with
    it, so what is exported is merged into a base that was read anew. Call it when all methods are attached.
    """
    freed = 0
    for weight in _narrow_weights(model):
        freed += weight.numel() * (weight.element_size() - dtype.itemsize)
        weight.data = weight.data.to(dtype)
    return freed


def _narrow_weights(model: nn.Module) -> Iterator[nn.Parameter]:
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    for module in _plain_layers(model):
        weight = module.weight
        assert isinstance(weight, nn.Parameter)
        if not weight.requires_grad and weight.dtype == torch.float32 and owners[id(weight)] == 1:
            yield weight


def _plain_layers(module: nn.Module) -> Iterator[nn.Module]:
    """Linear layers below a module, those under layers that may read their weights left out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if type(module) in (nn.Linear, Conv1D):
        yield module
    elif not isinstance(module, BaseTunerLayer):
        for child in module.children():
            yield from _plain_layers(child)
    elif _reads_by_product(module):
        base = module.get_base_layer()
        if type(base) in (nn.Linear, Conv1D):
            yield base


def _reads_by_product(layer: nn.Module) -> bool:
    kind = type(layer)
    is_known = kind.__name__ in _READ_BY_PRODUCT and kind.__module__.startswith(_TUNERS)
    return is_known and not getattr(layer, "lora_variant", None)
