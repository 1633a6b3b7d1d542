"""LoRA: a low-rank update beside each targeted linear layer (Hu et al. 2021). Layers and files are PEFT's.

R rank. The update is alpha / R * B A, with A (R, in) at random and B (out, R) zero: identity at the start.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from reglaj.core.errors import Problem, UserError, listing, nearest, user_error
from reglaj.methods import METHODS
from reglaj.methods.base import Capabilities, Handle, Method
from reglaj.methods.config import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reglaj.models.inspect import ModelFacts

# The same layer under the names that other architectures give it: what a wrong target most likely meant.
_SYNONYMS = (
    ("q_lin", "q_proj", "query", "q"),
    ("k_lin", "k_proj", "key", "k"),
    ("v_lin", "v_proj", "value", "v"),
    ("out_lin", "o_proj", "attention.output.dense", "c_proj", "out_proj", "o"),
    ("lin1", "up_proj", "intermediate.dense", "c_fc", "fc1", "wi"),
    ("lin2", "down_proj", "output.dense", "fc2", "wo"),
)
_RATES = ((60_000_000, 2e-3), (200_000_000, 1e-3), (float("inf"), 3e-4))


class LoraConfig(MethodConfig):
    """Low-rank adaptation."""

    name: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the input of the update, while training."""
    target_modules: Literal["all-linear"] | str | tuple[str, ...] = "all-linear"
    """Ends of module names, such as [query, value]; `all-linear` is every linear layer of the trunk."""
    layers: int | tuple[int, ...] | None = None
    """The upper N layers, or the numbers of the layers (from 0); null is all of them."""


