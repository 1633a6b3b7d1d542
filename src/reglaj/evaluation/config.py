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
    generate_rows: int = Field(32, ge=0)
    """Test rows whose answers are generated for the text figures, drawn by the seed; 0: none, the loss says it all.
    No effect on tasks that do not answer with text, as for the keys below."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest generated answer, in tokens."""
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Of the generated answers; 0 takes the likeliest token each time."""
    repetition_penalty: float = Field(1.1, gt=0, allow_inf_nan=False)
    """Divides the scores of tokens that were already said; 1: none. The likeliest text of a small model runs in circles
    and never ends: of 32 answers of SmolLM2 tuned on `starter:finance` none ended with 1.0, 31 with 1.1."""
    few_shot_examples: int = Field(3, ge=1)
    """Training examples in front of each question for the baseline `few_shot`; fewer where the context is short."""
