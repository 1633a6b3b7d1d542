"""The `evaluate` section of a recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from reglaj.core.config import Config
from reglaj.data.extras import BUILT_IN_SLICES

COLUMN = "column:"
"""In front of the name of a slice: the column is meant, also where a built-in slice has the same name."""


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
    calibration: Literal["temperature", "none"] = "temperature"
    """`temperature` divides a classifier's scores by one number, chosen on validation and served, so that its
    probabilities mean what they say; only where validation shows a gain. It never changes an answer. No effect on tasks
    without probabilities, as for the next key."""
    thresholds: Literal["none", "macro_f1"] = "none"
    """`macro_f1` answers rare classes earlier: offsets of the log-probabilities that raise macro-F1 on validation; only
    where the gain is shown. `none` answers with the likeliest class."""
    slices: tuple[str, ...] = ()
    """Groups that are scored by themselves: columns of the sources, and `length` and `language` of the texts; a column
    with one of these two names is written `column:length`."""
    gate: dict[str, str] = {}
    """What must hold, such as `{macro_f1: ">= 0.8", worst_slice.recall: ">= 0.6"}` or `slice.COLUMN.GROUP.accuracy`;
    else the run is marked and the exit code is 3. The end of the interval that is nearer to failing counts."""

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """The columns of the sources that the slices need."""
        return tuple(name.removeprefix(COLUMN) for name in self.slices if name not in BUILT_IN_SLICES)

    @field_validator("slices", mode="before")
    @classmethod
    def _one_alone(cls, names: Any) -> Any:
        """`evaluate.slices=region` is a list of one."""
        return (names,) if isinstance(names, str) else names

    @field_validator("slices")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not all(name.removeprefix(COLUMN).strip() for name in names):
            raise ValueError("a slice is the name of a column, or length or language")
        if len(set(names)) < len(names):
            raise ValueError("each slice once")
        return names

    @field_validator("gate", mode="before")
    @classmethod
    def _dotted(cls, rules: Any) -> Any:
        """`evaluate.gate.worst_slice.recall=...` on a command line makes mappings inside mappings."""
        return _flat(rules) if isinstance(rules, dict) else rules


def _flat(rules: dict[Any, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in rules.items():
        name = f"{above}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