@METHODS.register("lora")
class Lora(Method[LoraConfig]):
    """Low-rank updates through PEFT, unmerged while training."""

    config_type = LoraConfig
    summary = "a low-rank update beside frozen linear layers"
    citation = "Hu et al. 2021, arXiv:2106.09685"

    @classmethod
    def check(cls, config: LoraConfig, facts: ModelFacts) -> list[Problem]:
        problems = _layer_problems(config, facts)
        linear = facts.linear_modules()
        for target in _targets(config):
            if not any(_matches(module, target) for module in linear):
                problems.append(_no_match(target, linear, facts))
        if not problems:
            chosen = _chosen(config, facts)
            if not chosen:
                problems.append(_no_match("all-linear", linear, facts))
            too_small = {module: shape for module, shape in chosen.items() if config.rank > min(shape)}
            if too_small:
                module, shape = next(iter(too_small.items()))
                problems.append(
                    Problem(
                        where="method.rank",
                        given=f"rank {config.rank}",
                        allowed=f"1 to {min(shape)}",
                        why=f"{module} is {shape[0]} x {shape[1]}: a higher rank than the layer's own adds nothing",
                        remedy="lower the rank",
                    )
                )
        return problems

    @classmethod
    def trainable_parameters(cls, config: LoraConfig, facts: ModelFacts) -> int:
        return sum(config.rank * (rows + columns) for rows, columns in _chosen(config, facts).values())

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts) -> float:
        return next(rate for limit, rate in _RATES if facts.parameters <= limit)

    @classmethod
    def attach(cls, config: LoraConfig, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        problems = cls.check(config, facts)
        if problems:
            raise UserError(*problems)
        import logging

        # PEFT loads bitsandbytes where it is installed, which then warns about a 4-bit kernel that nothing here uses.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        import peft

        chosen = sorted({_inside(module, model) for module in _chosen(config, facts)})
        targets = _short_names(chosen, {_inside(module, model) for module in facts.linear_modules()})
        peft_config = peft.LoraConfig(
            task_type=_kind(model),
            base_model_name_or_path=str(facts.folder),
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=targets,
            inference_mode=False,
        )
        if _are_plain(model, targets):
            from reglaj.models.fused_lora import FUSED

            peft_config._register_custom_module(FUSED)
        before = {key: p.requires_grad for key, p in model.named_parameters() if ".lora_" in key}
        with warnings.catch_warnings():
            # GPT-2 keeps its matrices the other way round; PEFT notices, does what is right, and says so.
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            peft.inject_adapter_in_model(peft_config, model, adapter_name=name)
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(before.get(key, f".{name}." in key and ".lora_" in key))
        layers = [int(part) for module in chosen for part in module.split(".") if part.isdigit()]
        return LoraHandle(model, name, Capabilities(linear_deltas=True, lowest_trained_layer=min(layers, default=0)))


def _kind(model: Any) -> str:
    """What PEFT wraps such a model as: one that writes tokens can generate, a bare trunk gives hidden states."""
    return "CAUSAL_LM" if model.get_output_embeddings() is not None else "FEATURE_EXTRACTION"


def _are_plain(model: nn.Module, targets: list[str]) -> bool:
    """Whether PEFT will find nothing but plain linear layers under these names: none that is quantised, say."""
    from reglaj.models.fused_lora import FUSED

    # By the model's own names, as PEFT goes: those in its files may lack a prefix.
    found = [m for name, m in model.named_modules() if any(_matches(name, target) for target in targets)]
    # Another update may stand beside a layer already.
    bases = [module.get_base_layer() if hasattr(module, "get_base_layer") else module for module in found]
    return bool(bases) and all(type(base) in FUSED for base in bases)


def _targets(config: LoraConfig) -> tuple[str, ...]:
    if config.target_modules == "all-linear":
        return ()
    return (config.target_modules,) if isinstance(config.target_modules, str) else config.target_modules


def _matches(module: str, target: str) -> bool:
    return module == target or module.endswith(f".{target}")


def _layer_number(module: str) -> int | None:
    return next((int(part) for part in module.split(".") if part.isdigit()), None)


def _layer_numbers(config: LoraConfig, facts: ModelFacts) -> set[int] | None:
    if config.layers is None:
        return None
    if isinstance(config.layers, int):
        return set(range(facts.layers - config.layers, facts.layers))
    return set(config.layers)


def _chosen(config: LoraConfig, facts: ModelFacts) -> dict[str, tuple[int, int]]:
    """The modules that get an update, by the names in the model's files."""
    targets, layers = _targets(config), _layer_numbers(config, facts)
    return {
        module: shape
        for module, shape in facts.linear_modules().items()
        if (not targets or any(_matches(module, target) for target in targets))
        and (layers is None or _layer_number(module) in layers)
        and (targets or _layer_number(module) is not None)
    }


def _inside(module: str, model: nn.Module) -> str:
    """The module's name in a model without a head: the files of a model with one carry its prefix."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    names = dict(model.named_modules())
    return module if module in names else module.removeprefix(prefix)


def _short_names(chosen: list[str], every: set[str]) -> list[str]:
    """The shortest PEFT targets that match `chosen` and nothing else; full names where endings would match more."""
    endings = sorted({_tail(module) for module in chosen})
    matched = {module for module in every if any(_matches(module, ending) for ending in endings)}
    return endings if matched == set(chosen) else chosen


def _tail(module: str) -> str:
    parts = module.split(".")
    return (
        ".".join(parts[next(i for i, part in enumerate(parts) if part.isdigit()) + 1 :]) if _numbered(parts) else module
    )


def _numbered(parts: list[str]) -> bool:
    return any(part.isdigit() for part in parts)


def _layer_problems(config: LoraConfig, facts: ModelFacts) -> list[Problem]:
    layers = config.layers
    wrong = (
        layers is not None
        and (
            not 1 <= layers <= facts.layers if isinstance(layers, int) else not set(layers) <= set(range(facts.layers))
        )
    ) or layers == ()
    if not wrong:
        return []
    return [
        Problem(
            where="method.layers",
            given=f"{layers}",
            allowed=f"1 to {facts.layers} upper layers, or numbers from 0 to {facts.layers - 1}",
            why=f"{facts.name} has {facts.layers} layers",
            remedy="choose layers that the model has, or remove the key for all of them",
        )
    ]


def _no_match(target: str, linear: dict[str, tuple[int, int]], facts: ModelFacts) -> Problem:
    endings = sorted({_ending(module) for module in linear})
    return Problem(
        where="method.target_modules",
        given=f"{target!r} matches no linear layer of {facts.name}",
        allowed=f"all-linear, or among {listing(endings)}",
        why=f"a {facts.model_type} model has no layer of that name, and training nothing would look like training",
        remedy=f"did you mean {_meant(target, endings)!r}?"
        if _meant(target, endings)
        else "choose among the names above",
    )


def _ending(module: str) -> str:
    """What tells layers of one kind apart: the name after the layer's number."""
    parts = module.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    tail = parts[numbers[0] + 1 :] if numbers else parts
    return ".".join(tail[-2:]) if tail[-1] == "dense" else tail[-1]


def _meant(target: str, endings: list[str]) -> str | None:
    for names in _SYNONYMS:
        if target in names:
            for name in names:
                if name in endings:
                    return name
    return nearest(target, endings)


class LoraHandle(Handle):
    """A named LoRA among others on the same base."""

    def _layers(self) -> list[Any]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        layers = self._layers()
        if name is not None and not any(name in layer.lora_A for layer in layers):
            raise KeyError(name)
        before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
        trainable = [(p, p.requires_grad) for p in self.model.parameters()]
        try:
            for layer in layers:
                layer._disable_adapters = name is None
                if name is not None:
                    layer._active_adapter = [name]
            yield
        finally:
            for layer, (active, disabled) in zip(layers, before, strict=True):
                layer._active_adapter, layer._disable_adapters = active, disabled
            for parameter, flag in trainable:
                parameter.requires_grad_(flag)

    def parameters(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        named = [(key, p) for key, p in self.model.named_parameters() if f".{self.name}." in key and ".lora_" in key]
        return {"lora": named}

    def save(self, folder: Path) -> None:
        """adapter_config.json and adapter_model.safetensors, as plain PEFT reads them."""
        import peft
        from safetensors.torch import save_file

        state = peft.get_peft_model_state_dict(self.model, adapter_name=self.name, save_embedding_layers=False)
        prefix = "base_model.model."
        named = {prefix + key.removeprefix(prefix): t.detach().cpu().contiguous() for key, t in state.items()}
        save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = self.model.peft_config[self.name]
        was_inference = config.inference_mode
        config.inference_mode = True
        config.save_pretrained(str(folder))
        config.inference_mode = was_inference

    def load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        tensors = load_file(folder / "adapter_model.safetensors")
        expected = {
            "base_model.model." + key.replace(f".{self.name}.", "."): parameter
            for _, group in self.parameters().items()
            for key, parameter in group
        }
        if {key: tuple(t.shape) for key, t in tensors.items()} != {k: tuple(p.shape) for k, p in expected.items()}:
            raise user_error(
                f"the adapter in {folder} does not fit",
                allowed="an adapter of the same base, rank and targets",
                why="names or shapes of its tensors differ from the model's",
                remedy="load it onto the base it was trained on",
            )
        for key, parameter in expected.items():
            parameter.data.copy_(tensors[key])

    @contextlib.contextmanager
    def folded(self) -> Iterator[None]:
        """Each base weight is W + alpha / R * B A inside, computed in float32, and PEFT's layers apply it alone.

        The parameters are replaced, not changed: a weight that is tied to another stays what it is there.
        """
        import torch

        layers = [layer for layer in self._layers() if self.name in layer.lora_A and not layer.merged]
        weights = [layer.get_base_layer().weight for layer in layers]
        self.forget_copies()
        try:
            for layer, weight in zip(layers, weights, strict=True):
                with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
                    both = (weight.float() + self._update(layer)).to(weight.dtype)
                layer.get_base_layer().weight = torch.nn.Parameter(both, requires_grad=False)
                layer.merged_adapters = [self.name]
            yield
        finally:
            for layer, weight in zip(layers, weights, strict=True):
                layer.get_base_layer().weight = weight
                layer.merged_adapters = []

    def _update(self, layer: Any) -> Tensor:
        """alpha / R * B A in float32, in the layer's own orientation (PEFT would round it to the adapter's type)."""
        update = layer.lora_B[self.name].weight.float() @ layer.lora_A[self.name].weight.float()
        return (update.T if layer.fan_in_fan_out else update) * layer.scaling[self.name]

    def fuse(self, is_on: bool, *, keeps_copies: bool = True) -> bool:
        from reglaj.models.fused_lora import fuse

        return fuse(self.model, self.name, is_on=is_on, keeps_copies=keeps_copies)

    def forget_copies(self) -> None:
        """Give back what frozen weights take in half precision; a forward pass makes it again."""
        for layer in self._layers():
            layer._copy = None

    def merge(self) -> None:
        for layer in self._layers():
            layer.merge(adapter_names=[self.name])
