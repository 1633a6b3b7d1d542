"""VeRA: one pair of frozen random projections for all layers, and two learnt vectors for each (Kopiczko et al. 2024).

Equation 2: the update of a layer is diag(b) B diag(d) A, with A (R, in) and B (out, R) drawn once from a seed and
sliced to each layer's size; b begins as zeros: identity at the start. Layers and files are PEFT's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from reglaj.core.errors import Problem, UserError
from reglaj.methods import METHODS
from reglaj.methods.base import PEFT, Capabilities, Handle, Method, by_size
from reglaj.methods.injected import WEIGHTS, InjectedHandle, inject, misfit, peft_task, saved_config
from reglaj.methods.targets import (
    TargetedConfig,
    chosen_modules,
    in_and_out,
    input_values,
    lowest_layer,
    peft_targets,
    target_problems,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reglaj.models.inspect import ModelFacts

_RATES = ((60_000_000, 2e-2), (200_000_000, 1e-2), (float("inf"), 5e-3))
_A, _B = "base_model.vera_A", "base_model.vera_B"


class VeraConfig(TargetedConfig):
    """Vectors around shared random projections."""

    name: Literal["vera"] = "vera"
    rank: int = Field(256, ge=1)
    """Of the projections. Larger than LoRA's, for a rank costs one value a layer here."""
    initial_d: float = Field(0.1, gt=0)
    """What d begins with (table 6 of the paper); b begins as zeros."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the input of the update, while training."""
    projection_seed: int = Field(0, ge=0)
    """Which projections are drawn."""
    save_projections: bool = True
    """false keeps them out of the saved model, which is then far smaller and draws them again from the seed."""


@METHODS.register("vera")
class Vera(Method[VeraConfig]):
    """Vectors through PEFT, unmerged while training."""

    config_type = VeraConfig
    summary = "two learnt vectors a layer around random projections that all layers share"
    citation = "Kopiczko et al. 2024, arXiv:2310.11454"
    is_mergeable = True
    served_by = (PEFT,)

    @classmethod
    def check(cls, config: VeraConfig, facts: ModelFacts) -> list[Problem]:
        return target_problems(config, facts)

    @classmethod
    def trainable_parameters(cls, config: VeraConfig, facts: ModelFacts) -> int:
        sizes = [in_and_out(shape, facts) for shape in chosen_modules(config, facts).values()]
        return sum(config.rank + size_out for _, size_out in sizes)

    @classmethod
    def kept_values(cls, config: VeraConfig, facts: ModelFacts) -> int:
        """Inputs, and for each layer what its vector of length R scales, before and after."""
        chosen = chosen_modules(config, facts)
        return input_values(chosen, facts) + 2 * config.rank * len(chosen)

    @classmethod
    def added_operations(cls, config: VeraConfig, facts: ModelFacts) -> int:
        """The frozen projections are as large as the rank, however little learns."""
        sizes = [in_and_out(shape, facts) for shape in chosen_modules(config, facts).values()]
        return 2 * config.rank * sum(map(sum, sizes))

    @classmethod
    def stored_bytes(cls, config: VeraConfig, facts: ModelFacts) -> int:
        projections = config.rank * sum(_largest(config, facts)) if config.save_projections else 0
        return 4 * (cls.trainable_parameters(config, facts) + projections)

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return by_size(_RATES, facts)

    @classmethod
    def attach(cls, config: VeraConfig, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        import peft

        chosen = chosen_modules(config, facts)
        settings: dict[str, Any] = {
            "task_type": peft_task(model),
            "base_model_name_or_path": str(facts.folder),
            "r": config.rank,
            "d_initial": config.initial_d,
            "vera_dropout": config.dropout,
            "projection_prng_key": config.projection_seed,
            "save_projection": True,  # what is left out is left out by the handle, without PEFT's warnings
            "target_modules": peft_targets(model, chosen, facts),
            "inference_mode": False,
        }
        others = _projections(model)
        inject(peft.VeraConfig(**settings), model, name, _sized(*_largest(config, facts)))
        _put_back(others)
        capabilities = Capabilities(linear_deltas=True, lowest_trained_layer=lowest_layer(chosen, facts))
        return VeraHandle(model, name, capabilities, saves_projections=config.save_projections)


def _largest(config: VeraConfig, facts: ModelFacts) -> tuple[int, int]:
    """The longest input and the longest output of the layers: what the projections span."""
    sizes = [in_and_out(shape, facts) for shape in chosen_modules(config, facts).values()]
    return max(size_in for size_in, _ in sizes), max(size_out for _, size_out in sizes)


def _sized(size_in: int, size_out: int) -> Any:
    """PEFT's tuner, told how large the layers are: it would not see them under layers of another method."""
    import peft

    class Sized(peft.VeraModel):
        def _find_dim(self, config: Any) -> tuple[int, int]:
            return size_out, size_in

    return Sized


def _projections(model: nn.Module) -> list[tuple[Any, dict[str, Tensor], dict[str, Tensor]]]:
    """Of each layer that has some: the layer, and A and B of each handle."""
    from peft.tuners.vera import VeraLayer

    layers = [module for module in model.modules() if isinstance(module, VeraLayer)]
    return [(layer, dict(layer.vera_A.items()), dict(layer.vera_B.items())) for layer in layers]


def _put_back(before: list[tuple[Any, dict[str, Tensor], dict[str, Tensor]]]) -> None:
    """Another handle's tuner has put its own projections in the place of all others'."""
    for layer, a, b in before:
        for own, kept in ((layer.vera_A, a), (layer.vera_B, b)):
            for key, tensor in kept.items():
                own[key] = tensor


class VeraHandle(InjectedHandle):
    """Named vectors among others on the same base."""

    def __init__(self, model: nn.Module, name: str, capabilities: Capabilities, *, saves_projections: bool) -> None:
        super().__init__(model, name, capabilities)
        self.saves_projections = saves_projections

    def save(self, folder: Path) -> None:
        config = self.config
        config.save_projection = self.saves_projections
        try:
            super().save(folder)
        finally:
            config.save_projection = True

    def tensors(self) -> dict[str, Tensor]:
        learnt = self.learnt_tensors()
        if not self.saves_projections:
            return learnt
        layer = self.layers()[0]
        return learnt | {_A: layer.vera_A[self.name], _B: layer.vera_B[self.name]}

    def load(self, folder: Path) -> None:
        """The projections of the file, or where it has none those of its seed, which must be ours."""
        from safetensors.torch import load_file

        found = load_file(folder / WEIGHTS)
        projections = {key: found.pop(key) for key in (_A, _B) if key in found}
        self.take(found, self.learnt_tensors(), folder)
        if not projections and saved_config(folder).get("projection_prng_key") != self.config.projection_prng_key:
            raise misfit(folder)
        for layer in self.layers() if projections else ():
            for own, key in ((layer.vera_A, _A), (layer.vera_B, _B)):
                if own[self.name].shape != projections[key].shape:
                    raise misfit(folder)
                own[self.name].copy_(projections[key])
