"""Bottleneck adapters: two small matrices with an activation between them, behind or beside each sub-layer.

`houlsby` is h + s (f(h A' + a) B' + b) on the output h of attention and of the feed-forward (Houlsby et al. 2019, fig.
2), `pfeiffer` the same behind the feed-forward alone (Pfeiffer et al. 2021), `parallel` adds s (f(x A' + a) B' + b) of
what the feed-forward reads to what it gives (He et al. 2022, table 1 and section 4.6).

Departures from the papers:
1. B and b are zero at the start, where Houlsby et al. draw from a narrow normal: the model is then the base to the last
   bit. A is drawn as in He et al. (uniform, as `nn.Linear` does), for all variants.
2. The norms of the base stay frozen; Houlsby et al. train them too (`bitfit` with `norms: true` is that part).
3. `pfeiffer` reads the output of the feed-forward before the residual and the norm, as He et al. describe it; the code
   of Pfeiffer et al. reads the normed sum.
4. Where a layer has a norm on the way out (Gemma 2 and 3, OLMo 2) the bottleneck is behind it: the papers know none,
   and before it what is learnt would be scaled away.
5. A decoder that reads an encoder has none behind cross-attention: Houlsby et al. know encoders alone.
6. All variants know a scale s; only He et al. have one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from reglaj.core.errors import Problem, UserError, user_error
from reglaj.core.files import write_json
from reglaj.methods import METHODS
from reglaj.methods.base import Capabilities, Handle, Method, by_size, freeze
from reglaj.methods.config import MethodConfig
from reglaj.methods.stacks import chosen_layers, lowest_of
from reglaj.methods.targets import layer_problems
from reglaj.models.sublayers import SUBLAYERS

if TYPE_CHECKING:
    from torch import nn

    from reglaj.models.bottleneck import Placed
    from reglaj.models.inspect import ModelFacts

WEIGHTS, CONFIG = "adapter.safetensors", "method.json"
_PLACES = {"houlsby": ("attention", "feed_forward"), "pfeiffer": ("feed_forward",), "parallel": ("feed_forward",)}
_RATES = ((60_000_000, 5e-4), (200_000_000, 5e-4), (float("inf"), 2e-4))
_REDUCTION = 8


class AdapterConfig(MethodConfig):
    """Bottleneck adapters."""

    name: Literal["adapter"] = "adapter"
    variant: Literal["houlsby", "pfeiffer", "parallel"] = "houlsby"
    """Behind attention and feed-forward, behind the feed-forward alone, or beside the feed-forward."""
    bottleneck_dim: int | None = Field(None, ge=1)
    """Width of the bottleneck; null is an eighth of the model's width."""
    activation: Literal["relu", "gelu", "silu", "tanh"] | None = None
    """In the bottleneck; null is that of the variant's paper."""
    scale: float | None = Field(None, gt=0)
    """What a bottleneck gives is multiplied by it; null is that of the variant's paper."""
    layers: int | tuple[int, ...] | None = None
    """The upper N layers, or the numbers of the layers (from 0); null is all of them."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Behind the activation, while training."""


