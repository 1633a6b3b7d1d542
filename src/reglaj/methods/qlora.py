"""QLoRA: LoRA beside linear layers that lie in memory in four bits (Dettmers et al. 2023, arXiv:2305.14314).

What is saved is a LoRA in PEFT's format; base.json says which quantised base it was trained on.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

from reglaj.core.errors import MissingExtra, Problem, listing, refusal
from reglaj.methods import METHODS
from reglaj.methods.base import LLAMA_CPP, PEFT, VLLM, Handle, Method
from reglaj.methods.low_rank import LowRankConfig, attach_low_rank, default_rate, low_rank_problems, update_size
from reglaj.models.storage import Storage, storage_of

if TYPE_CHECKING:
    from torch import nn

    from reglaj.models.inspect import ModelFacts

_PACKAGES = ("bitsandbytes", "accelerate")


class QloraConfig(LowRankConfig):
    """Low-rank adaptation of a base in four bits (nf4)."""

    name: Literal["qlora"] = "qlora"
    is_double_quantised: bool = True
    """Quantise the scales of the blocks too: 0.05 bytes less for each value of the base."""


@METHODS.register("qlora")
class Qlora(Method[QloraConfig]):
    """The base in a seventh of the memory; the update in float32."""

    config_type = QloraConfig
    summary = "lora on a base whose linear layers lie in memory in four bits"
    citation = "Dettmers et al. 2023, arXiv:2305.14314"
    is_mergeable = True
    served_by = (PEFT, VLLM, LLAMA_CPP)

    @classmethod
    def check(cls, config: QloraConfig, facts: ModelFacts) -> list[Problem]:
        return _package_problems() + low_rank_problems(config, facts)

    @classmethod
    def trainable_parameters(cls, config: QloraConfig, facts: ModelFacts) -> int:
        return update_size(config, facts)

    @classmethod
    def storage(cls, config: QloraConfig) -> Storage | None:
        return Storage(kind="nf4", is_double=config.is_double_quantised)

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return default_rate(facts, has_new_head=has_new_head)

    @classmethod
    def attach(cls, config: QloraConfig, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise refusal(problems)
        if storage_of(model) != cls.storage(config):
            raise RuntimeError(f"the base lies in memory as {storage_of(model)}, and qlora wants {cls.storage(config)}")
        return attach_low_rank(config, model, facts, name)


def _package_problems() -> list[Problem]:
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if not missing:
        return []
    return [
        MissingExtra(
            where="method.name",
            given=f"qlora, and {listing(missing)} is not installed",
            allowed="qlora with the packages of the extra `qlora`; lora and dora without",
            why="four-bit weights are made and multiplied by bitsandbytes",
            remedy="run `pip install 'reglaj[qlora]'`, or use method lora on the base as it is",
        )
    ]
