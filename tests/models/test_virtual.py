"""Learnt tokens before each text: packed, padded, alone and checkpointed passes say the same, in value and gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import write_model
from torch import Tensor, nn

from reglaj.models import attention, laying, packing
from reglaj.models.inspect import inspect_model
from reglaj.models.loading import load_backbone, load_seq2seq
from reglaj.models.packing import TokenBatch, choose_layout, hidden_states
from reglaj.models.prefixed import Prefix, attentions, switch
from reglaj.models.seq2seq import seq2seq_logits
from reglaj.models.virtual import VirtualTokens

LENGTHS = (7, 1, 12, 3, 12)
COUNT = 4
WAYS = {
    "bert": ("packed", "packed-masked", "padded"),
    "roberta": ("packed", "packed-masked", "padded"),
    "distilbert": ("packed", "padded"),
    "electra": ("packed-masked", "padded"),
    "llama": ("packed-causal", "packed-masked-causal", "padded"),
    "gpt2": ("packed-causal", "padded"),
    "gemma": ("packed-causal", "padded"),
    "gemma2": ("padded", "alone"),
    "window": ("packed-causal", "padded"),
}
"""Mistral with a window that is shorter than its texts is `window`."""
every = pytest.mark.parametrize("kind", ["embeddings", "keys"])


def _rows(seed: int = 3) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(5, 100, size=length) for length in LENGTHS]


def _load(tiny_model: Any, family: str) -> tuple[Any, Any]:
    folder = tiny_model("mistral" if family == "window" else family)
    facts = inspect_model(str(folder), folder=Path())
    model = load_backbone(facts)
    attention.register_attention()
    if family == "window":
        model.config.sliding_window = 6
        for layer in model.layers:
            layer.self_attn.sliding_window = 6
    return model, facts


def _leaves(model: Any, kind: str) -> tuple[VirtualTokens, list[Tensor]]:
    """Virtual tokens at random, and the leaves that a gradient comes to."""
    generator = torch.Generator().manual_seed(5)
    if kind == "embeddings":
        width = model.get_input_embeddings().weight.shape[1]
        leaf = torch.randn(COUNT, width, generator=generator).mul_(0.5).requires_grad_()
        return VirtualTokens(count=COUNT, embeddings=leaf), [leaf]
    seen = attentions(model, torch.arange(10, 10 + COUNT))
    switch([one.module for one in seen], is_on=True)
    shapes = [(heads, COUNT, width) for heads, width in (one.shape for one in seen) for _ in range(2)]
    leaves = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    pairs = tuple((one.module, *leaves[2 * i : 2 * i + 2]) for i, one in enumerate(seen))
    return VirtualTokens(count=COUNT, keys_values=pairs), leaves


def _passes(
    model: Any, facts: Any, virtual: VirtualTokens, leaves: list[Tensor], batches: list[Any], *ways: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Hidden states of all texts, and the gradient of a weighted sum of them, in one backward pass a batch."""
    direction = torch.randn(sum(LENGTHS), 32, generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    for leaf in leaves:
        leaf.grad = None
    found, start = [], 0
    for rows in batches:
        hidden = hidden_states(model, TokenBatch.of(rows), ways[0], facts.position_offset, *ways[1:], virtual=virtual)
        (hidden * direction[start : start + len(hidden)]).sum().backward()
        found.append(hidden.detach())
        start += len(hidden)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    gradients |= {f"virtual {number}": leaf.grad.clone() for number, leaf in enumerate(leaves)}
    return torch.cat(found), gradients


def _same(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert torch.allclose(found[0], expected[0], atol=2e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        scale = max(1.0, gradient.abs().max().item())
        assert torch.allclose(found[1][name], gradient, atol=1e-5 * scale), name


@every
@pytest.mark.parametrize(("family", "layout"), [(family, way) for family, ways in WAYS.items() for way in ways])
def test_texts_together_equal_each_alone(tiny_model, family, layout, kind):
    model, facts = _load(tiny_model, family)
    virtual, leaves = _leaves(model, kind)
    alone = _passes(model, facts, virtual, leaves, [[row] for row in _rows()], "padded")
    kernels = ("per-text", "grid") if layout == "packed" else ("per-text",)
    for kernel in kernels:
        together = _passes(model, facts, virtual, leaves, [_rows()], layout, kernel)
        _same(together, alone)
        _same(_passes(model, facts, virtual, leaves, [_rows()[:2], _rows()[2:]], layout, kernel), together)
    for name in (f"virtual {number}" for number in range(len(leaves))):
        assert alone[1][name].abs().max() > 1e-4


@every
@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "gpt2"])
def test_what_stands_before_a_text_changes_it(tiny_model, family, kind):
    model, facts = _load(tiny_model, family)
    layout, _ = choose_layout(model, facts.model_type, facts.position_offset, 120)
    virtual, _ = _leaves(model, kind)
    with torch.no_grad():
        plain = hidden_states(model, TokenBatch.of(_rows()), layout, facts.position_offset)
        ours = hidden_states(model, TokenBatch.of(_rows()), layout, facts.position_offset, virtual=virtual)
        again = hidden_states(model, TokenBatch.of(_rows()), layout, facts.position_offset)
    assert plain.shape == ours.shape
    assert (plain - ours).abs().max() > 1e-2
    assert torch.equal(plain, again), "a pass without is as it was"


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "window"])
def test_real_words_are_the_same_as_embeddings_as_keys_and_as_tokens(tiny_model, family):
    """A causal model that has read four words is where it would be with their embeddings, or their keys and values."""
    model, _ = _load(tiny_model, family)
    words = torch.tensor([40, 50, 60, 70])
    text = np.arange(20, 29)
    with torch.no_grad():
        whole = hidden_states(model, TokenBatch.of([np.concatenate([words.numpy(), text])]), "packed-causal")[COUNT:]
        embedded = VirtualTokens(count=COUNT, embeddings=model.get_input_embeddings()(words))
        seen = attentions(model, words)
        switch([one.module for one in seen], is_on=True)
        keyed = VirtualTokens(count=COUNT, keys_values=tuple((one.module, one.key, one.value) for one in seen))
        for virtual in (embedded, keyed):
            for layout in ("packed-causal", "padded", "packed-masked-causal")[: 2 if family == "window" else 3]:
                found = hidden_states(model, TokenBatch.of([text, text[:3]]), layout, virtual=virtual)
                assert torch.allclose(found[: len(text)], whole, atol=2e-5), layout
                assert torch.allclose(found[len(text) :], whole[:3], atol=2e-5), layout


