"""What LoRA, DoRA and QLoRA share: a low-rank update beside each targeted linear layer. Layers and files are PEFT's.

R rank. The update is s B A, with A (R, in) at random and B (out, R) zero: identity at the start. s is alpha / R, or
alpha / sqrt(R) where it is rank-stabilised (Kalajdzievski 2023, arXiv:2312.03732, section 3.1).
"""

from __future__ import annotations

import contextlib
import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from reglaj.core.errors import Problem, listing, nearest
from reglaj.methods.base import Capabilities, by_size
from reglaj.methods.injected import InjectedHandle, inject, peft_task
from reglaj.methods.targets import (
    TargetedConfig,
    chosen_modules,
    lowest_layer,
    matches,
    names_in,
    peft_targets,
    rank_problems,
    target_problems,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from reglaj.models.inspect import ModelFacts

RATES = {
    True: ((60_000_000, 5e-4), (200_000_000, 5e-4), (float("inf"), 2e-4)),
    False: ((60_000_000, 2e-3), (200_000_000, 1e-3), (float("inf"), 3e-4)),
}
"""By whether the task puts a new head on the model, then by the model's parameters: benchmarks/tuning-methods.md."""


class LowRankConfig(TargetedConfig):
    """A low-rank update."""

    rank: int = Field(16, ge=1)
    ranks: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Other ranks by the ends of module names, such as {q_proj: 32}. vLLM knows one rank, and scales by that."""
    alpha: float = Field(32.0, gt=0)
    """The update is scaled by alpha / rank, each module's own."""
    is_rank_stabilised: bool = False
    """Scale by alpha / sqrt(rank) instead, so that a higher rank does not learn more slowly."""
    b_rate_factor: float = Field(1.0, gt=0)
    """The learning rate of B is this many times that of A; 16 is what LoRA+ found (Hayou et al. 2024)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the input of the update, while training."""


def low_rank_problems(config: LowRankConfig, facts: ModelFacts) -> list[Problem]:
    """Targets that are not there, ranks of modules that are not there or meant twice, ranks above a layer's own."""
    problems = target_problems(config, facts)
    if problems:
        return problems
    chosen = chosen_modules(config, facts)
    problems = _rank_name_problems(config, chosen, facts)
    if problems:
        return problems
    for key, rank in config.ranks.items():
        named = {module: shape for module, shape in chosen.items() if matches(module, key)}
        problems += rank_problems(rank, named, f"method.ranks.{key}")
    rest = {m: shape for m, shape in chosen.items() if not any(matches(m, key) for key in config.ranks)}
    return problems + rank_problems(config.rank, rest)


def _rank_name_problems(
    config: LowRankConfig, chosen: Mapping[str, tuple[int, int]], facts: ModelFacts
) -> list[Problem]:
    problems = []
    endings = sorted({module.rpartition(".")[2] for module in chosen})
    for key in config.ranks:
        if not any(matches(module, key) for module in chosen):
            guess = nearest(key, endings)
            problems.append(
                Problem(
                    where=f"method.ranks.{key}",
                    given=f"{key!r} ends the name of no module that is adapted",
                    allowed=listing(endings),
                    why=f"no update of {facts.name} would have this rank",
                    remedy=f"did you mean {guess!r}?"
                    if guess
                    else "choose among those names, or add it to the targets",
                )
            )
    for module in chosen:
        keys = [key for key in config.ranks if matches(module, key)]
        if len(keys) > 1:
            problems.append(
                Problem(
                    where="method.ranks",
                    given=f"{module} is meant by {listing(keys)}",
                    allowed="one rank for each module",
                    why="which of them counts would depend on their order",
                    remedy="make the names longer, or remove one",
                )
            )
            break
    return problems


def module_ranks(config: LowRankConfig, facts: ModelFacts) -> dict[str, int]:
    """The rank of each module that is adapted."""
    return {
        module: next((rank for key, rank in config.ranks.items() if matches(module, key)), config.rank)
        for module in chosen_modules(config, facts)
    }


def update_size(config: LowRankConfig, facts: ModelFacts) -> int:
    """Values of all A and B."""
    chosen = chosen_modules(config, facts)
    return sum(rank * sum(chosen[module]) for module, rank in module_ranks(config, facts).items())


def output_size(module: str, facts: ModelFacts) -> int:
    """Outputs of a linear layer. GPT-2 keeps its matrices the other way round, and its biases tell."""
    bias = facts.tensors.get(f"{module}.bias")
    return bias[0] if bias else facts.linear_modules()[module][0]


def default_rate(facts: ModelFacts, *, has_new_head: bool) -> float:
    """Smaller models want larger steps, and an update under a new head smaller ones than one that learns alone."""
    return by_size(RATES[has_new_head], facts)


def attach_low_rank(
    config: LowRankConfig,
    model: Any,
    facts: ModelFacts,
    name: str,
    *,
    kind: Callable[..., LowRankHandle] | None = None,
    **options: Any,
) -> LowRankHandle:
    """Put PEFT's layers into the model, fused ones where all are plain or quantised.

    kind: of handle, if not the plain one. options: more of PEFT's config.
    """
    import peft

    chosen = chosen_modules(config, facts)
    targets = peft_targets(model, chosen, facts)
    peft_config = peft.LoraConfig(
        task_type=peft_task(model),
        base_model_name_or_path=str(facts.folder),
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.is_rank_stabilised,
        rank_pattern=_rank_pattern(config, names_in(model, chosen), model),
        target_modules=targets,
        inference_mode=False,
        **options,
    )
    kinds = _layer_kinds(model, targets)
    if kinds:
        peft_config._register_custom_module(kinds)
    inject(peft_config, model, name)
    lowest = lowest_layer(chosen, facts)
    capabilities = Capabilities(linear_deltas=True, lowest_trained_layer=lowest)
    handle = (kind or LowRankHandle)(model, name, capabilities)
    handle.b_rate_factor = config.b_rate_factor
    return handle


def _rank_pattern(config: LowRankConfig, names: list[str], model: Any) -> dict[str, int]:
    """As PEFT reads it: regular expressions that the ends of names match.

    A full name of the files may have a prefix.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    found = {
        key: key if any(matches(name, key) for name in names) else key.removeprefix(prefix) for key in config.ranks
    }
    return {re.escape(found[key]): rank for key, rank in config.ranks.items()}


def _layer_kinds(model: nn.Module, targets: list[str]) -> dict[Any, Any]:
    """Our layers by the class of what they stand beside; none where PEFT will find other than plain ones."""
    from reglaj.models.storage import storage_of

    if storage_of(model) is None:
        from reglaj.models.fused_lora import FUSED as KINDS
    else:
        from reglaj.models.quantised import FUSED_OR_QUANTISED as KINDS
    # By the model's own names, as PEFT goes: those in its files may lack a prefix.
    found = [m for name, m in model.named_modules() if any(matches(name, target) for target in targets)]
    # Another update may stand beside a layer already.
    bases = [module.get_base_layer() if hasattr(module, "get_base_layer") else module for module in found]
    return dict(KINDS) if bases and all(type(base) in KINDS for base in bases) else {}


class LowRankHandle(InjectedHandle):
    """A named low-rank update among others on the same base."""

    b_rate_factor = 1.0

    def parameters(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """All in one group, but for another learning rate of B: then its parameters are one of their own."""
        ((group, named),) = super().parameters().items()
        if self.b_rate_factor == 1.0:
            return {group: named}
        is_b = {key: ".lora_B." in key for key, _ in named}
        return {
            group: [(key, p) for key, p in named if not is_b[key]],
            f"{group}_B": [(key, p) for key, p in named if is_b[key]],
        }

    def rate_factors(self) -> Mapping[str, float]:
        return {} if self.b_rate_factor == 1.0 else {"lora_B": self.b_rate_factor}

    def begin(self, total_steps: int) -> None:
        """From now on every step is told to `after_step`, so that norms can be kept for all passes of one."""
        for norms in self._norms():
            norms.is_told = True

    def after_step(self, step: int) -> None:
        for norms in self._norms():
            norms.have_moved()

    def _norms(self) -> list[Any]:
        return [layer.norms for layer in self.layers() if hasattr(layer, "norms")]

    def save(self, folder: Path) -> None:
        configs, own = self.model.peft_config, self.config
        configs[self.name] = self.config_as_saved()
        try:
            super().save(folder)
        finally:
            configs[self.name] = own

    def config_as_saved(self) -> Any:
        """PEFT's config for the file, with the scale of the update as a plain alpha / rank where one says it for all.

        llama.cpp knows no other, and would scale a rank-stabilised update wrongly.
        """
        config = copy.copy(self.config)
        if config.use_rslora and not config.rank_pattern:
            config.lora_alpha, config.use_rslora = config.lora_alpha * math.sqrt(config.r), False
        return config

    def load(self, folder: Path) -> None:
        super().load(folder)
        self.forget_copies()

    @property
    def _is_ours(self) -> bool:
        """Whether the layers are the fused ones."""
        return all(hasattr(layer, "updated_weight") for layer in self.layers())

    @contextlib.contextmanager
    def folded(self) -> Iterator[None]:
        """Each base weight has the update inside, computed in float32, and PEFT's layers apply it alone.

        The parameters are replaced, not changed: a weight that is tied to another stays what it is there. A quantised
        base stays as it is, with the update beside it: the memory that it saves would be gone.
        """
        import torch

        from reglaj.models.storage import storage_of

        if storage_of(self.model) is not None or self._is_merged or not self.is_on:
            yield
            return
        if not self._is_ours:
            with super().folded():
                yield
            return
        layers = [layer for layer in self.layers() if not layer.merged]
        weights = [layer.get_base_layer().weight for layer in layers]
        self.forget_copies()
        try:
            for layer, weight in zip(layers, weights, strict=True):
                updated = _laid_as(layer, layer.updated_weight(self.name)).to(weight.dtype)
                layer.get_base_layer().weight = torch.nn.Parameter(updated, requires_grad=False)
                layer.merged_adapters = [self.name]
            yield
        finally:
            for layer, weight in zip(layers, weights, strict=True):
                layer.get_base_layer().weight = weight
                layer.merged_adapters = []

    def merge(self) -> None:
        """The update in the weights, computed in float32. A quantised layer becomes a plain one in float32.

        It is never quantised again: that would change what was learnt.
        """
        if not self._is_ours:
            super().merge()
            return
        import torch

        self.refuse_merge_among_others()
        self.forget_copies()
        for layer in self.layers():
            updated = layer.updated_weight(self.name)
            base = layer.get_base_layer()
            if hasattr(base, "dequantised"):
                _replace_base(layer, updated)
            else:
                weight = _laid_as(layer, updated).to(base.weight.dtype)
                base.weight = torch.nn.Parameter(weight, requires_grad=base.weight.requires_grad)
            layer.merged_adapters = [self.name]
        self._is_merged = True

    def fuse(self, is_on: bool, *, keeps_copies: bool = True) -> bool:
        from reglaj.models.fused_lora import fuse

        return fuse(self.model, self.name, is_on=is_on, keeps_copies=keeps_copies)

    def forget_copies(self) -> None:
        """Give back what is kept from pass to pass: frozen weights in half precision, norms of updated ones."""
        for layer in self.layers():
            if hasattr(layer, "norms"):
                layer._copy = None
                layer.norms.forget()


def _laid_as(layer: Any, weight: Any) -> Any:
    """A weight (out, in) the way the layer's own lies: GPT-2 keeps it the other way round."""
    return weight.T.contiguous() if layer.is_target_conv_1d_layer else weight


def _replace_base(layer: Any, weight: Any) -> None:
    """A plain linear layer of that weight (out, in) in the place of a quantised one."""
    import torch

    base = layer.get_base_layer()
    plain = torch.nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    plain.weight = torch.nn.Parameter(weight, requires_grad=False)
    plain.bias = base.bias
    holder = layer
    while hasattr(holder.base_layer, "base_layer"):  # another method's layer may lie between
        holder = holder.base_layer
    holder.base_layer = plain.train(base.training)
