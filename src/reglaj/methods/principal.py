"""A low-rank update that begins with the principal part of the weights (PiSSA), on a base that stays what it is.

Its file is a plain LoRA of twice the rank for the base as it came: the update is s (B A - B0 A0), and PEFT converts a
PiSSA in the same way (`path_initial_model_for_weight_conversion`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.errors import user_error
from reglaj.methods.injected import WEIGHTS, misfit
from reglaj.methods.low_rank import LowRankHandle

if TYPE_CHECKING:
    from torch import Tensor

_DOWN, _UP = "lora_A.weight", "lora_B.weight"


class PrincipalHandle(LowRankHandle):
    """LoRA whose A and B begin as the principal part of each weight, which is taken from the base meanwhile."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        import torch

        from reglaj.models.pissa import principal_factors

        if not self._is_ours:
            raise user_error(
                "method.init is pissa, and some of the targeted layers are more than linear layers",
                allowed="default for this model",
                why="what their weight does is not known, and so neither is its principal part",
                remedy="remove the key, or choose other targets",
                where="method.init",
            )
        with torch.no_grad():
            for layer in self.layers():
                rank, scale = layer.r[self.name], layer.scaling[self.name]
                layer.begin_with(self.name, *principal_factors(layer.exact_weight(), rank, scale))

    def state(self) -> dict[str, Tensor]:
        """The first factors: a randomised decomposition on another machine would give others."""
        return {key: tensor for key, tensor in self.model.named_buffers() if self._is_first(key)}

    def _is_first(self, key: str) -> bool:
        return key.rpartition(".")[2] in (f"first_A_{self.name}", f"first_B_{self.name}")

    def tensors(self) -> dict[str, Tensor]:
        """A over A0, and B beside -B0: copies."""
        import torch

        learnt, first = super().tensors(), self._first_by_file_name()
        return {
            key: torch.cat((now, first[key]) if key.endswith(_DOWN) else (now, -first[key]), dim=_axis(key)).detach()
            for key, now in learnt.items()
        }

    def config_as_saved(self) -> Any:
        config = super().config_as_saved()
        # The scale stays what it is at twice the rank.
        config.lora_alpha *= 2**0.5 if config.use_rslora else 2
        config.r *= 2
        config.rank_pattern = {key: 2 * rank for key, rank in config.rank_pattern.items()}
        return config

    def load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        found, learnt, first = load_file(folder / WEIGHTS), super().tensors(), self._first_by_file_name()
        if {key: t.shape for key, t in found.items()} != {key: t.shape for key, t in self.tensors().items()}:
            raise misfit(folder)
        for key, tensor in learnt.items():
            now, before = found[key].chunk(2, dim=_axis(key))
            tensor.data.copy_(now)
            first[key].copy_(before if key.endswith(_DOWN) else -before)

    def _first_by_file_name(self) -> dict[str, Tensor]:
        """The first factors by the names that A and B have in the file."""
        by_factor = {
            getattr(layer, f"lora_{factor}")[self.name].weight.data_ptr(): layer.first_factors(self.name)[place]
            for layer in self.layers()
            for place, factor in enumerate("AB")
        }
        return {key: by_factor[tensor.data_ptr()] for key, tensor in super().tensors().items()}


def _axis(key: str) -> int:
    """Along which a factor has the rank."""
    return 0 if key.endswith(_DOWN) else 1
