"""The training loop: a generator of finished steps. It knows nothing of tasks, methods or files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from reglaj.data.batching import BatchPlan
from reglaj.training.config import TrainConfig
from reglaj.training.optimizer import schedule_factor, set_learning_rate
from reglaj.training.step import FinishedStep, Step

B = TypeVar("B")


class Callback(Protocol):
    """Hangs on the loop. Returning True from `after_step` ends the training."""

    def after_step(self, finished: FinishedStep) -> bool: ...


def training_steps(
    step: Step[B], plan: BatchPlan, load: Callable[[Sequence[int]], list[B]], config: TrainConfig
) -> Iterator[FinishedStep]:
    """Every step of the plan, in its order.

    load: row numbers of one step to its micro-batches.
    """
    number = 0
    for epoch in range(plan.epochs):
        for rows in plan.steps(epoch):
            number += 1
            if number > plan.total_steps:
                return
            factor = schedule_factor(number, plan.total_steps, config)
            set_learning_rate(step.optimizer, factor)
            result = step(number, load(rows))
            yield FinishedStep(
                step=number,
                epoch=number / plan.steps_per_epoch,
                loss=result.loss,
                grad_norm=result.grad_norm,
                learning_rate=step.optimizer.param_groups[0]["lr"],
                examples=len(rows),
                tokens=plan.tokens(rows),
            )


def run(steps: Iterable[FinishedStep], callbacks: Sequence[Callback]) -> FinishedStep | None:
    """Drive the steps, calling back after each; returns the last one, or None when there was none."""
    finished = None
    for finished in steps:
        stops = [callback.after_step(finished) for callback in callbacks]
        if any(stops):
            break
    return finished
