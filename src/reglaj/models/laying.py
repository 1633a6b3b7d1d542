"""How texts that lie one after the other come into a grid and back, and behind what is learnt before each of them.

Legend: B texts, T tokens of all of them, L tokens of the longest, D width, P learnt positions before each text.

Each has a backward pass of its own, which copies where autograd's would add row by row into zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor


def on_device(values: np.ndarray[Any, Any], device: torch.device | str) -> Tensor:
    """The array as a tensor there. To CUDA through pinned memory: a copy from elsewhere waits for the device."""
    tensor = torch.from_numpy(values)
    if torch.device(device).type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


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
            to_grid=on_device(grid.ravel(), device),
            to_packed=on_device(np.flatnonzero(mask), device),
            mask=on_device(mask, device),
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


class Behind:
    """How texts lie behind what is learnt before each of them. lengths: of the texts. count: P."""

    def __init__(self, lengths: tuple[int, ...], count: int, device: torch.device) -> None:
        self.lengths, self.count, self.device = lengths, count, device
        self.sizes = [size for length in lengths for size in (count, length)]

    @property
    def is_cut(self) -> bool:
        """Pieces by pieces, which is faster on a processor; a device would wait for the host to cut them."""
        return self.device.type == "cpu"

    @cached_property
    def _is_text(self) -> np.ndarray[Any, Any]:
        return np.repeat(np.tile([False, True], len(self.lengths)), self.sizes)

    @cached_property
    def text_places(self) -> Tensor:
        """(T,): where the tokens of texts are."""
        return on_device(np.flatnonzero(self._is_text), self.device)

    @cached_property
    def learnt_places(self) -> Tensor:
        """(B*P,): where what is learnt is."""
        return on_device(np.flatnonzero(~self._is_text), self.device)

    def text_of(self, rows: Tensor) -> Tensor:
        """(B*P + T, ...) to (T, ...)."""
        return torch.cat(rows.split(self.sizes)[1::2]) if self.is_cut else rows.index_select(0, self.text_places)


class _BeforeEach(torch.autograd.Function):
    """(T, ...) and (P, ...) to (B*P + T, ...). Backward sums once: autograd's own would add text by text."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, learnt: Tensor, layout: Behind) -> Tensor:
        ctx.layout = layout
        if layout.is_cut:
            return torch.cat([piece for text in rows.split(layout.lengths) for piece in (learnt, text)])
        laid = rows.new_empty(sum(layout.sizes), *rows.shape[1:])
        laid.index_copy_(0, layout.text_places, rows)
        return laid.index_copy_(0, layout.learnt_places, learnt.repeat(len(layout.lengths), *[1] * (learnt.ndim - 1)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        layout: Behind = ctx.layout
        rows = layout.text_of(gradients[0]) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return rows, None, None
        if layout.is_cut:
            return rows, torch.stack(gradients[0].split(layout.sizes)[::2]).sum(0), None
        learnt = gradients[0].index_select(0, layout.learnt_places)
        return rows, learnt.unflatten(0, (len(layout.lengths), layout.count)).sum(0), None


class _AfterEach(torch.autograd.Function):
    """The texts alone of what was laid. Backward puts zeros where what is learnt has no use."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layout: Behind) -> Tensor:
        ctx.layout, ctx.shape = layout, rows.shape
        return layout.text_of(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layout: Behind = ctx.layout
        whole = gradients[0].new_zeros(ctx.shape)
        return whole.index_copy_(0, layout.text_places, gradients[0]), None


def before_each(rows: Tensor, learnt: Tensor, layout: Behind) -> Tensor:
    """What is learnt, (P, ...), before each text of `rows`, (T, ...): (B*P + T, ...)."""
    laid: Tensor = _BeforeEach.apply(rows, learnt, layout)
    return laid


def after_each(rows: Tensor, layout: Behind) -> Tensor:
    """The texts alone, (T, ...), of what `before_each` made."""
    texts: Tensor = _AfterEach.apply(rows, layout)
    return texts


def to_grid(rows: Tensor, layout: PadLayout) -> Tensor:
    """(T, D) to (B*L, D): padding has the values of some token, to be masked."""
    grid: Tensor = _ToGrid.apply(rows, layout)
    return grid


def to_packed(grid: Tensor, layout: PadLayout) -> Tensor:
    """(B*L, D) to (T, D): the padding is left out."""
    packed: Tensor = _ToPacked.apply(grid, layout)
    return packed
