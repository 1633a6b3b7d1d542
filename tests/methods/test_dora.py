"""DoRA against the paper's equation, and its norms: right after every change, and made once a step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.methods.test_low_rank import attach, flat, logits, stirred
from tests.methods.test_low_rank_steps import Training
from tests.tiny_chat import write_chat_model
from torch import Tensor, nn

from reglaj.methods.base import PEFT
from reglaj.methods.dora import Dora
from reglaj.models.fused_lora import FusedLinear
from reglaj.training.fit import build_step


def equation(layer: FusedLinear, x: Tensor) -> Tensor:
    """W' = m (W + s B A) / |W + s B A|, the norm of each output a constant (Liu et al. 2024, eq. 5 and section 4.3)."""
    base = layer.get_base_layer()
    weight = base.weight.T if layer.is_target_conv_1d_layer else base.weight
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    directed = weight + layer.scaling["default"] * (up @ down)
    norms = directed.detach().pow(2).sum(1).sqrt()
    magnitude = layer.lora_magnitude_vector["default"].weight
    return nn.functional.linear(x, (magnitude / norms)[:, None] * directed, base.bias)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_a_layer_is_the_papers_equation_in_value_and_gradient(family, subject) -> None:
    layer = stirred(attach("dora", subject(family))).layers()[0]
    x = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(0))
    parameters = [layer.lora_A, layer.lora_B, layer.lora_magnitude_vector]
    inputs = [x.requires_grad_(True), *(part["default"].weight for part in parameters)]
    found, expected = layer(x), equation(layer, x)
    assert torch.allclose(found, expected, atol=1e-5)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    pairs = [torch.autograd.grad((result * weights).sum(), inputs) for result in (found, expected)]
    for one, other in zip(*pairs, strict=True):
        assert torch.allclose(one, other, atol=1e-4 * max(1.0, other.abs().max().item()))


def test_magnitudes_begin_as_the_norms_of_the_base(subject) -> None:
    for layer in attach("dora", subject("gpt2")).layers():
        weight = layer.get_base_layer().weight.T
        assert torch.allclose(layer.lora_magnitude_vector["default"].weight, weight.norm(dim=1))


def test_norms_are_made_once_a_step_and_anew_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_chat_model(tmp_path)
    training = Training(folder, "llama", {"name": "dora", "rank": 4})
    learner, asked = training.learner, []
    exact = FusedLinear.exact_weight
    monkeypatch.setattr(FusedLinear, "exact_weight", lambda layer: asked.append(layer) or exact(layer))
    layers = len(learner.handle.layers())
    batches = [training.supervision.load([row]) for row in range(4)]
    step = build_step(learner, training.supervision, training.config)
    learner.train()
    step(1, batches)
    assert len(asked) == 4 * layers, "nobody has promised to tell of steps: in every pass"
    learner.handle.begin(10)
    asked.clear()
    for number in (2, 3):
        step(number, batches)
    assert len(asked) == 2 * layers
    learner.checkpoint_gradients()
    asked.clear()
    step(4, batches)
    assert len(asked) == layers, "the second pass of a checkpointed layer is of the same step"


def test_what_restores_weights_is_seen(subject, tmp_path: Path) -> None:
    handle = stirred(attach("dora", subject("llama")))
    handle.begin(10)
    with torch.no_grad():
        before = logits(handle.model)
        handle.save(tmp_path)
        kept = {key: p.clone() for key, p in flat(handle)}
        for _, parameter in flat(handle):
            parameter.mul_(2)
        assert not torch.allclose(logits(handle.model), before, atol=1e-3)
        handle.load(tmp_path)
        assert torch.equal(logits(handle.model), before)
        for _, parameter in flat(handle):
            parameter.mul_(2)
        logits(handle.model)
        for key, parameter in flat(handle):
            parameter.detach().copy_(kept[key])
        assert torch.equal(logits(handle.model), before)


def test_norms_of_an_evaluation_serve_the_training_after_it(subject) -> None:
    handle = stirred(attach("dora", subject("llama")))
    handle.begin(10)
    with torch.inference_mode():
        logits(handle.model)
    logits(handle.model).logsumexp(-1).sum().backward()
    assert all(p.grad is not None for _, p in flat(handle))


def test_a_gain_near_one_is_not_lost_in_half_precision(subject) -> None:
    """1.003 is between two numbers of bfloat16, of which the nearer is 1."""
    handle = attach("dora", subject("llama"))
    layer = handle.layers()[0]
    x = torch.ones(64, layer.in_features)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = layer(x).float().norm()
        layer.lora_magnitude_vector["default"].weight.mul_(1.003)
        ratio = layer(x).float().norm() / before
    assert 1.001 < ratio < 1.005


def test_it_says_that_only_peft_serves_its_files() -> None:
    """vLLM refuses DoRA, and llama.cpp's converter has no place for its magnitudes."""
    assert Dora.served_by == (PEFT,) and Dora.is_mergeable
