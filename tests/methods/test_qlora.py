"""A base in four bits: no evaluation poisons what follows, nothing changes it, and it is small while it is read."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from tests.methods.subjects import Subject
from tests.methods.test_low_rank import attach, flat, loaded, logits, stirred
from tests.training import harness
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from reglaj.core.errors import EnvironmentFault
from reglaj.methods.qlora import Qlora, QloraConfig
from reglaj.models.quantised import QuantisedLinear, adopt
from reglaj.models.storage import Storage, storage_of
from reglaj.pipelines.assemble import save_model
from reglaj.training.trunk_cache import attach_states

NF4 = Storage(kind="nf4")


def gradient_after_an_evaluation(layer: nn.Module) -> Tensor | None:
    """Of the layer's input, in a training pass that follows an evaluation."""
    layer.eval()
    with torch.no_grad():
        layer(torch.ones(3, 64))
    layer.train()
    x = torch.ones(3, 64, requires_grad=True)
    result = layer(x)
    return torch.autograd.grad(result.sum(), x)[0] if result.requires_grad else None


def test_an_evaluation_before_training_leaves_the_gradient(monkeypatch) -> None:
    """bitsandbytes repacks weights in such a pass where the processor has bfloat16 units: here it believes so.

    Afterwards there is no gradient on such a processor, and on others one of the wrong weight.
    """
    monkeypatch.setattr(bnb.nn.modules, "has_avx512bf16", lambda: True)
    theirs = bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compress_statistics=True).to("cpu")
    ours = nn.Sequential(copy.deepcopy(theirs))
    assert adopt(ours) == 1 and not ours[0].support_avx512bf16_for_cpu
    ours[0].support_avx512bf16_for_cpu = True  # nor does ours ask
    right, before = ours[0].dequantised(torch.float32).sum(0).expand(3, 64), contents(ours)

    poisoned = gradient_after_an_evaluation(theirs)
    assert poisoned is None or not torch.allclose(poisoned, right, atol=1e-2), "the trap is there"
    found = gradient_after_an_evaluation(ours)
    assert found is not None and torch.allclose(found, right, atol=1e-6)
    assert_same(contents(ours), before)


def test_everything_learns_after_probes_and_evaluations(subject, monkeypatch) -> None:
    monkeypatch.setattr(bnb.nn.modules, "has_avx512bf16", lambda: True)
    handle = stirred(attach("qlora", subject("llama")))
    handle.model.eval()
    with torch.inference_mode(), handle.using(None):
        logits(handle.model)
    with torch.inference_mode():
        logits(handle.model)
    handle.model.train()
    logits(handle.model).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for _, p in flat(handle))


def quantised(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, QuantisedLinear)]


def contents(model: nn.Module) -> list[tuple[Any, ...]]:
    """Everything that a quantised layer is made of."""
    return [
        (
            layer.weight.data.clone(), layer.weight.quant_state.absmax.clone(), layer.weight.quant_state.offset.clone(),
            None if layer.bias is None else layer.bias.clone(),
        )
        for layer in quantised(model)
    ]  # fmt: skip


def assert_same(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        for now, then in zip(one, other, strict=True):
            assert (now is None and then is None) or (now.dtype == then.dtype and torch.equal(now, then))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_base_stays_bit_for_bit_with_its_biases_whatever_runs_through_it(family, subject) -> None:
    handle = stirred(attach("qlora", subject(family)))
    before = contents(handle.model)
    assert any(bias is not None for *_, bias in before)
    with torch.autocast("cpu", torch.bfloat16):
        logits(handle.model).float().logsumexp(-1).sum().backward()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), handle.using(None):
        logits(handle.model)
    with handle.folded(), torch.no_grad():
        logits(handle.model)
    assert_same(contents(handle.model), before)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "distilbert", "t5"])
def test_every_linear_layer_of_the_trunk_lies_in_four_bits(family: str, subject: Callable[[str], Subject]) -> None:
    """But the one that T5 keeps in float32, for its values are too large for others."""
    here = subject(family)
    model = here.model("qlora")
    assert storage_of(model) == NF4
    assert not any(isinstance(module, Conv1D) for module in model.modules())
    names = {name for name, module in model.named_modules() if isinstance(module, QuantisedLinear)}
    prefix = f"{model.base_model_prefix}."
    wanted = {name for name in here.facts.linear_modules() if not name.endswith(".wo")}
    assert {name.removeprefix(prefix) for name in names} == {name.removeprefix(prefix) for name in wanted}


def test_a_matrix_that_lies_the_other_way_round_is_turned_first(subject) -> None:
    here = subject("gpt2")
    plain, model = loaded(here, None), loaded(here, NF4)
    weight = plain.transformer.h[0].attn.c_attn.weight.T.contiguous()
    packed, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    expected = bnb.functional.dequantize_4bit(packed, state)
    found = model.transformer.h[0].attn.c_attn.dequantised(torch.float32)
    assert torch.equal(found, expected)
    assert 0 < (found - weight).abs().max() < 0.2 * weight.abs().max()


