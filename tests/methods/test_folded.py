"""An update folded into the base for a while: the same outputs, and the base as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny_chat import write_chat_model
from transformers import AutoModelForCausalLM

from reglaj.methods.full import Full, FullConfig
from reglaj.methods.lora import Lora, LoraConfig
from reglaj.models.inspect import inspect_model

IDS = torch.arange(3, 40)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_chat_model(tmp_path_factory.mktemp("folded"))


def attach(folder: Path, name: str = "default", model=None, **config):
    model = model or AutoModelForCausalLM.from_pretrained(folder).eval()
    handle = Lora.attach(LoraConfig(**config), model, inspect_model(str(folder), folder=Path()), name)
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for _, parameter in handle.parameters()["lora"]:
            parameter.normal_(std=0.1, generator=generator)
    return handle


def logits(handle) -> torch.Tensor:
    with torch.no_grad():
        return handle.model(input_ids=IDS).logits


def test_outputs_are_equal_and_the_base_comes_back_bitwise(folder):
    handle = attach(folder)
    before = {key: (parameter, parameter.clone()) for key, parameter in handle.model.named_parameters()}
    flags = {key: parameter.requires_grad for key, parameter in handle.model.named_parameters()}
    apart = logits(handle)
    with handle.using(None):
        base = logits(handle)
    with handle.folded():
        together = logits(handle)
        changed = [key for key, p in handle.model.named_parameters() if not torch.equal(p, before[key][1])]
    scale = apart.abs().max()
    assert (together - apart).abs().max() <= 1e-4 * scale
    assert (base - apart).abs().max() > 0.1 * scale, "the update must matter for this to show anything"
    assert len(changed) == 14, "seven linear layers in each of two"
    for key, parameter in handle.model.named_parameters():
        was, values = before[key]
        assert parameter is was and torch.equal(parameter, values)
        assert parameter.requires_grad == flags[key]
    assert torch.equal(logits(handle), apart)


def test_one_of_several_handles(folder):
    first = attach(folder, "first")
    second = attach(folder, "second", first.model, rank=4)
    for handle in (first, second):
        with handle.using(handle.name):
            apart = logits(handle)
            with handle.folded():
                assert torch.allclose(logits(handle), apart, rtol=0, atol=1e-4 * apart.abs().max())
            assert torch.equal(logits(handle), apart)


def test_an_exception_inside_brings_the_base_back(folder):
    handle = attach(folder)
    apart = logits(handle)
    with pytest.raises(KeyboardInterrupt), handle.folded():
        raise KeyboardInterrupt
    assert torch.equal(logits(handle), apart)
    assert not any(layer.merged for layer in handle.layers())


def test_a_merged_handle_stays_merged(folder):
    handle = attach(folder)
    handle.merge()
    merged = logits(handle)
    with handle.folded():
        assert torch.equal(logits(handle), merged)
    assert torch.equal(logits(handle), merged)


def test_half_precision_folds_in_float32(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    handle = attach(folder, model=model)
    layer = handle.layers()[0]
    weight = layer.get_base_layer().weight
    down, up = (getattr(layer, name)["default"].weight.float() for name in ("lora_A", "lora_B"))
    expected = (weight.float() + up @ down * layer.scaling["default"]).bfloat16()
    with handle.folded(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.get_base_layer().weight, expected)
    with torch.autocast("cpu", torch.bfloat16), handle.folded():
        assert torch.equal(layer.get_base_layer().weight, expected)


def test_methods_without_linear_deltas_do_nothing(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    handle = Full.attach(FullConfig(), model, inspect_model(str(folder), folder=Path()))
    before = logits(handle)
    with handle.folded():
        assert torch.equal(logits(handle), before)
