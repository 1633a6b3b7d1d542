"""AdamW with weight-decay groups, and the schedule of its learning rates as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import nn

    from reglaj.training.config import TrainConfig

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def build_optimizer(
    groups: Iterable[tuple[list[tuple[str, nn.Parameter]], float]],
    weight_decay: float,
    kind: Literal["adamw", "adamw-8bit"] = "adamw",
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) over (named parameters, learning rate) groups.

    Matrices decay; vectors (biases, normalisation weights, IA3's scales, which begin as ones) do not. The fused kernel
    is used; it reads gradients as flat memory, so the step hands it contiguous ones only (see `step.py`). `adamw-8bit`
    keeps the moments in eight bits a value (see `optimizer_8bit.py`). Every state is there before the first step, in
    tensors.
    """
    settings = []
    for named, learning_rate in groups:
        for is_matrix in (True, False):
            parameters = [p for _, p in named if (p.ndim >= 2 and min(p.shape) > 1) == is_matrix]
            if parameters:
                decay = weight_decay if is_matrix else 0.0
                settings.append(
                    {"params": parameters, "lr": learning_rate, "weight_decay": decay, "peak": learning_rate}
                )
    if kind == "adamw-8bit":
        from reglaj.training.optimizer_8bit import AdamW8bit

        return AdamW8bit(settings, betas=BETAS, eps=EPSILON)
    optimizer = torch.optim.AdamW(settings, betas=BETAS, eps=EPSILON, fused=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # torch does the same in the first step. Done here, a step allocates nothing while it moves parameters, so
            # that it cannot fail half way, and a checkpoint finds everything to be restored in its place.
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
    return optimizer


def schedule_factor(step: int, total: int, config: TrainConfig) -> float:
    """Share of the peak learning rate at a step, counted from 1 to `total`.

    Linear warm-up over `warmup_ratio` of all steps, then the decay, which would reach zero just after the last step.
    """
    warmup = math.ceil(config.warmup_ratio * total)
    if step <= warmup:
        return step / warmup
    if config.schedule == "constant":
        return 1.0
    progress = (step - 1 - warmup) / max(1, total - warmup)
    return 1 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's peak learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
