"""Prompt tuning: learnt embeddings before each text (Lester et al. 2021). Files are PEFT's.

P virtual tokens, D width. Random initialisation has the mean and spread of the model's own embeddings: the paper's
uniform values from -0.5 to 0.5 belong to T5, and are ten times too large for most others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from reglaj.core.errors import Problem
from reglaj.methods import METHODS
from reglaj.methods.base import PEFT, Handle, Method, as_base
from reglaj.methods.prompts import (
    EmbeddedHandle,
    Init,
    PromptConfig,
    derive_count,
    embedding_width,
    filled,
    first_tokens,
    peft_settings,
    plain_encoder,
    refuse,
    room_problems,
    text_problems,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reglaj.models.inspect import ModelFacts

_RATES = {True: 3e-2, False: 3e-2}
"""By whether the task puts a new head on the model."""


class PromptTuningConfig(PromptConfig):
    """Prompt tuning."""

    name: Literal["prompt"] = "prompt"
    init: Init | None = None
    """`vocabulary` starts from common words, `text` from `init_text`, `random` from none. Null is `vocabulary`."""
    init_text: str | None = None
    """Words to start from, repeated or cut to the number of virtual tokens. Only with `init: text`."""


@METHODS.register("prompt")
class PromptTuning(Method[PromptTuningConfig]):
    """Learnt embeddings before each text, of the encoder's input where there is one."""

    config_type = PromptTuningConfig
    summary = "learnt embeddings before each text, the model stays frozen"
    citation = "Lester et al. 2021, arXiv:2104.08691"
    starts_as_base = False
    served_by = (PEFT,)

    @classmethod
    def check(cls, config: PromptTuningConfig, facts: ModelFacts) -> list[Problem]:
        config = filled(cls, config, facts)
        return room_problems(config.num_virtual_tokens or 0, facts) + text_problems(config.init, config.init_text)

    @classmethod
    def derive(cls, config: PromptTuningConfig, facts: ModelFacts, *, has_new_head: bool) -> dict[str, Any]:
        derived = derive_count(config, facts)
        if config.init is None:
            chosen = "text" if config.init_text else "vocabulary"
            reason = "there is init_text" if config.init_text else "it starts better than random values"
            derived["init"] = (chosen, reason)
        return derived

    @classmethod
    def trainable_parameters(cls, config: PromptTuningConfig, facts: ModelFacts) -> int:
        return cls.virtual_tokens(config, facts) * embedding_width(facts)

    @classmethod
    def virtual_tokens(cls, config: PromptTuningConfig, facts: ModelFacts) -> int:
        return filled(cls, config, facts).num_virtual_tokens or 0

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return _RATES[has_new_head]

    @classmethod
    def attach(cls, config: PromptTuningConfig, model: Any, facts: ModelFacts, name: str = "default") -> Handle:
        refuse(cls.check(config, facts))
        import peft

        config = filled(cls, config, facts)
        with as_base(model):
            made = _first(config, model.get_input_embeddings(), facts)
        settings = peft.PromptTuningConfig(**peft_settings(model, facts, *made.shape))
        return EmbeddedHandle(model, name, settings, plain_encoder(made))


def _first(config: PromptTuningConfig, table: nn.Module, facts: ModelFacts) -> Tensor:
    """(P, D) before the first step."""
    import torch

    assert config.num_virtual_tokens is not None and config.init is not None
    weight: Any = table.weight
    if config.init == "random":
        # Gemma scales what it looks up, and the prompt stands beside that.
        values = weight.detach().float() * float(getattr(table, "scalar_embed_scale", 1.0))
        return values.mean().cpu() + values.std().cpu() * torch.randn(config.num_virtual_tokens, weight.shape[1])
    tokens = first_tokens(config.init, config.init_text, config.num_virtual_tokens, facts)
    with torch.no_grad():
        looked_up: Tensor = table(tokens.to(weight.device))
    return looked_up.float().cpu()
