"""Small bottlenecks beside or behind the sub-layers of a frozen model, hung there by hooks.

Legend: T tokens, D width, R bottleneck, f the activation, s the scale.

    y = r + s (f(x A' + a) B' + b)            A (R, D), a (R,), B (D, R), b (D,)

r is what the sub-layer gives. In series x is r itself (Houlsby et al. 2019), in parallel it is what the sub-layer reads
(He et al. 2022). B and b are zero at the start, so that y is r to the last bit.
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


class Bottleneck(nn.Module):
    """One of them. dropout: on f(...), while training."""

    def __init__(self, width: int, dim: int, activation: str, scale: float, dropout: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, dim), nn.Linear(dim, width)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.activation, self.scale, self.dropout = activation, scale, dropout

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """x: (..., D) what is read. beside: (..., D) what the result is added to; None is x itself."""
        result = x if beside is None else beside
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
