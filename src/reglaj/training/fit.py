"""Training from start to best weights: builds step, plan and callbacks, and runs the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from reglaj.core.console import SILENT, Console
from reglaj.core.seeding import derive_seed
from reglaj.data.batching import BatchPlan, micro_batches
from reglaj.models.encoding import TokenRows
from reglaj.objectives.base import Objective
from reglaj.training.callbacks import MetricsLog, ProgressBar, Validation
from reglaj.training.config import TrainConfig
from reglaj.training.learner import Learner
from reglaj.training.loop import run, training_steps
from reglaj.training.optimizer import build_optimizer
from reglaj.training.step import Step

B = TypeVar("B")


@dataclass(frozen=True, kw_only=True)
class Supervision(Generic[B]):
    """What a task hands to the loop: rows as tokens, how they become batches, what is minimised and measured."""

    rows: TokenRows
    load: Callable[[list[int]], B]
    forward: Callable[[B], Tensor]
    objective: Objective[B]
    row_places: Callable[[B], Sequence[str]]
    cut_rows: Callable[[B], list[B]]
    measure: Callable[[], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a training went. stopped: `early`, `max_steps` or `epochs`. seconds leave out the evaluations."""

    steps: int
    best_step: int
    stopped: str
    seconds: float
    evaluation_seconds: float
    tokens: int
    metrics: list[dict[str, Any]]


def plan_for(config: TrainConfig, rows: TokenRows) -> BatchPlan:
    """The batch plan of a resolved `train` section."""
    assert config.batch_size and config.epochs
    return BatchPlan(
        lengths=rows.lengths,
        batch_size=config.batch_size,
        epochs=config.epochs,
        max_steps=config.max_steps,
        seed=derive_seed(config.seed, "batch plan"),
    )


def build_step(learner: Learner, supervision: Supervision[B], config: TrainConfig) -> Step[B]:
    """The optimizer step of a resolved `train` section."""
    assert config.learning_rate, "a resolved recipe names its learning rates"
    groups = learner.parameter_groups(config.learning_rate, config.head_learning_rate or 0.0)
    return Step(
        supervision.forward,
        supervision.objective,
        build_optimizer(groups, config.weight_decay),
        max_grad_norm=config.max_grad_norm,
        autocast=learner.engine.autocast(),
        row_places=supervision.row_places,
        cut_rows=supervision.cut_rows,
    )


def fit(
    learner: Learner, supervision: Supervision[B], config: TrainConfig, metrics_path: Path, console: Console = SILENT
) -> Fitted:
    """Train; afterwards the learner holds the best weights (the last, without early stopping)."""
    plan = plan_for(config, supervision.rows)
    step = build_step(learner, supervision, config)
    log = MetricsLog(metrics_path)
    validation = Validation(
        learner,
        supervision.measure,
        every=config.evaluate_every or plan.steps_per_epoch,
        total_steps=plan.total_steps,
        stopping=config.early_stopping,
        log=log,
    )

    def load(rows: Sequence[int]) -> list[B]:
        engine = learner.engine
        groups = micro_batches(rows, plan.lengths, engine.micro_batch_tokens, is_padded=engine.is_padded)
        return [supervision.load(group) for group in groups]

    started = time.perf_counter()
    learner.train()
    try:
        with console.progress("training", plan.total_steps, "steps") as advance:
            last = run(training_steps(step, plan, load, config), [log, validation, ProgressBar(advance)])
    finally:
        log.close()
    seconds = time.perf_counter() - started - validation.seconds
    validation.restore_best()
    learner.train(False)
    steps = last.step if last else 0
    return Fitted(
        steps=steps,
        best_step=validation.best_step,
        stopped=_how_it_ended(validation.stopped_early, config, plan),
        seconds=seconds,
        evaluation_seconds=validation.seconds,
        tokens=sum(line["tokens"] for line in log.lines if line["event"] == "step"),
        metrics=log.lines,
    )


def _how_it_ended(stopped_early: bool, config: TrainConfig, plan: BatchPlan) -> str:
    if stopped_early:
        return "early"
    return "max_steps" if config.max_steps is not None and plan.total_steps == config.max_steps else "epochs"
