"""What a sceptic would try first: one file per baseline, all of them registered here by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.core.registry import Registry

if TYPE_CHECKING:
    from reglaj.evaluation.baselines.base import Baseline

BASELINES: Registry[type[Baseline]] = Registry("baseline", "reglaj.evaluation.baselines")
