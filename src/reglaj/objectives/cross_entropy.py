"""Cross-entropy over classes, with a weight per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from reglaj.models.packing import TokenBatch
from reglaj.objectives.base import Objective, Term


@dataclass(frozen=True, kw_only=True)
class LabelledBatch:
    """Texts with their classes.

    labels: (B,) long. classes: the same on the host: counting them must not wait for a device. places: file and line of
    each row, for messages.
    """

    tokens: TokenBatch
    labels: Tensor
    classes: tuple[int, ...]
    places: tuple[str, ...]


class CrossEntropy(Objective[LabelledBatch]):
    """Weighted negative log-likelihood of the true class, in nats.

    class_weights: (C,) float, or None for ones. As in torch, the mean is over the sum of the rows' weights.
    """

    names: ClassVar[tuple[str, ...]] = ("cross_entropy",)

    def __init__(self, class_weights: Tensor | None = None) -> None:
        self.class_weights = class_weights
        self._host = None if class_weights is None else class_weights.tolist()

    def counts(self, batch: LabelledBatch) -> dict[str, float]:
        if self._host is None:
            return {"cross_entropy": float(len(batch.classes))}
        return {"cross_entropy": sum(self._host[label] for label in batch.classes)}

    def terms(self, outputs: Tensor, batch: LabelledBatch) -> dict[str, Term]:
        if self.class_weights is not None and self.class_weights.device != outputs.device:
            self.class_weights = self.class_weights.to(outputs.device)
        total = nn.functional.cross_entropy(outputs.float(), batch.labels, weight=self.class_weights, reduction="sum")
        return {"cross_entropy": Term(sum=total)}


def balanced_weights(counts: list[int]) -> Tensor:
    """Weight of each class inversely to its frequency, with mean 1 over the rows (King and Zeng 2001). Returns (C,)."""
    number = torch.tensor(counts, dtype=torch.float32)
    return number.sum() / (len(counts) * number)