def test_merging_gives_plain_layers_that_are_never_quantised_again(subject) -> None:
    handle = stirred(attach("qlora", subject("llama")))
    layer = handle.layers()[0]
    base = layer.get_base_layer()
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = base.dequantised(torch.float32) + up @ down * layer.scaling["default"]
    handle.merge()
    merged = layer.get_base_layer()
    assert type(merged) is nn.Linear and merged.weight.dtype == torch.float32
    assert torch.equal(merged.weight, expected.detach())
    assert not quantised(handle.model)


def test_four_bits_are_told_in_bytes(subject) -> None:
    model = subject("llama").model("qlora")
    for storage in (NF4, Storage(kind="nf4", is_double=False)):
        weight = torch.randn(512, 512)
        _, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=storage.is_double)
        scales = [state.absmax, *([state.state2.absmax] if state.nested else [])]
        size = weight.numel() / 2 + sum(scale.numel() * scale.element_size() for scale in scales)
        assert size == storage.bytes_per_value * weight.numel()
    for layer in quantised(model):
        assert layer.weight.element_size() * layer.weight.numel() * 2 == layer.in_features * layer.out_features


def test_what_is_saved_says_on_which_base_it_was_trained(tiny_model, tmp_path) -> None:
    assembled = harness.learner_for(tiny_model("bert"), {"name": "qlora", "rank": 4})
    save_model(assembled, tmp_path)
    assert json.loads((tmp_path / "base.json").read_text())["storage"] == {"kind": "nf4", "is_double": True}
    assembled = harness.learner_for(tiny_model("bert"), {"name": "lora", "rank": 4})
    save_model(assembled, tmp_path)
    assert "storage" not in json.loads((tmp_path / "base.json").read_text())


def test_kept_states_of_one_base_are_not_those_of_the_other(tiny_model, tmp_path) -> None:
    kept = {}
    for name in ("lora", "qlora"):
        assembled = harness.learner_for(tiny_model("bert"), {"name": name, "rank": 4, "layers": 1})
        _, encoded = harness.supervise(assembled, harness.some_rows(8))
        rows, _ = attach_states(assembled.learner, (encoded.rows, encoded.rows), assembled.recipe.train, tmp_path)
        assert rows.states is not None, assembled.learner.engine.trunk_cache
        kept[name] = rows.states.of(range(8))
    assert not torch.equal(kept["lora"], kept["qlora"])


def test_without_its_packages_it_is_refused_with_what_would_work(subject, monkeypatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    facts = subject("llama").facts
    (problem,) = Qlora.check(QloraConfig(), facts)
    assert "bitsandbytes is not installed" in problem.given
    assert "reglaj[qlora]" in problem.remedy and "method lora" in problem.remedy
    with pytest.raises(EnvironmentFault, match="not installed"):
        Qlora.attach(QloraConfig(), nn.Module(), facts)


def test_a_base_that_lies_otherwise_is_a_fault_of_ours(subject) -> None:
    here = subject("llama")
    with pytest.raises(RuntimeError, match="lies in memory as None"):
        Qlora.attach(QloraConfig(), loaded(here, None), here.facts)


_MEASURED = """
import gc, sys
from pathlib import Path
import bitsandbytes, torch
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_causal
from reglaj.models.storage import Storage

def in_float32():
    tensors = (one for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter))
    storages = {
        one.data_ptr(): one.untyped_storage().nbytes()
        for one in tensors
        if one.dtype == torch.float32 and one.device.type == "cpu"
    }
    return sum(storages.values())

def looking(*args, **options):
    seen.append(in_float32())
    return own(*args, **options)

seen, own = [], bitsandbytes.functional.quantize_4bit
bitsandbytes.functional.quantize_4bit = looking
model = load_causal(inspect_model(sys.argv[1], folder=Path()), storage=Storage(kind="nf4"))
print(max(seen), len(seen))
del model
model = load_causal(inspect_model(sys.argv[1], folder=Path()))
print(in_float32())
"""


def test_it_is_never_whole_in_float32_while_it_is_read(tmp_path: Path) -> None:
    from tests.tiny_chat import chat_tokenizer
    from transformers import LlamaConfig

    tokenizer = chat_tokenizer()
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6}
    config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=8, tie_word_embeddings=True, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    whole = sum(p.numel() for p in model.parameters()) * 4
    done = subprocess.run([sys.executable, "-c", _MEASURED, tmp_path], capture_output=True, text=True, check=True)
    most, layers, plain = map(int, done.stdout.split())
    assert layers == 7 * 6, "it was looked at each time that a layer was made"
    assert plain > 0.9 * whole, "what is looked at shows a model that is whole"
    assert most < 0.4 * whole
