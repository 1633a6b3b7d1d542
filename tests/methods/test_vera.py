"""VeRA: projections that are shared, saved or drawn again, plain PEFT both ways, several handles on one base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from tests.methods.peft_parity import (
    PARITY_FAMILIES,
    apart,
    opened_in_plain_peft,
    ours_opens_there,
    run_steps,
    targets_of,
    theirs_opens_here,
)
from tests.methods.subjects import Subject, move
from tests.methods.test_low_rank_steps import Training, learnt, model_folder, plain

from reglaj.core.errors import UserError
from reglaj.methods.lora import Lora, LoraConfig
from reglaj.methods.vera import Vera, VeraConfig

__all__ = ["model_folder"]
WITHOUT = VeraConfig(rank=16, save_projections=False)


def handle_for(here: Subject, config: VeraConfig, model: Any = None, name: str = "default") -> Any:
    return Vera.attach(config, here.model("vera") if model is None else model, here.facts, name)


def moved(here: Subject, config: VeraConfig, model: Any = None, name: str = "default") -> Any:
    handle = handle_for(here, config, model, name)
    move(handle, here.facts, lambda: here.look(handle.model, handle))
    with torch.no_grad():
        for _, parameter in handle.parameters()["vera"]:
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1
    return handle


@pytest.mark.parametrize("family", PARITY_FAMILIES)
def test_plain_peft_opens_ours_and_we_open_plain_pefts(family, subject, tmp_path):
    here = subject(family)
    handle = moved(here, VeraConfig(rank=16))
    ours_opens_there(here, "vera", handle, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert {"base_model.vera_A", "base_model.vera_B"} <= tensors.keys()
    # Projections of another seed: those of the file count.
    config = peft.VeraConfig(r=16, projection_prng_key=5, target_modules=targets_of(handle))
    theirs_opens_here(here, "vera", config, handle_for(here, VeraConfig(rank=16)), tmp_path / "theirs")


def test_without_projections_they_are_drawn_again(subject, tmp_path):
    here = subject("bert")
    handle = moved(here, WITHOUT)
    (tmp_path / "ours").mkdir()
    ours_opens_there(here, "vera", handle, tmp_path / "ours")
    tensors = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    assert not any(key.endswith(("vera_A", "vera_B")) for key in tensors)
    assert sum(t.numel() for t in tensors.values()) * 4 == Vera.stored_bytes(WITHOUT, here.facts)
    assert json.loads((tmp_path / "ours" / "adapter_config.json").read_text())["save_projection"] is False
    for config in (WITHOUT, VeraConfig(rank=16)):
        other = handle_for(here, config)
        other.load(tmp_path / "ours")
        with torch.no_grad():
            assert torch.equal(here.look(other.model, other), here.look(handle.model, handle))
    config = peft.VeraConfig(r=16, save_projection=False, target_modules=targets_of(handle))
    theirs_opens_here(here, "vera", config, handle_for(here, WITHOUT), tmp_path / "theirs")


def test_projections_of_another_seed_are_not_taken_for_ours(subject, tmp_path):
    here = subject("bert")
    moved(here, WITHOUT).save(tmp_path)
    for other in (VeraConfig(rank=16, projection_seed=1), VeraConfig(rank=8), VeraConfig(rank=16, layers=1)):
        with pytest.raises(UserError, match="does not fit"):
            handle_for(here, other).load(tmp_path)


def test_the_seed_decides_the_projections_and_nothing_else_does(subject):
    here = subject("bert")
    drawn = []
    for seed, chance in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(chance)
        drawn.append(handle_for(here, VeraConfig(projection_seed=seed)).tensors()["base_model.vera_A"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_layers_share_the_projections_and_nobody_learns_them(subject):
    here = subject("bert")
    handle = moved(here, VeraConfig(rank=16))
    assert len({layer.vera_A["default"].data_ptr() for layer in handle.layers()}) == 1
    before = handle.tensors()["base_model.vera_A"].clone()
    move(handle, here.facts, lambda: here.look(handle.model, handle))
    assert torch.equal(handle.tensors()["base_model.vera_A"], before)
    assert not any("vera_A" in key for key, _ in handle.model.named_parameters())


def test_several_handles_have_projections_of_their_own(subject, tmp_path):
    """Other seeds, ranks and layers, and a LoRA between them."""
    here = subject("bert")
    first = moved(here, VeraConfig(rank=16), name="first")
    model = first.model
    with torch.no_grad():
        expected = here.look(model, first)
    lora = Lora.attach(LoraConfig(rank=4), model, here.facts, "lora")
    second = moved(here, VeraConfig(rank=8, projection_seed=3, layers=1), model, "second")
    third = moved(here, VeraConfig(rank=32, projection_seed=3), model, "third")
    everyone = (first, lora, second, third)
    outputs = {}
    for handle in everyone:
        with handle.using(handle.name), torch.no_grad():
            outputs[handle.name] = here.look(model, *everyone)
    assert torch.equal(outputs["first"], expected)
    for handle in (first, second, third):
        (tmp_path / handle.name).mkdir()
        with handle.using(handle.name):
            handle.save(tmp_path / handle.name)
        plain_model = opened_in_plain_peft(here, "vera", tmp_path / handle.name)
        with torch.no_grad():
            assert apart(here.look(plain_model.base_model.model), outputs[handle.name]) < 1e-5, handle.name
        with handle.folded(), torch.no_grad():
            pass
    with first.using(None), torch.no_grad():
        assert torch.equal(here.look(model, *everyone), here.expected("vera"))


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_twenty_steps_equal_plain_peft(family, model_folder, tmp_path: Path):
    training = Training(model_folder(family), family, {"name": "vera", "rank": 16})
    training.learner.handle.save(tmp_path)
    loop = plain(model_folder(family), training, tmp_path)
    first = learnt(training.learner.trained())
    theirs = training.steps(lambda _, rows, factor: loop.step(rows, factor))
    ours = run_steps(training)
    assert max(abs(one - other) for one, other in zip(ours, theirs, strict=True)) < 1e-5
    last, theirs_last = learnt(training.learner.trained()), learnt(loop.tensors())
    for key, tensor in last.items():
        assert torch.allclose(tensor, theirs_last[key], rtol=0, atol=1e-5), key
        assert not torch.equal(tensor, first[key]), f"{key} has moved"
