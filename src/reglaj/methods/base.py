"""The contract of a method: attach to a model, get a handle, and everything else goes through the handle."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from reglaj.core.errors import Problem
from reglaj.methods.config import MethodConfig
from reglaj.methods.targets import TargetedConfig, chosen_modules, input_values, lowest_layer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reglaj.models.inspect import ModelFacts
    from reglaj.models.storage import Storage
    from reglaj.models.virtual import VirtualTokens

C = TypeVar("C", bound=MethodConfig)
PEFT, VLLM, LLAMA_CPP = "PEFT", "vLLM", "llama.cpp"
"""What can serve saved files as they are; after `merge()` every one of them can."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What the engine may use.

    linear_deltas: the update can be folded into linear weights. lowest_trained_layer: nothing below it learns
    (the number of layers means: nothing of the base at all). virtual_tokens: positions taken from the context.
    """

    linear_deltas: bool = False
    lowest_trained_layer: int = 0
    virtual_tokens: int = 0


class Handle(ABC):
    """One method attached to one model. Several handles may share a base; each has its own name.

    Of the handles of a base one is on, or none: the one attached last, but for what `using` says inside its context.
    """

    def __init__(self, model: nn.Module, name: str, capabilities: Capabilities) -> None:
        self.model: Any = model
        self.name = name
        self.capabilities = capabilities
        roster = _roster(model)
        if name in roster:
            raise RuntimeError(f"two handles on one model are called {name!r}")
        _turn(roster, None)
        roster[name] = self
        self.is_on = True

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """A context in which the model is the handle of that name, or with None the base as it came.

        Raises `KeyError` where no handle of this model has the name.
        """
        roster = _roster(self.model)
        if name is not None and name not in roster:
            raise KeyError(name)
        with _turned(roster, name):
            yield

    @abstractmethod
    def switch(self, is_on: bool) -> None:
        """Make the model this handle, or take from it all that this handle does. Called on a change only.

        Whether parameters want a gradient stays as it is.
        """

    @abstractmethod
    def parameters(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters in named groups. Nothing else of the model requires a gradient."""

    def rate_factors(self) -> Mapping[str, float]:
        """What the learning rate of a group is multiplied by; a group that is not named has 1."""
        return {}

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was learnt into an existing folder, in safetensors and JSON."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Take over what `save` wrote. Raises `UserError` when it does not fit."""

    def virtual(self) -> VirtualTokens | None:
        """What stands before every text while this handle is on, made anew for each pass; None where nothing does."""
        return None

    def current_virtual(self) -> VirtualTokens | None:
        """What stands before every text of the model as it is: `virtual` of the handle that is on."""
        on = next((other for other in _roster(self.model).values() if other.is_on), None)
        return on.virtual() if on is not None else None

    def begin(self, total_steps: int) -> None:
        """Called once before the first step of a training, and again where a training goes on."""
        return None

    def penalty(self) -> Tensor | None:
        """What is added to the loss of each optimizer step, once however it is cut: a scalar, or None for nothing."""
        return None

    def after_step(self, step: int) -> None:
        """Called after the optimizer has moved, with the gradients still there. step: counted from 1."""
        return None

    def finish(self) -> None:
        """Called after the last step, on the weights that stay: those that change no output and are not saved go."""
        return None

    def state(self) -> dict[str, Tensor]:
        """Beside the parameters, what decides the steps to come: the tensors themselves, of shapes that never change.

        A checkpoint keeps them, and a training that goes on copies the kept values into them.
        """
        return {}

    def fuse(self, is_on: bool, *, keeps_copies: bool = True) -> bool:
        """Take faster operations that say the same up to rounding, or plain ones. Returns whether there are such.

        keeps_copies: a frozen weight in half precision may stay from one pass to the next.
        """
        return False

    def folded(self) -> contextlib.AbstractContextManager[None]:
        """A context in which the update is part of the base's weights, where there is one, for faster forward passes.

        Outputs differ by rounding alone. Afterwards the base is bitwise what it was. Not for training; nothing happens
        where the handle is off.
        """
        return contextlib.nullcontext()

    def merge(self) -> None:
        """Fold the update into the base's weights, for good. Only where `linear_deltas` is declared.

        Raises `TypeError` elsewhere, and where the model has other handles, whose layers would answer on other weights.
        """
        raise TypeError(f"{type(self).__name__} cannot be merged: it declares no linear deltas")

    def refuse_merge_among_others(self) -> None:
        """Raises `TypeError` unless this is the model's one handle, and on."""
        others = [name for name in _roster(self.model) if name != self.name]
        if others:
            raise TypeError(f"{', '.join(others)} on this model too: load the base again, and merge {self.name} alone")
        if not self.is_on:
            raise TypeError(f"{self.name} is off: merge outside of `using(None)`")

    def learnt(self, tokenizer: Any) -> dict[str, Any]:
        """What a report shows of what was learnt, as JSON values: the words nearest to a learnt prompt, say."""
        return {}

    def count(self) -> int:
        """Number of trainable values."""
        return sum(parameter.numel() for group in self.parameters().values() for _, parameter in group)


def freeze(model: Any) -> None:
    """Nothing of the model wants a gradient any more, but what handles that are on it already learn."""
    if not _roster(model):
        model.requires_grad_(False)


