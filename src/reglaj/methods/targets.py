"""Which modules of a model a method means: by the ends of their names, in some or all layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

from reglaj.core.errors import Problem, listing, nearest
from reglaj.methods.config import MethodConfig

if TYPE_CHECKING:
    from torch import nn

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

_TRANSPOSED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")

Modules = dict[str, tuple[int, int]]


class TargetedConfig(MethodConfig):
    """A method that stands beside linear layers of the trunk."""

    target_modules: Literal["all-linear"] | str | tuple[str, ...] = "all-linear"
    """Ends of module names, such as [query, value]; `all-linear` is every linear layer of the trunk."""
    layers: int | tuple[int, ...] | None = None
    """The upper N layers, or the numbers of the layers (from 0); null is all of them."""


def target_problems(config: TargetedConfig, facts: ModelFacts, among: Modules | None = None) -> list[Problem]:
    """Layers or targets that the model does not have. among: as for `chosen_modules`."""
    problems = layer_problems(config.layers, facts)
    every = facts.linear_modules() if among is None else among
    if config.target_modules == ():
        return [*problems, _no_target(every)]
    problems += [
        _no_match(target, every, facts)
        for target in _targets(config)
        if not any(matches(module, target) for module in every)
    ]
    if not problems and not chosen_modules(config, facts, among):
        has_layers = config.layers is not None
        problems.append(_none_in_layers(config, every, facts) if has_layers else _no_match("all-linear", every, facts))
    return problems


def _none_in_layers(config: TargetedConfig, every: Modules, facts: ModelFacts) -> Problem:
    """Targets that the model has, and none of them in the layers that are named."""
    anywhere = chosen_modules(config.model_copy(update={"layers": None}), facts, every)
    numbers = sorted({number for module in anywhere if (number := layer_number(module)) is not None})
    known = ", ".join(map(str, numbers)) or "none"
    return Problem(
        where="method.layers",
        given=f"{config.layers}, where none of the targets is",
        allowed=f"among the layers in whose weights {facts.name} has the targets: {known}",
        why="training nothing would look like training",
        remedy="remove the key, or choose other targets",
    )


def rank_problems(rank: int, chosen: dict[str, tuple[int, int]], where: str = "method.rank") -> list[Problem]:
    """A rank above that of a layer."""
    too_small = {module: shape for module, shape in chosen.items() if rank > min(shape)}
    if not too_small:
        return []
    module, shape = min(too_small.items(), key=lambda item: min(item[1]))
    return [
        Problem(
            where=where,
            given=f"rank {rank}",
            allowed=f"1 to {min(shape)}",
            why=f"{module} is {shape[0]} x {shape[1]}: a higher rank than the layer's own adds nothing",
            remedy="lower the rank",
        )
    ]


def chosen_modules(config: TargetedConfig, facts: ModelFacts, among: Modules | None = None) -> Modules:
    """The modules that are meant, by the names in the model's files, with the shapes of their matrices there.

    among: what can be meant, where that is not the linear layers.
    """
    targets = _targets(config)
    every = facts.linear_modules() if among is None else among
    return {
        module: shape
        for module, shape in every.items()
        if (not targets or any(matches(module, target) for target in targets))
        and (config.layers is None or layer_number(module) in _layer_numbers(config.layers, module, facts))
        and (targets or layer_number(module) is not None)
    }


def in_and_out(shape: tuple[int, int], facts: ModelFacts) -> tuple[int, int]:
    """How long a matrix's input and output are. The first GPTs keep (in, out), everyone else (out, in)."""
    return shape if facts.model_type in _TRANSPOSED else (shape[1], shape[0])


def input_values(modules: Mapping[str, tuple[int, int]], facts: ModelFacts) -> int:
    """Values of all inputs of these layers for one token; siblings, such as query, key and value, have one input."""
    inputs = {(module.rpartition(".")[0], in_and_out(shape, facts)[0]) for module, shape in modules.items()}
    return sum(width for _, width in inputs)


def lowest_layer(modules: Collection[str], facts: ModelFacts) -> int:
    """The lowest layer among these modules; 0 where a model has two stacks of layers, or one is in no layer."""
    numbers = [layer_number(module) for module in modules]
    if facts.is_encoder_decoder or None in numbers:
        return 0
    return min((number for number in numbers if number is not None), default=0)


def names_in(model: nn.Module, modules: Collection[str]) -> list[str]:
    """The names that modules of the files have in a model, sorted: the files of a model with a head carry a prefix."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    names = dict(model.named_modules())
    return sorted({module if module in names else module.removeprefix(prefix) for module in modules})


def peft_targets(model: nn.Module, modules: Collection[str], facts: ModelFacts) -> list[str]:
    """What to give to PEFT so that it finds these modules and no other, as short as can be."""
    return _short_names(names_in(model, modules), set(names_in(model, facts.linear_modules())))


def _targets(config: TargetedConfig) -> tuple[str, ...]:
    if config.target_modules == "all-linear":
        return ()
    return (config.target_modules,) if isinstance(config.target_modules, str) else config.target_modules


def matches(module: str, target: str) -> bool:
    """Whether a name is the target, or ends in it after a dot."""
    return module == target or module.endswith(f".{target}")


def layer_number(module: str) -> int | None:
    """The first number in a module's name."""
    return next((int(part) for part in module.split(".") if part.isdigit()), None)


def _layer_numbers(layers: int | tuple[int, ...], module: str, facts: ModelFacts) -> Collection[int]:
    """Those that are meant of the stack that a module is in: an encoder-decoder has two, each with an upper end."""
    if not isinstance(layers, int):
        return layers
    top = facts.decoder_layers if facts.is_encoder_decoder and "decoder" in module.split(".") else facts.layers
    return range(top - layers, top)


def _short_names(chosen: list[str], every: set[str]) -> list[str]:
    """The shortest PEFT targets that match `chosen` and nothing else; full names where endings would match more."""
    endings = sorted({_tail(module) for module in chosen})
    matched = {module for module in every if any(matches(module, ending) for ending in endings)}
    return endings if matched == set(chosen) else chosen


def _tail(module: str) -> str:
    parts = module.split(".")
    return (
        ".".join(parts[next(i for i, part in enumerate(parts) if part.isdigit()) + 1 :]) if _numbered(parts) else module
    )


def _numbered(parts: list[str]) -> bool:
    return any(part.isdigit() for part in parts)


def layer_problems(layers: int | tuple[int, ...] | None, facts: ModelFacts) -> list[Problem]:
    """Layers that the model does not have, and one that is named twice."""
    # Of two stacks the longer one: what the shorter one does not have is all of it.
    most = max(facts.layers, facts.decoder_layers)
    if isinstance(layers, int):
        fits = 1 <= layers <= most
    else:
        fits = layers is None or (0 < len(layers) == len(set(layers)) and set(layers) <= set(range(most)))
    if fits:
        return []
    return [
        Problem(
            where="method.layers",
            given=f"{layers}",
            allowed=f"1 to {most} upper layers, or numbers from 0 to {most - 1}, each once",
            why=f"{facts.name} has {most} layers, and each learns once",
            remedy="choose layers that the model has, each once, or remove the key for all of them",
        )
    ]


def _no_target(linear: Modules) -> Problem:
    """An empty list: taken as it stands it trains nothing, and taken as all layers it says what nobody wrote."""
    return Problem(
        where="method.target_modules",
        given="an empty list",
        allowed=f"all-linear, or among {listing(sorted({_ending(module) for module in linear}))}",
        why="it names no layer, and training nothing would look like training",
        remedy="name some, or remove the key to take the default",
    )


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
