"""One optimizer step: sum over micro-batches, count, divide once, guard, clip, move.

Promise 4: loss and gradients do not depend on how a step is cut into micro-batches, for every term is divided
by its count over the whole step. Promise 6: nothing non-finite is ever applied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from reglaj.core.errors import GateRefused, Problem, listing
from reglaj.objectives.base import Objective

B = TypeVar("B")


@dataclass(frozen=True, kw_only=True)
class FinishedStep:
    """What one optimizer step did. step counts from 1; loss in nats; grad_norm before clipping."""

    step: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    examples: int
    tokens: int


class NonFiniteError(GateRefused):
    """A loss or gradient is NaN or infinite; nothing of the step was applied."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Loss in nats, and the gradient's norm before clipping."""

    loss: float
    grad_norm: float


class Step(Generic[B]):
    """Moves the parameters once per call.

    forward: micro-batch to outputs, with gradient. row_places: where a micro-batch's rows stand, for messages.
    cut_rows: splits a micro-batch into single rows; used only to find the row behind a non-finite loss.
    """

    def __init__(
        self,
        forward: Callable[[B], Tensor],
        objective: Objective[B],
        optimizer: torch.optim.Optimizer,
        *,
        max_grad_norm: float | None,
        autocast: torch.autocast | None = None,
        row_places: Callable[[B], Sequence[str]],
        cut_rows: Callable[[B], list[B]],
    ) -> None:
        self.forward = forward
        self.objective = objective
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.autocast: contextlib.AbstractContextManager[Any] = autocast or contextlib.nullcontext()
        self.row_places = row_places
        self.cut_rows = cut_rows
        self.parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, number: int, micro_batches: Sequence[B]) -> StepResult:
        """Apply one step. Raises `NonFiniteError`, before anything moved, naming step and rows."""
        loss = self.accumulate(micro_batches)
        norm = self._gradient_norm()
        # One synchronisation a step on an accelerator, for both figures at once.
        loss_value, norm_value = torch.stack((loss, norm)).tolist()
        if not (_is_finite(loss_value) and _is_finite(norm_value)):
            self.optimizer.zero_grad(set_to_none=True)
            raise self._non_finite(number, loss_value, micro_batches)
        if self.max_grad_norm is not None and norm_value > self.max_grad_norm:
            torch._foreach_mul_(
                [p.grad for p in self.parameters if p.grad is not None], self.max_grad_norm / norm_value
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(loss=loss_value, grad_norm=norm_value)

    def accumulate(self, micro_batches: Sequence[B]) -> Tensor:
        """Leave the gradient of the whole step's loss in the parameters; returns that loss, a scalar."""
        totals: dict[str, float] = {}
        for batch in micro_batches:
            for name, count in self.objective.counts(batch).items():
                totals[name] = totals.get(name, 0.0) + count
        losses = []
        for batch in micro_batches:
            with self.autocast:
                outputs = self.forward(batch)
            terms = self.objective.terms(outputs, batch)
            loss = torch.stack([term.weight * term.sum / totals[name] for name, term in terms.items()]).sum()
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _gradient_norm(self) -> Tensor:
        gradients = []
        for parameter in self.parameters:
            if parameter.grad is not None:
                # The fused CPU AdamW of torch 2.13 scrambles the update of a gradient that is not contiguous.
                parameter.grad = parameter.grad.contiguous()
                gradients.append(parameter.grad)
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))

    def _non_finite(self, number: int, loss: float, micro_batches: Sequence[B]) -> NonFiniteError:
        rows = [row for batch in micro_batches for row in self.cut_rows(batch)]
        guilty = []
        with torch.no_grad(), self.autocast:
            for row in rows:
                terms = self.objective.terms(self.forward(row), row)
                if not all(bool(term.sum.isfinite()) for term in terms.values()):
                    guilty.append(row)
        named = guilty or rows
        names = [name for row in named for name in self.row_places(row)]
        what = "the loss" if not _is_finite(loss) else "the gradient"
        return NonFiniteError(
            Problem(
                where=f"step {number}",
                given=f"{what} is not finite ({loss})",
                allowed="finite losses and gradients",
                why=(
                    f"it comes from the rows {listing(names, 8)}"
                    if guilty
                    else f"no single row of the step shows it alone; its rows are {listing(names, 8)}"
                ),
                remedy="look at those rows, lower train.learning_rate, or check the base; the step was not applied",
            )
        )


def _is_finite(value: float) -> bool:
    return value - value == 0
