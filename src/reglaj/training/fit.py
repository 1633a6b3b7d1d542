"""Training from wherever it stands to the best weights: builds step, plan and callbacks, and runs the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray
from torch import Tensor

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import Problem, SaidElsewhere
from reglaj.core.files import sweep
from reglaj.core.runs import software
from reglaj.core.seeding import derive_seed, seed_everything
from reglaj.core.signals import ECHO_S, Stopped, StopRequest, stopping_gently
from reglaj.data.batching import BatchPlan
from reglaj.models.encoding import TokenRows
from reglaj.objectives.base import Objective
from reglaj.training.callbacks import MetricsLog, ProgressBar, Validation
from reglaj.training.checkpoints import FOLDER, Checkpoint, newest_checkpoint
from reglaj.training.config import TrainConfig
from reglaj.training.engine import go_on_with, using_threads
from reglaj.training.feeding import Feeding
from reglaj.training.guards import GradientWatch, NonFiniteError, refuse_non_finite
from reglaj.training.learner import Learner
from reglaj.training.loop import Callback, run, training_steps
from reglaj.training.optimizer import build_optimizer
from reglaj.training.saving import (
    CheckpointWriter,
    Saving,
    Take,
    as_they_are,
    copied,
    method_tensors,
    optimizer_tensors,
    other_versions,
    random_state,
    refuse_other_tensors,
    restore_method,
    restore_optimizer,
    set_random_state,
)
from reglaj.training.step import Step, StepResult

B = TypeVar("B")
METRICS = "metrics.jsonl"


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
    labels: NDArray[Any] | None = None
    """(N,) class of each row, for `train.sampling: balanced`."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a training went, over all the processes and starts that it took.

    stopped: `early`, `max_steps` or `epochs`. seconds leave out evaluations and checkpoints, which have their own.
    resumed_at: the steps after which it went on. skipped: steps that were left out, for something was not finite.
    """

    steps: int
    best_step: int
    stopped: str
    seconds: float
    evaluation_seconds: float
    checkpoint_seconds: float
    tokens: int
    skipped: int
    resumed_at: list[int]
    metrics: list[dict[str, Any]]


def plan_for(config: TrainConfig, rows: TokenRows, labels: NDArray[Any] | None = None) -> BatchPlan:
    """The batch plan of a resolved `train` section.

    labels: (N,) class of each row. Without them `sampling: balanced` is not seen: enough to count steps.
    """
    assert config.batch_size and config.epochs
    return BatchPlan(
        lengths=rows.lengths,
        batch_size=config.batch_size,
        epochs=config.epochs,
        max_steps=config.max_steps,
        seed=derive_seed(config.seed, "batch plan"),
        labels=labels if config.sampling == "balanced" else None,
    )


def build_step(learner: Learner, supervision: Supervision[B], config: TrainConfig) -> Step[B]:
    """The optimizer step of a resolved `train` section."""
    assert config.learning_rate, "a resolved recipe names its learning rates"
    groups = learner.parameter_groups(config.learning_rate, config.head_learning_rate or 0.0)
    step = Step(
        supervision.forward,
        supervision.objective,
        build_optimizer(groups, config.weight_decay, config.optimizer),
        max_grad_norm=config.max_grad_norm,
        autocast=learner.engine.autocast(),
        row_places=supervision.row_places,
        cut_rows=supervision.cut_rows,
    )
    step.penalty, step.moved = learner.handle.penalty, learner.handle.after_step
    return step


def fit(
    learner: Learner,
    supervision: Supervision[B],
    config: TrainConfig,
    folder: Path,
    console: Console = SILENT,
    *,
    identity: str = "",
) -> Fitted:
    """Train, or go on from the newest checkpoint in the run's folder.

    Afterwards the learner holds the best weights (the last, without early stopping). identity: of the run; a checkpoint
    of another one is refused. Raises `Stopped`, with everything saved, where a signal asked for it after some step.
    """
    echo_s = ECHO_S if learner.ranks.size > 1 else 0.0
    with stopping_gently(console.warn, echo_s=echo_s) as request:
        return _Fit(learner, supervision, config, folder, identity, request, console).run()


class _Fit(Generic[B]):
    """One call of `fit`: what its parts share."""

    def __init__(
        self,
        learner: Learner,
        supervision: Supervision[B],
        config: TrainConfig,
        folder: Path,
        identity: str,
        request: StopRequest,
        console: Console,
    ) -> None:
        self.learner, self.supervision, self.config, self.console = learner, supervision, config, console
        self.ranks, self.request = learner.ranks, request
        assert config.sampling == "natural" or supervision.labels is not None, "a task without labels refuses the key"
        self.plan = plan_for(config, supervision.rows, supervision.labels)
        self.step = build_step(learner, supervision, config)
        self.step.ranks = self.ranks
        is_ahead = learner.engine.device == "cuda"
        self.feeding = Feeding(self.plan, learner, supervision.load, console, is_ahead=is_ahead)
        names = {id(parameter): name for name, parameter in learner.named_parameters().items()}
        self.names = {id(p): names[id(p)] for p in self.step.parameters}
        self.metrics_path = folder / METRICS if self.ranks.is_first else None
        self.writer = CheckpointWriter(folder / FOLDER, identity, config.keep)
        self.saving = Saving(
            self.writer,
            self._state,
            self._fill,
            every=config.checkpoint_every,
            minutes=config.checkpoint_minutes,
            request=request,
            ranks=self.ranks,
        )
        self.seconds = self.checkpoint_seconds = 0.0
        self.skipped = 0
        self.resumed_at: list[int] = []

    def run(self) -> Fitted:
        """Find, restore, train, save, restore the best."""
        self.learner.handle.begin(self.plan.total_steps)
        found = self._find()
        if found:
            self._adopt_engine(found)
        with using_threads(self.learner.engine.threads):
            self.log = MetricsLog(self.metrics_path, found.metrics if found else ())
            self.validation = self._validation()
            self._begin(found)
            steps = self._train(found.step if found else 0)
        self.validation.restore_best()
        self.learner.handle.finish()
        self.learner.train(False)
        return Fitted(
            steps=steps,
            best_step=self.validation.best_step,
            stopped=_how_it_ended(self.validation.stopped_early, self.config, self.plan),
            seconds=self.seconds,
            evaluation_seconds=self.validation.seconds,
            checkpoint_seconds=self.checkpoint_seconds + self.saving.seconds,
            tokens=sum(line["tokens"] for line in self.log.lines if line["event"] == "step"),
            skipped=self.skipped,
            resumed_at=self.resumed_at,
            metrics=self.log.lines,
        )

    def _validation(self) -> Validation:
        return Validation(
            self.learner,
            self.supervision.measure,
            every=self.config.evaluate_every or self.plan.steps_per_epoch,
            total_steps=self.plan.total_steps,
            stopping=self.config.early_stopping,
            log=self.log,
        )

    def _train(self, start: int) -> int:
        """The steps after `start`; returns the last one, with its checkpoint on disk."""
        self.learner.train()
        self._before, self._started = self.seconds, time.perf_counter()
        self._elsewhere = self.validation.seconds
        reached = start
        try:
            with self.console.progress("training", self.plan.total_steps, "steps", done=start) as advance:
                callbacks: list[Callback] = [self.log, self.validation, self.saving, ProgressBar(advance)]
                if not self.validation.stopped_early:
                    steps = training_steps(self._take, self.step.optimizer, self.plan, self.config, after=start)
                    last = run(steps, callbacks)
                    reached = last.step if last else start
            self._count_seconds()
            self.saving.finish(reached)
        except (KeyboardInterrupt, Stopped):
            self.writer.abandon()  # at once: what is being written stays a temporary folder, for the next start
            raise
        except BaseException:
            self.writer.settle()
            raise
        finally:
            self.feeding.close()
            self.log.close()
        self.log.mend()
        self._stop_where_asked(reached)
        return reached

    def _take(self, number: int, rows: Sequence[int]) -> StepResult:
        """One step on this process's share of the rows."""
        try:
            result = self.step(number, self.feeding.batches(number), self.feeding.again)
        except NonFiniteError as error:
            result = self._skip(error)
        self.feeding.agree()
        return result

    def _skip(self, error: NonFiniteError) -> StepResult:
        """Leave a step out, where the recipe allows it. Broken weights make every later step as bad."""
        (problem,) = error.problems
        if self.config.on_nonfinite == "stop" or error.is_in_weights:
            raise error
        if self.skipped >= self.config.max_skipped_steps:
            why = f"{problem.why}; {self.skipped} steps were left out before, as many as train.max_skipped_steps allows"
            raise NonFiniteError(Problem(**vars(problem) | {"why": why}))
        self.skipped += 1
        self.console.warn(f"{problem.where} is left out: {problem.given}; {problem.why}")
        return StepResult(loss=0.0, grad_norm=0.0, skipped=f"{problem.given}; {problem.why}")

    def _find(self) -> Checkpoint | None:
        """The newest checkpoint, the same in every process."""
        folder = self.writer.folder

        def read() -> Checkpoint | None:
            if not self.ranks.is_first:
                return None
            if folder.is_dir():
                sweep(folder)
            newest = newest_checkpoint(folder, self.writer.identity, self.console)
            if newest:
                refuse_other_tensors(newest, self.learner.trained(), self._deciding())
            return newest

        found = self.ranks.together(read)
        if not self.ranks.is_shared:
            return found
        facts = found and {"step": found.step, "state": found.state, "metrics": found.metrics, "best": bool(found.best)}
        facts = self.ranks.from_first(facts)
        if facts is None:
            return None
        weights, optimizer = self.learner.trained(), self._deciding()
        if found is None:
            best = copied(weights) if facts["best"] else None
            found = Checkpoint(**facts | {"weights": copied(weights), "optimizer": copied(optimizer), "best": best})
        for tensors in (found.weights, found.optimizer, found.best or {}):
            self.ranks.share_tensors(tensors)
        return found

    def _adopt_engine(self, found: Checkpoint) -> None:
        self.learner.engine, remarks = go_on_with(self.learner.engine, found.state["engine"])
        self.step.autocast = self.learner.engine.autocast()
        remarks += other_versions(found)
        for remark in remarks:
            self.console.warn(remark)

    def _begin(self, found: Checkpoint | None) -> None:
        """Weights, optimizer, counters and chance as they were after the checkpoint's step, or as at the start."""
        seed, rank = self.config.seed, self.ranks.rank
        names = [self.names[id(p)] for p in self.step.parameters]
        self.step.watch = GradientWatch(names, found.state["watch"] if found else None)
        if found is None:
            if rank:
                seed_everything(derive_seed(seed, "dropout", rank))
            return
        self.learner.restore(found.weights)
        restore_optimizer(self.step, self.names, found.optimizer)
        restore_method(self.learner.handle.state(), found.optimizer)
        state = found.state
        best = found.weights if found.best is None else found.best
        self.validation.restore(state["validation"], {name: tensor.clone() for name, tensor in best.items()})
        self.seconds, self.checkpoint_seconds = state["seconds"], state["checkpoint_seconds"]
        self.skipped, self.resumed_at = state["skipped"], [*state["resumed_at"], found.step]
        self.saving.saved = found.step
        if rank < len(state["random"]):
            set_random_state(state["random"][rank], self.learner.engine.device)
        else:
            seed_everything(derive_seed(seed, "dropout", rank, found.step))
        self.console.say(f"  goes on after step {found.step:,} of {self.plan.total_steps:,}")

    def _deciding(self) -> dict[str, Tensor]:
        """Beside the weights, the tensors that decide the steps to come: the optimizer's and the method's own."""
        return optimizer_tensors(self.step, self.names) | method_tensors(self.learner.handle.state())

    def _state(self, step: int) -> dict[str, Any]:
        """Everything that decides the future but the tensors. Raises `NonFiniteError` where those cannot be saved."""
        refuse_non_finite(self.learner.trained(), step)
        refuse_non_finite(self._deciding(), step)
        chance = self.ranks.gather(random_state(self.learner.engine.device))
        self._count_seconds()
        assert self.step.watch
        return {
            "engine": self.learner.engine.facts(),
            "validation": self.validation.state(),
            "watch": self.step.watch.state(),
            "seconds": self.seconds,
            "checkpoint_seconds": self.checkpoint_seconds + self.saving.seconds,
            "skipped": self.skipped,
            "resumed_at": self.resumed_at,
            "random": chance,
            "software": software(),
        }

    def _fill(self, step: int, state: dict[str, Any], take: Take) -> Checkpoint:
        best = self.validation.best_weights
        return Checkpoint(
            step=step,
            state=state,
            weights=take(self.learner.trained()),
            optimizer=take(self._deciding()),
            # Nobody changes the best weights any more, so they need no copy.
            best=None if best is None or self.validation.best_step == step else as_they_are(best),
            metrics=list(self.log.lines),
        )

    def _count_seconds(self) -> None:
        """Seconds of training so far, without evaluations and checkpoints."""
        elsewhere = self.validation.seconds - self._elsewhere + self.saving.seconds
        self.seconds = self._before + time.perf_counter() - self._started - elsewhere

    def _stop_where_asked(self, step: int) -> None:
        number = self.saving.asked
        if number is None:
            return
        self.request.is_met = True
        stopped = Stopped(number, f"saved after step {step:,} of {self.plan.total_steps:,}; the same command goes on")
        raise stopped if self.ranks.is_first else SaidElsewhere(stopped.exit_code)


def _how_it_ended(stopped_early: bool, config: TrainConfig, plan: BatchPlan) -> str:
    if stopped_early:
        return "early"
    return "max_steps" if config.max_steps is not None and plan.total_steps == config.max_steps else "epochs"
