"""How an answer is drawn."""

from __future__ import annotations

from pydantic import Field, field_validator

from reglaj.core.config import Config


class GenerationConfig(Config):
    """The steps are applied in the order of transformers: repetition penalty, temperature, top-k, top-p."""

    max_new_tokens: int = Field(512, ge=0)
    """Tokens of an answer at most; the model's context may end it sooner."""
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Scores are divided by it before a token is drawn; 0 always takes the likeliest token."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draws among the fewest tokens that hold this much probability. No effect at 1, or at temperature 0."""
    top_k: int = Field(0, ge=0)
    """Draws among this many likeliest tokens. No effect at 0, or at temperature 0."""
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Divides the positive scores of tokens that the prompt or the answer holds, multiplies negative ones. End tokens
    are left alone, unlike in transformers."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these texts."""
    seed: int = 0
    """Of the draws. Equal prompts get equal answers, whatever stands beside them. No effect at temperature 0."""

    @field_validator("stop")
    @classmethod
    def _stops_say_something(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("texts of at least one character: every answer begins with an empty one")
        return stop
