"""A layer and its update in one operation say what PEFT's own layer says, in value, in gradient and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny_chat import write_chat_model

from reglaj.methods.lora import Lora, LoraConfig
from reglaj.models.fused_lora import FusedConv1D, FusedLinear
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_causal

IDS = torch.arange(3, 43).view(4, 10)


def attached(folder: Path, **config: Any) -> Any:
    facts = inspect_model(str(folder), folder=Path())
    torch.manual_seed(0)
    handle = Lora.attach(LoraConfig(**{"rank": 4, **config}), load_causal(facts), facts)
    with torch.no_grad():
        for _, parameter in handle.parameters()["lora"]:
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return handle


def layers(handle: Any) -> list[FusedLinear]:
    return [module for module in handle.model.modules() if isinstance(module, FusedLinear)]


def passed(handle: Any, *, is_on: bool, autocast: bool = False) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    handle.fuse(is_on)
    handle.model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = handle.model(input_ids=IDS, use_cache=False).logits.float()
        logits.logsumexp(-1).sum().backward()
    return logits.detach(), {key: p.grad.clone() for key, p in handle.parameters()["lora"]}


@pytest.fixture(params=["llama", "qwen2", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Without bias, with biases, and with the matrix the other way round."""
    return write_chat_model(tmp_path, request.param)


def test_equal_in_value_and_gradient(folder: Path) -> None:
    handle = attached(folder)
    assert layers(handle)
    (fused, ours), (plain, theirs) = passed(handle, is_on=True), passed(handle, is_on=False)
    assert torch.allclose(fused, plain, atol=1e-5)
    assert ours.keys() == theirs.keys()
    for key, gradient in theirs.items():
        assert torch.allclose(ours[key], gradient, atol=1e-5 * max(1.0, gradient.abs().max().item())), key


def test_in_half_precision_the_difference_is_rounding_and_the_frozen_copy_is_made_once(folder: Path) -> None:
    handle = attached(folder)
    exact, true = passed(handle, is_on=True)
    fused, ours = passed(handle, is_on=True, autocast=True)
    copies = [layer._copy[2] for layer in layers(handle)]
    assert all(copy.dtype == torch.bfloat16 for copy in copies)
    again, _ = passed(handle, is_on=True, autocast=True)
    assert torch.equal(fused, again)
    assert all(layer._copy[2] is copy for layer, copy in zip(layers(handle), copies, strict=True))
    plain, theirs = passed(handle, is_on=False, autocast=True)
    scale = (plain - exact).abs().max()
    assert (fused - exact).abs().max() < 2 * scale, "no worse than PEFT's own under autocast"
    errors = [sum((found[key] - true[key]).norm().item() for key in true) for found in (ours, theirs)]
    assert errors[0] < 1.5 * errors[1], "gradients too"
    with handle.folded():
        assert all(layer._copy is None for layer in layers(handle)), "memory that generation can have"


def test_a_frozen_weight_that_changes_is_not_answered_from_its_copy(tmp_path: Path) -> None:
    handle = attached(write_chat_model(tmp_path, "llama"))
    before, _ = passed(handle, is_on=True, autocast=True)
    with torch.no_grad():
        layers(handle)[0].get_base_layer().weight.mul_(3)
    after, _ = passed(handle, is_on=True, autocast=True)
    assert not torch.equal(before, after)


def test_checkpointed_layers_keep_no_copies(tmp_path: Path) -> None:
    handle = attached(write_chat_model(tmp_path, "llama"))
    handle.fuse(True, keeps_copies=False)
    with torch.autocast("cpu", torch.bfloat16):
        handle.model(input_ids=IDS, use_cache=False)
    assert all(layer._copy is None for layer in layers(handle))


def test_with_dropout_peft_answers_and_the_engine_says_so(tmp_path: Path) -> None:
    handle = attached(write_chat_model(tmp_path, "llama"), dropout=0.5)
    assert handle.fuse(True) is False
    handle.model.train()
    draws = []
    for is_on in (True, False):
        torch.manual_seed(1)
        draws.append(passed(handle, is_on=is_on)[0])
    assert torch.equal(*draws)


def test_names_in_the_file_may_lack_a_prefix(tmp_path: Path) -> None:
    """As in openai-community/gpt2, whose file holds the bare trunk and which is loaded with its output matrix."""
    folder = write_chat_model(tmp_path, "gpt2")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {key.removeprefix("transformer."): t for key, t in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    handle = attached(folder)
    assert layers(handle) and all(isinstance(layer, FusedConv1D) for layer in layers(handle))


class OtherLinear(torch.nn.Linear):
    """A linear layer that is more than that, as a quantised one is."""


def test_what_is_not_a_plain_linear_layer_stays_with_peft(tmp_path: Path) -> None:
    facts = inspect_model(str(write_chat_model(tmp_path, "llama")), folder=Path())
    model: Any = load_causal(facts)
    model.model.layers[0].mlp.up_proj.__class__ = OtherLinear
    handle = Lora.attach(LoraConfig(rank=4), model, facts)
    assert not layers(handle) and handle.fuse(True) is False
    assert passed(handle, is_on=True)[1]
