"""Full fine-tuning: every parameter of the base learns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reglaj.core.errors import Problem, user_error
from reglaj.methods import METHODS
from reglaj.methods.base import LLAMA_CPP, VLLM, Capabilities, Handle, Method
from reglaj.methods.config import MethodConfig
from reglaj.models.inspect import NOT_BASE_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reglaj.models.inspect import ModelFacts

# A small model wants larger steps: up to this many parameters, and the learning rate from there on.
_RATES = ((60_000_000, 2e-4), (200_000_000, 5e-5), (float("inf"), 2e-5))


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
    served_by = (VLLM, LLAMA_CPP)
    citation = "Howard and Ruder 2018, arXiv:1801.06146; Devlin et al. 2019, arXiv:1810.04805"

    @classmethod
    def check(cls, config: FullConfig, facts: ModelFacts) -> list[Problem]:
        return []

    @classmethod
    def trainable_parameters(cls, config: FullConfig, facts: ModelFacts) -> int:
        vocabulary = facts.config.get("vocab_size")
        frozen = sum(
            shape[0] * shape[1]
            for name, shape in facts.tensors.items()
            if not config.train_embeddings and len(shape) == 2 and shape[0] == vocabulary and "embed" in name
        )
        pooler = sum(_size(shape) for name, shape in facts.tensors.items() if "pooler.dense" in name)
        return facts.parameters - frozen - pooler

    @classmethod
    def default_learning_rate(cls, facts: ModelFacts, *, has_new_head: bool = True) -> float:
        return next(rate for limit, rate in _RATES if facts.parameters <= limit)

    @classmethod
    def default_epochs(cls) -> int:
        return 5

    @classmethod
    def attach(cls, config: FullConfig, model: Any, facts: ModelFacts, name: str = "default") -> Handle:
        model.requires_grad_(True)
        if not config.train_embeddings:
            model.get_input_embeddings().requires_grad_(False)
        return FullHandle(model, name, Capabilities(), facts.folder)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


class FullHandle(Handle):
    """The model itself is what is learnt; the base stays on disk."""

    def __init__(self, model: nn.Module, name: str, capabilities: Capabilities, base: Path) -> None:
        super().__init__(model, name, capabilities)
        self.base: Path | None = base
        # Other handles may put layers of their own around these, which changes names.
        self._named = dict(model.named_parameters())
        self._ours: dict[str, Tensor] = {}
        """What was learnt, while it is off."""

    def switch(self, is_on: bool) -> None:
        """The base's weights are memory-mapped from disk while this handle is off."""
        if is_on:
            for key, parameter in self._named.items():
                parameter.data = self._ours[key]
            self._ours = {}
            return
        if self.base is None:
            raise user_error(
                "the base of this model is not here",
                allowed="the base that it was trained from",
                why="a fully fine-tuned model answers without its base, but cannot become it",
                remedy="bring the base back to where base.json says it lay",
            )
        ours = {key: parameter.data for key, parameter in self._named.items()}
        try:
            self._read(self.base)
        except BaseException:
            for key, parameter in self._named.items():
                parameter.data = ours[key]
            raise
        self._ours = ours

    def parameters(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        return {"base": [(key, p) for key, p in self._named.items() if p.requires_grad]}

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        if self.base == folder.resolve():
            self.base = None  # the model stood in for a base that is gone
        self._read(folder)

    def _read(self, folder: Path) -> None:
        _point_to(self._named, folder, getattr(self.model, "base_model_prefix", ""))


def _point_to(named: dict[str, nn.Parameter], folder: Path, prefix: str) -> None:
    """Every parameter to the tensor of its name in the folder's safetensors files.

    prefix: of names in files of a model with a head.
    """
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name not in NOT_BASE_WEIGHTS:
            tensors |= load_file(file)  # maps the file: pages are read when they are used
    for key, parameter in named.items():
        tensor = tensors.get(key, tensors.get(f"{prefix}.{key}"))
        if tensor is None or tensor.shape != parameter.shape:
            raise user_error(
                f"{folder} has no tensor {key!r} of shape {tuple(parameter.shape)}",
                allowed="the weights of the same architecture",
                why="nothing is known about that parameter, and it must not stay at random",
                remedy="use the folder that this model was saved to",
            )
        parameter.data = tensor.to(device=parameter.device, dtype=parameter.dtype)
