"""(IA)^3: learnt vectors that scale keys, values and the hidden states of the feed-forward layers (Liu et al. 2022).

Section 3.3: l_k and l_v multiply what the key and value matrices give, l_ff what goes into the second feed-forward
matrix. All begin as ones: identity at the start, bitwise. Layers and files are PEFT's.

Departures: where one matrix gives queries, keys and values (GPT-2), its vector scales the queries too; a bias is
scaled with its output, as in PEFT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from reglaj.core.errors import Problem, UserError
from reglaj.methods import METHODS
from reglaj.methods.base import PEFT, Capabilities, Handle, Method, by_size
from reglaj.methods.config import MethodConfig
from reglaj.methods.injected import InjectedHandle, inject, peft_task
from reglaj.methods.targets import (
    TargetedConfig,
    chosen_modules,
    in_and_out,
    lowest_layer,
    matches,
    names_in,
    peft_targets,
    target_problems,
)

if TYPE_CHECKING:
    from torch import nn

    from reglaj.models.inspect import ModelFacts

_KEYS = ("key", "k_lin", "k_proj", "k", "key_proj")
_VALUES = ("value", "v_lin", "v_proj", "v", "value_proj")
_ALL_IN_ONE = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "qkv")
"""Matrices that give queries, keys and values."""
_FEED_FORWARD = (
    "lin2", "down_proj", "fc2", "wo", "fc_out", "dense_4h_to_h", "output.dense", "ffn_output", "mlp.c_proj", "mlp.Wo",
)  # fmt: skip
"""The second matrix of a feed-forward layer."""
_NOT_FEED_FORWARD = "attention.output.dense"
_RATES = ((60_000_000, 1e-2), (200_000_000, 1.5e-2), (float("inf"), 5e-3))


class Ia3Config(MethodConfig):
    """Scaling of keys, values and feed-forward layers."""

    name: Literal["ia3"] = "ia3"
    target_modules: Literal["all-linear"] | str | tuple[str, ...] | None = None
    """Ends of module names; null is the key, value and second feed-forward matrices. What ends a feed-forward layer is
    scaled at its input, everything else at its output."""
    layers: int | tuple[int, ...] | None = None
    """The upper N layers, or the numbers of the layers (from 0); null is all of them."""


@METHODS.register("ia3")
class Ia3(Method[Ia3Config]):
    """Vectors through PEFT, unmerged while training."""

    config_type = Ia3Config
    summary = "learnt vectors scale keys, values and feed-forward layers"
    citation = "Liu et al. 2022, arXiv:2205.05638"
    is_mergeable = True
    served_by = (PEFT,)

    @classmethod
    def check(cls, config: Ia3Config, facts: ModelFacts) -> list[Problem]:
        return target_problems(_targeted(config, facts), facts)

    @classmethod
    def trainable_parameters(cls, config: Ia3Config, facts: ModelFacts) -> int:
        sizes = {module: in_and_out(shape, facts) for module, shape in _chosen(config, facts).items()}
        return sum(size[0 if _is_feed_forward(module) else 1] for module, size in sizes.items())

    @classmethod
    def lowest_trained_layer(cls, config: Ia3Config, facts: ModelFacts) -> int:
        return lowest_layer(_chosen(config, facts), facts)

    @classmethod
    def kept_values(cls, config: Ia3Config, facts: ModelFacts) -> int:
        """What each vector scales is as long as the vector."""
        return cls.trainable_parameters(config, facts)

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return by_size(_RATES, facts)

    @classmethod
    def attach(cls, config: Ia3Config, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        import peft

        chosen = _chosen(config, facts)
        targets = peft_targets(model, chosen, facts)
        ahead = [target for target in targets if _is_feed_forward(target)]
        others = [module for module in chosen if not _is_feed_forward(module)]
        if any(module.endswith(target) for module in others for target in ahead):
            # PEFT compares bare ends: BERT's `output.dense` would be the attention's as well.
            targets = names_in(model, chosen)
        peft_config = peft.IA3Config(
            task_type=peft_task(model),
            base_model_name_or_path=str(facts.folder),
            target_modules=targets,
            feedforward_modules=[target for target in targets if _is_feed_forward(target)],
            inference_mode=False,
        )
        inject(peft_config, model, name)
        lowest = lowest_layer(chosen, facts)
        return InjectedHandle(model, name, Capabilities(linear_deltas=True, lowest_trained_layer=lowest))


def _targeted(config: Ia3Config, facts: ModelFacts) -> TargetedConfig:
    """The section with its targets filled in: the ends that the paper means, of those that the model has."""
    targets = config.target_modules
    if targets is None:
        every = facts.linear_modules()
        meant = [end for end in (*_KEYS, *_VALUES, *_FEED_FORWARD) if any(matches(module, end) for module in every)]
        meant += [end for end in _ALL_IN_ONE if any(matches(module, end) for module in every)]
        targets = tuple(meant) or ("key", "value")  # where there is nothing like it, the refusal names what there is
    return TargetedConfig(name=config.name, target_modules=targets, layers=config.layers)


def _chosen(config: Ia3Config, facts: ModelFacts) -> dict[str, tuple[int, int]]:
    chosen = chosen_modules(_targeted(config, facts), facts)
    if config.target_modules is not None:
        return chosen
    # BERT's `output.dense` ends two matrices of a layer, and one is the attention's.
    return {module: shape for module, shape in chosen.items() if not matches(module, _NOT_FEED_FORWARD)}


def _is_feed_forward(module: str) -> bool:
    return any(matches(module, end) for end in _FEED_FORWARD) and not matches(module, _NOT_FEED_FORWARD)
