"""The training loop: a generator of finished steps. It knows nothing of tasks, methods or files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import torch

from reglaj.data.batching import BatchPlan
from reglaj.training.config import TrainConfig
from reglaj.training.optimizer import schedule_factor, set_learning_rate
from reglaj.training.step import FinishedStep, StepResult


class Callback(Protocol):
    """Hangs on the loop. Returning True from `after_step` ends the training."""

    def after_step(self, finished: FinishedStep) -> bool: ...


def training_steps(
    take: Callable[[int, Sequence[int]], StepResult],
    optimizer: torch.optim.Optimizer,
    plan: BatchPlan,
    config: TrainConfig,
    *,
    after: int = 0,
) -> Iterator[FinishedStep]:
    """Every step of the plan that follows step `after`, in its order.

    take: number and row numbers of one step to what came of it.
    """
    for number in range(after + 1, plan.total_steps + 1):
        rows = plan.rows(number)
        set_learning_rate(optimizer, schedule_factor(number, plan.total_steps, config))
        result = take(number, rows)
        yield FinishedStep(
            step=number,
            epoch=number / plan.steps_per_epoch,
            loss=result.loss,
            grad_norm=result.grad_norm,
            learning_rate=optimizer.param_groups[0]["lr"],
            examples=len(rows),
            tokens=plan.tokens(rows),
            skipped=result.skipped,
        )


def run(steps: Iterable[FinishedStep], callbacks: Sequence[Callback]) -> FinishedStep | None:
    """Drive the steps, calling back after each; returns the last one, or None when there was none."""
    finished = None
    for finished in steps:
        stops = [callback.after_step(finished) for callback in callbacks]
        if any(stops):
            break
    return finished