def as_base(model: Any) -> contextlib.AbstractContextManager[None]:
    """A context in which the model is the base as it came, whatever handles are on it: what begins from its weights."""
    return _turned(_roster(model), None)


def by_size(rates: Sequence[tuple[float, float]], facts: ModelFacts) -> float:
    """The rate of the first (limit, rate) whose limit the model's parameters are within."""
    return next(rate for limit, rate in rates if facts.parameters <= limit)


def _roster(model: Any) -> dict[str, Handle]:
    """The handles of a model by name. It lies with the model, whose life it shares."""
    roster: dict[str, Handle] = model.__dict__.setdefault("_reglaj_handles", {})
    return roster


@contextlib.contextmanager
def _turned(roster: Mapping[str, Handle], name: str | None) -> Iterator[None]:
    before = next((other.name for other in roster.values() if other.is_on), None)
    try:
        _turn(roster, name)
        yield
    finally:
        _turn(roster, before)


def _turn(roster: Mapping[str, Handle], name: str | None) -> None:
    """All off but the one of that name."""
    for other in roster.values():
        if other.is_on and other.name != name:
            other.switch(False)
            other.is_on = False
    if name is not None and not roster[name].is_on:
        roster[name].switch(True)
        roster[name].is_on = True


class Method(ABC, Generic[C]):
    """Which parameters learn. Registered under its name; its frozen config is the recipe's `method` section."""

    config_type: ClassVar[type[MethodConfig]]
    summary: ClassVar[str]
    citation: ClassVar[str]
    stands_on_base: ClassVar[bool] = True
    """Whether a saved model needs its base to answer."""
    starts_as_base: ClassVar[bool] = True
    """Whether the model is the base before the first step."""
    trains_base: ClassVar[bool] = False
    """Whether what learns are parameters of the base, and not others beside them."""
    learns_without_head: ClassVar[bool] = True
    """Whether anything of the base or the method learns; else only a task with a new head is for it."""
    is_mergeable: ClassVar[bool] = False
    """Whether what was learnt can be folded into the base's weights."""
    served_by: ClassVar[tuple[str, ...]] = ()
    """What serves the saved files as they are, of `PEFT`, `VLLM` and `LLAMA_CPP`."""
    architectures: ClassVar[str] = "all"
    """In words, for the table of methods; `check` is what refuses."""

    @classmethod
    @abstractmethod
    def check(cls, config: C, facts: ModelFacts) -> list[Problem]:
        """What is wrong with this config on this model, told from names and shapes alone.

        What a missing package would forbid is here too.
        """

    @classmethod
    def derive(cls, config: C, facts: ModelFacts, *, has_new_head: bool) -> dict[str, tuple[Any, str]]:
        """Keys of the section that were left out and depend on model and task: key to (value, reason).

        has_new_head: whether the task puts a new head on the model, as classify does and chat does not. All else gets a
        config in which these are filled in.
        """
        return {}

    @classmethod
    @abstractmethod
    def trainable_parameters(cls, config: C, facts: ModelFacts) -> int:
        """Trainable values of the base or the method, the head apart; told from names and shapes alone."""

    @classmethod
    def stored_bytes(cls, config: C, facts: ModelFacts) -> int:
        """Of what `Handle.save` writes, but for a few kilobytes of JSON."""
        return 4 * cls.trainable_parameters(config, facts)

    @classmethod
    def storage(cls, config: C) -> Storage | None:
        """How the base lies in memory; None is float32."""
        return None

    @classmethod
    def lowest_trained_layer(cls, config: C, facts: ModelFacts) -> int:
        """What the handle will declare, told from names alone; the number of layers where nothing of the trunk learns.

        For forecasts.
        """
        return lowest_layer(chosen_modules(config, facts), facts) if isinstance(config, TargetedConfig) else 0

    @classmethod
    def kept_values(cls, config: C, facts: ModelFacts) -> int:
        """Values that each token keeps for the backward pass because of what learns, over all layers; for forecasts.

        By default the inputs of the targeted layers. What frozen layers keep by themselves comes on top.
        """
        return input_values(chosen_modules(config, facts), facts) if isinstance(config, TargetedConfig) else 0

    @classmethod
    def added_operations(cls, config: C, facts: ModelFacts) -> int:
        """Of a forward pass through what stands beside the base, for each token; for forecasts."""
        has_layers = not cls.trains_base and not cls.virtual_tokens(config, facts)
        return 2 * cls.trainable_parameters(config, facts) if has_layers else 0

    @classmethod
    def virtual_tokens(cls, config: C, facts: ModelFacts) -> int:
        """Positions that are taken from the context before each text."""
        return 0

    @classmethod
    @abstractmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        """Of the method's parameters; see docs/methods.md for where the figures come from."""

    @classmethod
    def rate_factor(cls, config: C) -> float:
        """What keys of the section multiply the default learning rate by."""
        return 1.0

    @classmethod
    def default_head_learning_rate(cls, facts: ModelFacts) -> float:
        """Of a new head, which starts at random and must move faster than what is pre-trained."""
        return 5e-3

    @classmethod
    def default_epochs(cls) -> int:
        return 8

    @classmethod
    @abstractmethod
    def attach(cls, config: C, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        """Make exactly the method's parameters trainable. Raises `UserError` for what `check` would have found."""
