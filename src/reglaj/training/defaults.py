"""Values that a recipe may leave out, derived from method, model and size of data; each with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reglaj.methods.base import Method
from reglaj.methods.config import MethodConfig
from reglaj.training.config import TrainConfig

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts

LARGEST_BATCH = 32
SMALLEST_BATCH = 4
ENOUGH_STEPS = 100
LONGEST_TEXT = 512


def derive_training(
    config: TrainConfig, method: type[Method[MethodConfig]], facts: ModelFacts, num_rows: int, stopping_metric: str
) -> dict[str, tuple[Any, str]]:
    """Key of `train` to (value, reason), for every key that was left out and has no value of its own."""
    derived: dict[str, tuple[Any, str]] = {}
    name = f"the default of {method.config_type.model_fields['name'].default}"
    epochs = config.epochs
    if epochs is None:
        epochs = method.default_epochs()
        derived["epochs"] = (epochs, name)
    if config.batch_size is None:
        fitting = num_rows * epochs // ENOUGH_STEPS
        size = max(SMALLEST_BATCH, min(LARGEST_BATCH, fitting))
        why = f"at most {LARGEST_BATCH}, and {ENOUGH_STEPS} steps or more from {num_rows:,} rows in {epochs} epochs"
        derived["batch_size"] = (size, why)
    if config.learning_rate is None:
        derived["learning_rate"] = (
            method.default_learning_rate(facts),
            f"{name} for {facts.parameters / 1e6:.0f} million parameters",
        )
    if config.head_learning_rate is None:
        derived["head_learning_rate"] = (method.default_head_learning_rate(facts), name)
    if config.max_tokens is None:
        derived["max_tokens"] = (
            min(facts.context, LONGEST_TEXT),
            f"what {facts.name} can read, at most {LONGEST_TEXT}",
        )
    if config.early_stopping and config.early_stopping.metric is None:
        derived["early_stopping.metric"] = (stopping_metric, "what the task is judged by")
    return derived
