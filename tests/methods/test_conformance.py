"""Properties that every method has. A new one is in here by being registered."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from reglaj.core.errors import UserError
from reglaj.methods import METHODS
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_backbone
from reglaj.models.packing import TokenBatch, choose_layout, hidden_states

FAMILIES = ("bert", "distilbert", "llama")
TEXTS = [torch.tensor(row).numpy() for row in ([2, 7, 9, 11, 3], [2, 20, 3], [2, 5, 6, 7, 8, 9, 10, 3])]


def load(folder: Path):
    facts = inspect_model(str(folder), folder=Path())
    model = load_backbone(facts)
    return model, facts


def attach(name: str, folder: Path, seed: int = 0):
    model, facts = load(folder)
    torch.manual_seed(seed)
    method = METHODS.get(name)
    return method.attach(method.config_type(name=name), model, facts), facts


def outputs(handle, facts) -> torch.Tensor:
    layout, _ = choose_layout(handle.model, facts.model_type, facts.position_offset, 120)
    return hidden_states(handle.model, TokenBatch.of(TEXTS), layout, facts.position_offset)


def move(handle, facts) -> None:
    """Two optimizer steps on something: enough that LoRA's A learns too, whose gradient is zero while B is."""
    parameters = [p for group in handle.parameters().values() for _, p in group]
    for _ in range(2):
        handle.model.zero_grad()
        if parameters:
            outputs(handle, facts).pow(2).sum().backward()
        with torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter -= 1e-2 * parameter.grad / (parameter.grad.norm() + 1e-6)


def test_the_room_was_found():
    assert {"full", "lora", "linear-probe"} <= set(METHODS.names())


cases = pytest.mark.parametrize(("name", "family"), [(n, f) for n in METHODS.names() for f in FAMILIES])


@cases
def test_identity_at_the_start(name, family, tiny_model):
    handle, facts = attach(name, tiny_model(family))
    base, _ = load(tiny_model(family))
    handle.model.eval()
    layout, _ = choose_layout(base, facts.model_type, facts.position_offset, 120)
    with torch.no_grad():
        assert torch.equal(
            outputs(handle, facts), hidden_states(base, TokenBatch.of(TEXTS), layout, facts.position_offset)
        )


@cases
def test_only_declared_parameters_move_and_all_of_them_get_a_gradient(name, family, tiny_model):
    handle, facts = attach(name, tiny_model(family))
    declared = {key for group in handle.parameters().values() for key, _ in group}
    assert declared == {key for key, p in handle.model.named_parameters() if p.requires_grad}
    before = {key: p.detach().clone() for key, p in handle.model.named_parameters()}
    move(handle, facts)
    for key, parameter in handle.model.named_parameters():
        moved = not torch.equal(parameter, before[key])
        assert moved == (key in declared) or (key in declared and _never_moves(key)), key
    for _, group in handle.parameters().items():
        for key, parameter in group:
            assert (parameter.grad is not None and parameter.grad.abs().sum() > 0) or _never_moves(key), key


def _never_moves(key: str) -> bool:
    """Key biases shift all attention scores of a query alike: their true gradient is zero."""
    return key.endswith(("key.bias", "k_lin.bias"))


@cases
def test_save_and_load_give_equal_outputs(name, family, tiny_model, tmp_path):
    handle, facts = attach(name, tiny_model(family))
    move(handle, facts)
    handle.save(tmp_path)
    other, _ = attach(name, tiny_model(family), seed=1)
    other.load(tmp_path)
    handle.model.eval(), other.model.eval()
    with torch.no_grad():
        assert torch.equal(outputs(handle, facts), outputs(other, facts))
    suffixes = {file.suffix for file in tmp_path.iterdir()}
    assert suffixes <= {".safetensors", ".json", ".md"}, "no pickles"


@cases
def test_using_none_is_the_base_and_then_ours_again(name, family, tiny_model):
    handle, facts = attach(name, tiny_model(family))
    move(handle, facts)
    base, _ = load(tiny_model(family))
    handle.model.eval()
    layout, _ = choose_layout(base, facts.model_type, facts.position_offset, 120)
    trainable = {key for key, p in handle.model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        expected = hidden_states(base, TokenBatch.of(TEXTS), layout, facts.position_offset)
        ours = outputs(handle, facts)
        with handle.using(None):
            assert torch.equal(outputs(handle, facts), expected)
            with handle.using(handle.name) if name != "full" else contextlib.nullcontext():
                pass
        assert torch.equal(outputs(handle, facts), ours)
        if trainable:
            assert not torch.allclose(ours, expected)
    assert trainable == {key for key, p in handle.model.named_parameters() if p.requires_grad}


@cases
def test_merged_equals_unmerged_or_is_refused(name, family, tiny_model):
    handle, facts = attach(name, tiny_model(family))
    move(handle, facts)
    handle.model.eval()
    with torch.no_grad():
        before = outputs(handle, facts)
        if handle.capabilities.linear_deltas:
            handle.merge()
            assert torch.allclose(outputs(handle, facts), before, atol=1e-5)
        else:
            with pytest.raises(TypeError, match="cannot be merged"):
                handle.merge()


@cases
def test_the_forecast_of_trainable_parameters_is_exact(name, family, tiny_model):
    handle, facts = attach(name, tiny_model(family))
    method = METHODS.get(name)
    assert method.trainable_parameters(method.config_type(name=name), facts) == handle.count()


@pytest.mark.parametrize("name", METHODS.names())
def test_it_says_what_it_is(name):
    method = METHODS.get(name)
    assert method.summary and method.citation
    assert method.config_type(name=name).name == name


@pytest.mark.parametrize("name", METHODS.names())
def test_a_target_that_matches_nothing_is_an_error(name, tiny_model):
    method = METHODS.get(name)
    if "target_modules" not in method.config_type.model_fields:
        assert method.check(method.config_type(name=name), load(tiny_model("bert"))[1]) == []
        return
    model, facts = load(tiny_model("bert"))
    with pytest.raises(UserError, match="matches no linear layer"):
        method.attach(method.config_type(name=name, target_modules=["q_lin"]), model, facts)
