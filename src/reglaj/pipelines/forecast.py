"""How much memory and time a training will take, roughly: told from names, shapes and file sizes, measuring nothing.

The arithmetic is the usual one (Kaplan et al. 2020, arXiv:2001.08361, section 2.1): a forward pass costs 2
operations per matrix parameter and token, the gradient of the activations another 2, the gradient of each trained
weight 2 more. The rate of the machine is assumed, not measured, so a factor of two either way is no surprise.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.methods import METHODS
from reglaj.tasks import TASKS
from reglaj.training.defaults import derive_training

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts
    from reglaj.pipelines.recipe import Recipe

CPU_RATE_PER_CORE = 80e9
"""Operations a second that small matrices reach on one core of a current server."""
CUDA_RATE = 30e12
CHARACTERS_PER_TOKEN = 4.0
SPECIAL_TOKENS = 2
MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}
PROCESS_BYTES = 700_000_000
"""Python with torch and transformers, before any model."""
ACTIVATIONS_PER_LAYER = 16
"""Values of the model's width that a transformer layer keeps per token for its backward pass (with fused attention)."""
FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much text there is. Where a file was only begun, the rows are told from its size."""

    rows: int
    is_exact: bool
    characters: float
    """Mean length of a text."""


def forecast(recipe: Recipe, facts: ModelFacts, amount: Amount) -> dict[str, Any]:
    """Rough figures for the training alone, without download, baselines and report."""
    method = METHODS.get(recipe.method.name)
    train_rows = max(1, round(amount.rows * recipe.data.split.train))
    defaults = TASKS.get(recipe.task).defaults
    train = recipe.with_train(derive_training(recipe.train, method, facts, train_rows, defaults)).train
    assert train.epochs and train.batch_size and train.max_tokens
    tokens_per_row = min(amount.characters / CHARACTERS_PER_TOKEN + SPECIAL_TOKENS, train.max_tokens)
    steps = math.ceil(train_rows / train.batch_size) * train.epochs
    steps = min(steps, train.max_steps or steps)
    tokens = min(steps * train.batch_size, train_rows * train.epochs) * tokens_per_row

    trainable = method.trainable_parameters(recipe.method, facts)
    matrices = sum(rows * columns for rows, columns in facts.linear_modules().values())
    trained_matrices = min(trainable, matrices)
    has_backward = trainable > 0
    operations = tokens * (2 * matrices + 2 * matrices * has_backward + 2 * trained_matrices)

    device = "cuda" if recipe.train.device == "cuda" or (recipe.train.device == "auto" and _has_gpu()) else "cpu"
    rate = CUDA_RATE if device == "cuda" else CPU_RATE_PER_CORE * _cores()
    micro_batch = min(train.micro_batch_tokens or MICRO_BATCH_TOKENS[device], train.batch_size * tokens_per_row)
    # A frozen trunk keeps nothing for a backward pass but what one layer needs at a time.
    layers = facts.layers if has_backward else 1
    memory = {
        "weights": facts.parameters * FLOAT_BYTES,
        "gradients_and_optimizer": trainable * 3 * FLOAT_BYTES,
        "activations": int(micro_batch * layers * ACTIVATIONS_PER_LAYER * facts.hidden_size * FLOAT_BYTES),
        "process": PROCESS_BYTES,
    }
    return {
        "is_rough": True,
        "rows": amount.rows,
        "rows_are_exact": amount.is_exact,
        "train_rows": train_rows,
        "epochs": train.epochs,
        "steps": steps,
        "tokens": round(tokens),
        "device": device,
        "memory_bytes": sum(memory.values()),
        "memory": memory,
        "train_seconds": round(operations / rate, 1),
        "assumes": f"{rate / 1e9:,.0f} billion operations a second, {CHARACTERS_PER_TOKEN:g} characters a token,"
        " all epochs; without baselines and report",
    }


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _has_gpu() -> bool:
    """Whether a driver is there; asking torch would cost seconds."""
    return Path("/dev/nvidia0").exists()
