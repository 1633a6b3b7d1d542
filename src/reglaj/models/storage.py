"""How the weights of a base lie in memory. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Storage:
    """kind: `nf4` is four bits a value in blocks (Dettmers et al. 2023, arXiv:2305.14314). is_double: the scales of the
    blocks are quantised too.
    """

    kind: Literal["nf4"]
    is_double: bool = True
