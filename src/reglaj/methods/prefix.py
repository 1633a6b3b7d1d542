"""Prefix tuning: learnt keys and values before each text, in every layer (Li and Liang 2021). Files are PEFT's.

P virtual tokens, N layers, G key-value heads, H head width. In an encoder-decoder the prefix is the decoder's.

1. The paper begins with the activations of real words where data are few (its section 7.4); so does this by default.
2. Its reparametrisation by an MLP (section 4.3) is there as PEFT has it. PEFT's files hold the keys and values alone.
3. PEFT deals the prefix of an encoder-decoder out so that two layers share one, and nobody reads half of the values.
   Here each layer has its own, and the file claims twice as many layers: PEFT then deals it out as it is meant.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from reglaj.core.errors import Problem, UserError
from reglaj.methods import METHODS
from reglaj.methods.base import PEFT, Handle, Method, as_base
from reglaj.methods.prompts import (
    Init,
    PromptConfig,
    PromptHandle,
    attention_size,
    derive_count,
    filled,
    first_tokens,
    peft_settings,
    plain_encoder,
    refuse,
    room_problems,
    stored_layers,
    text_problems,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reglaj.models.inspect import ModelFacts
    from reglaj.models.prefixed import Seen

_RATES = {True: 3e-2, False: 3e-2}
"""By whether the task puts a new head on the model."""
_NETWORK_FACTOR = 0.03
"""Of the rate where a network stands before keys and values: at ten times as much nothing is learnt."""
_HIDDEN_SIZE = 512
"""Of the reparametrisation, as in the paper's table-to-text runs (its appendix)."""


class PrefixConfig(PromptConfig):
    """Prefix tuning."""

    name: Literal["prefix"] = "prefix"
    init: Init | None = None
    """`vocabulary` starts from what the model makes of common words, `text` of `init_text`, `random` from values of the
    same spread. Null is `vocabulary`, or `random` under a reparametrisation."""
    init_text: str | None = None
    """Words to start from, repeated or cut to the number of virtual tokens. Only with `init: text`."""
    reparametrisation: bool | None = None
    """Whether keys and values come out of a small network while training. Null is false."""
    hidden_size: int | None = Field(None, ge=1)
    """Width of that network; no effect without a reparametrisation. Null is 512."""


@METHODS.register("prefix")
class PrefixTuning(Method[PrefixConfig]):
    """Learnt keys and values in every attention to the text itself."""

    config_type = PrefixConfig
    summary = "learnt keys and values before each text in every layer, the model stays frozen"
    citation = "Li and Liang 2021, arXiv:2101.00190"
    starts_as_base = False
    served_by = (PEFT,)
    architectures = "those that attend through transformers' AttentionInterface"

    @classmethod
    def check(cls, config: PrefixConfig, facts: ModelFacts) -> list[Problem]:
        config = filled(cls, config, facts)
        problems = room_problems(config.num_virtual_tokens or 0, facts) + text_problems(config.init, config.init_text)
        if config.reparametrisation and config.init != "random":
            problems.append(_two_beginnings(config))
        if not _attends_by_interface(facts.model_type):
            problems.append(_no_interface(facts, "its attention is written out in its own file"))
        return problems

    @classmethod
    def derive(cls, config: PrefixConfig, facts: ModelFacts, *, has_new_head: bool) -> dict[str, Any]:
        derived = derive_count(config, facts)
        if config.reparametrisation is None:
            derived["reparametrisation"] = (False, "a start from real words needs none")
        if config.hidden_size is None and config.reparametrisation:
            derived["hidden_size"] = (_HIDDEN_SIZE, "that of the paper")
        if config.init is None:
            derived["init"] = _begin(config)
        return derived

    @classmethod
    def trainable_parameters(cls, config: PrefixConfig, facts: ModelFacts) -> int:
        config = filled(cls, config, facts)
        heads, width = attention_size(facts)
        count, token = config.num_virtual_tokens or 0, heads * width
        every = 2 * _layers(facts) * token
        if not config.reparametrisation:
            return count * every
        hidden = config.hidden_size or 0
        return count * token + token * hidden + hidden + hidden * every + every

    @classmethod
    def stored_bytes(cls, config: PrefixConfig, facts: ModelFacts) -> int:
        config = filled(cls, config, facts)
        heads, width = attention_size(facts)
        layers = stored_layers(_layers(facts), is_encoder_decoder=facts.is_encoder_decoder)
        stored = 4 * (config.num_virtual_tokens or 0) * 2 * layers * heads * width
        return stored + (4 * cls.trainable_parameters(config, facts) if config.reparametrisation else 0)

    @classmethod
    def virtual_tokens(cls, config: PrefixConfig, facts: ModelFacts) -> int:
        return filled(cls, config, facts).num_virtual_tokens or 0

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return _RATES[has_new_head]

    @classmethod
    def rate_factor(cls, config: PrefixConfig) -> float:
        return _NETWORK_FACTOR if config.reparametrisation else 1.0

    @classmethod
    def attach(cls, config: PrefixConfig, model: Any, facts: ModelFacts, name: str = "default") -> Handle:
        refuse(cls.check(config, facts))
        import peft

        config = filled(cls, config, facts)
        assert config.num_virtual_tokens is not None and config.init is not None
        init: Init = "vocabulary" if config.init == "random" else config.init  # what the spread is taken from
        words = first_tokens(init, config.init_text, config.num_virtual_tokens, facts)
        with as_base(model):
            seen = _attentions(model, words, facts)
        heads, width = seen[0].shape
        settings = peft_settings(model, facts, config.num_virtual_tokens, heads * width) | {
            "num_layers": len(seen),
            "num_attention_heads": heads,
        }
        if config.reparametrisation:
            settings |= {"prefix_projection": True, "encoder_hidden_size": config.hidden_size}
        peft_config = peft.PrefixTuningConfig(**settings)
        encoder = peft.PrefixEncoder(peft_config) if config.reparametrisation else _encoder(seen, config.init)
        return PrefixHandle(model, name, peft_config, encoder, [one.module for one in seen])


