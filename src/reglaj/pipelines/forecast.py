"""How much memory and time a training will take: by the recipe's method, and by every other one on the same data.

Told from names, shapes, file sizes and the speed of the machine; nothing is loaded. `benchmarks/forecasts.py` holds it
against what trainings then take.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reglaj.core.errors import Problem
from reglaj.methods import METHODS
from reglaj.methods.config import MethodConfig
from reglaj.pipelines.data import with_context
from reglaj.pipelines.machine_speed import Speed, assumed_speed, has_gpu
from reglaj.pipelines.memory_cost import Work, loading_bytes, memory_of
from reglaj.pipelines.recipe import Recipe
from reglaj.pipelines.room import no_room
from reglaj.pipelines.time_cost import seconds_of, steps_of
from reglaj.tasks import TASKS
from reglaj.training.budget import (
    WIDE,
    ModelShape,
    device_memory_bytes,
    has_bfloat16_units,
    machine_memory_bytes,
    micro_batch_tokens,
)
from reglaj.training.defaults import derive_training

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts
    from reglaj.training.config import TrainConfig

CHARACTERS_PER_TOKEN = 4.0
SPECIAL_TOKENS = 2
TEMPLATE_TOKENS = 24
"""What a chat template puts around a question and its answer: roles, markers, a short system prompt."""
_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop", "dropout_rate")


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much text there is. Where a file was only begun, the rows are told from its size."""

    rows: int
    is_exact: bool
    characters: float
    """Mean length of a text."""
    lengths: tuple[int, ...] = ()
    """Characters of the texts that were seen."""

    def longest_of(self, rows: int) -> float:
        """Characters of the longest among so many rows, which is as often longer as shorter."""
        if not self.lengths:
            return self.characters
        place = int(len(self.lengths) * 0.5 ** (1 / max(1, rows)))
        return float(sorted(self.lengths)[min(place, len(self.lengths) - 1)])


def forecast(recipe: Recipe, facts: ModelFacts, amount: Amount, speed: Speed | None = None) -> dict[str, Any]:
    """Figures for the training alone, without download, baselines and report.

    speed: of the machine; by default what such a machine usually does.
    """
    recipe, work = _resolved(recipe, facts, amount)
    speed = speed if speed is not None and work.device == "cpu" else assumed_speed(work.device)
    work, memory, seconds = _costs(recipe, facts, work, speed)
    loading = loading_bytes(facts, work)
    peak = max(sum(memory.values()), loading)
    train_rows = recipe.data.split.train_rows(amount.rows)
    return {
        "is_rough": True,
        "rows": amount.rows,
        "rows_are_exact": amount.is_exact,
        "train_rows": train_rows,
        "epochs": recipe.train.epochs,
        "steps": work.steps,
        "tokens": round(work.rows * work.tokens_per_row),
        "device": work.device,
        "memory_bytes": peak,
        "memory": memory,
        "loading_bytes": loading,
        "available_bytes": available_bytes(work.device),
        "train_seconds": round(seconds, 1),
        "assumes": f"{speed.told}, {CHARACTERS_PER_TOKEN:g} characters a token, all epochs; without baselines and"
        " report",
    }


def what_would_fit(
    recipe: Recipe, facts: ModelFacts, amount: Amount, speed: Speed | None = None
) -> list[dict[str, Any]]:
    """Every method on this model and data, with its own defaults for what the recipe leaves out; least memory first.

    `fits` is None where the machine's memory cannot be told; `problem` says why a method cannot do this at all. The
    recipe's own method, marked `is_chosen`, has the recipe's section.
    """
    task = TASKS.get(recipe.task)
    lines: list[dict[str, Any]] = []
    for name in METHODS.names():
        method, is_chosen = METHODS.get(name), name == recipe.method.name
        line: dict[str, Any] = {"method": name, "is_chosen": is_chosen}
        config = recipe.method if is_chosen else method.config_type(name=name)
        other = dataclasses.replace(recipe, method=config).with_method(facts)
        problems = method.check(other.method, facts)
        if not problems:
            problems = no_room(recipe.train.max_tokens, method.virtual_tokens(other.method, facts), facts)
        trainable = 0 if problems else method.trainable_parameters(other.method, facts)
        if problems:
            line |= told_problem(problems[0])
        elif not trainable and not task.defaults.has_new_head:
            line |= {"problem": f"it trains a new head only, and {task.name} has none", "remedy": "choose lora"}
        else:
            told = forecast(other, facts, amount, speed)
            available = told["available_bytes"]
            line |= {key: told[key] for key in ("memory_bytes", "train_seconds", "epochs", "steps")}
            line |= {
                "trainable_parameters": trainable,
                "fits": told["memory_bytes"] <= available if available else None,
            }
        lines.append(line)
    return sorted(lines, key=lambda line: ("problem" in line, line.get("memory_bytes", 0), line["method"]))


def told_problem(problem: Problem) -> dict[str, str]:
    """Why a method cannot do a model, and what would work, for a table."""
    if problem.given == "nothing":  # a key without a default, which a recipe has to name
        return {"problem": f"{problem.where} has to be given", "remedy": f"name it: {problem.allowed}"}
    where = "" if problem.where == "method.name" else f"{problem.where} is "
    return {"problem": where + problem.given, "remedy": problem.remedy}


