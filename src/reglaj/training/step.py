"""One optimizer step: sum over micro-batches and processes, count, divide once, guard, clip, move.

Promise 4: loss and gradients do not depend on how a step is cut into micro-batches or shared out to processes, for
every term is divided by its count over the whole step. Promise 6: nothing non-finite is ever applied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from reglaj.core.errors import Problem, is_out_of_memory, listing
from reglaj.objectives.base import Objective
from reglaj.training.guards import GradientWatch, NonFiniteError, non_finite_names
from reglaj.training.memory import release_memory
from reglaj.training.parallel import ALONE, Ranks

__all__ = ["FinishedStep", "NonFiniteError", "Step", "StepResult"]

B = TypeVar("B")


@dataclass(frozen=True, kw_only=True)
class FinishedStep:
    """What one optimizer step did. step counts from 1; loss in nats; grad_norm before clipping.

    skipped: why nothing was applied; then loss and grad_norm are 0 and mean nothing. Empty for a step that moved.
    """

    step: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    examples: int
    tokens: int
    skipped: str = ""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Loss in nats, and the gradient's norm before clipping. skipped: as in `FinishedStep`."""

    loss: float
    grad_norm: float
    skipped: str = ""


class Step(Generic[B]):
    """Moves the parameters once per call.

    forward: micro-batch to outputs, with gradient. row_places: where a micro-batch's rows stand, for messages.
    cut_rows: splits a micro-batch into single rows; used only to find the row behind a non-finite loss.
    ranks: the processes among which each step's rows were shared out. watch: looks at the gradients of the first steps.
    penalty: what is added to the step's loss beside the objective's terms, once; None for nothing. The loss that is
    returned and guarded has it inside: that is what was minimised.
    moved: called with the step's number when the parameters have moved and the gradients, summed and clipped, are
    still there; never for a step that was left out.
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
        self.ranks: Ranks = ALONE
        self.watch: GradientWatch | None = None
        self.penalty: Callable[[], Tensor | None] = lambda: None
        self.moved: Callable[[int], None] = lambda number: None

    def __call__(
        self, number: int, micro_batches: Sequence[B], again: Callable[[], Sequence[B]] | None = None
    ) -> StepResult:
        """Apply one step. Raises `NonFiniteError`, before anything moved, naming step and rows.

        again: the same rows in smaller micro-batches, for when memory does not suffice; raises where there are none.
        """
        totals = self._totals(micro_batches)
        loss, micro_batches = self._within_memory(micro_batches, totals, again)
        has_gradient = self._has_gradient()
        self.ranks.sum_gradients([p for p, has in zip(self.parameters, has_gradient, strict=True) if has])
        norms = self._gradient_norms()
        # One synchronisation a step on an accelerator, for all figures at once.
        loss_value, norm_value, *each = torch.cat((loss[None], torch.linalg.vector_norm(norms)[None], norms)).tolist()
        (loss_value,) = self.ranks.sum_values([loss_value])
        if not (_is_finite(loss_value) and _is_finite(norm_value)):
            self.optimizer.zero_grad(set_to_none=True)
            raise self._non_finite(number, loss_value, micro_batches)
        if self.watch is not None and self.watch.is_watching:
            found = iter(each)
            self.watch.look(number, has_gradient, [next(found) if has else 0.0 for has in has_gradient])
        if self.max_grad_norm is not None and norm_value > self.max_grad_norm:
            torch._foreach_mul_(
                [p.grad for p in self.parameters if p.grad is not None], self.max_grad_norm / norm_value
            )
        self.optimizer.step()
        self.moved(number)
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(loss=loss_value, grad_norm=norm_value)

    def accumulate(self, micro_batches: Sequence[B], totals: Mapping[str, float] | None = None) -> Tensor:
        """Leave this process's part of the gradient of the whole step's loss in the parameters.

        totals: what each term is divided by, over the whole step. Returns this process's part of the loss, a scalar.
        """
        totals = self._totals(micro_batches) if totals is None else totals
        losses = [torch.zeros((), device=self.parameters[0].device)]
        for batch in micro_batches:
            with self.autocast:
                outputs = self.forward(batch)
            terms = self.objective.terms(outputs, batch)
            loss = torch.stack([term.weight * term.sum / totals[name] for name, term in terms.items()]).sum()
            loss.backward()
            losses.append(loss.detach())
        # Gradients and losses of the processes are summed: one of them adds what belongs to no row.
        if self.ranks.is_first and (penalty := self.penalty()) is not None:
            penalty.backward()
            losses.append(penalty.detach().float())
        return torch.stack(losses).sum()

    def _totals(self, micro_batches: Sequence[B]) -> dict[str, float]:
        """Counts of every term over all micro-batches of all processes."""
        totals = dict.fromkeys(self.objective.names, 0.0)
        for batch in micro_batches:
            for name, count in self.objective.counts(batch).items():
                totals[name] += count
        return dict(zip(totals, self.ranks.sum_values(list(totals.values())), strict=True))

    def _within_memory(
        self, micro_batches: Sequence[B], totals: Mapping[str, float], again: Callable[[], Sequence[B]] | None
    ) -> tuple[Tensor, Sequence[B]]:
        """Accumulate, in smaller micro-batches where an allocation fails; the draws of dropout begin anew."""
        device = self.parameters[0].device
        chance = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        while True:
            try:
                return self.accumulate(micro_batches, totals), micro_batches
            except (RuntimeError, MemoryError) as error:
                if again is None or not is_out_of_memory(error):
                    raise
            # Outside of the handler: the error holds the frames of the failed pass, and with them its tensors.
            self.optimizer.zero_grad(set_to_none=True)
            micro_batches = ()
            release_memory()
            torch.set_rng_state(chance[0])
            if chance[1] is not None:
                torch.cuda.set_rng_state(chance[1], device)
            micro_batches = again()

    def _has_gradient(self) -> list[bool]:
        """Of each parameter, in any process. Without one the optimizer leaves it alone, however many processes."""
        return [bool(has) for has in self.ranks.most([float(p.grad is not None) for p in self.parameters])]

    def _gradient_norms(self) -> Tensor:
        """(P,) norm of each gradient that there is."""
        gradients = []
        for parameter in self.parameters:
            if parameter.grad is not None:
                # The fused CPU AdamW of torch 2.13 scrambles the update of a gradient that is not contiguous.
                parameter.grad = parameter.grad.contiguous()
                gradients.append(parameter.grad)
        if not gradients:
            return torch.zeros(0, device=self.parameters[0].device)
        return torch.stack(torch._foreach_norm(gradients))

    def _non_finite(self, number: int, loss: float, micro_batches: Sequence[B]) -> NonFiniteError:
        broken = non_finite_names({str(place): parameter.detach() for place, parameter in enumerate(self.parameters)})
        rows = [row for batch in micro_batches for row in self.cut_rows(batch)]
        guilty = []
        with torch.no_grad(), self.autocast:
            for row in rows:
                terms = self.objective.terms(self.forward(row), row)
                if not all(bool(term.sum.isfinite()) for term in terms.values()):
                    guilty.append(row)
            penalty = self.penalty()
        is_penalty = penalty is not None and not bool(penalty.isfinite())
        everywhere = self.ranks.gather([self._places(guilty), self._places(rows)])
        named, every = ([name for one in everywhere for name in one[which]] for which in (0, 1))
        what = f"the loss is not finite ({loss})" if not _is_finite(loss) else "the gradient is not finite"
        error = NonFiniteError(
            Problem(
                where=f"step {number}",
                given=what,
                allowed="finite losses and gradients",
                why=(
                    f"it comes from the rows {listing(named, 8)}"
                    if named
                    else f"no single row of the step shows it alone; its rows are {listing(every, 8)}"
                )
                + ("; the method's own penalty is not finite" if is_penalty else "")
                + (f"; {len(broken)} trained tensors are not finite themselves" if broken else ""),
                remedy="look at those rows, lower train.learning_rate, or check the base; the step was not applied",
            )
        )
        error.is_in_weights = bool(broken)
        return error

    def _places(self, rows: Sequence[B]) -> list[str]:
        return [name for row in rows for name in self.row_places(row)]


def _is_finite(value: float) -> bool:
    return value - value == 0
