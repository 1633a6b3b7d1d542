"""Properties that every method has, on an encoder, a decoder and an encoder-decoder. A new one is in here by being
registered.

What a pass through the engine keeps (`test_conformance_engine.py`) and how answers are generated
(`test_conformance_generation.py`) lie beside it.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.settings import DECODER, ENCODER, REQUIRED, ROUNDED, cases, on_each_kind, on_every_model, section
from tests.methods.subjects import TEXTS, attach, load, move, outputs
from torch import Tensor

from reglaj.core.errors import UserError
from reglaj.methods import METHODS
from reglaj.models.storage import storage_of

__all__ = ["TEXTS", "attach", "load", "move", "outputs"]
JSON_BYTES = 16_000
"""Of a saved model's configs, generously."""
every = pytest.mark.parametrize(("case", "family"), on_every_model())
each_kind = pytest.mark.parametrize(("case", "family"), on_each_kind())


def name_of(case: str) -> str:
    return section(case)["name"]


def method_of(case: str) -> tuple[Any, Any]:
    """The method and its config."""
    method = METHODS.get(name_of(case))
    return method, method.config_type(**section(case))


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    """Equal up to rounding, measured by the largest value."""
    return bool((one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1.0))


def values_of(model: Any) -> dict[str, Tensor]:
    """Every parameter and buffer, and what quantised weights are scaled by."""
    found = {key: p.data for key, p in model.named_parameters()} | dict(model.named_buffers())
    for key, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            found[f"{key}.absmax"] = state.absmax
    return {key: tensor.clone() for key, tensor in found.items()}


@pytest.mark.parametrize(("case", "family"), sorted(REQUIRED))
def test_what_must_be_supported_is(case, family, subject):
    assert case in cases() and subject(family).problems(case) == []


@every
def test_what_is_refused_says_what_would_work(case, family, subject):
    here = subject(family)
    problems = here.problems(case)
    if not problems:
        return
    assert (case, family) not in REQUIRED
    for problem in problems:
        assert problem.given and problem.allowed and problem.why and problem.remedy
        assert problem.where.startswith(("method", "model")), problem
    method, config = method_of(case)
    with pytest.raises(UserError):
        method.attach(config, here.model(case), here.facts)


@every
def test_identity_at_the_start(case, family, subject):
    here = subject(family)
    handle = here.attach(case)
    with torch.no_grad():
        found, expected = here.look(handle.model, handle), here.expected(case)
    if not METHODS.get(name_of(case)).starts_as_base:
        depends = name_of(case) == "peft"  # on its type
        assert depends or not close(found, expected), "it says that it does not begin as the base"
    elif name_of(case) in ROUNDED:
        assert close(found, expected)
    else:
        assert torch.equal(found, expected)


@every
def test_only_declared_parameters_move_and_all_of_them_get_a_gradient(case, family, subject):
    here = subject(family)
    handle = here.attach(case)
    declared = {key: p for group in handle.parameters().values() for key, p in group}
    assert declared.keys() == {key for key, p in handle.model.named_parameters() if p.requires_grad}
    with torch.no_grad():  # what an evaluation before the first step leaves behind must not spoil it
        here.look(handle.model, handle)
        with handle.using(None):
            here.look(handle.model, handle)
    before = values_of(handle.model)
    move(handle, here.facts, lambda: here.look(handle.model, handle))
    after = values_of(handle.model)
    assert after.keys() == before.keys()
    own = {id(tensor) for tensor in handle.state().values()}
    buffers = {key for key, buffer in handle.model.named_buffers() if id(buffer) in own}
    for key, value in after.items():
        moved = not torch.equal(value, before[key])
        assert moved == (key in declared) or _never_moves(key) or key in buffers, key
    for key, parameter in declared.items():
        assert (parameter.grad is not None and parameter.grad.abs().max() > 1e-6) or _never_moves(key), key


def _never_moves(key: str) -> bool:
    """Key biases shift all attention scores of a query alike: their true gradient is zero."""
    return key.endswith(("key.bias", "k_lin.bias"))


