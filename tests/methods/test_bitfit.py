"""Biases alone, which ones, and what a model without any is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.harness import learner_for, some_rows, supervise

from reglaj.core.errors import UserError
from reglaj.methods.bitfit import Bitfit, BitfitConfig
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.models.loading import load_backbone, load_causal, load_seq2seq
from reglaj.training.fit import fit


def attached(folder: Path, loader: Any = load_backbone, **section: Any) -> tuple[Any, ModelFacts]:
    facts = inspect_model(str(folder), folder=Path())
    return Bitfit.attach(BitfitConfig(**section), loader(facts), facts), facts


def learnt(handle: Any) -> set[str]:
    return {key for key, _ in handle.parameters()["base"]}


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
def test_all_biases_but_those_of_keys_learn_in_an_encoder(family: str, tiny_model: Any) -> None:
    handle, _ = attached(tiny_model(family))
    biases = {key for key, _ in handle.model.named_parameters() if key.endswith(".bias")}
    keys = {key for key in biases if key.endswith(("key.bias", "k_lin.bias"))}
    assert len(keys) == 2 and learnt(handle) == biases - keys
    assert any("LayerNorm.bias" in key or "layer_norm.bias" in key for key in learnt(handle))


def test_the_biases_of_keys_have_no_gradient_but_rounding(tiny_model: Any) -> None:
    """What the first departure claims: against the queries' they are nothing, in float64 hardly a digit."""
    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    model = load_backbone(facts).double()
    found = model(input_ids=torch.tensor([[2, 7, 9, 11, 3]])).last_hidden_state
    (found * torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(0))).sum().backward()
    sizes = {key: p.grad.abs().max().item() for key, p in model.named_parameters() if key.endswith(".bias")}
    keys = [size for key, size in sizes.items() if key.endswith("key.bias")]
    queries = [size for key, size in sizes.items() if key.endswith("query.bias")]
    assert max(keys) < 1e-9 * min(queries)


def test_with_rotary_positions_the_biases_of_keys_count(tiny_model: Any) -> None:
    handle, _ = attached(tiny_model("qwen2"))
    assert learnt(handle) == {
        f"layers.{layer}.self_attn.{part}_proj.bias" for layer in (0, 1) for part in ("q", "k", "v")
    }
    found = handle.model(input_ids=torch.tensor([[2, 7, 9, 11, 3]])).last_hidden_state
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert all(p.grad.abs().max() > 1e-4 for _, p in handle.parameters()["base"])


def test_gpt2_learns_its_biases_and_no_bias_of_a_head(tiny_model: Any) -> None:
    handle, _ = attached(tiny_model("gpt2"), load_causal)
    assert learnt(handle) == {key for key, _ in handle.model.named_parameters() if key.endswith(".bias")}


@pytest.mark.parametrize("family", ["llama", "t5", "mistral", "gemma2"])
def test_a_model_without_biases_is_told_what_would_work(family: str, tiny_model: Any) -> None:
    facts = inspect_model(str(tiny_model(family)), folder=Path())
    (problem,) = Bitfit.check(BitfitConfig(), facts)
    assert "without biases" in problem.given and "norms: true" in problem.remedy and "lora" in problem.remedy
    with pytest.raises(UserError, match="without biases"):
        Bitfit.attach(BitfitConfig(), load_backbone(facts), facts)
    handle, _ = attached(facts.folder, load_seq2seq if facts.is_encoder_decoder else load_backbone, norms=True)
    vectors = {key for key, p in handle.model.named_parameters() if p.ndim == 1}
    assert learnt(handle) == vectors and all("norm" in key for key in vectors)


def test_old_files_call_a_norms_bias_beta(tiny_model: Any, tmp_path: Path) -> None:
    """As those of the first BERT do; transformers renames them while it loads."""
    import shutil

    from safetensors.torch import save_file

    shutil.copytree(tiny_model("bert"), tmp_path / "old")
    tensors = load_file(tmp_path / "old" / "model.safetensors")
    old = {key.replace("Norm.bias", "Norm.beta").replace("Norm.weight", "Norm.gamma"): t for key, t in tensors.items()}
    save_file(old, tmp_path / "old" / "model.safetensors", metadata={"format": "pt"})
    handle, facts = attached(tmp_path / "old")
    assert learnt(handle) == learnt(attached(tiny_model("bert"))[0])
    assert Bitfit.trainable_parameters(BitfitConfig(), facts) == handle.count()


def test_a_file_holds_what_learnt_and_nothing_else(tiny_model: Any, tmp_path: Path) -> None:
    handle, facts = attached(tiny_model("bert"))
    handle.save(tmp_path)
    tensors = load_file(tmp_path / "trained.safetensors")
    assert tensors.keys() == learnt(handle)
    assert json.loads((tmp_path / "method.json").read_text())["learnt"] == sorted(tensors)
    assert sum(t.numel() for t in tensors.values()) * 4 == Bitfit.stored_bytes(BitfitConfig(), facts)
    other, _ = attached(tiny_model("bert"), norms=True)
    with pytest.raises(UserError, match="does not fit"):
        other.load(tmp_path)


def test_handles_of_one_base_keep_their_own_values(tiny_model: Any, tmp_path: Path) -> None:
    """They share parameters: what one learns must not be seen in the other, nor in the base."""
    facts = inspect_model(str(tiny_model("bert")), folder=Path())
    model = load_backbone(facts)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    handles = [Bitfit.attach(BitfitConfig(), model, facts, name) for name in ("first", "second")]
    for shift, handle in enumerate(handles, start=1):
        with handle.using(handle.name), torch.no_grad():
            for _, parameter in handle.parameters()["base"]:
                parameter += shift
    for shift, handle in enumerate(handles, start=1):
        with handle.using(handle.name):
            assert all(torch.equal(p, before[key] + shift) for key, p in handle.parameters()["base"])
        (tmp_path / handle.name).mkdir()
        handle.save(tmp_path / handle.name)  # one of the two is off
        assert all(
            torch.equal(t, before[key] + shift)
            for key, t in load_file(tmp_path / handle.name / "trained.safetensors").items()
        )
    with handles[0].using(None):
        assert all(torch.equal(p, before[key]) for key, p in model.named_parameters())
    handles[0].load(tmp_path / "second")
    with handles[0].using("first"):
        assert all(torch.equal(p, before[key] + 2) for key, p in handles[0].parameters()["base"])


def test_a_training_is_not_refused_for_a_gradient_of_nothing(tiny_model: Any, tmp_path: Path) -> None:
    """The watch over gradients stops a run where a parameter is not reached."""
    assembled = learner_for(tiny_model("bert"), "bitfit", epochs=2, early_stopping=None)
    before = {key: value.clone() for key, value in assembled.learner.trained().items()}
    supervision, _ = supervise(assembled, some_rows(64))
    fitted = fit(assembled.learner, supervision, assembled.recipe.train, tmp_path)
    steps = [line for line in fitted.metrics if line["event"] == "step"]
    assert len(steps) >= 8
    assert all(not torch.equal(value, before[key]) for key, value in assembled.learner.trained().items())
