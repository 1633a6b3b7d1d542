"""LoRA: a low-rank update beside each targeted linear layer (Hu et al. 2021). Layers and files are PEFT's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from reglaj.core.errors import Problem, UserError
from reglaj.methods import METHODS
from reglaj.methods.base import LLAMA_CPP, PEFT, VLLM, Handle, Method
from reglaj.methods.low_rank import (
    LowRankConfig,
    LowRankHandle,
    attach_low_rank,
    default_rate,
    low_rank_problems,
    update_size,
)
from reglaj.methods.principal import PrincipalHandle

if TYPE_CHECKING:
    from torch import nn

    from reglaj.models.inspect import ModelFacts


class LoraConfig(LowRankConfig):
    """Low-rank adaptation."""

    name: Literal["lora"] = "lora"
    init: Literal["default", "pissa"] = "default"
    """`pissa` begins with the principal part of each weight in place of a random A (Meng et al. 2024): it learns faster
    at first, and what is saved has twice the rank."""


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
        return low_rank_problems(config, facts)

    @classmethod
    def trainable_parameters(cls, config: LoraConfig, facts: ModelFacts) -> int:
        return update_size(config, facts)

    @classmethod
    def stored_bytes(cls, config: LoraConfig, facts: ModelFacts) -> int:
        return 4 * update_size(config, facts) * (2 if config.init == "pissa" else 1)

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return default_rate(facts, has_new_head=has_new_head)

    @classmethod
    def attach(cls, config: LoraConfig, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        kind = PrincipalHandle if config.init == "pissa" else LowRankHandle
        return attach_low_rank(config, model, facts, name, kind=kind)
