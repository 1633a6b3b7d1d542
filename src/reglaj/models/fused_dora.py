"""DoRA's product in one operation, and the norms it needs once a step (Liu et al. 2024, arXiv:2402.09353).

Legend: T tokens, I inputs, O outputs, R rank, s = alpha / R, V = W + s B A, c the norms of the rows of V.

    y  = m / c * (x V') + b                  equation 5, c a constant (section 4.3)
    dx = h V,  dA = s (h B)' x,  dB = s h' (x A'),  dm = sum over T of (g * x V') / c        with h = g * m / c

PEFT's layer makes B A as a product with an identity matrix, adds it to W and takes the norms anew in every pass of
every micro-batch. Here they are taken once a step, and without making B A:

    c^2 = |W|^2 + 2 s (W A') * B + s^2 (B (A A')) * B        row by row; the first is there for good

so W is read once a step. Where B is zero that is |W|^2 itself, whose root is |W| again, bit for bit: DoRA begins as the
base.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Weight = Tensor | Callable[[], Tensor]


def magnitude_product(
    x: Tensor, weight: Weight, bias: Tensor | None, update: tuple[Tensor, Tensor, float], gain: Tensor
) -> Tensor:
    """gain * (x W' + s (x A') B') + b. x: (T, I). update: A (R, I), B (O, R), s. gain: (O,) float32. Returns (T, O)."""
    result: Tensor = _Magnitude.apply(x, weight, *update, gain)
    return result if bias is None else result + bias


class _Magnitude(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Weight, down: Tensor, up: Tensor, scale: float, gain: Tensor) -> Tensor:
        is_made = not isinstance(weight, Tensor)
        narrow = x @ down.T
        inner = nn.functional.linear(x, weight() if is_made else weight)  # type: ignore[operator, arg-type]
        inner.addmm_(narrow, up.T, alpha=scale)
        ctx.make, ctx.scale = weight if is_made else None, scale
        ctx.save_for_backward(x, None if is_made else weight, down, up, narrow, inner, gain)
        return _scaled(inner, gain)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, down, up, narrow, inner, gain = ctx.saved_tensors
        wants_x, _, wants_down, wants_up, _, wants_gain = ctx.needs_input_grad
        to_inner = _scaled(gradient, gain)
        to_narrow = to_inner @ up
        to_x = None
        if wants_x:
            to_x = to_inner @ (ctx.make() if ctx.make else weight)
            to_x.addmm_(to_narrow, down, alpha=ctx.scale)
        to_down = (to_narrow.T @ x).mul_(ctx.scale) if wants_down else None
        to_up = (to_inner.T @ narrow).mul_(ctx.scale) if wants_up else None
        to_gain = (gradient * inner).sum(0, dtype=gain.dtype) if wants_gain else None
        return to_x, None, to_down, to_up, None, to_gain


def _scaled(rows: Tensor, gain: Tensor) -> Tensor:
    """rows * gain in the type of the rows, but multiplied in float32: a gain of 1.001 is 1 in bfloat16."""
    return torch.mul(rows, gain, out=torch.empty_like(rows))


class WeightNorms:
    """The norms of the rows of W + s B A.

    Those of W are kept. Those of the sum are made in every pass, unless somebody promises to say when A and B have
    moved: torch's fused AdamW changes tensors without a trace in their versions.
    """

    def __init__(self) -> None:
        self.is_told = False
        """Whether `have_moved` is called after each change that an optimizer makes."""
        self._of_base: tuple[Seen, Tensor] | None = None
        self._of_update: tuple[Seen, Tensor] | None = None

    def of(self, exact: Callable[[], Tensor], place: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        """(O,) float32, without gradient.

        exact: W (O, I) in float32; asked only when something has changed. place: where W lies.
        """
        if self.is_told and self._of_update is not None and self._of_update[0].are(place, down, up):
            return self._of_update[1]
        # Evaluations run in inference mode, whose tensors no backward pass could use afterwards.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(down.device.type, enabled=False):
            norms = self._make(exact(), place, down.detach().float(), up.detach().float(), scale)
        self._of_update = (Seen(place, down, up), norms) if self.is_told else None
        return norms

    def have_moved(self) -> None:
        """A and B are others now."""
        self._of_update = None

    def forget(self) -> None:
        """Give back everything that is kept."""
        self._of_base = self._of_update = None

    def _make(self, weight: Tensor, place: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        if self._of_base is None or not self._of_base[0].are(place):
            self._of_base = Seen(place), torch.linalg.vector_norm(weight, dim=1)
        own = self._of_base[1]
        crossed = ((weight @ down.T) * up).sum(1)
        squares = ((up @ (down @ down.T)) * up).sum(1)
        return (own * own + 2 * scale * crossed + scale * scale * squares).clamp_min(0).sqrt()


class Seen:
    """Tensors as they were when something was made of them."""

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors, self._places = tensors, [_place(tensor) for tensor in tensors]

    def are(self, *tensors: Tensor) -> bool:
        """Whether these are the same ones, unchanged. What is written through `.data` leaves no trace."""
        return all(now is then for now, then in zip(tensors, self._tensors, strict=True)) and self._places == [
            _place(tensor) for tensor in tensors
        ]


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor._version
