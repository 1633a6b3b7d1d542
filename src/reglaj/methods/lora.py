"""LoRA: a low-rank update beside each targeted linear layer (Hu et al. 2021). Layers and files are PEFT's.

R rank. The update is alpha / R * B A, with A (R, in) at random and B (out, R) zero: identity at the start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from reglaj.core.errors import Problem, UserError
from reglaj.methods import METHODS
from reglaj.methods.base import LLAMA_CPP, PEFT, VLLM, Capabilities, Handle, Method
from reglaj.methods.injected import InjectedHandle, inject, peft_task
from reglaj.methods.targets import (
    TargetedConfig,
    chosen_modules,
    lowest_layer,
    matches,
    peft_targets,
    rank_problems,
    target_problems,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reglaj.models.inspect import ModelFacts

_RATES = ((60_000_000, 2e-3), (200_000_000, 1e-3), (float("inf"), 3e-4))


class LoraConfig(TargetedConfig):
    """Low-rank adaptation."""

    name: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the input of the update, while training."""


@METHODS.register("lora")
class Lora(Method[LoraConfig]):
    """Low-rank updates through PEFT, unmerged while training."""

    config_type = LoraConfig
    summary = "a low-rank update beside frozen linear layers"
    citation = "Hu et al. 2021, arXiv:2106.09685"
    is_mergeable = True
    served_by = (PEFT, VLLM, LLAMA_CPP)

    @classmethod
    def check(cls, config: LoraConfig, facts: ModelFacts) -> list[Problem]:
        return target_problems(config, facts) or rank_problems(config.rank, chosen_modules(config, facts))

    @classmethod
    def trainable_parameters(cls, config: LoraConfig, facts: ModelFacts) -> int:
        return sum(config.rank * (rows + columns) for rows, columns in chosen_modules(config, facts).values())

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return next(rate for limit, rate in _RATES if facts.parameters <= limit)

    @classmethod
    def attach(cls, config: LoraConfig, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        import peft

        chosen = chosen_modules(config, facts)
        targets = peft_targets(model, chosen, facts)
        peft_config = peft.LoraConfig(
            task_type=peft_task(model),
            base_model_name_or_path=str(facts.folder),
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=targets,
            inference_mode=False,
        )
        if _are_plain(model, targets):
            from reglaj.models.fused_lora import FUSED

            peft_config._register_custom_module(FUSED)
        inject(peft_config, model, name)
        lowest = lowest_layer(chosen, facts)
        return LoraHandle(model, name, Capabilities(linear_deltas=True, lowest_trained_layer=lowest))


def _are_plain(model: nn.Module, targets: list[str]) -> bool:
    """Whether PEFT will find nothing but plain linear layers under these names: none that is quantised, say."""
    from reglaj.models.fused_lora import FUSED

    # By the model's own names, as PEFT goes: those in its files may lack a prefix.
    found = [m for name, m in model.named_modules() if any(matches(name, target) for target in targets)]
    # Another update may stand beside a layer already.
    bases = [module.get_base_layer() if hasattr(module, "get_base_layer") else module for module in found]
    return bool(bases) and all(type(base) in FUSED for base in bases)


class LoraHandle(InjectedHandle):
    """A named LoRA among others on the same base."""

    @contextlib.contextmanager
    def folded(self) -> Iterator[None]:
        """Each base weight is W + alpha / R * B A inside, computed in float32, and PEFT's layers apply it alone.

        The parameters are replaced, not changed: a weight that is tied to another stays what it is there.
        """
        import torch

        layers = [layer for layer in self.layers() if not layer.merged]
        weights = [layer.get_base_layer().weight for layer in layers]
        self.forget_copies()
        try:
            for layer, weight in zip(layers, weights, strict=True):
                with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
                    both = (weight.float() + self._update(layer)).to(weight.dtype)
                layer.get_base_layer().weight = torch.nn.Parameter(both, requires_grad=False)
                layer.merged_adapters = [self.name]
            yield
        finally:
            for layer, weight in zip(layers, weights, strict=True):
                layer.get_base_layer().weight = weight
                layer.merged_adapters = []

    def _update(self, layer: Any) -> Tensor:
        """alpha / R * B A in float32, in the layer's own orientation (PEFT would round it to the adapter's type)."""
        update = layer.lora_B[self.name].weight.float() @ layer.lora_A[self.name].weight.float()
        return (update.T if layer.fan_in_fan_out else update) * layer.scaling[self.name]

    def fuse(self, is_on: bool, *, keeps_copies: bool = True) -> bool:
        from reglaj.models.fused_lora import fuse

        return fuse(self.model, self.name, is_on=is_on, keeps_copies=keeps_copies)

    def forget_copies(self) -> None:
        """Give back what frozen weights take in half precision; a forward pass makes it again."""
        for layer in self.layers():
            layer._copy = None
