"""A trunk in two parts equals the whole, in value and in gradient; where it would not, there is no cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.deep import DECODERS, ENCODERS, LAYERS, deep_trunk
from torch import Tensor

from reglaj.models.packing import Layout, TokenBatch, choose_layout, hidden_states
from reglaj.models.trunk import RowStates, choose_cut, find_layers, is_random_below, single_texts

VOCABULARY = 120
LENGTHS = (6, 1, 9)


def batch_of(lengths: tuple[int, ...] = LENGTHS) -> TokenBatch:
    generator = np.random.default_rng(3)
    return TokenBatch.of([generator.integers(5, 100, size=length) for length in lengths])


def with_states(batch: TokenBatch, states: Tensor) -> TokenBatch:
    return TokenBatch(input_ids=batch.input_ids, lengths=batch.lengths, states=states)


def pass_of(trunk: Any, layout: Layout) -> Callable[[TokenBatch], Tensor]:
    offset = 2 if trunk.config.model_type == "roberta" else 0
    return lambda batch: hidden_states(trunk, batch, layout, offset)


def freeze_below(trunk: Any, layer: int) -> None:
    trunk.requires_grad_(False)
    for module in find_layers(trunk)[layer:]:
        module.requires_grad_(True)


def chosen_layout(trunk: Any) -> Layout:
    offset = 2 if trunk.config.model_type == "roberta" else 0
    return choose_layout(trunk, trunk.config.model_type, offset, VOCABULARY)[0]


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_both_parts_equal_the_whole_in_value_and_gradient(family: str, layer: int) -> None:
    trunk, batch = deep_trunk(family), batch_of()
    freeze_below(trunk, layer)
    for layout in {chosen_layout(trunk), "padded"}:
        run = pass_of(trunk, layout)
        with torch.no_grad():
            cut, reason = choose_cut(trunk, layer, run, VOCABULARY)
            assert cut is not None, (layout, reason)
            states = cut.lower_states(batch, run)
        direction = torch.randn(sum(LENGTHS), 32, generator=torch.Generator().manual_seed(1))

        def gradients(output: Tensor, direction: Tensor = direction) -> dict[str, Tensor]:
            trunk.zero_grad()
            (output * direction).sum().backward()
            return {name: p.grad.clone() for name, p in trunk.named_parameters() if p.grad is not None}

        whole = run(batch)
        expected = gradients(whole)
        with cut.entering(with_states(batch, states)):
            parts = run(batch)
        found = gradients(parts)
        assert torch.allclose(parts, whole, atol=1e-5)
        assert found.keys() == expected.keys() and len(found) > 5
        for name, gradient in expected.items():
            assert torch.allclose(found[name], gradient, atol=1e-5 * max(1.0, gradient.abs().max().item())), name
        assert torch.equal(run(batch), whole), "nothing of the cut is left behind"


def test_the_lower_layers_do_not_run() -> None:
    trunk, batch = deep_trunk("llama"), batch_of()
    trunk.requires_grad_(False)
    run, ran = pass_of(trunk, chosen_layout(trunk)), []
    cut, _ = choose_cut(trunk, 3, run, VOCABULARY)
    states = cut.lower_states(batch, run)
    for number, layer in enumerate(find_layers(trunk)):
        layer.mlp.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
    with cut.entering(with_states(batch, states)):
        run(batch)
    assert ran == [3]
    cut.lower_states(batch, run)
    assert ran == [3, 0, 1, 2]


def test_a_layer_that_looks_further_down_is_seen() -> None:
    """An upper layer that adds what the first one made is not a cut, whatever its shapes are."""
    trunk, kept = deep_trunk("llama"), {}
    trunk.requires_grad_(False)
    layers = find_layers(trunk)
    layers[0].register_forward_hook(lambda _, args, output: kept.update(first=output))
    layers[3].register_forward_hook(lambda _, args, output: output + kept["first"])
    cut, reason = choose_cut(trunk, 2, pass_of(trunk, "padded"), VOCABULARY)
    assert cut is None and "differ from the whole" in reason


@pytest.mark.parametrize("is_measured", [True, False], ids=["measured", "plain"])
def test_the_norm_above_the_last_layer_may_learn(is_measured: bool) -> None:
    """It is outside of the layers, and runs in the upper part; the embeddings are outside too, and run in the lower."""
    trunk = deep_trunk("llama")
    freeze_below(trunk, 2)
    trunk.norm.requires_grad_(True)
    with torch.inference_mode(is_measured):
        assert choose_cut(trunk, 2, pass_of(trunk, "padded"), VOCABULARY)[0] is not None
        trunk.embed_tokens.requires_grad_(True)
        cut, reason = choose_cut(trunk, 2, pass_of(trunk, "padded"), VOCABULARY)
    assert cut is None and "something outside of the upper layers learns" in reason


def test_models_that_cannot_be_cut_are_told_why() -> None:
    trunk = deep_trunk("bert")
    run = pass_of(trunk, "padded")
    cut, reason = choose_cut(trunk, 2, run, VOCABULARY)
    assert cut is None and "something outside of the upper layers learns" in reason
    trunk.config.num_hidden_layers = 7
    assert choose_cut(trunk, 2, run, VOCABULARY)[1] == "the model's layers do not lie in one list"
    trunk.config.num_hidden_layers = LAYERS
    freeze_below(trunk, 2)
    own = find_layers(trunk)[1].forward
    find_layers(trunk)[1].forward = lambda *args, **options: {"hidden": own(*args, **options)}
    assert "cannot be run by themselves" in choose_cut(trunk, 2, run, VOCABULARY)[1]


@pytest.mark.parametrize(
    ("family", "key"),
    [("bert", "hidden_dropout_prob"), ("bert", "attention_probs_dropout_prob"), ("gpt2", "embd_pdrop"),
     ("gpt2", "attn_pdrop"), ("llama", "attention_dropout"), ("llama", None), ("distilbert", "dropout")],
)  # fmt: skip
def test_dropout_below_is_seen_wherever_it_is(family: str, key: str | None) -> None:
    off = dict.fromkeys(
        ("hidden_dropout_prob", "attention_probs_dropout_prob", "embd_pdrop", "attn_pdrop", "resid_pdrop", "dropout",
         "attention_dropout"), 0.0,
    )  # fmt: skip
    trunk = deep_trunk(family, **(off | ({key: 0.05} if key else {})))
    trunk.requires_grad_(False)
    run = pass_of(trunk, chosen_layout(trunk))
    cut, _ = choose_cut(trunk, 2, run, VOCABULARY)

    def training_run(batch: TokenBatch) -> Tensor:
        trunk.train()
        try:
            return run(batch)
        finally:
            trunk.eval()

    before = torch.get_rng_state()
    assert is_random_below(cut, run, training_run, VOCABULARY) is (key is not None)
    assert torch.equal(torch.get_rng_state(), before), "looking costs no draw"


def test_rows_keep_their_states_when_a_batch_is_cut() -> None:
    batch = batch_of()
    states = torch.randn(sum(LENGTHS), 8)
    singles = single_texts(with_states(batch, states))
    assert [single.lengths for single in singles] == [(length,) for length in LENGTHS]
    assert torch.equal(torch.cat([single.states for single in singles]), states)
    pooled = single_texts(with_states(batch, states[:3]))
    assert [single.states.shape for single in pooled] == [(1, 8)] * 3
    assert all(single.states is None for single in single_texts(batch))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_come_back_in_the_order_of_the_rows_that_are_asked_for(dtype: torch.dtype) -> None:
    values = torch.randn(10, 4).to(dtype)
    stored = values.numpy() if dtype == torch.float32 else values.view(torch.int16).numpy()
    states = RowStates(stored, np.array([4, 0, 9]), np.array([5, 4, 1]), dtype)
    assert torch.equal(states.of([2, 0]), torch.cat([values[9:10], values[4:9]]))
