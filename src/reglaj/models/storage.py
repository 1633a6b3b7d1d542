"""How the weights of a base lie in memory. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

_BLOCK, _OUTER_BLOCK = 64, 256
"""Values that share a scale, and scales that share one of their own (Dettmers et al. 2023, section 3)."""
_ATTRIBUTE = "_reglaj_storage"


@dataclass(frozen=True, kw_only=True)
class Storage:
    """kind: `nf4` is four bits a value in blocks (Dettmers et al. 2023, arXiv:2305.14314). is_double: the scales of the
    blocks are quantised too.
    """

    kind: Literal["nf4"]
    is_double: bool = True

    @property
    def bytes_per_value(self) -> float:
        """Of a matrix in this storage, scales included: 0.516, or 0.5625 without double quantisation."""
        scale = 1 + 4 / _OUTER_BLOCK if self.is_double else 4.0
        return 0.5 + scale / _BLOCK


def storage_of(model: Any) -> Storage | None:
    """How the linear layers of a loaded model lie in memory; None is as they are."""
    storage: Storage | None = model.__dict__.get(_ATTRIBUTE)
    return storage


def mark_storage(model: Any, storage: Storage) -> None:
    """Remember it with the model, for `storage_of`."""
    model.__dict__[_ATTRIBUTE] = storage
