"""Small bottlenecks beside or behind the sub-layers of a frozen model, hung there by hooks.

Legend: T tokens, D width, R bottleneck, f the activation, s the scale.

    y = r + s (f(x A' + a) B' + b)            A (R, D), a (R,), B (D, R), b (D,)

r is what the sub-layer gives. In series x is r itself (Houlsby et al. 2019), in parallel it is what the sub-layer reads
(He et al. 2022). B and b are zero at the start, so that y is r to the last bit.

Written plainly, the sum, the product and the bias are tensors of (T, D) each, and the two ways of the gradient to r are
added in one more. `_Fused` makes y in place from r + s b, and the gradient of r in one product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from reglaj.models.sublayers import Sublayers

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
}
_GRADIENTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "relu": lambda gradient, narrow, active: torch.ops.aten.threshold_backward(gradient, active, 0),
    "gelu": lambda gradient, narrow, active: torch.ops.aten.gelu_backward(gradient, narrow),
    "silu": lambda gradient, narrow, active: torch.ops.aten.silu_backward(gradient, narrow),
    "tanh": lambda gradient, narrow, active: torch.ops.aten.tanh_backward(gradient, active),
}
"""From the gradient of f(z), z and f(z) to that of z."""


class _Fused(torch.autograd.Function):
    """x: (T, D). beside: (T, D), or None in series. Returns (T, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beside: Tensor | None, weights: tuple[str, float], *operands: Tensor) -> Tensor:
        down, down_bias, up, up_bias = operands
        activation, scale = weights
        narrow = torch.addmm(down_bias, x, down.T)
        active = ACTIVATIONS[activation](narrow)
        result = torch.add(x if beside is None else beside, up_bias, alpha=scale)
        result.addmm_(active, up.T, alpha=scale)
        ctx.save_for_backward(x, narrow, active, down, up)
        ctx.activation, ctx.scale, ctx.is_serial = activation, scale, beside is None
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, narrow, active, down, up = ctx.saved_tensors
        wants_x, wants_beside, _, wants_down, wants_down_bias, wants_up, wants_up_bias = ctx.needs_input_grad
        to_narrow = _GRADIENTS[ctx.activation]((gradient @ up).mul_(ctx.scale), narrow, active)
        to_x = None
        if wants_x:
            to_x = torch.addmm(gradient, to_narrow, down) if ctx.is_serial else to_narrow @ down
        return (
            to_x,
            gradient if wants_beside else None,
            None,
            to_narrow.T @ x if wants_down else None,
            to_narrow.sum(0) if wants_down_bias else None,
            (gradient.T @ active).mul_(ctx.scale) if wants_up else None,
            gradient.sum(0).mul_(ctx.scale) if wants_up_bias else None,
        )


class Bottleneck(nn.Module):
    """One of them. dropout: on f(...), while training."""

    def __init__(self, width: int, dim: int, activation: str, scale: float, dropout: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, dim), nn.Linear(dim, width)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.activation, self.scale, self.dropout = activation, scale, dropout
        self.is_fused = True

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """x: (..., D) what is read. beside: (..., D) what the result is added to; None is x itself."""
        result = x if beside is None else beside
        device = x.device.type
        is_mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if is_mixed else self.down.weight.dtype
        is_random = self.training and self.dropout > 0
        if not self.is_fused or is_random or result.dtype != dtype:
            return self._plain(x, result)
        operands = (self.down.weight, self.down.bias, self.up.weight, self.up.bias)
        with torch.autocast(device, enabled=False):
            flat: Tensor = _Fused.apply(
                x.to(dtype).reshape(-1, x.shape[-1]),
                None if beside is None else beside.reshape(-1, x.shape[-1]),
                (self.activation, self.scale),
                *(one.to(dtype) for one in operands),
            )
        return flat.view(x.shape)

    def _plain(self, x: Tensor, result: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.down.weight.dtype)  # a frozen base may lie in half precision
        active = nn.functional.dropout(ACTIVATIONS[self.activation](self.down(x)), self.dropout, self.training)
        return result + (self.scale * self.up(active)).to(result.dtype)


class Placed:
    """The bottlenecks of one name in a model, and the hooks that make them part of it.

    They are submodules of the model's layers: `LAYER.bottlenecks.NAME.attention` and `.feed_forward`.
    """

    def __init__(self, model: Any, name: str, where: Sublayers) -> None:
        self.model, self.name, self.where = model, name, where
        self.is_parallel = False
        self._hooks: list[Any] = []

    def put(
        self,
        chosen: Sequence[Sequence[int]],
        make: Callable[[], Bottleneck],
        *,
        places: Sequence[str],
        is_parallel: bool,
    ) -> None:
        """chosen: the layers of each stack. places: of `attention` and `feed_forward`."""
        self.is_parallel = is_parallel
        for stack, numbers in zip(self.where.stacks, chosen, strict=True):
            layers = find(self.model.base_model, stack)
            for number in numbers:
                layer = layers[number]
                if not hasattr(layer, "bottlenecks"):
                    layer.bottlenecks = nn.ModuleDict()
                device = next(layer.parameters()).device
                layer.bottlenecks[self.name] = nn.ModuleDict({place: make().to(device) for place in places})

    def layers(self) -> list[Any]:
        """Those that have bottlenecks of this name."""
        every = (layer for stack in self.where.stacks for layer in find(self.model.base_model, stack))
        return [layer for layer in every if self.name in getattr(layer, "bottlenecks", ())]

    def bottlenecks(self) -> list[Bottleneck]:
        return [one for layer in self.layers() for one in layer.bottlenecks[self.name].values()]

    def hang(self) -> None:
        """Let the model's passes go through them."""
        for layer in self.layers():
            for place, bottleneck in layer.bottlenecks[self.name].items():
                end = find(layer, getattr(self.where, place))
                if not self.is_parallel:
                    self._hooks.append(end.register_forward_hook(partial(_in_series, bottleneck)))
                    continue
                read: list[Tensor] = []
                start = find(layer, self.where.feed_forward_start)
                self._hooks.append(start.register_forward_pre_hook(partial(_remember, read)))
                self._hooks.append(end.register_forward_hook(partial(_in_parallel, bottleneck, read)))

    def take_down(self) -> None:
        """Let the model's passes know nothing of them."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def find(module: Any, path: str) -> Any:
    """The module at a path; a number counts in a list, -1 is its last."""
    for part in path.split("."):
        module = module[int(part)] if part.lstrip("-").isdigit() else getattr(module, part)
    return module


def _in_series(bottleneck: Bottleneck, module: nn.Module, args: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return bottleneck(output[0]), *output[1:]
    return bottleneck(output)


def _remember(read: list[Tensor], module: nn.Module, args: tuple[Tensor, ...]) -> None:
    read[:] = [args[0]]


def _in_parallel(bottleneck: Bottleneck, read: list[Tensor], module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return bottleneck(read.pop(), output)