@METHODS.register("adapter")
class Adapter(Method[AdapterConfig]):
    """Bottlenecks of our own, hung into the stock model by hooks."""

    config_type = AdapterConfig
    summary = "a small bottleneck behind or beside frozen sub-layers"
    citation = (
        "Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2021, arXiv:2005.00247; He et al. 2022, "
        "arXiv:2110.04366"
    )
    architectures = "like BERT, RoBERTa, DistilBERT, GPT-2, Llama, Qwen, Mistral, Gemma and T5"

    @classmethod
    def check(cls, config: AdapterConfig, facts: ModelFacts) -> list[Problem]:
        if facts.model_type not in SUBLAYERS:
            return [_unknown(facts)]
        problems = layer_problems(config.layers, facts)
        if config.bottleneck_dim is not None and config.bottleneck_dim > facts.hidden_size:
            problems.append(
                Problem(
                    where="method.bottleneck_dim",
                    given=f"a bottleneck of {config.bottleneck_dim}",
                    allowed=f"1 to {facts.hidden_size}",
                    why=f"{facts.name} is {facts.hidden_size} wide: a wider bottleneck is none",
                    remedy="lower it",
                )
            )
        return problems

    @classmethod
    def derive(cls, config: AdapterConfig, facts: ModelFacts, *, has_new_head: bool) -> dict[str, tuple[Any, str]]:
        derived: dict[str, tuple[Any, str]] = {}
        if config.bottleneck_dim is None:
            width = max(1, facts.hidden_size // _REDUCTION)
            derived["bottleneck_dim"] = width, f"1/{_REDUCTION} of the width {facts.hidden_size}"
        if config.activation is None:
            is_houlsby = config.variant == "houlsby"
            paper = "Houlsby et al. 2019" if is_houlsby else "Pfeiffer et al. 2021 and He et al. 2022"
            derived["activation"] = "gelu" if is_houlsby else "relu", f"as in {paper}"
        if config.scale is None:
            is_parallel = config.variant == "parallel"
            reason = "as in He et al. 2022" if is_parallel else f"{config.variant} has no scale"
            derived["scale"] = 4.0 if is_parallel else 1.0, reason
        return derived

    @classmethod
    def trainable_parameters(cls, config: AdapterConfig, facts: ModelFacts) -> int:
        filled, width = _filled(config, facts), facts.hidden_size
        each = 2 * width * filled.bottleneck_dim + filled.bottleneck_dim + width
        return each * len(_PLACES[config.variant]) * sum(map(len, chosen_layers(config.layers, facts)))

    @classmethod
    def lowest_trained_layer(cls, config: AdapterConfig, facts: ModelFacts) -> int:
        return lowest_of(chosen_layers(config.layers, facts))

    @classmethod
    def kept_values(cls, config: AdapterConfig, facts: ModelFacts) -> int:
        """What each bottleneck reads, and what is inside it."""
        each = facts.hidden_size + _filled(config, facts).bottleneck_dim
        return each * len(_PLACES[config.variant]) * sum(map(len, chosen_layers(config.layers, facts)))

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return by_size(_RATES, facts)

    @classmethod
    def attach(cls, config: AdapterConfig, model: Any, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        from reglaj.models.bottleneck import Bottleneck, Placed

        freeze(model)
        config = _filled(config, facts)
        placed, chosen = Placed(model, name, SUBLAYERS[facts.model_type]), chosen_layers(config.layers, facts)
        kind = config.bottleneck_dim, config.activation, config.scale, config.dropout
        placed.put(
            chosen,
            lambda: Bottleneck(facts.hidden_size, *kind),
            places=_PLACES[config.variant],
            is_parallel=config.variant == "parallel",
        )
        return AdapterHandle(model, name, Capabilities(lowest_trained_layer=lowest_of(chosen)), placed, config)


class _Filled(AdapterConfig):
    """A config with nothing left out."""

    bottleneck_dim: int
    activation: Literal["relu", "gelu", "silu", "tanh"]
    scale: float


def _filled(config: AdapterConfig, facts: ModelFacts) -> _Filled:
    derived = Adapter.derive(config, facts, has_new_head=True)
    return _Filled(**config.model_dump() | {key: value for key, (value, _) in derived.items()})


def _unknown(facts: ModelFacts) -> Problem:
    return Problem(
        where="method.name",
        given=f"adapter on {facts.name}, a {facts.model_type} model",
        allowed=f"adapters on {', '.join(sorted(SUBLAYERS))}",
        why="where the sub-layers of that architecture end is not known, and a wrong place would train all the same",
        remedy="choose lora, which stands beside linear layers of any architecture",
    )


class AdapterHandle(Handle):
    """Named bottlenecks among others on the same base."""

    def __init__(
        self, model: nn.Module, name: str, capabilities: Capabilities, placed: Placed, config: AdapterConfig
    ) -> None:
        super().__init__(model, name, capabilities)
        self.placed, self.config = placed, config
        self.switch(True)

    def switch(self, is_on: bool) -> None:
        self.placed.hang() if is_on else self.placed.take_down()

    def parameters(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        mark = f".bottlenecks.{self.name}."
        return {"adapter": [(key, p) for key, p in self.model.named_parameters() if mark in key]}

    def save(self, folder: Path) -> None:
        """adapter.safetensors, by the names of the bottlenecks in the trunk, and method.json."""
        from safetensors.torch import save_file

        tensors = {key: p.detach().cpu().contiguous() for key, p in self._by_file_name().items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        write_json(folder / CONFIG, self._settings())

    def load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        tensors, ours = load_file(folder / WEIGHTS), self._by_file_name()
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        if settings != self._settings() or shapes != {key: tuple(p.shape) for key, p in ours.items()}:
            raise user_error(
                f"the adapter in {folder} does not fit",
                allowed="an adapter of the same base, variant, bottleneck_dim, activation, scale and layers",
                why=f"it says {settings}, this is {self._settings()}"
                if settings != self._settings()
                else "names or shapes of its tensors differ from the model's",
                remedy="load it onto the base it was trained on, with its own method section",
            )
        for key, parameter in ours.items():
            parameter.data.copy_(tensors[key])

    def _settings(self) -> dict[str, Any]:
        """What decides the outputs beside the weights."""
        config = self.config
        keys = ("name", "variant", "bottleneck_dim", "activation", "scale")
        return {key: getattr(config, key) for key in keys}

    def _by_file_name(self) -> dict[str, nn.Parameter]:
        """Without the name of the handle, and without the prefix that a model with a head gives its trunk."""
        prefix = f"{self.model.base_model_prefix}."
        return {
            key.replace(f".bottlenecks.{self.name}.", ".bottlenecks.").removeprefix(prefix): parameter
            for key, parameter in self.parameters()["adapter"]
        }
