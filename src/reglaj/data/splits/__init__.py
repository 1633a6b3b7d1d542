"""How records become train, validation and test: one file per kind of split, all registered here by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.core.registry import Registry

if TYPE_CHECKING:
    from reglaj.data.splits.base import Split

SPLITS: Registry[type[Split]] = Registry("split", "reglaj.data.splits")
