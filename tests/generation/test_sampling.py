"""Drawing a token: the distribution is transformers' own, the numbers are the row's own."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from reglaj.generation import GenerationConfig
from reglaj.generation.sampling import NOT_A_NUMBER, choose, draws

GRID = 4000


def theirs(config, logits, seen):
    steps = []
    if config.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    steps.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k:
        steps.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1:
        steps.append(TopPLogitsWarper(config.top_p))
    for step in steps:
        logits = step(torch.tensor(seen), logits)
    return logits.softmax(-1)


@pytest.mark.parametrize(
    ("values", "vocabulary"),
    [
        ({}, 50),
        ({"top_k": 5}, 50),
        ({"top_k": 80}, 50),
        ({"top_p": 0.6}, 50),
        ({"top_p": 0.6}, 3000),
        ({"top_p": 0.999}, 3000),
        ({"top_k": 7, "top_p": 0.8}, 50),
        ({"top_k": 5, "top_p": 0.5}, 3000),
        ({"repetition_penalty": 1.8, "top_k": 9, "top_p": 0.7}, 50),
    ],
)
def test_the_distribution_is_that_of_transformers(values, vocabulary):
    config = GenerationConfig(temperature=0.7, **values)
    torch.manual_seed(0)
    logits = torch.randn(1, vocabulary) * 2
    seen = [[3, 4, 4, 9, 11]]
    numbers = [(place + 0.5) / GRID for place in range(GRID)]
    tokens = choose(config, logits.expand(GRID, -1), seen * GRID, numbers)
    shares = torch.bincount(tokens, minlength=vocabulary) / GRID
    expected = theirs(config, logits, seen)[0]
    # Evenly spaced numbers hit each token within one place at either end of its interval.
    assert (shares - expected).abs().max() <= 2 / GRID
    assert not shares[expected == 0].any()


def test_not_finite_is_told():
    logits = torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [float("inf"), 0.0]])
    for config in (GenerationConfig(), GenerationConfig(temperature=1)):
        tokens = choose(config, logits, [], [0.9, 0.5, 0.5]).tolist()
        assert tokens == [1, NOT_A_NUMBER, NOT_A_NUMBER]


def test_numbers_follow_from_seed_and_prompt():
    config = GenerationConfig(temperature=1, seed=3)
    first = draws(config, [1, 2], 5)
    assert (draws(config, [1, 2], 9)[:5] == first).all()
    assert (draws(config, [12], 5) != first).all()
    assert (draws(config, [2, 1], 5) != first).all()
    assert (draws(config.model_copy(update={"seed": 4}), [1, 2], 5) != first).all()
    assert len(draws(GenerationConfig(), [1, 2], 5)) == 0


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1},
        {"temperature": float("inf")},
        {"top_p": 0},
        {"top_k": -1},
        {"repetition_penalty": 0},
        {"stop": ("",)},
    ],
)
def test_values_that_mean_nothing_are_refused(values):
    with pytest.raises(ValidationError):
        GenerationConfig(**values)
