"""Architectures and options that the fast paths do not know: run otherwise, or right all the same; never wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reglaj.models import attention
from reglaj.models.attention import Texts, packed_attention
from reglaj.models.inspect import _OFFSET_POSITIONS
from reglaj.models.packing import Layout, TokenBatch, choose_layout, hidden_states

LENGTHS = (37, 1, 12, 3, 40)
"""Far longer than the rows of the probe, and than the windows below."""
VOCABULARY, CONTEXT, WINDOW = 120, 64, 4
SIZE = {
    "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": CONTEXT,
}  # fmt: skip


def tiny(family: str, **changes: Any) -> Any:
    """A bare trunk of that family, in evaluation mode."""
    from transformers import CONFIG_MAPPING, AutoModel

    torch.manual_seed(0)
    model = AutoModel.from_config(CONFIG_MAPPING[family](**{**SIZE, **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "position" not in name:
                parameter.normal_(std=0.2)
    return model.eval()


def some_rows() -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(3)
    return [generator.integers(5, VOCABULARY, size=length) for length in LENGTHS]


def assert_equals_alone(model: Any, layout: Layout, offset: int = 0) -> None:
    rows = some_rows()
    groups = [[row] for row in rows] if layout == "alone" else [rows]  # its budget lets no two into one pass
    with torch.no_grad():
        together = torch.cat([hidden_states(model, TokenBatch.of(group), layout, offset) for group in groups])
        alone = torch.cat([model(input_ids=torch.from_numpy(row)[None]).last_hidden_state[0] for row in rows])
    assert torch.allclose(together, alone, atol=1e-5 * max(1.0, alone.abs().max().item()))


SLIDING = {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"]}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mistral", {}),
        ("phi3", {}),
        ("starcoder2", {}),
        ("qwen2", SLIDING),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}),
        ("qwen3", SLIDING),
        ("smollm3", SLIDING),
    ],
)
def test_a_window_is_kept_in_a_pack(family: str, changes: dict[str, Any]) -> None:
    model = tiny(family, sliding_window=WINDOW, **changes)
    layout, _ = choose_layout(model, family, 0, VOCABULARY, CONTEXT)
    assert layout == "packed-causal"
    assert_equals_alone(model, layout)
    rows = some_rows()[:1]
    with torch.no_grad():
        narrow = hidden_states(model, TokenBatch.of(rows), layout)
        wide = hidden_states(tiny(family), TokenBatch.of(rows), layout)
    assert not torch.allclose(narrow, wide, atol=1e-3), "the window decides something here"


@pytest.mark.parametrize(
    ("family", "changes", "expected"),
    [
        ("falcon", {}, "packed-masked-causal"),
        ("falcon", {"alibi": True}, "padded"),
        ("bloom", {}, "padded"),
        ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": CONTEXT}, "padded"),
        ("gpt_bigcode", {}, "packed-masked-causal"),
        ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}, "packed-masked-causal"),
        ("mamba", {"state_size": 4}, "padded"),  # no attention at all
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "packed-causal"),
        ("gemma2", {"sliding_window": WINDOW, "head_dim": 8}, "padded"),  # a soft cap
        ("gpt_oss", {"sliding_window": WINDOW, "head_dim": 8, "num_local_experts": 4}, "padded"),  # attention sinks
        ("llama4_text", {"attention_chunk_size": 4, "head_dim": 8, "intermediate_size_mlp": 64}, "padded"),
        ("albert", {"embedding_size": 32}, "packed-masked"),
        ("mpnet", {"pad_token_id": 1}, "packed-masked"),
        ("modernbert", {"local_attention": WINDOW, "global_attn_every_n_layers": 2}, "padded"),
        ("deberta-v2", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, "padded"),
        # Once it has seen a short row it attends to everything, and the probe's are short.
        ("big_bird", {"block_size": 4, "num_random_blocks": 1}, "padded"),
        ("roformer", {}, "padded"),  # counts positions by itself, and has 64 of them
        # Padding reaches into a text: by the transform over all places, a convolution, landmarks.
        ("fnet", {}, "alone"),
        ("convbert", {}, "alone"),
        ("nystromformer", {}, "alone"),
    ],
)
def test_an_architecture_never_seen_is_run_as_it_can_be(family: str, changes: dict[str, Any], expected: str) -> None:
    model = tiny(family, **changes)
    offset = 2 if family in _OFFSET_POSITIONS else 0
    layout, reason = choose_layout(model, family, offset, VOCABULARY, CONTEXT)
    assert layout == expected, reason
    assert layout == "packed-causal" or family in reason, "a line says so"
    assert_equals_alone(model, layout, offset)


@pytest.mark.parametrize("family", sorted(_OFFSET_POSITIONS))
def test_positions_of_robertas_kin_start_behind_the_padding_index(family: str) -> None:
    languages = {"languages": ["en_XX"], "default_language": "en_XX"} if family == "xmod" else {}
    model = tiny(family, pad_token_id=1, **languages)

    def run(tokens: int) -> None:
        with torch.no_grad():
            model(input_ids=torch.full((1, tokens), 7))

    run(CONTEXT - 2)
    with pytest.raises((IndexError, RuntimeError)):
        run(CONTEXT - 1)


def heads(count: int, seed: int) -> Tensor:
    return torch.randn(1, count, 24, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_kernel_of_cuda_gives_way_on_a_processor_and_under_dropout(is_causal: bool, dropout: float) -> None:
    """A run that was begun on CUDA may go on here; it is the choice that is kept, not the kernel."""

    def attend(kernel: Any) -> Tensor:
        torch.manual_seed(1)
        texts = Texts((9, 15), torch.device("cpu"), is_causal=is_causal, attention=kernel)
        query, key, value = heads(4, 0), heads(2, 1), heads(2, 2)
        return packed_attention(torch.nn.Identity(), query, key, value, None, texts=texts, dropout=dropout)[0]

    # Texts this short have the grid where they look both ways.
    assert torch.equal(attend("varlen"), attend("per-text" if is_causal else "grid"))
    if not dropout:
        assert torch.allclose(attend("varlen"), attend("per-text"), atol=1e-6)


@pytest.mark.parametrize("option", attention._UNKNOWN)
def test_options_that_would_change_the_result_are_refused(option: str) -> None:
    texts = Texts((9, 15), torch.device("cpu"), is_causal=True)
    options = {option: torch.ones(4), "texts": texts}
    with pytest.raises(NotImplementedError, match=option):
        packed_attention(torch.nn.Identity(), heads(4, 0), heads(4, 1), heads(4, 2), None, **options)
