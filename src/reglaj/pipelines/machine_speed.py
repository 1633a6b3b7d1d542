"""How fast this machine is: assumed, or measured for a moment. For forecasts only; no decision hangs on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reglaj.pipelines.memory_cost import feed_forward_width

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts

CPU_RATE_PER_CORE = 50e9
"""Operations a second that one core of a current server makes of float32 matrices."""
CUDA_RATE = 200e12
"""In bfloat16, of matrices of the size that small models have."""
CUDA_VALUES = 100e9
VALUES_PER_OPERATION = 1 / 750
"""Of a processor that is fast at products, and so at all else. Seen with LoRA on SmolLM2 on two cores, where products
take two thirds of a step."""
LAYER_S = 0.15e-3
_TOKENS = 512
_SECONDS = 0.12


@dataclass(frozen=True, kw_only=True)
class Speed:
    """operations: of matrix products, a second. values: those kept for a backward pass that are made and used up, a
    second. per_layer_s: of one layer of one pass, however small.
    """

    operations: float
    values: float
    per_layer_s: float
    cores: int
    told: str


def assumed_speed(device: str) -> Speed:
    """What a machine of this kind usually does."""
    if device == "cuda":
        return Speed(
            operations=CUDA_RATE,
            values=CUDA_VALUES,
            per_layer_s=LAYER_S,
            cores=cores(),
            told=_told(CUDA_RATE, "assumed"),
        )
    return _processor(CPU_RATE_PER_CORE * cores(), "assumed")


def measured_speed(facts: ModelFacts) -> Speed:
    """Products of the model's own shapes on every core, for a tenth of a second."""
    import numpy as np

    chance = np.random.default_rng(0)
    wide, width = feed_forward_width(facts), facts.hidden_size or 512
    rows = chance.random((_TOKENS, width), dtype=np.float32)
    matrix = chance.random((width, wide), dtype=np.float32)
    product = np.empty((_TOKENS, wide), dtype=np.float32)
    rate = 2 * _TOKENS * width * wide / _shortest(lambda: np.matmul(rows, matrix, out=product))
    return _processor(rate, "measured just now")


def _processor(rate: float, how: str) -> Speed:
    return Speed(
        operations=rate,
        values=VALUES_PER_OPERATION * rate,
        per_layer_s=LAYER_S,
        cores=cores(),
        told=_told(rate, how),
    )


def _shortest(work: Callable[[], object]) -> float:
    """Seconds of the quickest call in that time: what slows one down is something else."""
    work()
    until = time.perf_counter() + _SECONDS
    best = float("inf")
    while (started := time.perf_counter()) < until:
        work()
        best = min(best, time.perf_counter() - started)
    return best


def _told(rate: float, how: str) -> str:
    return f"{rate / 1e9:,.0f} billion operations a second ({how})"


def cores() -> int:
    """That this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether a driver is there; asking torch would cost seconds."""
    return Path("/dev/nvidia0").exists()
