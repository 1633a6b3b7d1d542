"""Promise 4: the loss is one number, however a step is cut into micro-batches; on the run's own rows and weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reglaj.pipelines.verify.subject import Subject
from reglaj.pipelines.verify.verdicts import Finding, concluded, counted, not_applicable

if TYPE_CHECKING:
    from torch import Tensor

    from reglaj.pipelines.assemble import Assembled
    from reglaj.tasks.base import Encoded
    from reglaj.training.fit import Supervision

ROWS = 32
TOKENS = 4096
"""Rows are taken up to so many of both, and never fewer than two: on two cores a small decoder needs half a minute."""
TOLERANCE = 1e-5
"""Of the loss relative to it, and of each gradient."""


@dataclass(frozen=True)
class _Measured:
    """passes: micro-batches. gradients: by name, in float32."""

    passes: int
    loss: float
    gradients: dict[str, Tensor]


def loss_is_one_number(subject: Subject) -> Finding:
    """Loss and gradient of the trained model on some training rows, cut in three ways."""
    if subject.data is None:
        return not_applicable(subject.no_data)
    assembled = subject.assembled
    encoded = subject.encoded
    rows = _some_rows(assembled, encoded)
    tokens = int(encoded.rows.lengths[rows].sum())
    budget = assembled.learner.engine.micro_batch_tokens
    # Few rows may fit into half a micro-batch whole: what is compared is really cut.
    half = max(1, min(budget, tokens) // 2)
    with _exact(assembled), subject.console.progress("loss and gradients", 3, "ways to cut") as advance:
        whole = _measure(assembled, encoded, rows, budget)
        advance(1)
        worst_loss, worst, where, passes = 0.0, 0.0, "none", [whole.passes]
        for other_budget in (half, 1):
            other = _measure(assembled, encoded, rows, other_budget)
            advance(1)
            passes.append(other.passes)
            worst_loss = max(worst_loss, abs(other.loss - whole.loss) / max(abs(whole.loss), 1e-12))
            name, distance = _furthest(whole.gradients, other.gradients)
            if distance >= worst:
                worst, where = distance, name
    cut = f"{counted(len(rows), 'training row')} in {passes[0]}, {passes[1]} and {passes[2]} passes"
    problems = []
    if not worst_loss <= TOLERANCE:
        problems.append(f"{cut}: the loss {whole.loss:.6f} differs by {worst_loss:.1e} of it")
    if not worst <= TOLERANCE:
        problems.append(f"{cut}: the gradient of {where} differs by {worst:.1e}")
    return concluded(
        problems,
        f"{cut}, float32 and no dropout: loss {whole.loss:.6f}, at most {worst_loss:.1e} of it apart; gradients at "
        f"most {worst:.1e} apart ({where})",
    )


def _some_rows(assembled: Assembled, encoded: Encoded) -> list[int]:
    """The first rows of the run's own batch plan."""
    from reglaj.training.fit import plan_for

    plan = plan_for(assembled.recipe.train, encoded.rows, assembled.task.strata(encoded))
    rows = [row for step in plan.steps(0) for row in step][:ROWS]
    fitting = int((encoded.rows.lengths[rows].cumsum() <= TOKENS).sum())
    return rows[: max(fitting, 2)]


@contextlib.contextmanager
def _exact(assembled: Assembled) -> Iterator[None]:
    """Dropout off and float32; the engine as it was afterwards."""
    learner, engine = assembled.learner, assembled.learner.engine
    learner.engine = replace(engine, precision="float32")
    learner.train(False)
    try:
        yield
    finally:
        learner.engine = engine


def _measure(assembled: Assembled, encoded: Encoded, rows: Sequence[int], budget: int) -> _Measured:
    """One step without its end: what training would do with these rows, up to where the parameters would move."""
    from reglaj.data.batching import micro_batches
    from reglaj.training.fit import build_step

    learner = assembled.learner
    supervision = supervise(assembled, encoded)
    step = build_step(learner, supervision, assembled.recipe.train)
    groups = micro_batches(rows, encoded.rows.lengths, budget, is_padded=learner.engine.is_padded)
    loss = float(step.accumulate([supervision.load(group) for group in groups]))
    named = learner.named_parameters().items()
    gradients = {name: p.grad.detach().float().clone() for name, p in named if p.grad is not None}
    step.optimizer.zero_grad(set_to_none=True)
    return _Measured(passes=len(groups), loss=loss, gradients=gradients)


def _furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> tuple[str, float]:
    """The parameter whose gradients are furthest apart, and how far; large ones are measured by their own size."""
    if one.keys() != other.keys():
        return next(iter(sorted(one.keys() ^ other.keys()))), float("inf")
    far = {
        name: float((gradient - other[name]).abs().max()) / max(1.0, float(gradient.abs().max()))
        for name, gradient in one.items()
    }
    name = max(far, key=lambda key: (far[key] != far[key], far[key]))
    return name, far[name]


def supervise(assembled: Assembled, encoded: Encoded, validation: Encoded | None = None) -> Supervision[Any]:
    """What the task hands to the loop, on these rows. validation: what is measured, where something is."""
    from reglaj.training.fit import Supervision

    task, learner = assembled.task, assembled.learner
    return Supervision(
        rows=encoded.rows,
        load=lambda rows: task.batch(encoded, rows, learner.engine.device),
        forward=lambda batch: task.outputs(learner, batch),
        objective=task.objective(assembled.recipe.train, encoded),
        row_places=task.row_places,
        cut_rows=task.cut_rows,
        measure=lambda: task.validate(learner, validation) if validation else {},
        labels=task.strata(encoded),
    )