def _begin(config: PrefixConfig) -> tuple[Init, str]:
    if config.init_text:
        return "text", "there is init_text"
    if config.reparametrisation:
        return "random", "a network stands before keys and values"
    return "vocabulary", "it starts better than random values"


def _encoder(seen: list[Seen], init: Init) -> nn.Module:
    """With the keys and values of real words, or values of the same spread."""
    import torch

    rows = [states.transpose(0, 1).flatten(1).float().cpu() for one in seen for states in (one.key, one.value)]
    if init == "random":
        rows = [states.std() * torch.randn(states.shape) for states in rows]
    return plain_encoder(torch.cat(rows, dim=1))


def _attentions(model: Any, words: Tensor, facts: ModelFacts) -> list[Seen]:
    """The attentions that take a prefix, as they see these words. Raises `UserError` where they cannot."""
    import inspect

    from reglaj.models.prefixed import attentions

    try:
        seen = attentions(model, words)
    except Exception as error:  # an architecture never seen may fail in any way
        raise UserError(_no_interface(facts, f"a pass that looks for it fails: {error}")) from error
    if len(seen) != _layers(facts) or len({one.shape for one in seen}) != 1:
        why = f"{len(seen)} of its {_layers(facts)} layers attend through it, in equal shape"
        raise UserError(_no_interface(facts, why))
    is_told = "position_ids" in inspect.signature(model.base_model.forward).parameters
    if (not is_told or seen[0].has_bias) and not (facts.is_encoder_decoder and seen[0].has_bias):
        raise UserError(_no_interface(facts, "it counts positions by itself, and would begin a text at the first one"))
    return seen


def _layers(facts: ModelFacts) -> int:
    return facts.decoder_layers or facts.layers


def _attends_by_interface(model_type: str) -> bool:
    """As its file in transformers says; true where there is none to look at, and the pass at `attach` will tell."""
    from importlib.util import find_spec

    found = find_spec("transformers")
    if found is None or not found.submodule_search_locations:
        return True
    name = model_type.replace("-", "_")
    file = Path(found.submodule_search_locations[0]) / "models" / name / f"modeling_{name}.py"
    try:
        return "ALL_ATTENTION_FUNCTIONS" in file.read_text(encoding="utf-8")
    except OSError:
        return True


def _no_interface(facts: ModelFacts, why: str) -> Problem:
    return Problem(
        where="method.name",
        given=f"method prefix on {facts.name} ({facts.model_type})",
        allowed="models that attend through transformers' AttentionInterface and are told positions, or T5",
        why=f"keys and values have to be put before each text in every layer, and {why}",
        remedy="use prompt or p-tuning, which need the input only, or lora",
    )


def _two_beginnings(config: PrefixConfig) -> Problem:
    return Problem(
        where="method.init",
        given=f"init {config.init} with reparametrisation true",
        allowed="init random with a reparametrisation, or any init without one",
        why="no weights of the network give keys and values that are asked for",
        remedy="remove one of the two keys",
    )


class PrefixHandle(PromptHandle):
    """A learnt prefix of a name. modules: the attentions that take it, in the order of the layers."""

    def __init__(self, model: nn.Module, name: str, config: Any, encoder: nn.Module, modules: list[nn.Module]) -> None:
        super().__init__(model, name, config, encoder)
        self.modules = modules
        self.switch(True)

    def switch(self, is_on: bool) -> None:
        from reglaj.models.prefixed import switch

        switch(self.modules, is_on=is_on)

    def virtual(self) -> Any:
        from reglaj.models.virtual import VirtualTokens

        count, heads = self.config.num_virtual_tokens, self.config.num_attention_heads
        # (P, 2N, G, H) to 2N of (G, P, H): a layer's keys, then its values.
        states = self.prompt().view(count, 2 * len(self.modules), heads, -1).permute(1, 2, 0, 3).unbind()
        pairs = tuple(zip(self.modules, states[::2], states[1::2], strict=True))
        return VirtualTokens(count=count, keys_values=pairs)

    def stored_config(self) -> Any:
        """With the keys and values alone, so that PEFT can go on with them; see 3 above."""
        stored = super().stored_config()
        stored.prefix_projection, stored.encoder_hidden_size = False, None
        if self.model.config.is_encoder_decoder:
            stored.num_transformer_submodules = 2
            stored.num_layers = stored_layers(len(self.modules), is_encoder_decoder=True)
        return stored

    def as_stored(self, made: Tensor) -> Tensor:
        if not self.model.config.is_encoder_decoder:
            return made
        import torch

        # Of four rows PEFT gives two to a layer's attention to itself, and drops those for what the encoder saw.
        rows = made.view(len(made), len(self.modules), 2, -1)
        return torch.cat((rows, torch.zeros_like(rows)), dim=2).flatten(1)

    def from_stored(self, stored: Tensor, config: dict[str, Any]) -> Tensor | None:
        if not self.model.config.is_encoder_decoder:
            return stored
        import torch

        layers = int(config.get("num_layers") or 0)
        rows = stored.view(len(stored), 2 * layers, -1)
        if config.get("num_transformer_submodules") != 2:
            return None
        first = torch.arange(len(self.modules)) * 4
        chosen = torch.stack((first, first + 1), dim=1).flatten() % (2 * layers)
        return rows[:, chosen].flatten(1)
