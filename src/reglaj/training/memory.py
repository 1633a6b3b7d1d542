"""Out of memory: how a pass is cut smaller."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from reglaj.core.errors import EnvironmentFault, environment_fault


def release_memory() -> None:
    """Give back what a failed pass has left: its graph, and what the device's allocator keeps."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def smaller_budget(groups: Sequence[Sequence[int]], lengths: Sequence[int], *, is_padded: bool) -> int | None:
    """Half of what the largest of these micro-batches costs, in tokens; None where each is a single row already.

    lengths: tokens of each row, by its number.
    """
    if all(len(group) <= 1 for group in groups):
        return None
    costs = (
        len(group) * max(lengths[row] for row in group) if is_padded else sum(lengths[row] for row in group)
        for group in groups
        if len(group) > 1
    )
    return max(1, int(max(costs)) // 2)


def nothing_smaller(tokens: int, *, where: str) -> EnvironmentFault:
    """A single row does not fit into memory."""
    return environment_fault(
        f"out of memory with a single row of {tokens:,} tokens",
        allowed="memory for one row at a time",
        why="the micro-batch has been halved until it was one row, and a row cannot be cut",
        remedy="lower train.max_tokens, set train.gradient_checkpointing=true, take method lora, or free memory; then"
        " give the same command",
        where=where,
    )