@pytest.mark.parametrize(
    ("kernel", "is_causal", "window"),
    [("per-text", True, None), ("per-text", True, 5), ("per-text", False, None), ("grid", False, None)],
)
def test_each_text_sees_its_prefix_once(kernel, is_causal, window):
    """With queries of zeros a token's answer is the plain mean of the values that it sees: they can be counted."""
    module, heads, width = nn.Identity(), 2, 8
    generator = torch.Generator().manual_seed(0)
    key, value = (torch.randn(1, heads, sum(LENGTHS), width, generator=generator) for _ in range(2))
    learnt_key, learnt_value = (torch.randn(heads, COUNT, width, generator=generator) for _ in range(2))
    prefix = Prefix(VirtualTokens(count=COUNT, keys_values=((module, learnt_key, learnt_value),)))
    texts = attention.Texts(LENGTHS, torch.device("cpu"), is_causal=is_causal, attention=kernel, prefix=prefix)
    query = torch.zeros(1, 2 * heads, sum(LENGTHS), width)
    found, _ = attention.packed_attention(module, query, key, value, None, texts=texts, sliding_window=window)
    start = 0
    for length in LENGTHS:
        seen = torch.cat((learnt_value, value[0, :, start : start + length]), dim=1)
        for place in range(length):
            last = COUNT + place + 1 if is_causal else COUNT + length
            first = max(0, last - window) if window else 0
            mean = seen[:, first:last].mean(dim=1).repeat_interleave(2, dim=0)
            assert torch.allclose(found[0, start + place], mean, atol=1e-6)
        start += length


