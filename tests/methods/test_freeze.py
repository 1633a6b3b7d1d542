"""Upper layers in full: which parameters, and what the base is while they are off."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.deep import write_deep_model

from reglaj.core.errors import UserError
from reglaj.methods.freeze import Freeze, FreezeConfig
from reglaj.methods.full import Full, FullConfig
from reglaj.methods.selective import SelectiveHandle
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.models.loading import load_backbone, load_causal, load_seq2seq

IDS = torch.tensor([[2, 7, 9, 11, 3]])


def facts_of(folder: Path) -> ModelFacts:
    return inspect_model(str(folder), folder=Path())


def attached(facts: ModelFacts, loader: Any = load_backbone, **section: Any) -> Any:
    return Freeze.attach(FreezeConfig(**section), loader(facts), facts)


def learnt(handle: Any) -> set[str]:
    return {key for key, _ in handle.parameters()["base"]}


def shift(handle: Any, value: float) -> None:
    with torch.no_grad():
        for _, parameter in handle.parameters()["base"]:
            parameter += value


@pytest.mark.parametrize(
    ("family", "layer", "above"),
    [
        ("bert", "encoder.layer.1.", set()),
        ("distilbert", "transformer.layer.1.", set()),
        ("llama", "layers.1.", {"norm.weight"}),
        ("gpt2", "h.1.", {"ln_f.weight", "ln_f.bias"}),
        ("gemma2", "layers.1.", {"norm.weight"}),
    ],
)
def test_the_upper_layers_and_the_norm_above_them(family: str, layer: str, above: set[str], tiny_model: Any) -> None:
    handle = attached(facts_of(tiny_model(family)), layers=1)
    inside = {key for key, _ in handle.model.named_parameters() if key.startswith(layer)}
    assert inside and learnt(handle) == inside | above
    assert handle.capabilities.lowest_trained_layer == 1


def test_both_stacks_of_an_encoder_decoder(tiny_model: Any) -> None:
    handle = attached(facts_of(tiny_model("t5")), load_seq2seq, layers=1)
    starts = {".".join(key.split(".")[:3]) for key in learnt(handle)}
    assert starts == {
        "encoder.block.1",
        "decoder.block.1",
        "encoder.final_layer_norm.weight",
        "decoder.final_layer_norm.weight",
    }
    assert handle.capabilities.lowest_trained_layer == 0, "the decoder's gradient runs through the encoder"


def test_a_quarter_by_itself_and_layers_by_number(tmp_path: Path) -> None:
    facts = facts_of(write_deep_model(tmp_path, "bert"))
    quarter, reason = Freeze.derive(FreezeConfig(), facts, has_new_head=True)["layers"]
    assert quarter == max(1, round(facts.layers / 4)) and "quarter" in reason
    assert learnt(attached(facts)) == learnt(attached(facts, layers=quarter))
    some = attached(facts, layers=(1, 2))
    assert some.capabilities.lowest_trained_layer == 1
    assert {key.split(".")[2] for key in learnt(some)} == {"1", "2"}


def test_what_cannot_be_is_refused(tiny_model: Any, tmp_path: Path) -> None:
    facts = facts_of(tiny_model("bert"))
    for layers in (3, 0, (0, 2), ()):
        (problem,) = Freeze.check(FreezeConfig(layers=layers), facts)
        assert problem.where == "method.layers"
    shared = {key.replace("encoder.layer.1.", "encoder.shared_layer."): shape for key, shape in facts.tensors.items()}
    odd = ModelFacts(name="odd", folder=tmp_path, config=facts.config, tensors=shared)
    (problem,) = Freeze.check(FreezeConfig(layers=1), odd)
    assert "share" in problem.why and "lora" in problem.remedy


@pytest.mark.parametrize("is_large", [False, True], ids=["in memory", "from its files"])
def test_the_base_is_bitwise_itself_while_it_is_off(
    is_large: bool, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what was learnt is there again afterwards, also where the base's values are read from disk."""
    folder = Path(shutil.copytree(tiny_model("llama"), tmp_path / "base"))
    if is_large:
        monkeypatch.setattr(SelectiveHandle, "kept_bytes", 0)
    handle = attached(facts_of(folder), layers=1)
    before = {key: p.detach().clone() for key, p in handle.model.named_parameters()}
    shift(handle, 0.5)
    moved = {key: p.detach().clone() for key, p in handle.model.named_parameters()}
    for _ in range(2):
        with handle.using(None):
            assert all(torch.equal(p, before[key]) for key, p in handle.model.named_parameters())
        assert all(torch.equal(p, moved[key]) for key, p in handle.model.named_parameters())
    if is_large:
        (folder / "model.safetensors").unlink()
        with pytest.raises(UserError, match="has no tensor"), handle.using(None):
            pass
        assert all(torch.equal(p, moved[key]) for key, p in handle.model.named_parameters()), "nothing is half done"


