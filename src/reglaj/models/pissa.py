"""LoRA that begins with the principal part of each weight (PiSSA; Meng et al. 2024, arXiv:2404.02948).

Legend: O outputs, I inputs, R rank, s the update's scale, A0 (R, I) and B0 (O, R) the first factors, s B0 A0 the part
of W with the R largest singular values.

The paper trains s B A on the residual W - s B0 A0. The same model is W + s (B A - B0 A0), and that is how it is here:
the base's weight stays what it is, bit for bit, and no copy of it is needed. Written as

    s (B - B0) A + s B0 (A - A0)

the update is of rank 2R, exactly zero at the start, and keeps small changes of large factors in half precision.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import LoraVariant
from torch import Tensor, nn

EXACT_UP_TO = 256
"""A layer whose smaller side is larger gets a randomised decomposition (Halko et al. 2009), as the paper advises."""
_OVERSAMPLED, _ITERATIONS = 8, 8


def principal_factors(weight: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """A0 (R, I) and B0 (O, R) of a weight (O, I) in float32: equations 2 and 3, over the scale."""
    if min(weight.shape) <= EXACT_UP_TO:
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
    else:
        size = min(rank + _OVERSAMPLED, *weight.shape)
        left, values, right = torch.svd_lowrank(weight, q=size, niter=_ITERATIONS)
        right = right.T
    roots = (values[:rank] / scale).sqrt()
    return (roots[:, None] * right[:rank]).contiguous(), (left[:, :rank] * roots).contiguous()


def difference_factors(first: tuple[Tensor, Tensor], now: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """(2R, I) and (O, 2R) whose product is B A - B0 A0. first: A0, B0. now: A, B."""
    (first_down, first_up), (down, up) = first, now
    return torch.cat((down, down - first_down)), torch.cat((up - first_up, first_up), dim=1)


class PrincipalVariant(LoraVariant):
    """For PEFT's own forward pass: the plain form of what the fused operation does, with dropout where there is."""

    @staticmethod
    def init(module: Any, adapter_name: str, **kwargs: Any) -> None:
        return None

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **kwargs: Any) -> Tensor:
        down, up = module.update_factors(active_adapter)
        narrow = nn.functional.linear(module.lora_dropout[active_adapter](x), down)
        return result + nn.functional.linear(narrow, up) * module.scaling[active_adapter]

    @staticmethod
    def merge_safe(module: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        raise NotImplementedError("the handle merges")

    @staticmethod
    def merge_unsafe(module: Any, active_adapter: str, orig_weight: Tensor) -> None:
        raise NotImplementedError("the handle merges")

    @staticmethod
    def unmerge(module: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        raise NotImplementedError("a merged handle stays merged")
