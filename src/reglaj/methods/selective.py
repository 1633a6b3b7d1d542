"""What methods share that train parameters of the base itself: some of them, or all.

While such a handle is off its parameters have the base's values: kept in memory where they are few, memory-mapped from
the base's files where they are many. Whatever a file holds, what it is made of is a tensor by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from reglaj.core.errors import user_error
from reglaj.core.files import write_json
from reglaj.methods.base import Capabilities, Handle
from reglaj.models.inspect import NOT_BASE_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reglaj.models.inspect import ModelFacts

WEIGHTS, MARK = "trained.safetensors", "method.json"
_HEADS = ("lm_head", "cls.", "pooler.", "classifier", "score.", "qa_outputs", "vocab_", "_predictions", "mlm_head")
"""What names hold of heads of the pre-training, which tasks do not load."""
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}


def trunk_tensors(facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    """Name to shape of what a file has of the layers, embeddings and norms: all but heads.

    Names are today's: old files of BERT call the weight and the bias of a norm gamma and beta.
    """
    return {_today(name): shape for name, shape in facts.tensors.items() if not any(part in name for part in _HEADS)}


def _today(name: str) -> str:
    stem, _, last = name.rpartition(".")
    return f"{stem}.{_OLD_NAMES.get(last, last)}"


def size(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Number of values of all these tensors."""
    total = 0
    for shape in shapes.values():
        values = 1
        for length in shape:
            values *= length
        total += values
    return total


def own_parameters(model: Any) -> dict[str, nn.Parameter]:
    """The base's own, by the names that they have without what other handles put around them or beside them."""
    foreign = {
        id(parameter)
        for other in model.__dict__.get("_reglaj_handles", {}).values()
        if not isinstance(other, SelectiveHandle)
        for group in other.parameters().values()
        for _, parameter in group
    }
    return {
        key.replace(".base_layer.", "."): parameter
        for key, parameter in model.named_parameters()
        if id(parameter) not in foreign
    }


def chosen_parameters(model: Any, names: Mapping[str, tuple[int, ...]]) -> dict[str, nn.Parameter]:
    """Those of the base's own parameters that a file has under these names, with or without a trunk's prefix."""
    prefix = f"{model.base_model_prefix}."
    wanted = {name.removeprefix(prefix) for name in names}
    return {key: p for key, p in own_parameters(model).items() if key.removeprefix(prefix) in wanted}


