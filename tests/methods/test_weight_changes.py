"""How far weights were moved, against what merging leaves in them."""

from __future__ import annotations

import json

import pytest
import torch
from tests.methods.subjects import Subject

from reglaj.methods.weight_changes import Change, summary
from reglaj.models.frozen_weights import narrow_frozen

CASES = ["lora", "lora, one layer", "dora", "adalora", "vera", "ia3", "qlora"]


def weights(model):
    """Every matrix under the name that it has in the base."""
    named = dict(model.named_modules())
    return {
        name: getattr(module, "dequantised", lambda _, m=module: m.weight)(torch.float32).detach().float().clone()
        for name, module in named.items()
        if getattr(module, "weight", None) is not None and not hasattr(module, "get_base_layer")
    }


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "t5"])
@pytest.mark.parametrize("case", CASES)
def test_equals_what_merging_leaves(subject, case, family):
    one: Subject = subject(family)
    before = weights(one.base(case))
    handle = one.moved(case)
    modules = handle.learnt(None)["updates"]["modules"]
    handle.merge()
    after = {name.replace(".base_layer", ""): weight for name, weight in weights(handle.model).items()}
    changed = {name for name, weight in before.items() if not torch.equal(after[name], weight)}
    assert changed <= modules.keys(), "what was moved is told"
    assert any(found["change"] > 1e-5 for found in modules.values()), "something was moved"
    for name, found in modules.items():
        weight = before[name]
        expected = (after[name].reshape(weight.shape) - weight).norm() / weight.norm()
        assert found["change"] == pytest.approx(expected.item(), rel=1e-3, abs=2e-6)


@pytest.mark.parametrize("case", ["lora", "adalora", "vera", "ia3"])
def test_narrow_weights_are_told_of_as_exactly(subject, case):
    handle = subject("bert").moved(case)
    exact = handle.learnt(None)["updates"]["modules"]
    assert narrow_frozen(handle.model, torch.bfloat16)
    before = {key: p.data.clone() for key, p in handle.model.named_parameters()}
    for name, found in handle.learnt(None)["updates"]["modules"].items():
        assert found["change"] == pytest.approx(exact[name]["change"], rel=0.02, abs=2e-6)
    assert all(torch.equal(p, before[key]) for key, p in handle.model.named_parameters())


def test_by_layer_and_by_kind(subject):
    learnt = subject("t5").moved("lora").learnt(None)
    assert json.loads(json.dumps(learnt)) == learnt
    updates = learnt["updates"]
    assert {(one["stack"], one["layer"]) for one in updates["layers"]} == {
        (stack, layer) for stack in ("encoder.block", "decoder.block") for layer in (0, 1)
    }
    assert sum(kind["modules"] for kind in updates["kinds"]) == len(updates["modules"])
    assert {one["rank"] for one in updates["modules"].values()} == {16}


def test_ranks_that_adalora_took_away_are_told(subject):
    handle = subject("bert").moved("adalora")
    layer = handle.layers()[0]
    layer.lora_E[handle.name].data[1:] = 0
    ranks = [one["rank"] for one in handle.learnt(None)["updates"]["modules"].values()]
    assert sorted(ranks)[0] == 1 and sorted(ranks)[1] > 1


def test_sums_of_squares():
    found = summary(
        [
            Change(module="a.layers.0.q", moved=1.0, weight=4.0, rank=2),
            Change(module="a.layers.0.k", moved=3.0, weight=12.0, rank=4),
            Change(module="a.layers.1.q", moved=0.0, weight=4.0, rank=3),
            Change(module="pooler", moved=9.0, weight=9.0, rank=1),
        ]
    )["updates"]
    assert found["modules"]["a.layers.0.q"] == {"change": 0.5, "rank": 2}
    assert found["layers"] == [
        {"stack": "a.layers", "layer": 0, "change": 0.5, "rank": 6},
        {"stack": "a.layers", "layer": 1, "change": 0.0, "rank": 3},
    ]
    kinds = {kind.pop("kind"): kind for kind in found["kinds"]}
    assert kinds["q"] == {"modules": 2, "change": pytest.approx((1 / 8) ** 0.5, abs=1e-6), "rank": 2.5}
    assert kinds["pooler"] == {"modules": 1, "change": 1.0, "rank": 1}
    assert summary([]) == {}
