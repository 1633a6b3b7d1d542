"""Values that a recipe may leave out, derived from method, model and size of data; each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reglaj.methods import METHODS
from reglaj.methods.config import MethodConfig
from reglaj.training.config import TrainConfig

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts

LARGEST_BATCH = 32
SMALLEST_BATCH = 4
ENOUGH_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class TaskDefaults:
    """What a task says about values that a recipe may leave out. epochs: None leaves them to the method."""

    stopping_metric: str
    longest_text: int = 512
    epochs: int | None = None
    has_new_head: bool = True


def derive_context(
    config: TrainConfig, facts: ModelFacts, task: TaskDefaults, *, virtual_tokens: int = 0
) -> dict[str, tuple[Any, str]]:
    """`max_tokens`, which is needed before the data is read: key to (value, reason).

    virtual_tokens: places of the context that the method takes.
    """
    if config.max_tokens is not None:
        return {}
    value = min(facts.context - virtual_tokens, task.longest_text)
    taken = f" beside {virtual_tokens} virtual tokens" if virtual_tokens else ""
    return {"max_tokens": (value, f"what {facts.name} can read{taken}, at most {task.longest_text}")}


def derive_training(
    config: TrainConfig, section: MethodConfig, facts: ModelFacts, num_rows: int, task: TaskDefaults
) -> dict[str, tuple[Any, str]]:
    """Key of `train` to (value, reason), for every key that was left out and has no value of its own.

    section: of the method, with nothing left open.
    """
    method = METHODS.get(section.name)
    derived: dict[str, tuple[Any, str]] = {}
    name = f"the default of {method.config_type.model_fields['name'].default}"
    epochs = config.epochs
    if epochs is None:
        epochs = task.epochs or method.default_epochs()
        derived["epochs"] = (epochs, "the default of the task" if task.epochs else name)
    if config.batch_size is None:
        fitting = num_rows * epochs // ENOUGH_STEPS
        size = max(SMALLEST_BATCH, min(LARGEST_BATCH, fitting))
        why = f"at most {LARGEST_BATCH}, and {ENOUGH_STEPS} steps or more from {num_rows:,} rows in {epochs} epochs"
        derived["batch_size"] = (size, why)
    if config.learning_rate is None:
        derived["learning_rate"] = (
            method.default_learning_rate(facts, has_new_head=task.has_new_head) * method.rate_factor(section),
            f"{name} for {facts.parameters / 1e6:.0f} million parameters",
        )
    if config.head_learning_rate is None and task.has_new_head:
        rate, why = method.default_head_learning_rate(facts), name
        if config.learning_rate is not None and not method.trainable_parameters(section, facts):
            rate, why = config.learning_rate, "train.learning_rate, as the head is all that learns"
        derived["head_learning_rate"] = (rate, why)
    if config.early_stopping and config.early_stopping.metric is None:
        derived["early_stopping.metric"] = (task.stopping_metric, "what the task is judged by")
    return derived
