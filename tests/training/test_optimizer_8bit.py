"""Moments in eight bits: rounding that is right on average, a course near that of AdamW, and a resume to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.trainings import Training
from tests.tiny import write_model
from torch import Tensor, nn

from reglaj.training import optimizer_8bit
from reglaj.training.fit import fit
from reglaj.training.optimizer import build_optimizer
from reglaj.training.optimizer_8bit import BLOCK, AdamW8bit


def spread(count: int = 40 * BLOCK) -> Tensor:
    """Values of both signs over a dozen octaves, with zeros among them."""
    torch.manual_seed(0)
    signs = torch.randint(0, 2, (count,)) * 2 - 1
    values = (0.1 + torch.rand(count)) * torch.exp2(torch.randint(-5, 5, (count,))) * signs
    values[::7] = 0
    return values.view(-1, BLOCK)


def packed(values: Tensor, move: int, *, is_signed: bool) -> Tensor:
    """What comes back of values (K, BLOCK) after rounding with the draws of one step."""
    codes = torch.zeros(values.shape, dtype=torch.uint8)
    top = torch.zeros((len(values), 1), dtype=torch.int32)
    noise = AdamW8bit([nn.Parameter(torch.zeros(BLOCK))], (0.9, 0.999), 1e-8)._noise_on(values.device)
    drawn = optimizer_8bit._drawn(noise, move, len(values))
    if is_signed:
        optimizer_8bit._pack_signed(values, codes, top, drawn)
        return optimizer_8bit._unpack_signed(codes, top)
    optimizer_8bit._pack(values, codes, top, drawn)
    return optimizer_8bit._unpack(codes, top)


@pytest.mark.parametrize("is_signed", [True, False])
def test_a_value_is_an_eighth_off_at_most_and_right_on_average(is_signed: bool) -> None:
    values = spread() if is_signed else spread().abs()
    every = torch.stack([packed(values, step * optimizer_8bit._STRIDES[0], is_signed=is_signed) for step in range(200)])
    assert torch.equal(every == 0, (values == 0).expand_as(every)), "zero stays zero, and nothing else becomes it"
    apart = ((every - values) / values)[:, values != 0]
    assert apart.abs().max() <= 1 / 8
    assert apart.mean(0).abs().max() < 2e-3, "each value by itself, over the steps"


def test_what_is_far_below_its_block_is_zero_and_an_empty_block_stays_empty() -> None:
    values = torch.zeros(2, BLOCK)
    values[0, 0], values[0, 1], values[0, 2] = 1.0, 2.0**-40, -(2.0**-10)
    found = packed(values, 0, is_signed=True)
    assert found[0, 0] == pytest.approx(1, rel=0.13) and found[0, 2] == pytest.approx(-(2.0**-10), rel=0.13)
    assert found[0, 1] == 0 and not found[1].any()


def moved(kind: Any, steps: int, seed: int = 1) -> Tensor:
    """A matrix on its way to a target under noisy gradients; its end shape is not a multiple of a block."""
    torch.manual_seed(seed)
    target = torch.randn(129, 77)
    parameter = nn.Parameter(torch.zeros(129, 77))
    optimizer = build_optimizer([([("w", parameter)], 0.02)], 0.01, kind)
    for _ in range(steps):
        parameter.grad = (parameter.detach() - target) * torch.linspace(1e-3, 1, 77) + 0.1 * torch.randn(129, 77)
        optimizer.step()
    return parameter.detach()


def test_the_first_step_is_that_of_adamw() -> None:
    torch.testing.assert_close(moved("adamw-8bit", 1), moved("adamw", 1), rtol=1e-5, atol=1e-6)


def test_the_course_is_that_of_adamw_but_for_a_few_percent() -> None:
    """Also after 1,500 steps: rounding to the nearest would have stopped the second moment long before."""
    for steps in (30, 300, 1500):
        ours, theirs = moved("adamw-8bit", steps), moved("adamw", steps)
        start_over = moved("adamw", steps, seed=2)  # other noise, other target: how far apart things can be
        assert (ours - theirs).norm() < 0.12 * theirs.norm() < 0.12 * (start_over - theirs).norm()


def test_states_take_two_bytes_a_value_and_small_tensors_keep_theirs() -> None:
    large, small = nn.Parameter(torch.zeros(300, 100)), nn.Parameter(torch.zeros(100))
    turned = nn.Parameter(torch.zeros(100, 300).T)
    optimizer = build_optimizer([([("large", large), ("small", small), ("turned", turned)], 1e-3)], 0.01, "adamw-8bit")
    size = sum(tensor.nbytes for tensor in optimizer.state[large].values())
    assert size < 2.1 * large.numel()
    assert optimizer.state[small]["exp_avg"].dtype == torch.float32
    for parameter in (large, small, turned):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter in (large, small, turned):
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, -1e-3), rtol=1e-4, atol=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("bert"))


def training(folder: Path, **train: Any) -> Training:
    settings = {"epochs": 4, "learning_rate": 2e-3, "checkpoint_every": 3, "model_dropout": 0.1, **train}
    return Training("full", "bert", folder, 24, optimizer="adamw-8bit", early_stopping=None, **settings)


class Planted(Exception):
    pass


def test_a_training_goes_on_to_the_bit(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer_8bit, "SMALLEST", BLOCK)  # of a tiny model, too
    calm = training(model)
    (tmp_path / "calm").mkdir()
    fitted = fit(calm.learner, calm.supervision, calm.config, tmp_path / "calm", identity="me")
    assert fitted.metrics[-2]["loss"] < fitted.metrics[0]["loss"]

    broken = training(model)
    (tmp_path / "broken").mkdir()
    before = AdamW8bit.step
    calls: list[None] = []

    def step(self: AdamW8bit, closure: Any = None) -> None:
        calls.append(None)
        if len(calls) == 8:
            raise Planted
        before(self, closure)

    monkeypatch.setattr(AdamW8bit, "step", step)
    with pytest.raises(Planted):
        fit(broken.learner, broken.supervision, broken.config, tmp_path / "broken", identity="me")
    again = training(model)
    fitted = fit(again.learner, again.supervision, again.config, tmp_path / "broken", identity="me")
    assert fitted.resumed_at == [6]
    ours, theirs = calm.learner.trained(), again.learner.trained()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
