"""What hangs on the loop: the log of metrics, evaluation with early stopping, the progress bar."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from reglaj.core.console import Advance
from reglaj.core.files import disk_faults, write_text
from reglaj.training.checkpoints import metrics_text
from reglaj.training.config import EarlyStoppingConfig
from reglaj.training.guards import refuse_non_finite
from reglaj.training.learner import Learner
from reglaj.training.step import FinishedStep

_LOWER_IS_BETTER = frozenset({"validation_loss"})


class MetricsLog:
    """metrics.jsonl: one line per optimizer step and per evaluation, in the order they happened.

    before: the lines of a training that goes on; whatever the file held after them is forgotten, for it happens again.
    path: None keeps the lines in memory alone, as in all processes but the first.
    """

    def __init__(self, path: Path | None, before: Sequence[Mapping[str, Any]] = ()) -> None:
        self.lines: list[dict[str, Any]] = [dict(line) for line in before]
        self._path = path
        self._file: TextIO | None = None
        if path is not None:
            write_text(path, metrics_text(self.lines))
            self._file = path.open("a", encoding="utf-8")

    def after_step(self, finished: FinishedStep) -> bool:
        place = {"step": finished.step, "epoch": round(finished.epoch, 6)}
        figures = {"loss": finished.loss, "grad_norm": finished.grad_norm, "learning_rate": finished.learning_rate}
        amount = {"examples": finished.examples, "tokens": finished.tokens}
        if finished.skipped:
            self.write({"event": "skipped", **place, "why": finished.skipped, **amount})
        else:
            self.write({"event": "step", **place, **figures, **amount})
        return False

    def write(self, line: dict[str, Any]) -> None:
        """Add one line; a crash of this process does not lose it any more when this returns."""
        line = {**line, "time": round(time.time(), 3)}
        self.lines.append(line)
        if self._file is not None and self._path is not None:
            with disk_faults(self._path):
                self._file.write(json.dumps(line, allow_nan=False) + "\n")
                self._file.flush()

    def mend(self) -> None:
        """At the end: write it anew where it is not what it should be, as when somebody removed it under the run."""
        if self._path is not None:
            text = metrics_text(self.lines)
            if not self._path.is_file() or self._path.stat().st_size != len(text.encode()):
                write_text(self._path, text)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk has been told of already
                os.fsync(self._file.fileno())
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
        self.best_weights: dict[str, Tensor] | None = None
        """A copy that nobody changes any more."""
        self._without_improvement = 0

    def after_step(self, finished: FinishedStep) -> bool:
        if finished.step % self.every and finished.step != self.total_steps:
            return False
        started = time.perf_counter()
        refuse_non_finite(self.learner.trained(), finished.step)
        # One process decides what is better, so that all go on or stop together.
        metrics: dict[str, float] = self.learner.ranks.from_first(self.measure())
        self.log.write({"event": "evaluation", "step": finished.step, "epoch": round(finished.epoch, 6), **metrics})
        self.seconds += time.perf_counter() - started
        if self.stopping is None:
            self.best_step = finished.step
            return False
        value = self._rank(metrics, self.stopping)
        if self._best_value is None or value > self._best_value:
            self._best_value, self.best_step, self._without_improvement = value, finished.step, 0
            self.best_weights = {key: tensor.clone() for key, tensor in self.learner.trained().items()}
            return False
        self._without_improvement += 1
        self.stopped_early = self._without_improvement >= self.stopping.patience and finished.step != self.total_steps
        return self.stopped_early

    def restore_best(self) -> None:
        """Put the best weights back into the learner."""
        if self.best_weights is not None:
            self.learner.restore(self.best_weights)

    def state(self) -> dict[str, Any]:
        """What decides how it goes on, as JSON values; the best weights apart."""
        return {
            "best_step": self.best_step,
            "best_value": self._best_value,
            "without_improvement": self._without_improvement,
            "stopped_early": self.stopped_early,
            "seconds": self.seconds,
        }

    def restore(self, state: Mapping[str, Any], best: Mapping[str, Tensor] | None) -> None:
        """Go on from what `state` gave. best: the best weights so far, where there are any."""
        self.best_step, self._without_improvement = state["best_step"], state["without_improvement"]
        self.stopped_early, self.seconds = state["stopped_early"], state["seconds"]
        if state["best_value"] is not None:
            self._best_value = (state["best_value"][0], state["best_value"][1])
            self.best_weights = None if best is None else dict(best)

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
