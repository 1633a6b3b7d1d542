"""Fifty steps of every fast path follow a plain padded loop over transformers and PEFT, with the real optimizer.

A gradient test cannot see what an optimizer makes of a gradient: torch's fused AdamW once scrambled those that were
not contiguous. Here its losses and, at the end, its weights are those of the unfused one. Dropout is off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.choices import Choice, Training
from tests.training.plain_loop import plain_loop
from torch import Tensor

from reglaj.training.fit import build_step, plan_for
from reglaj.training.optimizer import schedule_factor, set_learning_rate
from reglaj.training.step import Step

STEPS = 50
LOSS, WEIGHT = 1e-4, 1e-4
BUDGET = {True: 250, False: 64}
"""Tokens of a micro-batch for conversations and for texts: several a step."""
CHOICES = [
    Choice(family="llama", method="full", layout="packed-causal"),
    Choice(family="llama", method="full", layout="packed-causal", is_checkpointed=True),
    Choice(family="llama", method="full", layout="padded"),
    Choice(family="llama", method="lora", layout="packed-causal"),
    Choice(family="llama", method="lora", layout="packed-causal", is_fused=False),
    Choice(family="llama", method="lora", layout="packed-masked-causal"),
    Choice(family="qwen2", method="full", layout="packed-causal"),
    Choice(family="qwen2", method="full", layout="packed-masked-causal"),
    Choice(family="qwen2", method="lora", layout="packed-causal"),
    Choice(family="gpt2", method="full", layout="packed-causal"),
    Choice(family="gpt2", method="full", layout="packed-masked-causal"),
    Choice(family="gpt2", method="lora", layout="packed-causal"),
    Choice(family="gpt2", method="lora", layout="padded", is_fused=False),
    Choice(family="bert", method="full", layout="packed"),
    Choice(family="bert", method="full", layout="packed", attention="grid"),
    Choice(family="bert", method="full", layout="packed", is_checkpointed=True),
    Choice(family="bert", method="full", layout="packed-masked"),
    Choice(family="bert", method="lora", layout="packed"),
    Choice(family="bert", method="lora", layout="packed", attention="grid", is_fused=False),
    Choice(family="bert", method="lora", layout="padded"),
    Choice(family="distilbert", method="full", layout="packed", attention="grid"),
    Choice(family="distilbert", method="full", layout="padded"),
    Choice(family="distilbert", method="lora", layout="packed"),
]


@dataclass(frozen=True)
class Trajectory:
    """Losses of the steps, and the weights after the last one."""

    losses: list[float]
    first: dict[str, Tensor]
    last: dict[str, Tensor]


def training_for(folder: Path, choice: Choice) -> Training:
    return Training(folder, choice, 32, epochs=13, max_steps=STEPS)


def steps(training: Training, take: Callable[[int, list[int], float], float]) -> list[float]:
    """take: number, rows and factor of the learning rates to a loss."""
    plan = plan_for(training.config, training.encoded.rows)
    assert plan.total_steps == STEPS
    factors = [schedule_factor(number, STEPS, training.config) for number in range(1, STEPS + 1)]
    return [take(number, plan.rows(number), factor) for number, factor in enumerate(factors, start=1)]


@pytest.fixture(scope="module")
def plain(model_folder: Callable[[str], Path]) -> Callable[[Choice], Trajectory]:
    """The plain side of a family and a method, run once."""
    made: dict[tuple[str, str], Trajectory] = {}

    def run(choice: Choice) -> Trajectory:
        key = choice.family, choice.method
        if key not in made:
            folder = model_folder(choice.family)
            loop = plain_loop(folder, training := training_for(folder, choice))
            first = {name: tensor.clone() for name, tensor in loop.tensors().items()}
            losses = steps(training, lambda _, rows, factor: loop.step(rows, factor))
            made[key] = Trajectory(losses, first, loop.tensors())
        return made[key]

    return run


def fast(
    folder: Path, choice: Choice, plant: Callable[[Step[Any]], None] = lambda step: None, runs: Path | None = None
) -> Trajectory:
    """plant: what a test does to the step. runs: where the states of frozen layers are kept, if they are."""
    training = training_for(folder, choice)
    if runs is not None:
        training.keep_states(runs)
    step = build_step(training.learner, training.supervision, training.config)
    plant(step)
    assert step.optimizer.defaults["fused"]
    first = {key: tensor.clone() for key, tensor in training.learner.trained().items()}
    training.learner.train()

    def take(number: int, rows: list[int], factor: float) -> float:
        set_learning_rate(step.optimizer, factor)
        batches = training.batches(rows, BUDGET[choice.is_chat])
        assert 1 < len(batches) < len(rows)
        return step(number, batches).loss

    losses = steps(training, take)
    return Trajectory(losses, first, training.learner.trained())


def compared(key: str, tensor: Tensor) -> Tensor:
    """What of a parameter has a true gradient: a bias of keys moves all scores of a query alike, which softmax does not
    see. Its gradient is rounding, and Adam makes steps of full length from that. (Where keys are turned by their
    place, as in Qwen2, a bias does count.)"""
    if key.endswith((".key.bias", ".k_lin.bias")):
        return tensor[:0]
    if key.endswith(".attn.c_attn.bias"):  # GPT-2's queries, keys and values in one
        queries, _, values = tensor.chunk(3)
        return torch.cat([queries, values])
    return tensor


def distances(found: Trajectory, expected: Trajectory) -> tuple[list[float], dict[str, float]]:
    """How far the losses of each step are apart, and the last weights by name."""
    losses = [abs(ours - theirs) for ours, theirs in zip(found.losses, expected.losses, strict=True)]
    weights = {
        key: (compared(key, tensor) - compared(key, expected.last[key])).abs().max().item()
        for key, tensor in found.last.items()
        if len(compared(key, tensor))
    }
    return losses, weights


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_fifty_steps_follow_the_plain_loop(
    model_folder: Callable[[str], Path], plain: Callable[[Choice], Trajectory], choice: Choice, record_property: Any
) -> None:
    follow(fast(model_folder(choice.family), choice), plain(choice), record_property)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "bert", "distilbert"])
def test_fifty_steps_on_kept_states_follow_the_plain_loop(
    model_folder: Callable[[str], Path], plain: Callable[[Choice], Trajectory], family: str, tmp_path: Path,
    record_property: Any,
) -> None:  # fmt: skip
    layout: Any = "packed" if family.endswith("bert") else "packed-causal"
    choice = Choice(family=family, method="upper-lora", layout=layout)
    follow(fast(model_folder(family), choice, runs=tmp_path), plain(choice), record_property)


def follow(found: Trajectory, expected: Trajectory, record_property: Any) -> None:
    """Both begin alike and end alike, and something was learnt in between."""
    for key, tensor in found.first.items():
        assert torch.equal(tensor, expected.first[key]), f"both begin alike: {key}"
    losses, weights = distances(found, expected)
    place, worst = max(range(STEPS), key=losses.__getitem__), max(weights, key=weights.__getitem__)
    told = f"worst loss {losses[place]:.1e} apart at step {place + 1}, worst parameter {weights[worst]:.1e}: {worst}"
    record_property("worst", told)
    assert losses[place] < LOSS and weights[worst] < WEIGHT, told
    assert min(found.losses) < found.losses[0] - 0.2, "something was learnt"
    still = [key for key, tensor in found.last.items() if torch.equal(tensor, found.first[key])]
    assert not still, f"these have not moved: {still}"


def test_a_scrambled_update_would_be_seen(
    model_folder: Callable[[str], Path], plain: Callable[[Choice], Trajectory]
) -> None:
    """A right gradient that lies otherwise in memory: what the fused AdamW makes of it shows here."""
    choice = Choice(family="llama", method="lora", layout="packed-causal")

    def transposed(step: Step[Any]) -> None:
        move = step.optimizer.step

        def moving() -> None:
            parameter = step.parameters[0]
            parameter.grad = parameter.grad.t().contiguous().t()
            move()

        step.optimizer.step = moving  # type: ignore[method-assign, assignment]

    losses, weights = distances(fast(model_folder("llama"), choice, transposed), plain(choice))
    assert max(losses) > 10 * LOSS and max(weights.values()) > 10 * WEIGHT
