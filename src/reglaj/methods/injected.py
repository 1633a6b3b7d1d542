"""Layers that PEFT puts into a model: what every method that is made of them shares. Files are PEFT's own.

The model itself is changed in place and stays the stock one; no `PeftModel` is wrapped around it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.errors import user_error
from reglaj.methods.base import Capabilities, Handle, as_base

if TYPE_CHECKING:
    import peft
    import torch
    from torch import Tensor, nn

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT's names begin with in a file."""


def peft_task(model: Any) -> str:
    """What PEFT wraps such a model as: one that writes tokens can generate, a bare trunk gives hidden states."""
    if model.get_output_embeddings() is None:
        return "FEATURE_EXTRACTION"
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def inject(config: peft.PeftConfig, model: Any, name: str, kind: Any = None) -> Any:
    """Put the layers of a PEFT config into a model, under that name. Only their parameters then want a gradient.

    Those of other names keep what they had. kind: PEFT's class of tuners, where it is not the one of the config.
    Returns the tuner, which holds what its layers share.
    """
    # PEFT loads bitsandbytes where it is installed, which then warns about a 4-bit kernel that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import peft  # noqa: F401 - fills the mapping
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    if any(getattr(handle, "_is_merged", False) for handle in getattr(model, "_reglaj_handles", {}).values()):
        raise TypeError("something was merged into this model for good: load the base again for another method")
    known = {id(parameter): parameter.requires_grad for parameter in model.parameters()}
    is_first = not getattr(model, "_reglaj_handles", None)
    # Each tuner would judge the configs of the others as if they were of its own kind.
    others = model.__dict__.pop("peft_config", {})
    try:
        # DoRA begins with the norms of the weights, and others with the weights: the base's, not another handle's.
        with warnings.catch_warnings(), as_base(model):
            # GPT-2 keeps its matrices the other way round; PEFT notices, does what is right, and says so.
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            kind = kind or PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
            tuner = kind(model, config, adapter_name=name)
    finally:
        model.peft_config = {**others, name: config}
    tuner.peft_config = model.peft_config
    for key, parameter in model.named_parameters():
        before = False if is_first else known.get(id(parameter), False)
        parameter.requires_grad_(before or is_of(key, name, config))
    model.train(model.training)  # new layers come with their dropout on
    for key, value in vars(config).items():
        if isinstance(value, set):  # the order of a set is another in every process, and so would be the file
            setattr(config, key, sorted(value))
    return tuner


def is_of(key: str, name: str, config: peft.PeftConfig) -> bool:
    """Whether a parameter is one that the layers of that name learn."""
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    prefix, parts = PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type], key.split(".")
    return any(part.startswith(prefix) and following == name for part, following in itertools.pairwise(parts))


