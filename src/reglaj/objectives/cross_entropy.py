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
    """Texts with their classes. labels: (B,) long. places: file and line of each row, for messages."""

    tokens: TokenBatch
    labels: Tensor
    places: tuple[str, ...]


class CrossEntropy(Objective[LabelledBatch]):
    """Weighted negative log-likelihood of the true class, in nats.

    class_weights: (C,) float, or None for ones. As in torch, the mean is over the sum of the rows' weights.
    """

    names: ClassVar[tuple[str, ...]] = ("cross_entropy",)

    def __init__(self, class_weights: Tensor | None = None) -> None:
        self.class_weights = class_weights

    def counts(self, batch: LabelledBatch) -> dict[str, float]:
        if self.class_weights is None:
            return {"cross_entropy": float(len(batch.tokens.lengths))}
        return {"cross_entropy": float(self.class_weights.to(batch.labels.device)[batch.labels].sum())}

    def terms(self, outputs: Tensor, batch: LabelledBatch) -> dict[str, Term]:
        weights = None if self.class_weights is None else self.class_weights.to(outputs.device)
        total = nn.functional.cross_entropy(outputs.float(), batch.labels, weight=weights, reduction="sum")
        return {"cross_entropy": Term(sum=total)}


def balanced_weights(counts: list[int]) -> Tensor:
    """Weight of each class inversely to its frequency, with mean 1 over the rows (King and Zeng 2001). Returns (C,)."""
    number = torch.tensor(counts, dtype=torch.float32)
    return number.sum() / (len(counts) * number)
