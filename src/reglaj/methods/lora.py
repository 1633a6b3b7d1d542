"""LoRA: a low-rank update beside each targeted linear layer (Hu et al. 2021). Layers and files are PEFT's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from reglaj.core.errors import Problem, UserError
from reglaj.methods import METHODS
from reglaj.methods.base import LLAMA_CPP, PEFT, VLLM, Handle, Method
from reglaj.methods.low_rank import LowRankConfig, attach_low_rank, default_rate, low_rank_problems, update_size

if TYPE_CHECKING:
    from torch import nn

    from reglaj.models.inspect import ModelFacts


class LoraConfig(LowRankConfig):
    """Low-rank adaptation."""

    name: Literal["lora"] = "lora"


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
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return default_rate(facts)

    @classmethod
    def attach(cls, config: LoraConfig, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        return attach_low_rank(config, model, facts, name)
