"""DoRA: LoRA in which each row of the updated weight has a length of its own that learns (Liu et al. 2024).

Layers and files are PEFT's. At the start the lengths are those of the base's weights: identity up to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from reglaj.core.errors import Problem, UserError
from reglaj.methods import METHODS
from reglaj.methods.base import PEFT, Handle, Method
from reglaj.methods.low_rank import (
    LowRankConfig,
    attach_low_rank,
    default_rate,
    low_rank_problems,
    output_size,
    update_size,
)
from reglaj.methods.targets import chosen_modules, input_values

if TYPE_CHECKING:
    from torch import nn

    from reglaj.models.inspect import ModelFacts


class DoraConfig(LowRankConfig):
    """Weight-decomposed low-rank adaptation."""

    name: Literal["dora"] = "dora"


@METHODS.register("dora")
class Dora(Method[DoraConfig]):
    """A direction, moved by a low-rank update, and a magnitude for each output."""

    config_type = DoraConfig
    summary = "a low-rank update of the weights' directions, and their magnitudes"
    citation = "Liu et al. 2024, arXiv:2402.09353"
    is_mergeable = True
    served_by = (PEFT,)

    @classmethod
    def check(cls, config: DoraConfig, facts: ModelFacts) -> list[Problem]:
        return low_rank_problems(config, facts)

    @classmethod
    def trainable_parameters(cls, config: DoraConfig, facts: ModelFacts) -> int:
        return update_size(config, facts) + sum(output_size(module, facts) for module in chosen_modules(config, facts))

    @classmethod
    def kept_values(cls, config: DoraConfig, facts: ModelFacts) -> int:
        """Inputs, and outputs before they are scaled."""
        chosen = chosen_modules(config, facts)
        return input_values(chosen, facts) + sum(output_size(module, facts) for module in chosen)

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return default_rate(facts, has_new_head=has_new_head)

    @classmethod
    def attach(cls, config: DoraConfig, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        return attach_low_rank(config, model, facts, name, use_dora=True)
