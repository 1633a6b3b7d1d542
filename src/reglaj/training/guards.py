"""What stops a training that is about to be wrong: numbers that are not finite, parameters that nothing reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from reglaj.core.errors import GateRefused, Problem, listing

if TYPE_CHECKING:
    from numpy.typing import NDArray

ZERO_STEPS = 3
"""Steps of exactly no gradient after which a parameter is not reached. Not one: LoRA's A has none while B is zero."""


class NonFiniteError(GateRefused):
    """A loss, gradient or weight is NaN or infinite; nothing of the step was applied, nothing of it is saved.

    is_in_weights: the parameters themselves are broken, so that no later step can be better.
    """

    is_in_weights: bool = False


class UntrainedError(GateRefused):
    """A trainable parameter gets no gradient."""


def non_finite_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity. One pass over each, one synchronisation in all."""
    names = [name for name, tensor in tensors.items() if tensor.numel() and tensor.is_floating_point()]
    if not names:
        return []
    largest = torch._foreach_norm([tensors[name] for name in names], ord=float("inf"))
    flags = torch.stack([value.float().to(largest[0].device) for value in largest]).isfinite().tolist()
    return [name for name, is_finite in zip(names, flags, strict=True) if not is_finite]


def refuse_non_finite(tensors: Mapping[str, Tensor], step: int) -> None:
    """Raises `NonFiniteError`. A finite gradient can still carry a weight out of range."""
    broken = non_finite_names(tensors)
    if broken:
        raise NonFiniteError(
            Problem(
                where=f"step {step}",
                given=f"{len(broken)} trained tensors are not finite, {broken[0]} first",
                allowed="finite weights and finite state of the optimizer",
                why="a step since they were last looked at carried them out of range",
                remedy="lower train.learning_rate; nothing of it was saved",
            )
        )


def refuse_non_finite_scores(scores: NDArray[Any], what: str) -> None:
    """Raises `NonFiniteError`: finite weights can be too large for what is made of them. scores: (rows, ...)."""
    broken = int((~np.isfinite(scores.reshape(len(scores), -1))).any(axis=1).sum())
    if broken:
        raise NonFiniteError(
            Problem(
                given=f"{what} of {broken:,} of {len(scores):,} rows are not finite",
                allowed="finite numbers",
                why="the weights have grown so large that a forward pass overflows",
                remedy="lower train.learning_rate; nothing of it was saved",
            )
        )


class GradientWatch:
    """Whether every trainable parameter is reached. Looks at the first steps of a training and then costs nothing.

    names: of the parameters, in their order. before: what `state` gave, where a training goes on.
    """

    def __init__(self, names: Sequence[str], before: Mapping[str, Any] | None = None) -> None:
        self.names = names
        self._seen = before["seen"] if before else 0
        self._unreached = set(before["unreached"] if before else names)

    def state(self) -> dict[str, Any]:
        """How far it has looked, as JSON values."""
        return {"seen": self._seen, "unreached": sorted(self._unreached) if self.is_watching else []}

    @property
    def is_watching(self) -> bool:
        """Whether the next step is looked at."""
        return self._seen < ZERO_STEPS

    def look(self, step: int, has_gradient: Sequence[bool], norms: Sequence[float]) -> None:
        """Raises `UntrainedError`. has_gradient, norms: of each parameter, in the order of the names."""
        if not self.is_watching:
            return
        missing = [name for name, has in zip(self.names, has_gradient, strict=True) if not has]
        if missing and self._seen == 0:
            raise self._error(step, missing, "no gradient at all: the loss does not depend on them")
        if self._seen == 0 and not any(norms):
            raise self._error(step, list(self.names), "a gradient of exactly zero: nothing would be learnt")
        self._seen += 1
        self._unreached -= {name for name, norm in zip(self.names, norms, strict=True) if norm != 0}
        if not self.is_watching and self._unreached:
            unreached = [name for name in self.names if name in self._unreached]
            raise self._error(step, unreached, f"a gradient of exactly zero in each of the first {ZERO_STEPS} steps")

    def _error(self, step: int, names: list[str], what: str) -> UntrainedError:
        return UntrainedError(
            Problem(
                where=f"step {step}",
                given=f"{len(names)} of {len(self.names)} trainable parameters get {what}",
                allowed="a gradient for everything that is to be trained",
                why=f"they would stay what they are, and the run would look trained: {listing(names, 8)}",
                remedy="choose a method or target_modules that reach the loss, or freeze them; no model was saved",
            )
        )
