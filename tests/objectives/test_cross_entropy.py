"""Sums and counts of the cross-entropy against torch's own mean."""

from __future__ import annotations

import pytest
import torch

from reglaj.models.packing import TokenBatch
from reglaj.objectives.cross_entropy import CrossEntropy, LabelledBatch, balanced_weights


def _batch(labels: list[int]) -> LabelledBatch:
    count = len(labels)
    tokens = TokenBatch(input_ids=torch.zeros(count, dtype=torch.long), lengths=(1,) * count)
    places = tuple(map(str, range(count)))
    return LabelledBatch(tokens=tokens, labels=torch.tensor(labels), classes=tuple(labels), places=places)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.2, 3.0, 1.0])])
def test_sum_over_count_is_torchs_weighted_mean(weights):
    batch = _batch([0, 1, 1, 2, 0])
    scores = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    objective = CrossEntropy(weights)
    (term,) = objective.terms(scores, batch).values()
    (count,) = objective.counts(batch).values()
    expected = torch.nn.functional.cross_entropy(scores, batch.labels, weight=weights)
    assert (term.weight * term.sum / count).item() == pytest.approx(expected.item(), rel=1e-6)
    assert objective.terms(scores, batch).keys() == objective.counts(batch).keys()


def test_balanced_weights_are_inverse_to_frequency_with_mean_one_over_rows():
    weights = balanced_weights([10, 30, 60])
    assert (weights[0] / weights[2]).item() == pytest.approx(6)
    assert ((weights * torch.tensor([10.0, 30, 60])).sum() / 100).item() == pytest.approx(1)