@every
def test_save_and_load_give_equal_outputs(case, family, subject, tmp_path):
    here = subject(family)
    handle = here.moved(case)
    handle.save(tmp_path)
    other = here.attach(case, seed=1)
    other.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(here.look(handle.model, handle), here.look(other.model, other))
    assert {file.suffix for file in tmp_path.iterdir()} <= {".safetensors", ".json"}, "no pickles"


@every
def test_forecasts_are_exact(case, family, subject, tmp_path):
    here = subject(family)
    handle = here.attach(case)
    method, config = method_of(case)
    assert method.trainable_parameters(config, here.facts) == handle.count()
    handle.save(tmp_path)
    tensors, beside = 0, 0
    for file in tmp_path.iterdir():
        size = file.stat().st_size
        tensors += _tensor_bytes(file) if file.suffix == ".safetensors" else 0
        beside += 0 if file.suffix == ".safetensors" else size
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
    assert method.stored_bytes(config, here.facts) == tensors
    assert beside < JSON_BYTES
    virtual = handle.virtual()
    taken = method.virtual_tokens(config, here.facts)
    assert taken == (virtual.count if virtual else 0) == handle.capabilities.virtual_tokens


def _tensor_bytes(file: Path) -> int:
    """What follows a safetensors file's header."""
    with file.open("rb") as stream:
        (header,) = struct.unpack("<Q", stream.read(8))
    return file.stat().st_size - 8 - header


@every
def test_using_none_is_the_base_and_then_ours_again(case, family, subject):
    here = subject(family)
    handle = here.moved(case)
    flags = {key: p.requires_grad for key, p in handle.model.named_parameters()}
    expected = here.expected(case)
    with torch.no_grad():
        ours = here.look(handle.model, handle)
        with handle.using(None):
            assert torch.equal(here.look(handle.model, handle), expected)
            with handle.using(handle.name):
                assert torch.equal(here.look(handle.model, handle), ours)
            assert torch.equal(here.look(handle.model, handle), expected)
        assert torch.equal(here.look(handle.model, handle), ours)
        with pytest.raises(ZeroDivisionError), handle.using(None):
            raise ZeroDivisionError
        assert torch.equal(here.look(handle.model, handle), ours)
    if handle.count():
        assert not close(ours, expected)
    assert flags == {key: p.requires_grad for key, p in handle.model.named_parameters()}


@pytest.mark.parametrize("kind", ["same", "other"])
@each_kind
def test_two_handles_on_one_base(case, family, kind, subject):
    here = subject(family)
    first = here.moved(case)
    partner = case if kind == "same" else ("ia3" if "lora" in case else "lora")
    with torch.no_grad():
        ours = here.look(first.model, first)
    second = here.attach(partner, first.model, name="second", seed=3)
    both = first, second
    expected = here.expected(case)
    assert second.is_on and not first.is_on
    with torch.no_grad():
        if METHODS.get(name_of(partner)).starts_as_base:
            assert close(here.look(first.model, *both), expected)
        with first.using("default"):
            assert torch.equal(here.look(first.model, *both), ours)
    move(second, here.facts, lambda: here.look(first.model, *both))
    with torch.no_grad():
        theirs = here.look(first.model, *both)
        with second.using(None):
            assert torch.equal(here.look(first.model, *both), expected)
        with second.using("default"):
            assert torch.equal(here.look(first.model, *both), ours)
            with first.using("second"):
                assert torch.equal(here.look(first.model, *both), theirs)
        assert torch.equal(here.look(first.model, *both), theirs)
    with pytest.raises(KeyError), second.using("third"):
        pass


