"""What LoRA, DoRA and QLoRA share: ranks, scales, rates, files, the fused operation, weights with the update inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.methods.subjects import Subject
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from reglaj.core.errors import UserError
from reglaj.methods import METHODS
from reglaj.methods.base import Handle, Method
from reglaj.models.inspect import ModelFacts
from reglaj.models.loading import load_backbone, load_causal, load_seq2seq

IDS = torch.arange(3, 43).view(4, 10)
SECTIONS: dict[str, dict[str, Any]] = {
    "lora": {"name": "lora", "rank": 4},
    "lora, scaled": {"name": "lora", "rank": 4, "is_rank_stabilised": True, "b_rate_factor": 16.0},
    "lora, ranks": {"name": "lora", "rank": 4, "ranks": "RANKS", "is_rank_stabilised": True},
    "pissa": {"name": "lora", "rank": 4, "init": "pissa"},
    "pissa, ranks": {"name": "lora", "rank": 4, "init": "pissa", "ranks": "RANKS", "is_rank_stabilised": True},
    "dora": {"name": "dora", "rank": 4},
    "dora, ranks": {"name": "dora", "rank": 4, "ranks": "RANKS"},
    "qlora": {"name": "qlora", "rank": 4},
    "qlora, ranks": {"name": "qlora", "rank": 4, "ranks": "RANKS", "is_double_quantised": False},
}
RANKS = {"llama": {"q_proj": 8, "mlp.down_proj": 2}, "gpt2": {"c_attn": 8}, "bert": {"query": 8}, "t5": {"q": 8}}
FAMILIES = ("llama", "gpt2", "bert", "t5")
ELSEWHERE = ("lora, ranks", "pissa", "dora, ranks", "qlora")
"""What runs on an encoder and an encoder-decoder too; the conformance suite runs the rest."""
CASES = [(case, family) for case in SECTIONS for family in FAMILIES if family in ("llama", "gpt2") or case in ELSEWHERE]
cases = pytest.mark.parametrize(("case", "family"), CASES)


def section(case: str, family: str) -> dict[str, Any]:
    values = dict(SECTIONS[case])
    return values | ({"ranks": RANKS[family]} if "ranks" in values else {})


def config_of(case: str, family: str) -> tuple[type[Method], Any]:
    values = section(case, family)
    method = METHODS.get(values["name"])
    return method, method.config_type(**values)


def attach(case: str, subject: Subject, model: Any = None, seed: int = 0) -> Any:
    """A handle as training would begin, on a fresh model."""
    method, config = config_of(case, subject.family)
    torch.manual_seed(seed)
    return method.attach(config, loaded(subject, method.storage(config)) if model is None else model, subject.facts)


def loaded(subject: Subject, storage: Any) -> Any:
    """The base as the method wants it, fresh."""
    kind = {"t5": load_seq2seq, "bert": load_backbone}.get(subject.family, load_causal)
    return kind(subject.facts, storage=storage)


def stirred(handle: Handle) -> Any:
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in flat(handle):
            parameter += torch.randn(parameter.shape, generator=chance) * 0.05
    return handle


def flat(handle: Handle) -> list[tuple[str, Any]]:
    return [pair for group in handle.parameters().values() for pair in group]


def logits(model: Any) -> Tensor:
    inputs = {"input_ids": IDS}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = IDS[:, :6]
    found = model(**inputs)
    return found.logits if "logits" in found else found.last_hidden_state


def plain_base(subject: Subject, storage: Any) -> Any:
    """The base through transformers alone."""
    kind = {"t5": AutoModelForSeq2SeqLM, "bert": AutoModel}.get(subject.family, AutoModelForCausalLM)
    extra: dict[str, Any] = {"add_pooling_layer": False} if subject.family == "bert" else {}
    if storage is not None:
        from reglaj.models.quantised import quantisation_config

        extra |= {"quantization_config": quantisation_config(storage), "device_map": {"": "cpu"}}
    return kind.from_pretrained(subject.folder, dtype=torch.float32, **extra).eval()


@cases
def test_the_fused_operation_says_what_the_plain_one_says(case, family, subject) -> None:
    handle = stirred(attach(case, subject(family)))
    found = {}
    for is_on in (True, False):
        assert handle.fuse(is_on)
        handle.model.zero_grad()
        values = logits(handle.model)
        values.logsumexp(-1).sum().backward()
        found[is_on] = values.detach(), {key: p.grad.clone() for key, p in flat(handle)}
    (fused, ours), (plain, theirs) = found[True], found[False]
    assert torch.allclose(fused, plain, atol=1e-5)
    for key, gradient in theirs.items():
        assert gradient.abs().max() > 0, key
        assert torch.allclose(ours[key], gradient, atol=1e-5 * max(1.0, gradient.abs().max().item())), key


@cases
def test_plain_peft_opens_what_we_save_and_we_open_it_again(case, family, subject, tmp_path) -> None:
    here = subject(family)
    handle = stirred(attach(case, here))
    handle.save(tmp_path)
    again = attach(case, here, seed=1)
    again.load(tmp_path)
    method, config = config_of(case, family)
    theirs = peft.PeftModel.from_pretrained(plain_base(here, method.storage(config)), tmp_path).eval()
    with torch.no_grad():
        ours = logits(handle.model)
        assert torch.equal(logits(again.model), ours)
        assert torch.allclose(logits(theirs), ours, atol=2e-5)
    assert {file.name for file in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert 0 < size - method.stored_bytes(config, here.facts) < 16_000


@pytest.mark.parametrize(("case", "family"), [(case, family) for case, family in CASES if "pissa" not in case])
def test_we_open_what_plain_peft_saves(case, family, subject, tmp_path) -> None:
    here = subject(family)
    handle = attach(case, here)
    method, config = config_of(case, family)
    own = handle.config
    settings = peft.LoraConfig(
        r=own.r, lora_alpha=own.lora_alpha, target_modules=own.target_modules, rank_pattern=own.rank_pattern,
        use_rslora=own.use_rslora, use_dora=own.use_dora, init_lora_weights=False,
    )  # fmt: skip
    theirs = peft.get_peft_model(plain_base(here, method.storage(config)), settings).eval()
    theirs.save_pretrained(tmp_path)
    handle.load(tmp_path)
    with torch.no_grad():
        ours = logits(handle.model)
        assert torch.allclose(logits(theirs), ours, atol=1e-4 * max(1.0, ours.abs().max().item()))


@cases
def test_folded_and_merged_say_the_same_and_the_base_comes_back(case, family, subject) -> None:
    here = subject(family)
    handle = stirred(attach(case, here))
    with torch.no_grad():
        apart = logits(handle.model)
        with handle.using(None):
            base = logits(handle.model)
        method, config = config_of(case, family)
        assert torch.equal(base, logits(loaded(here, method.storage(config))))
        with handle.folded():
            together = logits(handle.model)
        assert torch.equal(logits(handle.model), apart)
        handle.merge()
        merged = logits(handle.model)
        with handle.folded(), handle.using(None):
            assert torch.equal(logits(handle.model), merged), "for good"
    scale = apart.abs().max()
    assert (apart - base).abs().max() > 0.05 * scale
    assert (together - apart).abs().max() < 2e-5 * scale
    assert (merged - apart).abs().max() < 2e-5 * scale


@cases
def test_the_model_begins_as_the_base_with_as_many_values_as_told(case, family, subject) -> None:
    handle = attach(case, subject(family))
    with torch.no_grad():
        start = logits(handle.model)
        with handle.using(None):
            base = logits(handle.model)
    assert torch.allclose(start, base, atol=1e-6)
    method, config = config_of(case, family)
    assert method.trainable_parameters(config, subject(family).facts) == handle.count()


def test_ranks_and_scales_are_those_that_were_asked_for(subject) -> None:
    layers = attach("lora, ranks", subject("llama")).layers()
    found = {(layer.in_features, layer.out_features, layer.r["default"], layer.scaling["default"]) for layer in layers}
    assert (32, 32, 8, 32 / 8**0.5) in found, "q_proj, alpha over the root of its own rank"
    assert (64, 32, 2, 32 / 2**0.5) in found, "down_proj"
    assert (32, 64, 4, 32 / 4**0.5) in found, "the others"


def test_b_learns_at_its_own_rate_and_the_names_stay(subject) -> None:
    one, two = attach("lora", subject("llama")), attach("lora, scaled", subject("llama"))
    assert set(one.parameters()) == {"lora"} and not one.rate_factors()
    groups = two.parameters()
    assert two.rate_factors() == {"lora_B": 16.0}
    assert all(".lora_A." in key for key, _ in groups["lora"]) and all(".lora_B." in key for key, _ in groups["lora_B"])
    assert sorted(key for key, _ in flat(two)) == sorted(key for key, _ in flat(one))


def problems(name: str, facts: ModelFacts, **keys: Any) -> list[Any]:
    method = METHODS.get(name)
    return method.check(method.config_type(name=name, **keys), facts)


@pytest.mark.parametrize("name", ["lora", "dora", "qlora"])
def test_ranks_that_mean_nothing_are_refused(name, subject) -> None:
    facts = subject("bert").facts
    (problem,) = problems(name, facts, ranks={"qery": 4})
    assert problem.where == "method.ranks.qery" and "did you mean 'query'?" in problem.remedy
    (problem,) = problems(name, facts, target_modules=["value"], ranks={"query": 4})
    assert problem.allowed == "value", "a layer that is there, but not adapted"
    (problem,) = problems(name, facts, ranks={"query": 4, "self.query": 8})
    assert "is meant by query, self.query" in problem.given
    (problem,) = problems(name, facts, ranks={"query": 33})
    assert problem.where == "method.ranks.query" and problem.allowed == "1 to 32"
    (problem,) = problems(name, facts, rank=33, ranks={"query": 4})
    assert problem.where == "method.rank", "the others have it"


def test_a_rank_above_the_layers_counts_only_where_it_is_used(subject) -> None:
    assert not problems("lora", subject("bert").facts, target_modules=["query"], rank=33, ranks={"query": 4})
    (problem,) = problems("lora", subject("bert").facts, init="pissa", rank=40)
    assert problem.where == "method.rank"


def test_attaching_refuses_what_the_check_refuses(subject) -> None:
    for name in ("lora", "dora", "qlora"):
        method = METHODS.get(name)
        with pytest.raises(UserError, match="ends the name of no module"):
            method.attach(method.config_type(name=name, ranks={"x": 1}), torch.nn.Module(), subject("bert").facts)


@pytest.mark.parametrize("case", ["lora", "pissa", "dora", "qlora"])
def test_half_precision_differs_by_rounding_and_learns(case, subject) -> None:
    handle = stirred(attach(case, subject("llama")))
    with torch.no_grad():
        exact = logits(handle.model)
    errors = {}
    for is_on in (True, False):
        handle.fuse(is_on)
        handle.model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            values = logits(handle.model)
        values.float().logsumexp(-1).sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for _, p in flat(handle))
        errors[is_on] = (values.float() - exact).abs().max().item()
    assert 0 < errors[True] < 2 * errors[False], "no worse than PEFT's own under autocast"


@pytest.mark.parametrize("case", ["pissa", "dora", "qlora"])
def test_gradients_with_checkpointed_layers_are_the_same(case: str, subject: Callable[[str], Subject]) -> None:
    handle = stirred(attach(case, subject("llama")))
    found = []
    for is_checkpointed in (False, True):
        if is_checkpointed:
            handle.model.gradient_checkpointing_enable({"use_reentrant": False})
            handle.fuse(True, keeps_copies=False)
        handle.model.train().zero_grad()
        logits(handle.model).logsumexp(-1).sum().backward()
        found.append({key: p.grad.clone() for key, p in flat(handle)})
    for key, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][key], atol=1e-6 * max(1.0, gradient.abs().max().item())), key


def test_files_say_a_plain_scale_where_one_says_it_for_all(subject, tmp_path: Path) -> None:
    handle = attach("lora, scaled", subject("llama"))
    handle.save(tmp_path)
    saved = peft.LoraConfig.from_pretrained(tmp_path)
    assert (saved.r, saved.lora_alpha, saved.use_rslora) == (4, 64.0, False), "32 / sqrt(4) is 64 / 4"
    assert handle.config.use_rslora and handle.config.lora_alpha == 32