@every
@pytest.mark.parametrize(
    ("family", "layout"),
    [("bert", "packed"), ("bert", "padded"), ("llama", "packed-causal"), ("llama", "packed-masked-causal"),
     ("gpt2", "padded"), ("electra", "packed-masked")],
)  # fmt: skip
def test_checkpointed_passes_in_flight_meet_their_own_prefix(tiny_model, family, layout, kind, monkeypatch):
    """Two passes with different virtual tokens and one without, and then their backward passes."""
    model, facts = _load(tiny_model, family)
    first, leaves = _leaves(model, kind)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0

    def gradients() -> list[Tensor]:
        for leaf in leaves:
            leaf.grad = None
        tokens, offset = TokenBatch.of(_rows()), facts.position_offset
        one = hidden_states(model, tokens, layout, offset, virtual=first)
        other = hidden_states(model, tokens, layout, offset, virtual=_scaled(first))
        with torch.no_grad():
            hidden_states(model, tokens, layout, offset)
        (one.pow(2).sum() + other.pow(3).sum()).backward()
        return [leaf.grad.clone() for leaf in leaves]

    expected = gradients()
    model.train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    if layout in ("packed", "packed-causal"):  # as the learner does while it trains
        monkeypatch.setattr(model.config, "_attn_implementation_internal", attention.ATTENTION_NAME)
    for found, wanted in zip(gradients(), expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-5 * max(1.0, wanted.abs().max().item()))


def _scaled(virtual: VirtualTokens) -> VirtualTokens:
    """Others, through which a gradient comes to the same leaves."""
    if virtual.embeddings is not None:
        return VirtualTokens(count=virtual.count, embeddings=virtual.embeddings * 1.5)
    pairs = tuple((module, key * 1.5, value * 0.5) for module, key, value in virtual.keys_values)
    return VirtualTokens(count=virtual.count, keys_values=pairs)


@every
def test_an_encoder_decoder_reads_pairs_together_as_alone(tmp_path_factory, tiny_model, kind):
    facts = inspect_model(str(tiny_model("t5")), folder=Path())
    model = load_seq2seq(facts)
    virtual, leaves = _leaves(model, kind)
    assert len(leaves) == (1 if kind == "embeddings" else 2 * facts.decoder_layers)
    sources, targets = _rows(), _rows(4)[::-1]

    def passes(pairs: list[Any]) -> tuple[Tensor, list[Tensor]]:
        for leaf in leaves:
            leaf.grad = None
        found = []
        for source, target in pairs:
            logits = seq2seq_logits(model, TokenBatch.of(source), TokenBatch.of(target), virtual)
            logits.pow(2).sum().backward()
            found.append(logits.detach())
        return torch.cat(found), [leaf.grad.clone() for leaf in leaves]

    alone = passes([([source], [target]) for source, target in zip(sources, targets, strict=True)])
    together = passes([(sources, targets)])
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    for found, wanted in zip(together[1], alone[1], strict=True):
        assert torch.allclose(found, wanted, atol=1e-5 * max(1.0, wanted.abs().max().item()))
    with torch.no_grad():
        plain = seq2seq_logits(model, TokenBatch.of(sources), TokenBatch.of(targets))
    assert (plain - together[0]).abs().max() > 1e-3