class InjectedHandle(Handle):
    """A named set of PEFT's layers among others on the same base.

    tuner: what `inject` gave, where the layers share tensors, which PEFT's files have under names of their own.
    """

    _is_merged = False

    def __init__(self, model: nn.Module, name: str, capabilities: Capabilities, tuner: Any = None) -> None:
        super().__init__(model, name, capabilities)
        self._tuner = tuner
        self.switch(True)

    @property
    def config(self) -> Any:
        """PEFT's own config."""
        return self.model.peft_config[self.name]

    def layers(self) -> list[Any]:
        """PEFT's layers that have an update of this name."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [
            module
            for module in self.model.modules()
            if isinstance(module, BaseTunerLayer)
            and any(self.name in getattr(module, part, ()) for part in module.adapter_layer_names)
        ]

    def switch(self, is_on: bool) -> None:
        if self._is_merged:  # PEFT would take the update out of the weights again
            return
        for layer in self.layers():
            layer._disable_adapters = not is_on
            layer._active_adapter = [self.name]

    def parameters(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        config = self.config
        named = [(key, p) for key, p in self.model.named_parameters() if is_of(key, self.name, config)]
        return {config.peft_type.value.lower(): named}

    def save(self, folder: Path) -> None:
        """adapter_config.json and adapter_model.safetensors, as plain PEFT reads them."""
        from safetensors.torch import save_file

        # Copies: layers may share what a file has once for each.
        named = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in self.tensors().items()}
        save_file(named, folder / WEIGHTS, metadata={"format": "pt"})
        config = self.config
        was_inference = config.inference_mode
        config.inference_mode = True
        config.save_pretrained(str(folder))
        config.inference_mode = was_inference

    def tensors(self) -> dict[str, Tensor]:
        """What is saved, by PEFT's names: the tensors themselves, not copies."""
        import peft

        state: dict[str, Tensor] = peft.get_peft_model_state_dict(
            _as_peft_wraps(self.model, self._tuner), adapter_name=self.name, save_embedding_layers=False
        )
        # A layer of one kind around one of another is no part of its name.
        return {key.replace(".base_layer", ""): tensor for key, tensor in state.items()}

    def learnt_tensors(self) -> dict[str, Tensor]:
        """The parameters by the names that PEFT's files give them, where layers share nothing."""
        named = [(key, p) for group in self.parameters().values() for key, p in group]
        return {PREFIX + _without(self.name, key).replace(".base_layer", ""): p for key, p in named}

    def load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.take(load_file(folder / WEIGHTS), self.tensors(), folder)

    def take(self, found: Mapping[str, Tensor], own: Mapping[str, Tensor], folder: Path) -> None:
        """Copy what was found in a folder into tensors of the same names. Raises `UserError` where it does not fit."""
        if {key: t.shape for key, t in found.items()} != {key: t.shape for key, t in own.items()}:
            raise misfit(folder)
        for key, tensor in own.items():
            tensor.data.copy_(found[key])

    @contextlib.contextmanager
    def folded(self) -> Iterator[None]:
        """Each base weight has its update inside, and PEFT's layers apply it alone.

        The parameters are replaced, not changed: a weight that is tied to another stays what it is there.
        """
        if not self.capabilities.linear_deltas or not self.is_on:
            yield
            return
        with self.folding([layer for layer in self.layers() if not layer.merged]):
            yield

    @contextlib.contextmanager
    def folding(self, layers: list[Any], dtype: torch.dtype | None = None) -> Iterator[None]:
        """The same of some layers alone. dtype: what their weights are in meanwhile, by default what they are in."""
        import torch

        before = [(layer.get_base_layer(), dict(layer.get_base_layer()._parameters)) for layer in layers]
        try:
            with torch.no_grad():
                for base, parameters in before:
                    for key, parameter in parameters.items():
                        if parameter is not None:
                            copy = parameter.detach().to(dtype or parameter.dtype, copy=True)
                            base._parameters[key] = torch.nn.Parameter(copy, requires_grad=False)
            self._merge(layers)
            yield
        finally:
            for layer, (base, parameters) in zip(layers, before, strict=True):
                base._parameters.update(parameters)
                layer.merged_adapters = []

    def merge(self) -> None:
        if not self.capabilities.linear_deltas:
            super().merge()
        self.refuse_merge_among_others()
        self._merge(self.layers())
        self._is_merged = True

    def _merge(self, layers: list[Any]) -> None:
        """By PEFT, in the precision of the weights, whatever a pass around it is computed in."""
        import torch

        with torch.no_grad(), torch.autocast(next(self.model.parameters()).device.type, enabled=False):
            for layer in layers:
                layer.merge(adapter_names=[self.name])

    def learnt(self, tokenizer: Any) -> dict[str, Any]:
        """How far the weights were moved, by layer and by kind, where the update can be folded into them."""
        from reglaj.methods.weight_changes import weight_changes

        return weight_changes(self)


def _as_peft_wraps(model: Any, tuner: Any) -> Any:
    """A module in which everything has the name that it would have in a `PeftModel`."""
    from torch import nn

    wrapped = nn.Module()
    if tuner is None:
        tuner = nn.Module()
        tuner.model = model
    wrapped.base_model = tuner
    wrapped.peft_config = model.peft_config
    return wrapped


def _without(name: str, key: str) -> str:
    """A parameter's name without that of its handle."""
    return key.replace(f".{name}.", ".").removesuffix(f".{name}")


def saved_config(folder: Path) -> dict[str, Any]:
    """PEFT's config in a folder, as JSON values."""
    values: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return values


def misfit(folder: Path) -> Exception:
    """What was saved is of another shape."""
    return user_error(
        f"the adapter in {folder} does not fit",
        allowed="an adapter of the same base, rank and targets",
        why="names or shapes of its tensors differ from the model's",
        remedy="load it onto the base it was trained on",
    )
