"""Linear probe: the base stays as it is, only the new head learns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reglaj.core.errors import Problem
from reglaj.core.files import write_json
from reglaj.methods import METHODS
from reglaj.methods.base import Capabilities, Handle, Method, freeze
from reglaj.methods.config import MethodConfig

if TYPE_CHECKING:
    from torch import nn

    from reglaj.models.inspect import ModelFacts


class LinearProbeConfig(MethodConfig):
    """A new head on a frozen base."""

    name: Literal["linear-probe"] = "linear-probe"


@METHODS.register("linear-probe")
class LinearProbe(Method[LinearProbeConfig]):
    """Nothing of the base moves."""

    config_type = LinearProbeConfig
    summary = "the model stays frozen, only a new linear head learns"
    learns_without_head = False
    citation = "Alain and Bengio 2016, arXiv:1610.01644"

    @classmethod
    def check(cls, config: LinearProbeConfig, facts: ModelFacts) -> list[Problem]:
        return []

    @classmethod
    def trainable_parameters(cls, config: LinearProbeConfig, facts: ModelFacts) -> int:
        return 0

    @classmethod
    def lowest_trained_layer(cls, config: LinearProbeConfig, facts: ModelFacts) -> int:
        return facts.layers

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return 1e-2

    @classmethod
    def default_head_learning_rate(cls, facts: ModelFacts) -> float:
        return 1e-2

    @classmethod
    def default_epochs(cls) -> int:
        return 20

    @classmethod
    def attach(cls, config: LinearProbeConfig, model: nn.Module, facts: ModelFacts, name: str = "default") -> Handle:
        freeze(model)
        return LinearProbeHandle(model, name, Capabilities(lowest_trained_layer=facts.layers))


class LinearProbeHandle(Handle):
    """Nothing of the base is learnt, so the base is always what it was."""

    def switch(self, is_on: bool) -> None:
        return None

    def parameters(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        return {}

    def save(self, folder: Path) -> None:
        """A marker only: the head is saved by its owner."""
        write_json(folder / "linear_probe.json", {"learnt": "head only"})

    def load(self, folder: Path) -> None:
        return None
