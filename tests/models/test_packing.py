"""A packed pass equals each text alone, in value and in gradient, and a leak is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reglaj.models import attention, packing
from reglaj.models.heads import pool
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_backbone
from reglaj.models.packing import PadLayout, TokenBatch, choose_layout, hidden_states

LENGTHS = (7, 1, 12, 3, 12)


def _rows(seed: int = 3) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(5, 100, size=length) for length in LENGTHS]


def _load(folder: Path):
    facts = inspect_model(str(folder), folder=Path())
    return load_backbone(facts), facts


@pytest.mark.parametrize("kernel", ["per-text", "grid"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_packed_equals_alone_in_value_and_gradient(tiny_model, family, kernel):
    model, facts = _load(tiny_model(family))
    assert choose_layout(model, facts.model_type, facts.position_offset, 120)[0] == "packed"
    direction = torch.randn(sum(LENGTHS), 32, generator=torch.Generator().manual_seed(1))

    def gradients(passes: list[tuple[list[np.ndarray], torch.Tensor]], layout: packing.Layout):
        model.zero_grad()
        values = []
        for rows, weights in passes:
            hidden = hidden_states(model, TokenBatch.of(rows), layout, facts.position_offset, kernel)
            (hidden * weights).sum().backward()
            values.append(hidden.detach())
        return torch.cat(values), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    together, packed_grad = gradients([(_rows(), direction)], "packed")
    apart = [([row], part) for row, part in zip(_rows(), direction.split(LENGTHS), strict=True)]
    alone, alone_grad = gradients(apart, "padded")
    padded, padded_grad = gradients([(_rows(), direction)], "padded")
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(padded, alone, atol=1e-5)
    assert packed_grad.keys() == alone_grad.keys()
    for name, gradient in alone_grad.items():
        scale = max(1.0, gradient.abs().max().item())
        assert torch.allclose(packed_grad[name], gradient, atol=1e-5 * scale), name
        assert torch.allclose(padded_grad[name], gradient, atol=1e-5 * scale), name


def test_a_leak_between_texts_is_caught(tiny_model, monkeypatch):
    """The same check that chooses the layout refuses an attention that sees its neighbours."""
    model, facts = _load(tiny_model("bert"))

    def leaking(module, query, key, value, attention_mask, *, texts, dropout=0.0, scaling=None, **_):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2), None

    monkeypatch.setattr(attention, "packed_attention", leaking)
    try:
        layout, reason = choose_layout(model, facts.model_type, facts.position_offset, 120)
    finally:
        monkeypatch.undo()
        packing.register_attention()
    assert layout == "packed-masked"
    assert "differs" in reason


@pytest.mark.parametrize("layout", ["packed-masked", "padded"])
def test_an_architecture_that_was_not_tested_gets_a_block_mask_and_is_right(tiny_model, layout):
    model, facts = _load(tiny_model("electra"))
    chosen, reason = choose_layout(model, facts.model_type, facts.position_offset, 120)
    assert chosen == "packed-masked"
    assert "electra" in reason
    with torch.no_grad():
        together = hidden_states(model, TokenBatch.of(_rows()), layout)
        alone = torch.cat([model(input_ids=torch.from_numpy(row)[None]).last_hidden_state[0] for row in _rows()])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [("sliding_window", 4), ("layer_types", ["full_attention", "sliding_attention"]), ("attention_chunk_size", 8)],
)
def test_a_window_is_never_lost_under_a_block_mask(tiny_model, key, value):
    model, facts = _load(tiny_model("electra"))
    setattr(model.config, key, value)
    layout, reason = choose_layout(model, facts.model_type, facts.position_offset, 120)
    assert layout == "padded"
    assert key in reason


def test_an_option_that_attention_does_not_know_is_refused_and_packed_otherwise(tiny_model, monkeypatch):
    """A soft cap, say: left out in silence it would be another model."""
    model, facts = _load(tiny_model("bert"))
    own = attention.packed_attention
    monkeypatch.setattr(attention, "packed_attention", lambda *a, **options: own(*a, **options, softcap=30.0))
    try:
        layout, reason = choose_layout(model, facts.model_type, facts.position_offset, 120)
    finally:
        monkeypatch.undo()
        packing.register_attention()
    assert layout == "packed-masked"
    assert "softcap" in reason


def test_positions_that_turn_with_the_longest_text_run_alone(tiny_model):
    model, facts = _load(tiny_model("bert"))
    model.config.rope_parameters = {"rope_type": "dynamic", "original_max_position_embeddings": 64}
    assert choose_layout(model, facts.model_type, 0, 120, context=64)[0] == "packed"
    layout, reason = choose_layout(model, facts.model_type, 0, 120, context=65)
    assert layout == "alone"
    assert "dynamic" in reason
    assert packing.steady_context(model.config, 64) == packing.steady_context(model.config, 65) == 64


def test_short_texts_attend_in_a_grid_and_long_ones_by_themselves():
    device, short = torch.device("cpu"), attention.GRID_BELOW_TOKENS - 1
    assert attention.Texts((short,) * 4, device, is_causal=False).kernel == "grid"
    assert attention.Texts((short, short + 2), device, is_causal=False).kernel == "per-text"
    assert attention.Texts((short,) * 4, device, is_causal=True).kernel == "per-text"
    most = attention.GRID_WITHIN_TOKENS
    assert attention.Texts((most, *(1,) * 32), device, is_causal=False).kernel == "grid"
    outlier = attention.Texts((most + 1, *(1,) * 32), device, is_causal=False)
    assert outlier.kernel == "per-text", "all others would be laid out as long as it"


@pytest.mark.parametrize("kernel", ["per-text", "grid"])
def test_dropout_of_attention_leaves_the_mean_as_it_is(kernel):
    """A weight is dropped with its probability and the others grow for it: on average the same, each draw another."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 4, 24, 8, generator=generator) for _ in range(3))
    texts = attention.Texts((9, 15), torch.device("cpu"), is_causal=False, attention=kernel)

    def attend(dropout):
        return attention.packed_attention(torch.nn.Identity(), query, key, value, None, texts=texts, dropout=dropout)[0]

    torch.manual_seed(0)
    draws = torch.stack([attend(0.2) for _ in range(3000)])
    assert not torch.equal(draws[0], draws[1])
    error = (draws.mean(0) - attend(0.0)).abs() / (draws.std(0) / 3000**0.5)
    assert error.max() < 5, "in standard errors of the mean, over 768 values"
    # Each kept weight grows by 1 / (1 - p): the variance is that of independent draws, p / (1 - p) * sum of (w v)^2.
    expected = []
    for q, k, v in zip(query.split((9, 15), 2), key.split((9, 15), 2), value.split((9, 15), 2), strict=True):
        weights = (q @ k.transpose(2, 3) / 8**0.5).softmax(-1)
        expected.append((0.2 / 0.8 * (weights**2 @ v**2)).sqrt())
    spread = torch.cat(expected, dim=2).transpose(1, 2)
    assert ((draws.std(0) - spread).abs() / spread).mean() < 0.02


def test_pooling_takes_the_right_tokens():
    hidden = torch.arange(12.0).reshape(6, 2)
    lengths = (1, 3, 2)
    assert pool(hidden, lengths, "cls").tolist() == [[0, 1], [2, 3], [8, 9]]
    assert pool(hidden, lengths, "last").tolist() == [[0, 1], [6, 7], [10, 11]]
    assert torch.allclose(pool(hidden, lengths, "mean"), torch.tensor([[0.0, 1], [4, 5], [9, 10]]))


def test_layout_puts_every_token_in_its_place():
    layout = PadLayout.of((2, 1, 3), torch.device("cpu"))
    assert layout.mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert layout.to_packed.tolist() == [0, 1, 3, 6, 7, 8]
    assert layout.to_grid.view(3, 3)[layout.mask].tolist() == [0, 1, 2, 3, 4, 5]
