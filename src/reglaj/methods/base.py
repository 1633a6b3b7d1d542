"""The contract of a method: attach to a model, get a handle, and everything else goes through the handle."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from reglaj.core.errors import Problem
from reglaj.methods.config import MethodConfig

if TYPE_CHECKING:
    from torch import nn

    from reglaj.models.inspect import ModelFacts

C = TypeVar("C", bound=MethodConfig)


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
    """One method attached to one model. Several handles may share a base; each has its own name."""

    def __init__(self, model: nn.Module, name: str, capabilities: Capabilities) -> None:
        self.model: Any = model
        self.name = name
        self.capabilities = capabilities

    @abstractmethod
    def using(self, name: str | None) -> AbstractContextManager[None]:
        """A context in which the model is that handle, or with None the base as it came."""

    @abstractmethod
    def parameters(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters in named groups. Nothing else of the model requires a gradient."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was learnt into an existing folder, in safetensors and JSON."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Take over what `save` wrote. Raises `UserError` when it does not fit."""

    def fuse(self, is_on: bool, *, keeps_copies: bool = True) -> bool:
        """Take faster operations that say the same up to rounding, or plain ones. Returns whether there are such.

        keeps_copies: a frozen weight in half precision may stay from one pass to the next.
        """
        return False

    def folded(self) -> AbstractContextManager[None]:
        """A context in which the update is part of the base's weights, where there is one, for faster forward passes.

        Outputs differ by rounding alone. Afterwards the base is bitwise what it was. Not for training.
        """
        return contextlib.nullcontext()

    def merge(self) -> None:
        """Fold the update into the base's weights, for good. Only where `linear_deltas` is declared."""
        raise TypeError(f"{type(self).__name__} cannot be merged: it declares no linear deltas")

    def count(self) -> int:
        """Number of trainable values."""
        return sum(parameter.numel() for group in self.parameters().values() for _, parameter in group)


class Method(ABC, Generic[C]):
    """Which parameters learn. Registered under its name; its frozen config is the recipe's `method` section."""

    config_type: ClassVar[type[MethodConfig]]
    summary: ClassVar[str]
    citation: ClassVar[str]
    stands_on_base: ClassVar[bool] = True
    """Whether a saved model needs its base to answer."""

    @classmethod
    @abstractmethod
    def check(cls, config: C, facts: ModelFacts) -> list[Problem]:
        """What is wrong with this config on this model, told from names and shapes alone."""

    @classmethod
    @abstractmethod
    def trainable_parameters(cls, config: C, facts: ModelFacts) -> int:
        """Trainable values of the base or the method, the head apart; told from names and shapes alone."""

    @classmethod
    @abstractmethod
    def default_learning_rate(cls, facts: ModelFacts) -> float:
        """Of the method's parameters; see docs/training.md for where the figures come from."""

    @classmethod
    def default_head_learning_rate(cls, facts: ModelFacts) -> float:
        """Of a new head, which starts at random and must move faster than what is pre-trained."""
        return 1e-3

    @classmethod
    def default_epochs(cls) -> int:
        return 8

    @classmethod
    @abstractmethod
    def attach(cls, config: C, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        """Make exactly the method's parameters trainable. Raises `UserError` for what `check` would have found."""
