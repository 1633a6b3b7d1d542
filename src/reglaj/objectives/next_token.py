"""Next-token cross-entropy at the tokens that are supervised, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from reglaj.models.packing import TokenBatch
from reglaj.objectives.base import Objective, Term


@dataclass(frozen=True, kw_only=True)
class SupervisedBatch:
    """Texts of which some tokens are to be predicted. T tokens of all texts, P of them supervised.

    predictors: (P,) long, positions among the T after which a supervised token stands; targets: (P,) long, those
    tokens. supervised: how many of the P belong to each text. places: file and line of each text, for messages.
    """

    tokens: TokenBatch
    predictors: Tensor
    targets: Tensor
    supervised: tuple[int, ...]
    places: tuple[str, ...]


class NextToken(Objective[SupervisedBatch]):
    """Mean negative log-likelihood in nats per supervised token, every token of a step alike."""

    names: ClassVar[tuple[str, ...]] = ("next_token",)

    def counts(self, batch: SupervisedBatch) -> dict[str, float]:
        return {"next_token": float(len(batch.targets))}

    def terms(self, outputs: Tensor, batch: SupervisedBatch) -> dict[str, Term]:
        """outputs: (P,) loss of each supervised token."""
        return {"next_token": Term(sum=outputs.float().sum())}
