"""(IA)^3: what it scales where, plain PEFT both ways, and twenty steps beside it."""

from __future__ import annotations

import peft
import pytest
import torch
from tests.methods.peft_parity import PARITY_FAMILIES, ours_opens_there, run_steps, targets_of, theirs_opens_here
from tests.methods.test_low_rank_steps import Training, learnt, model_folder, plain
from tests.tiny import write_model

from reglaj.methods.ia3 import Ia3, Ia3Config
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_backbone

__all__ = ["model_folder"]
SCALED = {
    "bert": ({"attention.self.key", "attention.self.value"}, {"output.dense"}),
    "roberta": ({"attention.self.key", "attention.self.value"}, {"output.dense"}),
    "distilbert": ({"attention.k_lin", "attention.v_lin"}, {"ffn.lin2"}),
    "gpt2": ({"attn.c_attn"}, {"mlp.c_proj"}),
    "llama": ({"self_attn.k_proj", "self_attn.v_proj"}, {"mlp.down_proj"}),
    "qwen2": ({"self_attn.k_proj", "self_attn.v_proj"}, {"mlp.down_proj"}),
    "mistral": ({"self_attn.k_proj", "self_attn.v_proj"}, {"mlp.down_proj"}),
    "gemma": ({"self_attn.k_proj", "self_attn.v_proj"}, {"mlp.down_proj"}),
    "t5": ({"SelfAttention.k", "SelfAttention.v", "EncDecAttention.k", "EncDecAttention.v"}, {"DenseReluDense.wo"}),
    "t5-gated": (
        {"SelfAttention.k", "SelfAttention.v", "EncDecAttention.k", "EncDecAttention.v"}, {"DenseReluDense.wo"}
    ),
}  # fmt: skip
"""By architecture: what is scaled at its output, and what at its input."""


@pytest.mark.parametrize("family", SCALED)
def test_keys_values_and_the_second_feed_forward_matrix_of_each_architecture(family, tmp_path):
    folder = write_model(tmp_path, family)
    facts = inspect_model(str(folder), folder=tmp_path)
    model = load_backbone(facts)
    handle = Ia3.attach(Ia3Config(), model, facts)
    found: tuple[set[str], set[str]] = set(), set()
    for key, module in model.named_modules():
        if hasattr(module, "ia3_l"):
            tail = key.split(".layer.")[-1] if "t5" in family else key
            found[module.is_feedforward].add(".".join(part for part in tail.split(".")[-3:] if not part.isdigit()))
    expected = SCALED[family]
    assert all(any(key.endswith(end) for end in expected[0]) for key in found[0]), found
    assert all(any(key.endswith(end) for end in expected[1]) for key in found[1]), found
    assert all("attention.output" not in key for key in found[1])
    assert Ia3.trainable_parameters(Ia3Config(), facts) == handle.count()
    each_layer = {"gpt2": 2, "t5": 3 + 5, "t5-gated": 3 + 5}.get(family, 3)
    assert len(handle.layers()) == 2 * each_layer


@pytest.mark.parametrize("family", PARITY_FAMILIES)
def test_plain_peft_opens_ours_and_we_open_plain_pefts(family, subject, tmp_path):
    here = subject(family)
    handle = here.moved("ia3")
    ours_opens_there(here, "ia3", handle, tmp_path)
    config = peft.IA3Config(
        target_modules=targets_of(handle), feedforward_modules=list(handle.config.feedforward_modules)
    )
    theirs_opens_here(here, "ia3", config, here.attach("ia3"), tmp_path / "theirs")


def test_named_targets_and_layers(subject):
    here = subject("bert")
    config = Ia3Config(target_modules=["query", "intermediate.dense"], layers=1)
    handle = Ia3.attach(config, here.model("ia3"), here.facts)
    assert {tuple(p.shape) for _, p in handle.parameters()["ia3"]} == {(32, 1), (64, 1)}
    assert handle.capabilities.lowest_trained_layer == 1 and len(handle.layers()) == 2
    assert Ia3.trainable_parameters(config, here.facts) == handle.count() == 96


@pytest.mark.parametrize("layers", [None, 1])
def test_every_linear_layer_is_scaled_on_its_own_side(layers, subject):
    """PEFT goes by the ends of names, and one of BERT's is the end of two."""
    here = subject("bert")
    handle = Ia3.attach(Ia3Config(target_modules="all-linear", layers=layers), here.model("ia3"), here.facts)
    sides = {key: module.is_feedforward for key, module in handle.model.named_modules() if hasattr(module, "ia3_l")}
    assert len(sides) == 6 * (layers or 2)
    assert all(side == (key.endswith("output.dense") and "attention" not in key) for key, side in sides.items())


def test_a_model_without_such_layers_is_refused(subject):
    here = subject("bert")
    (problem, *_) = Ia3.check(Ia3Config(target_modules="q_lin"), here.facts)
    assert "did you mean 'query'" in problem.remedy


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_twenty_steps_equal_plain_peft(family, model_folder, tmp_path):
    training = Training(model_folder(family), family, {"name": "ia3"})
    training.learner.handle.save(tmp_path)
    loop = plain(model_folder(family), training, tmp_path)
    first = learnt(training.learner.trained())
    theirs = training.steps(lambda _, rows, factor: loop.step(rows, factor))
    ours = run_steps(training)
    last, theirs_last = learnt(training.learner.trained()), learnt(loop.tensors())
    assert max(abs(one - other) for one, other in zip(ours, theirs, strict=True)) < 1e-5
    assert len(last) >= 4
    for key, tensor in last.items():
        assert torch.allclose(tensor, theirs_last[key], rtol=0, atol=1e-5), key
        assert not torch.equal(tensor, first[key]), f"{key} has moved"


def test_layers_of_both_stacks_of_an_encoder_decoder(tmp_path):
    """Of an encoder of two layers and a decoder of three, the upper ones of each."""
    import transformers
    from tests.tiny import tiny_config, write_tokenizer

    config = transformers.T5Config.from_dict(tiny_config("t5").to_dict() | {"num_decoder_layers": 3})
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    facts = inspect_model(str(tmp_path), folder=tmp_path)
    keys = Ia3Config(layers=1, target_modules="k")
    handle = Ia3.attach(keys, load_backbone(facts), facts)
    found = {key.split(".layer.")[0] for key, _ in handle.parameters()["ia3"]}
    assert found == {"encoder.block.1", "decoder.block.2"}
    assert Ia3.check(Ia3Config(layers=3), facts) == []
    (problem,) = Ia3.check(Ia3Config(layers=4), facts)
    assert "1 to 3 upper layers" in problem.allowed
