"""LoRA against plain PEFT, and the errors a user meets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.methods.test_conformance import TEXTS, attach, move, outputs
from transformers import AutoModel

from reglaj.core.errors import UserError
from reglaj.methods.lora import Lora, LoraConfig
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_backbone


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama"])
def test_plain_peft_opens_what_we_save(family, tiny_model, tmp_path):
    handle, facts = attach("lora", tiny_model(family))
    move(handle, facts)
    handle.save(tmp_path)
    plain = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_model(family)), tmp_path).eval()
    handle.model.eval()
    with torch.no_grad():
        theirs = torch.cat([plain(input_ids=torch.from_numpy(row)[None]).last_hidden_state[0] for row in TEXTS])
        assert torch.allclose(outputs(handle, facts), theirs, atol=1e-5)


def test_we_open_what_plain_peft_saves(tiny_model, tmp_path):
    import peft

    torch.manual_seed(5)
    settings = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
    plain = peft.get_peft_model(AutoModel.from_pretrained(tiny_model("bert"), add_pooling_layer=False), settings).eval()
    plain.save_pretrained(tmp_path)
    handle, facts = attach("lora", tiny_model("bert"))
    handle.load(tmp_path)
    handle.model.eval()
    with torch.no_grad():
        theirs = torch.cat([plain(input_ids=torch.from_numpy(row)[None]).last_hidden_state[0] for row in TEXTS])
        assert torch.allclose(outputs(handle, facts), theirs, atol=1e-5)


def test_two_handles_on_one_base_do_not_disturb_each_other(tiny_model):
    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    model = load_backbone(facts)
    first = Lora.attach(LoraConfig(), model, facts, "first")
    move(first, facts)
    second = Lora.attach(LoraConfig(rank=4), model, facts, "second")
    assert {key for key, p in model.named_parameters() if p.requires_grad} >= {
        key for key, _ in first.parameters()["lora"]
    }
    model.eval()
    with torch.no_grad():
        with second.using("second"):
            untouched = outputs(second, facts)
        with second.using(None):
            assert torch.equal(outputs(second, facts), untouched)
        with first.using("first"):
            assert not torch.allclose(outputs(first, facts), untouched)


@pytest.mark.parametrize(
    ("family", "target", "meant"),
    [
        ("bert", "q_lin", "query"),
        ("bert", "v_lin", "value"),
        ("distilbert", "query", "q_lin"),
        ("llama", "query", "q_proj"),
    ],
)
def test_a_wrong_target_is_told_the_right_one(family, target, meant, tiny_model):
    facts = inspect_model(str(tiny_model(family)), folder=Path())
    (problem,) = Lora.check(LoraConfig(target_modules=[target]), facts)
    assert f"did you mean {meant!r}?" in problem.remedy
    assert meant in problem.allowed


def test_a_rank_above_the_layer_and_layers_that_are_not_there_are_refused(tiny_model):
    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    (problem,) = Lora.check(LoraConfig(rank=33), facts)
    assert problem.where == "method.rank" and "1 to 32" in problem.allowed
    for layers in (3, 0, (0, 2), (), (0, 0)):
        (problem,) = Lora.check(LoraConfig(layers=layers), facts)
        assert problem.where == "method.layers"


def test_upper_layers_only(tiny_model):
    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    handle = Lora.attach(LoraConfig(layers=1), load_backbone(facts), facts)
    assert handle.capabilities.lowest_trained_layer == 1
    assert all("layer.1." in key for key, _ in handle.parameters()["lora"])


def pissa(folder: Path, **keys):
    facts = inspect_model(str(folder), folder=Path())
    torch.manual_seed(0)
    return Lora.attach(LoraConfig(rank=4, init="pissa", **keys), load_backbone(facts), facts), facts


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_pissa_begins_with_the_best_part_of_that_rank_and_leaves_the_base_alone(family, tiny_model):
    handle, facts = pissa(tiny_model(family))
    base = dict(load_backbone(facts).named_parameters())
    for key, parameter in handle.model.named_parameters():
        if "lora_" not in key:
            assert torch.equal(parameter, base[key.replace(".base_layer.", ".")]), key
    for layer in handle.layers():
        part = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        weight = layer.get_base_layer().weight
        left, values, right = torch.linalg.svd(weight)
        best = left[:, :4] @ torch.diag(values[:4]) @ right[:4]
        assert torch.allclose(part, best, atol=1e-5)
        assert torch.allclose(layer.updated_weight("default"), weight, atol=1e-6)
    layer = handle.layers()[0]
    assert torch.allclose(layer.lora_A["default"].weight.norm(dim=1) ** 2 * layer.scaling["default"],
                          torch.linalg.svdvals(layer.get_base_layer().weight)[:4], atol=1e-4)  # fmt: skip


def test_a_large_layer_is_decomposed_nearly_as_well(monkeypatch):
    from reglaj.models import pissa as module

    spectrum = torch.diag(torch.arange(1, 301).float() ** -0.5)
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(300, 300))[0] for _ in range(2))
    weight = left @ spectrum @ right
    fast = module.principal_factors(weight, 8, 2.0)
    monkeypatch.setattr(module, "EXACT_UP_TO", 300)
    exact = module.principal_factors(weight, 8, 2.0)
    errors = [(weight - 2.0 * up @ down).norm() for down, up in (fast, exact)]
    assert errors[0] < 1.002 * errors[1]
    assert fast[0].shape == exact[0].shape == (8, 300) and fast[0].is_contiguous()


def test_first_factors_go_into_checkpoints_and_files(tiny_model, tmp_path):
    handle, facts = pissa(tiny_model("llama"))
    move(handle, facts)
    state = handle.state()
    assert len(state) == 2 * len(handle.layers())
    for layer in handle.layers():
        for tensor in layer.first_factors("default"):
            assert any(kept is tensor for kept in state.values()), "the tensors themselves"
    handle.save(tmp_path)
    other, _ = pissa(tiny_model("llama"))
    for tensor in other.state().values():
        tensor.mul_(1.5)  # another machine's decomposition
    other.load(tmp_path)
    for key, tensor in state.items():
        assert torch.equal(other.state()[key], tensor)
    with torch.no_grad():
        assert torch.equal(outputs(handle, facts), outputs(other, facts))
    plain, _ = attach("lora", tiny_model("llama"))
    with pytest.raises(Exception, match="does not fit"):
        plain.load(tmp_path)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_pissa_takes_the_fused_operation_with_the_gradients_of_the_plain_one(family, tiny_model):
    handle, facts = pissa(tiny_model(family))
    move(handle, facts)
    found = []
    for is_on in (True, False):
        assert handle.fuse(is_on)
        layer = handle.layers()[0]
        assert (layer._only_known_update(torch.zeros(1, layer.in_features)) == "default") is is_on
        handle.model.zero_grad()
        result = outputs(handle, facts)
        result.square().cumsum(1).sum().backward()
        found.append([result.detach(), *(p.grad.clone() for _, p in handle.parameters()["lora"])])
    for fused, plain in zip(*found, strict=True):
        assert torch.allclose(fused, plain, atol=1e-5 * max(1.0, plain.abs().max().item()))


def test_pissa_beside_another_handle_on_the_same_base(tiny_model):
    handle, facts = pissa(tiny_model("llama"))
    move(handle, facts)
    second = Lora.attach(LoraConfig(rank=2), handle.model, facts, "second")
    third = Lora.attach(LoraConfig(rank=2, init="pissa"), handle.model, facts, "third")
    handle.model.eval()
    with torch.no_grad():
        with handle.using(None):
            base = outputs(handle, facts)
        with handle.using("default"):
            assert not torch.allclose(outputs(handle, facts), base, atol=1e-4)
        with handle.using("second"):
            assert torch.equal(outputs(second, facts), base)
        assert torch.allclose(outputs(third, facts), base, atol=1e-6)


def test_pissa_needs_layers_whose_weight_says_what_they_do(tiny_model):
    class OtherLinear(torch.nn.Linear):
        pass

    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    model = load_backbone(facts)
    model.encoder.layer[0].attention.self.query.__class__ = OtherLinear
    with pytest.raises(UserError, match="more than linear layers"):
        Lora.attach(LoraConfig(init="pissa"), model, facts)
