"""Adapters against the papers' equations, written out here layer by layer, and what a user meets.

Legend: T tokens of one text, D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from reglaj.core.errors import UserError
from reglaj.methods.adapter import Adapter, AdapterConfig
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.models.loading import load_backbone, load_causal, load_seq2seq

IDS = torch.tensor([[2, 7, 9, 11, 3]])
VARIANTS = ("houlsby", "pfeiffer", "parallel")
Bottlenecks = dict[str, Tensor]
"""The parameters of one layer: `attention.down.weight` and so on."""


def facts_of(folder: Path) -> ModelFacts:
    return inspect_model(str(folder), folder=Path())


def load(facts: ModelFacts) -> Any:
    """In float64, where a wrong term cannot hide behind rounding, with attention written out."""
    model = (load_seq2seq if facts.is_encoder_decoder else load_backbone)(facts, dropout=0.0).double()
    model.set_attn_implementation("eager")
    return model


def attached(folder: Path, **section: Any) -> tuple[Any, dict[str, Tensor]]:
    """A handle whose bottlenecks have learnt something, and their parameters by name."""
    facts = facts_of(folder)
    model = load(facts)
    torch.manual_seed(3)
    handle: Any = Adapter.attach(AdapterConfig(**{"bottleneck_dim": 4, **section}), model, facts)
    for bottleneck in handle.placed.bottlenecks():
        bottleneck.double()
    with torch.no_grad():
        for _, parameter in handle.parameters()["adapter"]:
            parameter.normal_(std=0.2)
    return handle, dict(handle.parameters()["adapter"])


class Paper:
    """One layer's sub-layers by the papers: what is added to the residual in place of h.

    houlsby (Houlsby et al. 2019) and pfeiffer (He et al. 2022, section 2.3): h + f(h A' + a) B' + b.
    parallel (He et al. 2022, table 1): h + s (f(x A' + a) B' + b), x what the sub-layer reads.
    """

    def __init__(self, variant: str, parameters: Bottlenecks) -> None:
        self.variant, self.of = variant, parameters

    def _bottleneck(self, place: str, x: Tensor) -> Tensor:
        f = functional.gelu if self.variant == "houlsby" else torch.relu
        down = x @ self.of[f"{place}.down.weight"].T + self.of[f"{place}.down.bias"]
        return f(down) @ self.of[f"{place}.up.weight"].T + self.of[f"{place}.up.bias"]

    def attention(self, h: Tensor) -> Tensor:
        return h + self._bottleneck("attention", h) if self.variant == "houlsby" else h

    def feed_forward(self, h: Tensor, x: Tensor) -> Tensor:
        return h + (
            4.0 * self._bottleneck("feed_forward", x)
            if self.variant == "parallel"
            else self._bottleneck("feed_forward", h)
        )


Papers = Callable[[str], Paper]
"""By the name of a layer."""


def bert(model: Any, papers: Papers) -> Tensor:
    h = model.embeddings(input_ids=IDS)
    for number, layer in enumerate(model.encoder.layer):
        paper, attention, output = papers(f"encoder.layer.{number}"), layer.attention, layer.output
        a = attention.output.dense(attention.self(h)[0])
        x = attention.output.LayerNorm(paper.attention(a) + h)
        ff = output.dense(functional.gelu(layer.intermediate.dense(x)))
        h = output.LayerNorm(paper.feed_forward(ff, x) + x)
    return h


def llama(model: Any, papers: Papers) -> Tensor:
    h = model.embed_tokens(IDS)
    positions = torch.arange(IDS.shape[1])[None]
    turned = model.rotary_emb(h, positions)
    unseen = torch.full((5, 5), float("-inf"), dtype=h.dtype).triu(1)[None, None]
    for number, layer in enumerate(model.layers):
        paper = papers(f"layers.{number}")
        a = layer.self_attn(layer.input_layernorm(h), position_embeddings=turned, attention_mask=unseen)[0]
        h = h + paper.attention(a)
        x = layer.post_attention_layernorm(h)
        ff = layer.mlp.down_proj(functional.silu(layer.mlp.gate_proj(x)) * layer.mlp.up_proj(x))
        h = h + paper.feed_forward(ff, x)
    return model.norm(h)


def t5(model: Any, papers: Papers) -> Tensor:
    def stack(side: str, read: Tensor | None) -> Tensor:
        blocks, bias = getattr(model, side), None
        h = model.shared(IDS)
        unseen = torch.full((5, 5), torch.finfo(h.dtype).min, dtype=h.dtype).triu(1)[None, None]
        for number, block in enumerate(blocks.block):
            paper = papers(f"{side}.block.{number}")
            own = block.layer[0]
            mask = None if read is None else unseen
            a, bias, _ = own.SelfAttention(own.layer_norm(h), mask=mask, position_bias=bias)
            h = h + paper.attention(a)
            if read is not None:
                cross = block.layer[1]
                h = h + cross.EncDecAttention(cross.layer_norm(h), key_value_states=read)[0]
            last = block.layer[-1]
            x = last.layer_norm(h)
            ff = last.DenseReluDense.wo(torch.relu(last.DenseReluDense.wi(x)))
            h = h + paper.feed_forward(ff, x)
        done: Tensor = blocks.final_layer_norm(h)
        return done

    return stack("decoder", stack("encoder", None))


def stock(model: Any) -> Tensor:
    """Of the model with its hooks, as anybody calls it."""
    if model.config.is_encoder_decoder:
        return model(input_ids=IDS, decoder_input_ids=IDS, output_hidden_states=True).decoder_hidden_states[-1]
    hidden: Tensor = model(input_ids=IDS).last_hidden_state
    return hidden


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("family", "reference"), [("bert", bert), ("llama", llama), ("t5", t5)], ids=["bert", "llama", "t5"]
)
def test_equals_the_equations_of_the_papers(
    variant: str, family: str, reference: Callable[[Any, Papers], Tensor], tiny_model: Any
) -> None:
    """In value, and in the gradient of every parameter."""
    handle, parameters = attached(tiny_model(family), variant=variant)
    apart = {key: value.detach().clone().requires_grad_(True) for key, value in parameters.items()}

    def papers(layer: str) -> Paper:
        start = f"{layer}.bottlenecks.default."
        return Paper(variant, {key.removeprefix(start): value for key, value in apart.items() if key.startswith(start)})

    found, expected = stock(handle.model), reference(load(facts_of(tiny_model(family))), papers)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    weights = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad((found * weights).sum(), list(parameters.values()))
    wanted = torch.autograd.grad((expected * weights).sum(), list(apart.values()))
    for key, gradient, by_paper in zip(parameters, gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, by_paper, rtol=1e-7, atol=1e-9, msg=key)
        assert by_paper.abs().max() > 1e-6, key
    with handle.using(None), torch.no_grad():
        assert (stock(handle.model) - found).abs().max() > 1e-2, "or nothing was compared"


@pytest.mark.parametrize("family", ["bert", "llama", "t5", "gpt2", "gemma2"])
def test_what_is_left_out_follows_the_model_and_the_variant(family: str, tiny_model: Any) -> None:
    facts = facts_of(tiny_model(family))
    derived = {
        variant: {
            key: value
            for key, (value, _) in Adapter.derive(AdapterConfig(variant=variant), facts, has_new_head=True).items()
        }
        for variant in VARIANTS
    }
    assert derived["houlsby"] == {"bottleneck_dim": 4, "activation": "gelu", "scale": 1.0}
    assert derived["pfeiffer"] == {"bottleneck_dim": 4, "activation": "relu", "scale": 1.0}
    assert derived["parallel"] == {"bottleneck_dim": 4, "activation": "relu", "scale": 4.0}
    given = AdapterConfig(bottleneck_dim=3, activation="tanh", scale=2.0)
    assert Adapter.derive(given, facts, has_new_head=True) == {}


@pytest.mark.parametrize(
    "section",
    [{"scale": 2.0}, {"activation": "tanh"}, {"variant": "pfeiffer"}, {"bottleneck_dim": 6}, {"layers": 1}],
    ids=lambda section: next(iter(section)),
)
def test_every_key_changes_the_model_and_files_of_another_one_are_refused(
    section: dict[str, Any], tiny_model: Any, tmp_path: Path
) -> None:
    plain, _ = attached(tiny_model("bert"))
    other, _ = attached(tiny_model("bert"), **section)
    assert not torch.allclose(stock(plain.model), stock(other.model))
    plain.save(tmp_path)
    with pytest.raises(UserError, match="does not fit"):
        other.load(tmp_path)


def test_dropout_is_of_a_training(tiny_model: Any) -> None:
    handle, _ = attached(tiny_model("bert"), dropout=0.5)
    handle.model.eval()
    assert torch.equal(stock(handle.model), stock(handle.model))
    handle.model.train()
    assert not torch.equal(stock(handle.model), stock(handle.model))


def test_upper_layers_only(tiny_model: Any) -> None:
    handle, parameters = attached(tiny_model("llama"), layers=1)
    assert handle.capabilities.lowest_trained_layer == 1
    assert all(key.startswith("layers.1.bottlenecks.default.") for key in parameters)
    handle, parameters = attached(tiny_model("t5"), layers=(0,))
    assert handle.capabilities.lowest_trained_layer == 0
    assert {key.split(".bottlenecks")[0] for key in parameters} == {"encoder.block.0", "decoder.block.0"}


def test_a_trunks_adapter_goes_onto_the_model_with_its_output_matrix(tiny_model: Any, tmp_path: Path) -> None:
    handle, parameters = attached(tiny_model("gpt2"))
    handle.save(tmp_path)
    facts = facts_of(tiny_model("gpt2"))
    whole: Any = Adapter.attach(AdapterConfig(bottleneck_dim=4), load_causal(facts), facts, "other")
    whole.load(tmp_path)
    for key, parameter in whole.parameters()["adapter"]:
        own = key.removeprefix("transformer.").replace(".other.", ".default.")
        assert torch.equal(parameter.double(), parameters[own].float().double())
    assert json.loads((tmp_path / "method.json").read_text()) == {
        "name": "adapter", "variant": "houlsby", "bottleneck_dim": 4, "activation": "gelu", "scale": 1.0
    }  # fmt: skip


def test_several_variants_on_one_base_each_by_itself(tiny_model: Any) -> None:
    facts = facts_of(tiny_model("bert"))
    model = load(facts).float()
    base, found = stock(model).detach(), {}
    handles: list[Any] = [Adapter.attach(AdapterConfig(variant=variant), model, facts, variant) for variant in VARIANTS]
    for handle in handles:
        for _, parameter in handle.parameters()["adapter"]:
            torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        for handle in handles:
            with handle.using(handle.name):
                found[handle.name] = stock(model)
            with handle.using(None):
                assert torch.equal(stock(model), base)
        assert torch.equal(stock(model), found["parallel"]), "the last is on"
    assert len({tuple(value.flatten().tolist()) for value in found.values()}) == 3


def test_an_architecture_that_is_not_known_is_refused(tiny_model: Any, tmp_path: Path) -> None:
    facts = facts_of(tiny_model("bert"))
    unknown = ModelFacts(
        name="odd", folder=tmp_path, config={**facts.config, "model_type": "odd"}, tensors=facts.tensors
    )
    (problem,) = Adapter.check(AdapterConfig(), unknown)
    assert "odd" in problem.given and "bert" in problem.allowed and "lora" in problem.remedy
    with pytest.raises(UserError, match="odd"):
        Adapter.attach(AdapterConfig(), load(facts), unknown)


def test_a_bottleneck_wider_than_the_model_and_layers_that_are_not_there_are_refused(tiny_model: Any) -> None:
    facts = facts_of(tiny_model("bert"))
    (problem,) = Adapter.check(AdapterConfig(bottleneck_dim=33), facts)
    assert problem.where == "method.bottleneck_dim" and "1 to 32" in problem.allowed
    for layers in (3, 0, (0, 2), ()):
        (problem,) = Adapter.check(AdapterConfig(layers=layers), facts)
        assert problem.where == "method.layers"