def standard_memory(config: MethodConfig, facts: ModelFacts, *, predicts_tokens: bool) -> int:
    """Peak bytes of a training on texts of 128 tokens, 32 a step, on a processor in float32: for comparing methods."""
    work = Work(
        device="cpu",
        precision="float32",
        steps=1,
        rows=STANDARD_ROWS,
        batch_size=STANDARD_ROWS,
        tokens_per_row=STANDARD_TOKENS,
        longest_row=STANDARD_TOKENS,
        micro_batch_tokens=micro_batch_tokens("cpu", 0, None),
        predicts_tokens=predicts_tokens,
    )
    return sum(memory_of(METHODS.get(config.name), config, facts, work).values())


STANDARD_ROWS, STANDARD_TOKENS = 32, 128
"""The batch that memory is told for where there is no recipe."""


def available_bytes(device: str) -> int:
    """All memory of the machine or of its first GPU; 0 where it cannot be told."""
    return device_memory_bytes() if device == "cuda" else machine_memory_bytes()


def shape_of(facts: ModelFacts, *, is_frozen: bool, is_computed_twice: bool) -> ModelShape:
    """What the budget of a pass has to know of a model."""
    return ModelShape(
        layers=facts.layers,
        width=facts.hidden_size,
        is_decoder=facts.is_decoder,
        is_frozen=is_frozen,
        is_computed_twice=is_computed_twice,
    )


def _resolved(recipe: Recipe, facts: ModelFacts, amount: Amount) -> tuple[Recipe, Work]:
    """The recipe with everything derived, and the work that it is."""
    method, task = METHODS.get(recipe.method.name), TASKS.get(recipe.task)
    train_rows = recipe.data.split.train_rows(amount.rows)
    recipe = with_context(recipe.with_method(facts), facts)
    recipe = recipe.with_train(derive_training(recipe.train, recipe.method, facts, train_rows, task.defaults))
    train = recipe.train
    assert train.epochs and train.batch_size and train.max_tokens
    predicts_tokens = not task.defaults.has_new_head
    special = TEMPLATE_TOKENS if predicts_tokens else SPECIAL_TOKENS
    steps = steps_of(train_rows, train.batch_size, train.epochs, train.max_steps)
    longest_text = amount.longest_of(min(steps * train.batch_size, train_rows))
    tokens, longest = (
        min(characters / CHARACTERS_PER_TOKEN + special, train.max_tokens)
        for characters in (amount.characters, max(longest_text, amount.characters))
    )
    device = "cuda" if train.device == "cuda" or (train.device == "auto" and has_gpu()) else "cpu"
    precision = _precision(train, device, facts)
    trainable = method.trainable_parameters(recipe.method, facts)
    shape = shape_of(facts, is_frozen=not trainable, is_computed_twice=train.gradient_checkpointing)
    return recipe, Work(
        device=device,
        precision=precision,
        steps=steps,
        rows=min(steps * train.batch_size, train_rows * train.epochs),
        batch_size=train.batch_size,
        tokens_per_row=tokens,
        longest_row=longest,
        micro_batch_tokens=train.micro_batch_tokens or micro_batch_tokens(device, available_bytes(device), shape),
        predicts_tokens=predicts_tokens,
        optimizer=train.optimizer,
        has_attention_dropout=_has_dropout(train, facts) and bool(trainable),
        is_computed_twice=train.gradient_checkpointing,
        narrows_frozen=device == "cuda" and precision == "bfloat16" and train.frozen_weights == "auto",
        keeps_best=train.early_stopping is not None,
    )


def _costs(recipe: Recipe, facts: ModelFacts, work: Work, speed: Speed) -> tuple[Work, dict[str, int], float]:
    """Work that knows whether a checkpoint is written on its way, bytes by part, and seconds."""
    method, train = METHODS.get(recipe.method.name), recipe.train
    is_cached = train.trunk_cache == "auto" and not work.has_attention_dropout
    passes = 1 / max(1.0, train.epochs or 1) if is_cached else 1.0
    seconds = seconds_of(method, recipe.method, facts, work, speed, frozen_passes=passes)
    minutes = train.checkpoint_minutes
    is_due = (train.checkpoint_every or work.steps) < work.steps or (minutes is not None and seconds > 60 * minutes)
    work = dataclasses.replace(work, is_long=is_due)
    return work, memory_of(method, recipe.method, facts, work), seconds


def _precision(train: TrainConfig, device: str, facts: ModelFacts) -> str:
    """What the engine will choose; of a device it is taken that it is fast at bfloat16."""
    if train.precision != "auto":
        return train.precision
    is_fast = device == "cuda" or (facts.hidden_size >= WIDE and has_bfloat16_units())
    return "bfloat16" if is_fast else "float32"


def _has_dropout(train: TrainConfig, facts: ModelFacts) -> bool:
    if train.model_dropout is not None:
        return train.model_dropout > 0
    return any(isinstance(value := facts.config.get(key), float) and value > 0 for key in _ATTENTION_DROPOUT)
