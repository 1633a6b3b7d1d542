"""A packed pass equals each text alone, in value and in gradient, and a leak is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reglaj.models import packing
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


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_packed_equals_alone_in_value_and_gradient(tiny_model, family):
    model, facts = _load(tiny_model(family))
    assert choose_layout(model, facts.model_type, facts.position_offset, 120)[0] == "packed"
    direction = torch.randn(sum(LENGTHS), 32, generator=torch.Generator().manual_seed(1))

    def gradients(passes: list[tuple[list[np.ndarray], torch.Tensor]], layout: packing.Layout):
        model.zero_grad()
        values = []
        for rows, weights in passes:
            hidden = hidden_states(model, TokenBatch.of(rows), layout, facts.position_offset)
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

    def leaking(module, query, key, value, attention_mask, *, pad_layout, dropout=0.0, scaling=None, **_):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2), None

    monkeypatch.setattr(packing, "packed_attention", leaking)
    try:
        layout, reason = choose_layout(model, facts.model_type, facts.position_offset, 120)
    finally:
        monkeypatch.undo()
        packing.register_attention()
    assert layout == "padded"
    assert "differs" in reason


@pytest.mark.parametrize("family", ["electra"])
def test_an_architecture_that_was_not_tested_runs_padded_and_right(tiny_model, family):
    model, facts = _load(tiny_model(family))
    layout, reason = choose_layout(model, facts.model_type, facts.position_offset, 120)
    assert layout == "padded"
    assert family in reason
    with torch.no_grad():
        together = hidden_states(model, TokenBatch.of(_rows()), "padded")
        alone = torch.cat([model(input_ids=torch.from_numpy(row)[None]).last_hidden_state[0] for row in _rows()])
    assert torch.allclose(together, alone, atol=1e-5)


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
