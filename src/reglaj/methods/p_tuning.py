"""P-tuning: embeddings before each text that a small network makes (Liu et al. 2021). Network and files are PEFT's.

P virtual tokens, D width. The paper puts its tokens around and between parts of a template; PEFT, and so this, before
the text. The network is there while training; the file that PEFT reads holds what it made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from reglaj.core.errors import Problem
from reglaj.methods import METHODS
from reglaj.methods.base import PEFT, Handle, Method
from reglaj.methods.prompts import (
    EmbeddedHandle,
    PromptConfig,
    derive_count,
    embedding_width,
    filled,
    peft_settings,
    refuse,
    room_problems,
)

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts

_RATES = {True: 1e-3, False: 3e-4}
"""By whether the task puts a new head on the model."""
_LSTM_LAYERS = 2


class PTuningConfig(PromptConfig):
    """P-tuning."""

    name: Literal["p-tuning"] = "p-tuning"
    reparametrisation: Literal["mlp", "lstm"] = "mlp"
    """The network: three linear layers, or two of a bidirectional LSTM with two linear ones."""
    hidden_size: int | None = Field(None, ge=1)
    """Width inside the network. Null is the width of the model's embeddings."""


@METHODS.register("p-tuning")
class PTuning(Method[PTuningConfig]):
    """Embeddings before each text that a network makes, of the encoder's input where there is one."""

    config_type = PTuningConfig
    summary = "embeddings before each text that a small network makes, the model stays frozen"
    citation = "Liu et al. 2021, arXiv:2103.10385"
    starts_as_base = False
    served_by = (PEFT,)

    @classmethod
    def check(cls, config: PTuningConfig, facts: ModelFacts) -> list[Problem]:
        return room_problems(cls.virtual_tokens(config, facts), facts)

    @classmethod
    def derive(cls, config: PTuningConfig, facts: ModelFacts, *, has_new_head: bool) -> dict[str, Any]:
        derived = derive_count(config, facts)
        if config.hidden_size is None:
            derived["hidden_size"] = (embedding_width(facts), "the width of the model's embeddings")
        return derived

    @classmethod
    def trainable_parameters(cls, config: PTuningConfig, facts: ModelFacts) -> int:
        config = filled(cls, config, facts)
        width, hidden = embedding_width(facts), config.hidden_size or 0
        learnt = (config.num_virtual_tokens or 0) * width
        if config.reparametrisation == "mlp":
            return learnt + _linear(width, hidden) + _linear(hidden, hidden) + _linear(hidden, width)
        inputs = (width, *[2 * hidden] * (_LSTM_LAYERS - 1))
        lstm = sum(2 * 4 * hidden * (size + hidden + 2) for size in inputs)
        return learnt + lstm + _linear(2 * hidden, 2 * hidden) + _linear(2 * hidden, width)

    @classmethod
    def stored_bytes(cls, config: PTuningConfig, facts: ModelFacts) -> int:
        made = cls.virtual_tokens(config, facts) * embedding_width(facts)
        return 4 * (made + cls.trainable_parameters(config, facts))

    @classmethod
    def virtual_tokens(cls, config: PTuningConfig, facts: ModelFacts) -> int:
        return filled(cls, config, facts).num_virtual_tokens or 0

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return _RATES[has_new_head]

    @classmethod
    def attach(cls, config: PTuningConfig, model: Any, facts: ModelFacts, name: str = "default") -> Handle:
        refuse(cls.check(config, facts))
        import peft

        config = filled(cls, config, facts)
        assert config.num_virtual_tokens is not None
        width = model.get_input_embeddings().weight.shape[1]
        settings = peft.PromptEncoderConfig(
            **peft_settings(model, facts, config.num_virtual_tokens, width),
            encoder_reparameterization_type=config.reparametrisation.upper(),
            encoder_hidden_size=config.hidden_size,
            encoder_num_layers=_LSTM_LAYERS,
        )
        return EmbeddedHandle(model, name, settings, peft.PromptEncoder(settings))


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs
