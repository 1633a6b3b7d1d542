"""Learnt tokens under CUDA's variable-length kernel: the same as in float32, text by text. Skipped without a device."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import tiny_config
from torch import Tensor

from reglaj.models import attention, packing
from reglaj.models.packing import Layout, TokenBatch, hidden_states
from reglaj.models.prefixed import attentions, switch
from reglaj.models.virtual import VirtualTokens

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
LENGTHS = (70, 1, 33, 128, 5, 260)
COUNT = 20


def _model(family: str, **size: Any) -> Any:
    from transformers import AutoModel

    config = tiny_config("mistral" if family == "window" else family)
    for key, value in {"max_position_embeddings": 512, **size}.items():
        setattr(config, key, value)
    if family == "window":
        config.sliding_window = 40
    torch.manual_seed(0)
    attention.register_attention()
    return AutoModel.from_config(config).cuda()


def _virtual(model: Any, kind: str) -> tuple[VirtualTokens, list[Tensor]]:
    generator = torch.Generator("cuda").manual_seed(5)
    if kind == "embeddings":
        width = model.get_input_embeddings().weight.shape[1]
        leaf = torch.randn(COUNT, width, generator=generator, device="cuda").requires_grad_()
        return VirtualTokens(count=COUNT, embeddings=leaf), [leaf]
    seen = attentions(model, torch.arange(10, 10 + COUNT))
    switch([one.module for one in seen], is_on=True)
    shapes = [(one.shape[0], COUNT, one.shape[1]) for one in seen for _ in range(2)]
    leaves = [torch.randn(shape, generator=generator, device="cuda").requires_grad_() for shape in shapes]
    pairs = tuple((one.module, *leaves[2 * i : 2 * i + 2]) for i, one in enumerate(seen))
    return VirtualTokens(count=COUNT, keys_values=pairs), leaves


def _pass(model: Any, tokens: TokenBatch, layout: Layout, kernel: Any, virtual: Any, leaves: list[Tensor]) -> Any:
    for leaf in leaves:
        leaf.grad = None
    hidden = hidden_states(model, tokens, layout, 0, kernel, virtual).float()
    weights = torch.randn(hidden.shape, generator=torch.Generator("cuda").manual_seed(1), device="cuda")
    (hidden * weights).sum().backward()
    return hidden.detach(), [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]


@pytest.mark.parametrize("kind", ["embeddings", "keys"])
@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "window"])
def test_the_variable_length_kernel_gives_what_texts_alone_give(family, kind, monkeypatch):
    model = _model(family).eval()
    virtual, leaves = _virtual(model, kind)
    rows = [np.random.default_rng(0).integers(5, 100, size=length) for length in LENGTHS]
    tokens = TokenBatch.of(rows, "cuda")
    layout: Layout = "packed" if family == "bert" else "packed-causal"
    exact = _pass(model, tokens, "padded", "by-length", virtual, leaves)
    used = []
    own = attention._varlen
    monkeypatch.setattr(attention, "_varlen", lambda *given: used.append(1) or own(*given))
    with torch.autocast("cuda", torch.bfloat16):
        found = _pass(model, tokens, layout, "varlen", virtual, leaves)
        assert packing.varlen_problem(model, layout, 0, 100, virtual) is None
    assert len(used) >= 2, "one call a layer"
    assert (found[0] - exact[0]).abs().max() < 0.05 * exact[0].abs().max()
    for ours, expected in zip(found[1], exact[1], strict=True):
        assert (ours - expected).norm() < 0.05 * expected.norm()


def test_a_prefix_costs_little(capsys):
    """Printed, with a generous bound: timings of a shared machine are not to be trusted further."""
    size = {"hidden_size": 576, "num_hidden_layers": 12, "num_attention_heads": 9, "num_key_value_heads": 3}
    model = _model("llama", **size, intermediate_size=1536).requires_grad_(False)
    virtual, leaves = _virtual(model, "keys")
    generator = np.random.default_rng(0)
    rows = [generator.integers(5, 100, size=size) for size in generator.integers(20, 300, size=100)]
    tokens = TokenBatch.of(rows, "cuda")
    plain = torch.zeros(576, device="cuda", requires_grad=True)
    probe = VirtualTokens(count=1, embeddings=plain[None])

    def seconds(given: VirtualTokens, grown: list[Tensor]) -> float:
        times = []
        for _ in range(10):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            with torch.autocast("cuda", torch.bfloat16):
                _pass(model, tokens, "packed-causal", "varlen", given, grown)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        return min(times)

    ratio = seconds(virtual, leaves) / seconds(probe, [plain])
    with capsys.disabled():
        print(f"\na step with 20 learnt keys a layer takes {ratio:.2f} of one with a single learnt embedding")
    assert ratio < 2
