"""How far a method has moved the weights that it stands on, by layer and by kind: for the report of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from reglaj.methods.injected import InjectedHandle


@dataclass(frozen=True, kw_only=True)
class Change:
    """One matrix. moved and weight: squared Frobenius norms of the update and of what it is added to."""

    module: str
    moved: float
    weight: float
    rank: int | None = None


def weight_changes(handle: InjectedHandle) -> dict[str, Any]:
    """`updates` of report.json, see `summary`; nothing for layers that cannot be folded into their base."""
    if not handle.capabilities.linear_deltas:
        return {}
    return summary(_changes(handle))


def summary(changes: Iterable[Change]) -> dict[str, Any]:
    """Ratios of the update's norm to the weight's, as JSON values.

    modules: of each matrix by its name, with its rank where it has one. layers: of all matrices of a layer together
    (stack: what its layers are called), ranks added up. kinds: of all matrices of a kind, with their mean rank.
    """
    every = sorted(changes, key=lambda change: change.module)
    layers: dict[tuple[str, int], list[Change]] = {}
    kinds: dict[str, list[Change]] = {}
    for change in every:
        stack, layer, kind = _place(change.module)
        kinds.setdefault(kind, []).append(change)
        if layer is not None:
            layers.setdefault((stack, layer), []).append(change)
    if not every:
        return {}
    return {
        "updates": {
            "modules": {one.module: {"change": _ratio([one]), **_rank([one])} for one in every},
            "layers": [
                {"stack": stack, "layer": layer, "change": _ratio(group), **_rank(group)}
                for (stack, layer), group in sorted(layers.items())
            ],
            "kinds": [
                {"kind": kind, "modules": len(group), "change": _ratio(group), **_rank(group, len(group))}
                for kind, group in kinds.items()
            ],
        }
    }


def _changes(handle: InjectedHandle) -> Iterator[Change]:
    import torch

    names = {id(module): name for name, module in handle.model.named_modules()}
    layers = handle.layers()
    with torch.no_grad():
        if all(hasattr(layer, "updated_weight") for layer in layers):
            for layer in layers:
                before, after = layer.exact_weight(), layer.updated_weight(handle.name)
                yield _change(names[id(layer)], before, after, _rank_of(layer, handle.name))
            return
        for layer in layers:  # one at a time: all of them together would be the model's weights once more
            base, weight = layer.get_base_layer(), layer.get_base_layer().weight
            if layer.merged:
                continue
            # In float32: what is small beside a weight in half precision would be rounded away, or up.
            with handle.folding([layer], torch.float32):
                yield _change(names[id(layer)], weight, base.weight, _rank_of(layer, handle.name))


def _change(module: str, before: Tensor, after: Tensor, rank: int | None) -> Change:
    before = before.float()
    moved = (after.float() - before).square().sum().item()
    name = module.replace(".base_layer", "")  # another method's layer may lie around it
    return Change(module=name, moved=moved, weight=before.square().sum().item(), rank=rank)


def _rank_of(layer: Any, name: str) -> int | None:
    """What AdaLoRA has left of its ranks, or what a layer was given; None where there is no such thing."""
    singular = getattr(layer, "lora_E", {})
    if name in singular:
        return int((singular[name] != 0).sum())
    given = getattr(layer, "r", None)
    return int(given[name]) if isinstance(given, dict) and isinstance(given.get(name), int) else None


def _place(module: str) -> tuple[str, int | None, str]:
    """What the layers are called, the number of this one, and what the matrix is called inside of it."""
    parts = module.split(".")
    at = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    if at is None:
        return "", None, module
    return ".".join(parts[:at]), int(parts[at]), ".".join(parts[at + 1 :])


def _ratio(group: list[Change]) -> float:
    weight = sum(change.weight for change in group)
    ratio: float = (sum(change.moved for change in group) / weight) ** 0.5 if weight else 0.0
    return round(ratio, 6)


def _rank(group: list[Change], parts: int = 1) -> dict[str, float]:
    """The ranks of a group added up, or their mean; nothing where there are none."""
    ranks = [change.rank for change in group if change.rank is not None]
    if len(ranks) != len(group):
        return {}
    return {"rank": round(sum(ranks) / parts, 3) if parts > 1 else sum(ranks)}
