"""Texts of unequal length in one forward pass without padding.

Legend: B texts, T tokens of all texts together, L tokens of the longest, N heads, H head width, D width.

Linear layers see the T real tokens as one row; only inside attention are texts laid out as (B, L) and masked,
where for short texts nearly nothing is computed. An architecture for which a packed pass has not been seen to
equal the texts alone is run padded; both give the same (T, D).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from reglaj.models.causal import ATTENTION_NAME as CAUSAL_NAME
from reglaj.models.causal import PACKABLE_DECODERS, register_causal_attention

Layout = Literal["packed", "packed-causal", "padded"]
ATTENTION_NAME = "reglaj_packed"
# Position ids, token types and attention of these were read and are tested; others run padded.
PACKABLE = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "distilbert"})
PROBE_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Some texts as tokens, in the order they were given.

    input_ids: (T,) long. lengths: tokens of each text, B of them. states: (T, D) hidden states that enter the lowest
    trained layer, where they are cached; then the layers below it are not run.
    """

    input_ids: Tensor
    lengths: tuple[int, ...]
    states: Tensor | None = None

    @classmethod
    def of(cls, rows: list[np.ndarray[Any, Any]], device: torch.device | str = "cpu") -> TokenBatch:
        """From one array of token ids per text."""
        flat = torch.from_numpy(np.concatenate(rows).astype(np.int64))
        return cls(input_ids=flat.to(device, non_blocking=True), lengths=tuple(len(row) for row in rows))


@dataclass(frozen=True, kw_only=True)
class PadLayout:
    """How T packed tokens lie in a (B, L) grid: computed once a batch, used in every layer.

    to_grid: (B*L,) index into T, 0 where there is padding. to_packed: (T,) index into B*L.
    mask: (B, L) bool, true at tokens.
    """

    to_grid: Tensor
    to_packed: Tensor
    mask: Tensor

    @classmethod
    def of(cls, lengths: tuple[int, ...], device: torch.device) -> PadLayout:
        longest = max(lengths)
        mask = np.arange(longest) < np.asarray(lengths)[:, None]
        grid = np.where(mask, np.cumsum(mask.ravel()).reshape(mask.shape) - 1, 0)
        return cls(
            to_grid=torch.from_numpy(grid.ravel()).to(device),
            to_packed=torch.from_numpy(np.flatnonzero(mask)).to(device),
            mask=torch.from_numpy(mask).to(device),
        )


class _ToGrid(torch.autograd.Function):
    """(T, D) to (B*L, D). Backward is a gather: autograd's own would add row by row into zeros."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layout: PadLayout) -> Tensor:
        ctx.layout = layout
        return rows.index_select(0, layout.to_grid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].index_select(0, ctx.layout.to_packed), None


class _ToPacked(torch.autograd.Function):
    """(B*L, D) to (T, D). Backward is a gather with the padding set to zero."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor, layout: PadLayout) -> Tensor:
        ctx.layout = layout
        return grid.index_select(0, layout.to_packed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layout: PadLayout = ctx.layout
        grid = gradients[0].index_select(0, layout.to_grid)
        return grid.masked_fill_(~layout.mask.view(-1, 1), 0), None


def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention of each text to itself, for transformers' `AttentionInterface`.

    query, key, value: (1, N, T, H). Returns (1, T, N, H). options: `dropout` and `scaling` from the layer, and
    `pad_layout`, which travels as a keyword of the model's forward.
    """
    pad_layout: PadLayout = options["pad_layout"]
    _, heads, tokens, width = query.shape
    batch, longest = pad_layout.mask.shape

    def to_grid(states: Tensor) -> Tensor:
        rows = states[0].transpose(0, 1).reshape(tokens, heads * width)
        return _ToGrid.apply(rows, pad_layout).view(batch, longest, heads, width).transpose(1, 2)

    attended = nn.functional.scaled_dot_product_attention(
        to_grid(query),
        to_grid(key),
        to_grid(value),
        attn_mask=pad_layout.mask[:, None, None, :],
        dropout_p=options.get("dropout", 0.0),
        scale=options.get("scaling"),
    )
    grid = attended.transpose(1, 2).reshape(batch * longest, heads * width)
    return _ToPacked.apply(grid, pad_layout).view(1, tokens, heads, width), None


def hidden_states(model: nn.Module, batch: TokenBatch, layout: Layout, position_offset: int = 0) -> Tensor:
    """The last hidden state of every token: (T, D), texts one after the other."""
    device = batch.input_ids.device
    if layout == "packed-causal":
        with _Attention(model, CAUSAL_NAME):
            output = model(
                input_ids=batch.input_ids[None],
                position_ids=_positions(batch, 0),
                lengths=batch.lengths,
                use_cache=False,
            )
        return output.last_hidden_state[0]
    pad_layout = PadLayout.of(batch.lengths, device)
    if layout == "packed":
        with _Attention(model, ATTENTION_NAME):
            output = model(
                input_ids=batch.input_ids[None],
                position_ids=_positions(batch, position_offset),
                pad_layout=pad_layout,
            )
        return output.last_hidden_state[0]
    grid = batch.input_ids.index_select(0, pad_layout.to_grid).view(pad_layout.mask.shape)
    extra: dict[str, Any] = {"use_cache": False} if getattr(model.config, "use_cache", False) else {}
    output = model(input_ids=grid.masked_fill(~pad_layout.mask, 0), attention_mask=pad_layout.mask.long(), **extra)
    states: Tensor = output.last_hidden_state
    return _ToPacked.apply(states.reshape(-1, states.shape[-1]), pad_layout)


def _positions(batch: TokenBatch, offset: int) -> Tensor:
    """(1, T): positions start anew with each text."""
    positions = np.concatenate([np.arange(length) for length in batch.lengths]) + offset
    return torch.from_numpy(positions).to(batch.input_ids.device)[None]


class _Attention:
    """The model with another attention inside the block; a context so that a peer may share the model."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self.config: Any = model.config
        self.name = name

    def __enter__(self) -> None:
        self.before = self.config._attn_implementation
        self.config._attn_implementation = self.name

    def __exit__(self, *_: object) -> None:
        self.config._attn_implementation = self.before


def choose_layout(model: nn.Module, model_type: str, position_offset: int, vocabulary: int) -> tuple[Layout, str]:
    """`packed` where a packed pass equals each text alone, else `padded`; with the reason in words.

    The check runs three short rows of fixed tokens through the model, without dropout: it costs milliseconds,
    and a leak between texts or a wrong position shows as a difference far above rounding.
    """
    if model_type not in PACKABLE | PACKABLE_DECODERS:
        return "padded", f"packing is not tested for {model_type!r}"
    layout: Layout = "packed" if model_type in PACKABLE else "packed-causal"
    register_attention()
    generator = np.random.default_rng(0)
    # The upper half of a vocabulary holds words: a padding id among them would move RoBERTa's own positions.
    rows = [generator.integers(vocabulary // 2, vocabulary, size=length) for length in (5, 3, 9)]
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.no_grad():
        together = hidden_states(model, TokenBatch.of(rows, device), layout, position_offset)
        alone = torch.cat([hidden_states(model, TokenBatch.of([row], device), "padded") for row in rows])
    model.train(was_training)
    difference = (together - alone).abs().max().item()
    scale = alone.abs().max().item()
    if not difference <= PROBE_TOLERANCE * max(scale, 1.0):
        return "padded", f"a packed pass differs from texts alone by {difference:.1e}"
    return layout, "a packed pass equals texts alone"


def register_attention() -> None:
    """Make our attentions known to transformers; harmless when called again."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, packed_attention)
    register_causal_attention()
