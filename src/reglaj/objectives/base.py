"""The contract of an objective: sums and counts, never means. The step divides, once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

B = TypeVar("B")


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of a loss over some examples: it adds weight * sum / global count. sum: scalar with a gradient."""

    sum: Tensor
    weight: float = 1.0


class Objective(ABC, Generic[B]):
    """What is minimised. `B` is the batch type of the task."""

    names: ClassVar[tuple[str, ...]]
    """The terms, so that a process without rows knows them too."""

    @abstractmethod
    def counts(self, batch: B) -> dict[str, float]:
        """What each term of this micro-batch is divided by, before the forward pass: the step needs the total first."""

    @abstractmethod
    def terms(self, outputs: Tensor, batch: B) -> dict[str, Term]:
        """The terms of this micro-batch, under the same names as `counts`."""