def test_a_prefix_of_distilbert_is_what_its_equations_say(tiny_model):
    """Plain PEFT drops it there in silence, so the reference is written out."""
    model, _ = _load(tiny_model, "distilbert")
    virtual, _ = _leaves(model, "keys")
    row = _rows()[2]
    with torch.no_grad():
        found = hidden_states(model, TokenBatch.of([row]), "packed", virtual=virtual)
        hidden = model.embeddings(torch.from_numpy(row)[None], position_ids=torch.arange(len(row))[None] + COUNT)
        for block, (_, key, value) in zip(model.transformer.layer, virtual.keys_values, strict=True):
            own = block.attention

            def heads(linear: nn.Module, states: Tensor, owner: Any = own) -> Tensor:
                return linear(states)[0].view(len(row), owner.n_heads, -1).transpose(0, 1)

            keys = torch.cat((key, heads(own.k_lin, hidden)), dim=1)
            values = torch.cat((value, heads(own.v_lin, hidden)), dim=1)
            scores = heads(own.q_lin, hidden) @ keys.transpose(1, 2) / own.attention_head_size**0.5
            seen = (scores.softmax(-1) @ values).transpose(0, 1).reshape(1, len(row), -1)
            hidden = block.sa_layer_norm(own.out_lin(seen) + hidden)
            hidden = block.output_layer_norm(block.ffn(hidden) + hidden)
    assert torch.allclose(found, hidden[0], atol=1e-5)


def test_a_leak_between_texts_would_be_seen(tiny_model, monkeypatch):
    """The comparison that guards the variable-length kernel tells a prefix that only the first text sees."""
    model, _ = _load(tiny_model, "bert")
    virtual, _ = _leaves(model, "keys")
    assert packing._difference(model, "packed", 0, 120, virtual=virtual) is None
    own = attention.before_each

    def once(rows: Tensor, learnt: Tensor, layout: laying.Behind) -> Tensor:
        laid = own(rows, learnt, layout).clone()
        laid[len(learnt) + layout.lengths[0] :][: len(learnt)] = 0
        return laid

    monkeypatch.setattr(attention, "before_each", once)
    assert "differs" in (packing._difference(model, "packed", 0, 120, virtual=virtual) or "")


def test_attention_that_is_not_reached_is_not_found(tmp_path):
    facts = inspect_model(str(write_model(tmp_path, "bert")), folder=Path())
    model = load_backbone(facts)
    for layer in model.encoder.layer:  # as an architecture that has attention of its own
        layer.attention.self.forward = lambda hidden, *_, **__: (hidden, None)
    assert attentions(model, torch.arange(5, 9)) == []


@pytest.mark.parametrize("is_cut", [True, False])
def test_laying_before_texts_and_taking_away_are_exact_both_ways(is_cut, monkeypatch):
    """By pieces, as on a processor, and by places, as on a device: against autograd's own."""
    monkeypatch.setattr(laying.Behind, "is_cut", is_cut)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(sum(LENGTHS), 3, 2, generator=generator, dtype=torch.float64).requires_grad_()
    learnt = torch.randn(COUNT, 3, 2, generator=generator, dtype=torch.float64).requires_grad_()
    layout = laying.Behind(LENGTHS, COUNT, torch.device("cpu"))
    laid = laying.before_each(rows, learnt, layout)
    plain = torch.cat([piece for text in rows.split(LENGTHS) for piece in (learnt, text)])
    assert torch.equal(laid, plain)
    assert torch.equal(laying.after_each(laid, layout), rows)
    weights = torch.randn(laid.shape, generator=generator, dtype=torch.float64)
    for ours, expected in zip(
        torch.autograd.grad((laid * weights).sum(), (rows, learnt)),
        torch.autograd.grad((plain * weights).sum(), (rows, learnt)),
        strict=True,
    ):
        assert torch.allclose(ours, expected)
    texts = laying.after_each(laying.before_each(rows, learnt, layout), layout)
    (back,) = torch.autograd.grad((texts * weights[: len(rows)]).sum(), rows)
    assert torch.equal(back, weights[: len(rows)])