@each_kind
def test_a_second_handle_leaves_the_first_one_what_it_learns(case, family, subject):
    """Its parameters still want a gradient, and get one while it is on."""
    here = subject(family)
    first = here.moved(case)
    second = here.attach("lora" if case != "lora" else "ia3", first.model, name="second")
    probe = here.attach("linear-probe", first.model, name="third")
    with first.using("default"):
        move(first, here.facts, lambda: here.look(first.model, first, second, probe), steps=1)
    for _, group in first.parameters().items():
        for key, parameter in group:
            assert parameter.requires_grad, key
            assert (parameter.grad is not None and parameter.grad.abs().max() > 1e-6) or _never_moves(key), key


@each_kind
def test_merged_equals_unmerged_or_is_refused(case, family, subject):
    here = subject(family)
    handle = here.moved(case)
    is_mergeable = METHODS.get(name_of(case)).is_mergeable
    assert is_mergeable == handle.capabilities.linear_deltas
    with torch.no_grad():
        before = here.look(handle.model, handle)
        if not is_mergeable:
            with pytest.raises(TypeError, match="cannot be merged"):
                handle.merge()
            return
        handle.merge()
        merged = here.look(handle.model, handle)
        assert close(merged, before)
        with handle.using(None):
            assert torch.equal(here.look(handle.model, handle), merged), "for good"


@pytest.mark.parametrize("case", [case for case in cases() if METHODS.get(name_of(case)).is_mergeable])
def test_nothing_is_merged_beside_others(case, subject):
    """Their layers would answer on other weights, or take the update out again."""
    here = subject(ENCODER)
    first = here.moved(case)
    with first.using(None), pytest.raises(TypeError, match="off"):
        first.merge()
    second = here.attach("ia3" if "lora" in case else "lora", first.model, name="second")
    with torch.no_grad():
        theirs = here.look(first.model, first, second)
        with pytest.raises(TypeError, match="load the base again"):
            first.merge()
        with first.folded():  # which is off
            assert torch.equal(here.look(first.model, first, second), theirs)
        assert torch.equal(here.look(first.model, first, second), theirs)


@each_kind
def test_folded_equals_unfolded_and_the_base_comes_back(case, family, subject):
    here = subject(family)
    handle = here.moved(case)
    before = values_of(handle.model)
    with torch.no_grad():
        apart = here.look(handle.model, handle)
        with handle.folded():
            assert close(here.look(handle.model, handle), apart)
            inside = values_of(handle.model)
            is_folded = any(not torch.equal(inside[key], value) for key, value in before.items())
            assert is_folded == (METHODS.get(name_of(case)).is_mergeable and storage_of(handle.model) is None)
        assert torch.equal(here.look(handle.model, handle), apart)
        with handle.using(None):
            assert torch.equal(here.look(handle.model, handle), here.expected(case))
    after = values_of(handle.model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("case", [case for case in cases() if METHODS.get(name_of(case)).starts_as_base])
def test_a_handle_begins_as_the_base_and_not_as_the_one_before_it(case, subject):
    """Where weights of the base have learnt, what begins from them must not begin from those."""
    here = subject(ENCODER)
    method, config = method_of(case)
    if method.storage(config) is not None:
        pytest.skip("nothing of a base in four bits learns")
    first = here.moved("full")
    second = here.attach(case, first.model, name="second", seed=3)
    with torch.no_grad():
        assert close(here.look(first.model, first, second), here.expected(case))


@pytest.mark.parametrize("name", METHODS.names())
def test_it_says_what_it_is(name, subject):
    method, config = method_of(name)
    assert method.summary and method.citation and method.architectures
    assert config.name == name
    facts = subject(DECODER).facts
    assert all(0 < method.default_learning_rate(facts, has_new_head=new) <= 1 for new in (True, False))
    assert 0 < method.default_head_learning_rate(facts) <= 1 and method.default_epochs() >= 1


@pytest.mark.parametrize("name", METHODS.names())
def test_a_target_that_matches_nothing_is_an_error(name, subject):
    method, _ = method_of(name)
    if "target_modules" not in method.config_type.model_fields:
        return
    here = subject("bert")
    config = method.config_type(**section(name) | {"target_modules": ["q_lin"]})
    with pytest.raises(UserError, match="matches no"):
        method.attach(config, here.model(name), here.facts)
