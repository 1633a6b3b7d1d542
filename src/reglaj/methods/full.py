"""Full fine-tuning: every parameter of the base learns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reglaj.core.errors import Problem
from reglaj.methods import METHODS
from reglaj.methods.base import LLAMA_CPP, VLLM, Capabilities, Handle, Method, by_size
from reglaj.methods.config import MethodConfig
from reglaj.methods.selective import SelectiveHandle, own_parameters, size, trunk_tensors
from reglaj.methods.targets import input_values

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts

# A small model wants larger steps: up to this many parameters, and the learning rate from there on.
_RATES = ((60_000_000, 2e-4), (200_000_000, 1e-4), (float("inf"), 2e-5))
_EMBEDDINGS = ("embed", "wte.", "shared.")


class FullConfig(MethodConfig):
    """Full fine-tuning."""

    name: Literal["full"] = "full"
    train_embeddings: bool = True
    """false freezes the token embeddings: half of a small model's parameters, of which a batch sees few."""


@METHODS.register("full")
class Full(Method[FullConfig]):
    """Everything moves; nothing is added."""

    config_type = FullConfig
    summary = "every parameter of the model learns"
    stands_on_base = False
    trains_base = True
    served_by = (VLLM, LLAMA_CPP)
    citation = "Howard and Ruder 2018, arXiv:1801.06146; Devlin et al. 2019, arXiv:1810.04805"

    @classmethod
    def check(cls, config: FullConfig, facts: ModelFacts) -> list[Problem]:
        return []

    @classmethod
    def trainable_parameters(cls, config: FullConfig, facts: ModelFacts) -> int:
        vocabulary = facts.config.get("vocab_size")
        frozen = {
            name: shape
            for name, shape in _loaded(facts).items()
            if not config.train_embeddings
            and len(shape) == 2
            and shape[0] == vocabulary
            and any(part in name for part in _EMBEDDINGS)
        }
        return size(_loaded(facts)) - size(frozen)

    @classmethod
    def kept_values(cls, config: FullConfig, facts: ModelFacts) -> int:
        """Every linear layer keeps its input, and each norm what it multiplies."""
        norms = sum(shape[0] for name, shape in _loaded(facts).items() if "norm" in name.lower() and len(shape) == 1)
        return input_values(facts.linear_modules(), facts) + (norms if facts.is_decoder else 0)

    @classmethod
    def stored_bytes(cls, config: FullConfig, facts: ModelFacts) -> int:
        return 4 * size(_loaded(facts))

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return by_size(_RATES, facts)

    @classmethod
    def default_head_learning_rate(cls, facts: ModelFacts) -> float:
        """Not the faster one of frozen bases: it brought nothing on texts of medicine, and a worse loss."""
        return 1e-3

    @classmethod
    def default_epochs(cls) -> int:
        return 5

    @classmethod
    def attach(cls, config: FullConfig, model: Any, facts: ModelFacts, name: str = "default") -> Handle:
        named = own_parameters(model)
        frozen = () if config.train_embeddings else map(id, model.get_input_embeddings().parameters())
        apart = set(frozen)
        trained = {key for key, parameter in named.items() if id(parameter) not in apart}
        return FullHandle(model, name, Capabilities(), named, facts, trained)


def _loaded(facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    """What tasks load of a model: the trunk, and an output matrix that has weights of its own."""
    matrix = {name: shape for name, shape in facts.tensors.items() if name.endswith("lm_head.weight")}
    return trunk_tensors(facts) | matrix


class FullHandle(SelectiveHandle):
    """The model itself is what is learnt, and what is saved; the base stays on disk."""

    kept_bytes = 0

    def save(self, folder: Path) -> None:
        """As transformers writes a model, so that everything opens it."""
        from torch import nn

        with self.using(self.name):
            own = {id(parameter) for parameter in self._named.values()}
            # Others may have put layers of their own around these and beside them.
            state = {
                key.replace(".base_layer.", "."): tensor
                for key, tensor in self.model.state_dict(keep_vars=True).items()
                if id(tensor) in own or not isinstance(tensor, nn.Parameter)
            }
            self.model.save_pretrained(folder, state_dict=state)

    def load(self, folder: Path) -> None:
        if self.base == folder.resolve():
            self.base = None  # the model stood in for a base that is gone
        self.take(self.read(folder))
