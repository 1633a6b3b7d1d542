"""With dropout on, no two layouts draw alike; what they draw from has to be the same: mean and spread of the loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.choices import Choice, Training
from torch import Tensor

Folder = Callable[[str], Path]
DRAWS, ROWS = 250, 6
SIGMAS = 4.5
"""Standard errors that two equal figures may be apart here; the draws are fixed, so this is no game of chance."""


def losses(folder: Path, choice: Choice, *, only_attention: float | None = None) -> Tensor:
    """(DRAWS,) float64: the loss of the same few rows in training mode.

    only_attention: the probability of dropout there and nowhere else; None is 0.1 in every place the model has one.
    """
    training = Training(folder, choice, ROWS, model_dropout=0.1 if only_attention is None else 0.0)
    learner, supervision = training.learner, training.supervision
    if only_attention is not None:
        places = [module for module in learner.backbone.modules() if _is_attention(module)]
        assert places
        for module in places:
            _set_dropout(module, only_attention)
    learner.train()
    (batch,) = training.batches(range(ROWS), 10_000)
    torch.manual_seed(0)

    def draw() -> float:
        (term,) = supervision.objective.terms(supervision.forward(batch), batch).values()
        return term.sum.item() / sum(supervision.objective.counts(batch).values())

    with torch.no_grad():
        return torch.tensor([draw() for _ in range(DRAWS)], dtype=torch.float64)


def _is_attention(module: Any) -> bool:
    return type(module).__name__ in ("BertSelfAttention", "GPT2Attention")


def _set_dropout(module: Any, value: float) -> None:
    for name in ("dropout", "attn_dropout"):
        if hasattr(module, name):
            getattr(module, name).p = value


def figures(draws: Tensor) -> tuple[tuple[float, float], tuple[float, float]]:
    """Mean and standard deviation, each with its standard error (that of the latter from the fourth moment)."""
    count, mean, spread = len(draws), draws.mean(), draws.std()
    fourth = ((draws - mean) ** 4).mean()
    error = ((fourth - spread**4) / count).clamp_min(0).sqrt() / (2 * spread)
    return (mean.item(), (spread / count**0.5).item()), (spread.item(), error.item())


def apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Distance of two figures in standard errors."""
    return abs(one[0] - other[0]) / (one[1] ** 2 + other[1] ** 2) ** 0.5


ENCODER = [
    Choice(family="bert", method="full", layout="packed"),
    Choice(family="bert", method="full", layout="packed", attention="grid"),
]
DECODER = [Choice(family="gpt2", method="full", layout="packed-causal")]


@pytest.mark.parametrize(
    ("choices", "only_attention"),
    [(ENCODER, None), (ENCODER, 0.3), (DECODER, 0.3)],
    ids=["bert", "bert-attention", "gpt2-attention"],
)
def test_the_loss_has_the_same_mean_and_spread_as_padded(
    model_folder: Folder, choices: list[Choice], only_attention: float | None
) -> None:
    folder, family = model_folder(choices[0].family), choices[0].family
    padded = losses(folder, Choice(family=family, method="full", layout="padded"), only_attention=only_attention)
    expected = figures(padded)
    for choice in choices:
        draws = losses(folder, choice, only_attention=only_attention)
        if choice.attention == "per-text":  # a grid is what padded rows are, and may draw as they do
            assert not torch.equal(draws, padded)
        for name, ours, theirs in zip(("mean", "spread"), figures(draws), expected, strict=True):
            told = f"{choice}: {name} {ours[0]:.5f} and {theirs[0]:.5f}"
            assert apart(ours, theirs) < SIGMAS, told


def test_another_probability_would_be_seen(model_folder: Folder) -> None:
    """As where a kernel draws by one that is not the model's."""
    (choice, *_), folder = ENCODER, model_folder("bert")
    right, weaker = (figures(losses(folder, choice, only_attention=value)) for value in (0.3, 0.1))
    assert max(apart(one, other) for one, other in zip(right, weaker, strict=True)) > 1.5 * SIGMAS