def test_full_and_freeze_on_one_base_with_tied_weights(tiny_model: Any, tmp_path: Path) -> None:
    """T5 has one matrix for three places; a file of each handle alone has that handle's values."""
    facts = facts_of(tiny_model("t5"))
    model = load_seq2seq(facts)
    look = lambda: model(input_ids=IDS, decoder_input_ids=IDS).logits.detach()  # noqa: E731
    base = look()
    full: Any = Full.attach(FullConfig(), model, facts, "full")
    shift(full, 0.01)
    ours = look()
    assert model.lm_head.weight is model.shared.weight is model.encoder.embed_tokens.weight
    freeze: Any = Freeze.attach(FreezeConfig(), model, facts, "freeze")
    assert torch.equal(look(), base), "a new one begins as the base"
    shift(freeze, 0.02)
    upper = look()
    with full.using("full"):
        assert torch.equal(look(), ours)
    with full.using(None):
        assert torch.equal(look(), base)
    assert torch.equal(look(), upper)
    for name in ("full", "freeze"):
        (tmp_path / name).mkdir()
    full.save(tmp_path / "full"), freeze.save(tmp_path / "freeze")
    assert "shared.weight" in load_file(tmp_path / "full" / "model.safetensors")
    assert "shared.weight" not in load_file(tmp_path / "freeze" / "trained.safetensors")
    again = Full.attach(FullConfig(), load_seq2seq(facts), facts)
    again.load(tmp_path / "full")
    assert torch.equal(again.model(input_ids=IDS, decoder_input_ids=IDS).logits, ours)
    with again.using(None):
        assert torch.equal(again.model(input_ids=IDS, decoder_input_ids=IDS).logits, base)


def test_full_beside_layers_of_others_is_saved_without_them(tiny_model: Any, tmp_path: Path) -> None:
    """PEFT puts its layers around the base's, and an adapter hangs its own into them."""
    from reglaj.methods.adapter import Adapter, AdapterConfig
    from reglaj.methods.lora import Lora, LoraConfig

    facts = facts_of(tiny_model("bert"))
    model = load_backbone(facts)
    base = model(input_ids=IDS).last_hidden_state.detach()
    Lora.attach(LoraConfig(rank=4), model, facts, "lora")
    Adapter.attach(AdapterConfig(), model, facts, "adapter")
    full: Any = Full.attach(FullConfig(), model, facts, "full")
    assert full.count() == Full.trainable_parameters(FullConfig(), facts)
    shift(full, 0.01)
    ours = model(input_ids=IDS).last_hidden_state.detach()
    with full.using(None):
        assert torch.equal(model(input_ids=IDS).last_hidden_state, base)
    full.save(tmp_path)
    plain = load_backbone(facts)
    assert load_file(tmp_path / "model.safetensors").keys() == dict(plain.named_parameters()).keys()
    other = Full.attach(FullConfig(), plain, facts)
    other.load(tmp_path)
    torch.testing.assert_close(plain(input_ids=IDS).last_hidden_state, ours, rtol=1e-5, atol=1e-5)


def test_a_base_that_is_gone_is_not_invented(tiny_model: Any, tmp_path: Path) -> None:
    """A fully trained model can stand in for its base, and then must not answer as if it were it."""
    folder = Path(shutil.copytree(tiny_model("bert"), tmp_path / "model")).resolve()
    facts = facts_of(folder)
    handle = Full.attach(FullConfig(), load_backbone(facts), facts)
    handle.load(folder)
    with pytest.raises(UserError, match="the base of this model is not here"), handle.using(None):
        pass


@pytest.mark.parametrize("loader", [load_backbone, load_causal], ids=["trunk", "with its output matrix"])
def test_full_with_frozen_embeddings_counts_what_learns(loader: Any, tiny_model: Any) -> None:
    facts = facts_of(tiny_model("gpt2"))
    config = FullConfig(train_embeddings=False)
    handle: Any = Full.attach(config, loader(facts), facts)
    assert "wte" not in " ".join(learnt(handle)) and handle.count() == Full.trainable_parameters(config, facts)
