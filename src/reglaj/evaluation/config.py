"""The `evaluate` section of a recipe."""

from __future__ import annotations

from pydantic import Field

from reglaj.core.config import Config


class EvaluateConfig(Config):
    """What the final model is measured against, and how sure the figures are."""

    baselines: tuple[str, ...] | None = None
    """Names of baselines; by default every one the task has. The trivial one is always there, but for `[]`."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Coverage of every interval."""
    bootstrap_samples: int = Field(1000, ge=100)
    """Resamplings behind each interval; more are slower and steadier."""
