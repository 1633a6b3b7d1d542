"""The upper layers of the base learn in full, the lower ones stay frozen: what they give can be kept.

Lee, Tang and Lin 2019 ("What would Elsa do?"): a quarter of the layers reach nine tenths of what all of them do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from reglaj.core.errors import Problem, UserError
from reglaj.methods import METHODS
from reglaj.methods.base import Capabilities, Handle, Method, by_size
from reglaj.methods.config import MethodConfig
from reglaj.methods.selective import SelectiveHandle, chosen_parameters, size, trunk_tensors
from reglaj.methods.stacks import chosen_layers, lowest_of
from reglaj.methods.targets import input_values, layer_number, layer_problems

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts

_RATES = ((60_000_000, 2e-4), (200_000_000, 1.5e-4), (float("inf"), 2e-5))
_SHARE = 4
_NORMS = ("norm.weight", "norm.bias", "ln_f.weight", "ln_f.bias")


class FreezeConfig(MethodConfig):
    """Upper layers in full."""

    name: Literal["freeze"] = "freeze"
    layers: int | tuple[int, ...] | None = None
    """The upper N layers, or the numbers of the layers (from 0), which learn; null is the upper quarter."""


@METHODS.register("freeze")
class Freeze(Method[FreezeConfig]):
    """Layers of the base, and the norm above the last."""

    config_type = FreezeConfig
    summary = "the upper layers learn in full, the lower ones stay frozen"
    citation = "Lee, Tang and Lin 2019, arXiv:1911.03090"
    architectures = "all with numbered layers"
    trains_base = True

    @classmethod
    def check(cls, config: FreezeConfig, facts: ModelFacts) -> list[Problem]:
        problems = layer_problems(config.layers, facts)
        if problems or _in_layers(config, facts):
            return problems
        return [
            Problem(
                where="method.layers",
                given=f"freeze on {facts.name}, a {facts.model_type} model",
                allowed="models whose files number their layers",
                why="no tensor of those layers is in its files: they may share one set of weights",
                remedy="choose full, or lora",
            )
        ]

    @classmethod
    def derive(cls, config: FreezeConfig, facts: ModelFacts, *, has_new_head: bool) -> dict[str, tuple[Any, str]]:
        if config.layers is not None:
            return {}
        return {"layers": (_quarter(facts), f"a quarter of {facts.layers} (Lee et al. 2019)")}

    @classmethod
    def trainable_parameters(cls, config: FreezeConfig, facts: ModelFacts) -> int:
        return size(_chosen(config, facts))

    @classmethod
    def lowest_trained_layer(cls, config: FreezeConfig, facts: ModelFacts) -> int:
        return lowest_of(_layers(config, facts))

    @classmethod
    def kept_values(cls, config: FreezeConfig, facts: ModelFacts) -> int:
        chosen = _chosen(config, facts)
        modules = {module: shape for module, shape in facts.linear_modules().items() if f"{module}.weight" in chosen}
        return input_values(modules, facts)

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return by_size(_RATES, facts)

    @classmethod
    def default_epochs(cls) -> int:
        return 5

    @classmethod
    def attach(cls, config: FreezeConfig, model: Any, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        named = chosen_parameters(model, _chosen(config, facts))
        capabilities = Capabilities(lowest_trained_layer=lowest_of(_layers(config, facts)))
        return SelectiveHandle(model, name, capabilities, named, facts)


def _quarter(facts: ModelFacts) -> int:
    return max(1, round(facts.layers / _SHARE))


def _layers(config: FreezeConfig, facts: ModelFacts) -> list[tuple[int, ...]]:
    return chosen_layers(_quarter(facts) if config.layers is None else config.layers, facts)


def _in_layers(config: FreezeConfig, facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    """Name to shape of what those layers are made of."""
    stacks = _layers(config, facts)
    return {
        key: shape
        for key, shape in trunk_tensors(facts).items()
        if layer_number(key) in stacks[-1 if "decoder." in key else 0]
    }


def _chosen(config: FreezeConfig, facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    """The layers and the norm above the last: one that has no number, and is not the embeddings'."""
    above = {
        key: shape
        for key, shape in trunk_tensors(facts).items()
        if key.endswith(_NORMS) and layer_number(key) is None and "embed" not in key
    }
    return _in_layers(config, facts) | above