class SelectiveHandle(Handle):
    """Parameters of the base that learn; the rest of it is left alone.

    named: what the handle has values of its own for. trained: keys of those that learn, None is all. The base's values
    are read from the facts' folder where they are many and all there.
    """

    kept_bytes: ClassVar[int] = 64 * 2**20
    """Up to this many the base's values stay in memory; above, a look at the base reads them from its files."""

    def __init__(
        self,
        model: nn.Module,
        name: str,
        capabilities: Capabilities,
        named: dict[str, nn.Parameter],
        facts: ModelFacts,
        trained: set[str] | None = None,
    ) -> None:
        others = bool(model.__dict__.get("_reglaj_handles"))
        super().__init__(model, name, capabilities)  # from here on the parameters have the base's values
        self.base: Path | None = facts.folder
        self._named = named
        self._trained = set(named) if trained is None else trained
        self._aliases = _aliases(model, named)
        self._kept: dict[str, Tensor] | None = None
        self._ours: dict[str, Tensor] = {}
        """What was learnt, while it is off."""
        is_small = sum(p.numel() * p.element_size() for p in named.values()) <= self.kept_bytes
        if is_small or self._missing(facts.tensors):
            self._kept = {key: parameter.data for key, parameter in named.items()}
        if self._kept is not None or others:
            for parameter in named.values():
                parameter.data = parameter.data.clone()
        if not others:
            model.requires_grad_(False)
        for key in self._trained:
            named[key].requires_grad_(True)

    def switch(self, is_on: bool) -> None:
        if is_on:
            self._put(self._ours)
            self._ours = {}
            return
        values = self._base_values()
        self._ours = {key: parameter.data for key, parameter in self._named.items()}
        self._put(values)

    def parameters(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        return {"base": [(key, p) for key, p in self._named.items() if key in self._trained]}

    def save(self, folder: Path) -> None:
        """trained.safetensors: what learnt and nothing else, by the names that it has in the model; and method.json."""
        from safetensors.torch import save_file

        tensors = {key: t.detach().cpu().contiguous() for key, t in self.values().items() if key in self._trained}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        write_json(folder / MARK, {"learnt": sorted(tensors)})

    def load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        tensors, ours = load_file(folder / WEIGHTS), self.values()
        if {key: tuple(t.shape) for key, t in tensors.items()} != {
            key: tuple(ours[key].shape) for key in self._trained
        }:
            raise user_error(
                f"what was learnt in {folder} does not fit",
                allowed="parameters of the same base, chosen by the same method section",
                why="names or shapes of its tensors differ from those that this method trains",
                remedy="load it onto the base it was trained on, with its own method section",
            )
        for key, tensor in tensors.items():
            ours[key].copy_(tensor)

    def values(self) -> dict[str, Tensor]:
        """The handle's own, whether it is on or off."""
        return self._ours or {key: parameter.data for key, parameter in self._named.items()}

    def _base_values(self) -> dict[str, Tensor]:
        if self.base is None:
            raise user_error(
                "the base of this model is not here",
                allowed="the base that it was trained from",
                why="a fully fine-tuned model answers without its base, but cannot become it",
                remedy="bring the base back to where base.json says it lay",
            )
        return self.read(self.base) if self._kept is None else self._kept

    def take(self, values: Mapping[str, Tensor]) -> None:
        """Make these the handle's own: the tensors themselves where they fit."""
        if self._ours:
            self._ours = dict(values)
        else:
            self._put(values)

    def _put(self, values: Mapping[str, Tensor]) -> None:
        for key, parameter in self._named.items():
            parameter.data = values[key].to(device=parameter.device, dtype=parameter.dtype)

    def read(self, folder: Path) -> dict[str, Tensor]:
        """The value of every parameter as the folder's files have it; pages are read when they are used."""
        from safetensors import safe_open

        found: dict[str, Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            if path.name in NOT_BASE_WEIGHTS:
                continue
            with safe_open(path, framework="pt") as file:
                present = set(file.keys())
                for key, aliases in self._aliases.items():
                    alias = next((alias for alias in aliases if alias in present), None)
                    if alias is not None and key not in found:
                        found[key] = file.get_tensor(alias)
        missing = self._missing({key: tuple(tensor.shape) for key, tensor in found.items()})
        if missing:
            raise user_error(
                f"{folder} has no tensor {missing[0]!r} of shape {tuple(self._named[missing[0]].shape)}",
                allowed="the weights of the same architecture",
                why="nothing is known about that parameter, and it must not stay at random",
                remedy="use the folder that this model was saved to",
            )
        return found

    def _missing(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Keys for which no tensor of these names and shapes stands."""
        return [
            key
            for key, parameter in self._named.items()
            if tuple(parameter.shape) not in (shapes.get(alias) for alias in (key, *self._aliases[key]))
        ]


def _aliases(model: Any, named: Mapping[str, nn.Parameter]) -> dict[str, list[str]]:
    """Under which names a file may have each: those of tied modules, with and without the prefix of a trunk."""
    prefix = f"{model.base_model_prefix}."
    names: dict[int, list[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(key.replace(".base_layer.", "."))
    forms = {
        key: [form for alias in (key, *names[id(p)]) for form in (alias, prefix + alias, alias.removeprefix(prefix))]
        for key, p in named.items()
    }
    return {key: [*found, *(old for form in found for old in _old_forms(form))] for key, found in forms.items()}


def _old_forms(name: str) -> list[str]:
    stem, _, last = name.rpartition(".")
    return [f"{stem}.{old}" for old, today in _OLD_NAMES.items() if today == last and "norm" in name.lower()]
