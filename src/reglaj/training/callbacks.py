"""What hangs on the loop: the log of metrics, evaluation with early stopping, the progress bar."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from reglaj.core.console import Advance
from reglaj.core.errors import Problem
from reglaj.training.config import EarlyStoppingConfig
from reglaj.training.learner import Learner
from reglaj.training.step import FinishedStep, NonFiniteError

_LOWER_IS_BETTER = frozenset({"validation_loss"})


class MetricsLog:
    """metrics.jsonl: one line per optimizer step and per evaluation, in the order they happened."""

    def __init__(self, path: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        self._file: TextIO = path.open("w", encoding="utf-8")

    def after_step(self, finished: FinishedStep) -> bool:
        self.write(
            {
                "event": "step",
                "step": finished.step,
                "epoch": round(finished.epoch, 6),
                "loss": finished.loss,
                "grad_norm": finished.grad_norm,
                "learning_rate": finished.learning_rate,
                "examples": finished.examples,
                "tokens": finished.tokens,
            }
        )
        return False

    def write(self, line: dict[str, Any]) -> None:
        """Add one line; it is on disk when this returns."""
        line = {**line, "time": round(time.time(), 3)}
        self.lines.append(line)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Validation:
    """Evaluates on validation, keeps the best weights, and ends the training when it no longer gets better.

    Without early stopping it only measures, and the last weights are the ones that are kept.
    """

    def __init__(
        self,
        learner: Learner,
        measure: Callable[[], dict[str, float]],
        *,
        every: int,
        total_steps: int,
        stopping: EarlyStoppingConfig | None,
        log: MetricsLog,
    ) -> None:
        self.learner = learner
        self.measure = measure
        self.every = every
        self.total_steps = total_steps
        self.stopping = stopping
        self.log = log
        self.best_step = 0
        self.stopped_early = False
        self.seconds = 0.0
        self._best_value: tuple[float, float] | None = None
        self._best_weights: dict[str, Tensor] | None = None
        self._without_improvement = 0

    def after_step(self, finished: FinishedStep) -> bool:
        if finished.step % self.every and finished.step != self.total_steps:
            return False
        started = time.perf_counter()
        self._refuse_non_finite(finished.step)
        metrics = self.measure()
        self.log.write({"event": "evaluation", "step": finished.step, "epoch": round(finished.epoch, 6), **metrics})
        self.seconds += time.perf_counter() - started
        if self.stopping is None:
            self.best_step = finished.step
            return False
        value = self._rank(metrics, self.stopping)
        if self._best_value is None or value > self._best_value:
            self._best_value, self.best_step, self._without_improvement = value, finished.step, 0
            self._best_weights = {key: tensor.clone() for key, tensor in self.learner.trained().items()}
            return False
        self._without_improvement += 1
        self.stopped_early = self._without_improvement >= self.stopping.patience and finished.step != self.total_steps
        return self.stopped_early

    def restore_best(self) -> None:
        """Put the best weights back into the learner."""
        if self._best_weights is not None:
            self.learner.restore(self._best_weights)

    def _refuse_non_finite(self, step: int) -> None:
        """A finite gradient can still carry a weight out of range. The last step is always followed by this."""
        broken = [name for name, tensor in self.learner.trained().items() if not bool(tensor.isfinite().all())]
        if broken:
            raise NonFiniteError(
                Problem(
                    where=f"step {step}",
                    given=f"{len(broken)} trained tensors are not finite, {broken[0]} first",
                    allowed="finite weights",
                    why="a step since the last evaluation carried them out of range",
                    remedy="lower train.learning_rate; nothing was saved",
                )
            )

    @staticmethod
    def _rank(metrics: dict[str, float], stopping: EarlyStoppingConfig) -> tuple[float, float]:
        """Larger is better. Among equals, frequent where validation is small, the lower loss decides."""
        assert stopping.metric is not None, "a resolved recipe names its metric"
        value = metrics[stopping.metric]
        return (-value if stopping.metric in _LOWER_IS_BETTER else value), -metrics["validation_loss"]


class ProgressBar:
    """Moves a bar by one per step."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance

    def after_step(self, finished: FinishedStep) -> bool:
        self._advance(1)
        return False
