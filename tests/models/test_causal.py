"""A packed pass of a decoder equals each text alone; a leak and a wrong position are seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_chat import write_chat_model

from reglaj.models import attention, packing
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_causal
from reglaj.models.packing import TokenBatch, choose_layout, hidden_states

LENGTHS = (7, 1, 12, 3, 12)
FAMILIES = ("llama", "qwen2", "mistral", "gpt2")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    folders: dict[str, Path] = {}

    def load(family: str) -> Any:
        if family not in folders:
            folders[family] = write_chat_model(tmp_path_factory.mktemp(family), family)
        return load_causal(inspect_model(str(folders[family]), folder=Path()))

    return load


def some_rows() -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [generator.integers(5, 300, size=length) for length in LENGTHS]


@pytest.mark.parametrize(("family", "window"), [*((family, None) for family in FAMILIES), ("mistral", 4)])
def test_packed_equals_alone_in_value_and_gradient(
    decoder: Callable[[str], Any], family: str, window: int | None
) -> None:
    model = decoder(family)
    if window is not None:
        model.config.sliding_window = window
        for layer in model.model.layers:
            layer.self_attn.sliding_window = window
    trunk = model.base_model
    assert choose_layout(trunk, family, 0, 300)[0] == "packed-causal"
    direction = torch.randn(sum(LENGTHS), 32, generator=torch.Generator().manual_seed(1))

    def gradients(passes: list[tuple[list[np.ndarray], torch.Tensor]], layout: packing.Layout) -> Any:
        model.zero_grad()
        values = []
        for rows, weights in passes:
            hidden = hidden_states(trunk, TokenBatch.of(rows), layout)
            (hidden * weights).sum().backward()
            values.append(hidden.detach())
        return torch.cat(values), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    together, packed = gradients([(some_rows(), direction)], "packed-causal")
    apart = [([row], part) for row, part in zip(some_rows(), direction.split(LENGTHS), strict=True)]
    alone, expected = gradients(apart, "padded")
    assert torch.allclose(together, alone, atol=1e-5)
    assert packed.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = max(1.0, gradient.abs().max().item())
        assert torch.allclose(packed[name], gradient, atol=1e-5 * scale), name


def leaking(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, scaling: Any = None, **_: Any
) -> Any:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    return attended.transpose(1, 2), None


def test_a_leak_between_texts_is_caught(decoder: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One causal attention over the whole pack, as where `position_ids` alone are trusted."""
    monkeypatch.setattr(attention, "packed_attention", leaking)
    try:
        layout, reason = choose_layout(decoder("llama").base_model, "llama", 0, 300)
    finally:
        monkeypatch.undo()
        packing.register_attention()
    assert layout == "packed-masked-causal"
    assert "differs" in reason


def test_positions_that_do_not_restart_are_caught(
    decoder: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # GPT-2 learns absolute positions; rotary ones are relative, and a shift of a whole text is no difference to them.
    monkeypatch.setattr(TokenBatch, "positions", property(lambda batch: torch.arange(len(batch.input_ids))))
    layout, reason = choose_layout(decoder("gpt2").base_model, "gpt2", 0, 300)
    assert layout == "padded"
    assert "differs" in reason
