"""LoRA against plain PEFT, and the errors a user meets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.methods.test_conformance import TEXTS, attach, move, outputs
from transformers import AutoModel

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
    for layers in (3, 0, (0, 2), ()):
        (problem,) = Lora.check(LoraConfig(layers=layers), facts)
        assert problem.where == "method.layers"


def test_upper_layers_only(tiny_model):
    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    handle = Lora.attach(LoraConfig(layers=1), load_backbone(facts), facts)
    assert handle.capabilities.lowest_trained_layer == 1
    assert all("layer.1." in key for key, _ in handle.parameters()["lora"])
