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
from reglaj.pipelines.data import with_context
from reglaj.tasks import TASKS
from reglaj.training.budget import FLOAT_BYTES, ModelShape, machine_memory_bytes, micro_batch_tokens
from reglaj.training.defaults import derive_training

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts
    from reglaj.pipelines.recipe import Recipe

CPU_RATE_PER_CORE = 80e9
"""Operations a second that small matrices reach on one core of a current server."""
CUDA_RATE = 30e12
CHARACTERS_PER_TOKEN = 4.0
SPECIAL_TOKENS = 2
TEMPLATE_TOKENS = 24
"""What a chat template puts around a question and its answer: roles, markers, a short system prompt."""
SUPERVISED_SHARE = 0.5
"""Of a conversation's tokens, those of the answers; before the data is read nobody knows it better."""
PROCESS_BYTES = 700_000_000
"""Python with torch and transformers, before any model."""
SCORES_BYTES = 100_000_000
"""The scores of one chunk of supervised positions, with what is made of them."""


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
    train_rows = recipe.data.split.train_rows(amount.rows)
    defaults = TASKS.get(recipe.task).defaults
    recipe = with_context(recipe.with_method(facts), facts)
    train = recipe.with_train(derive_training(recipe.train, method, facts, train_rows, defaults)).train
    assert train.epochs and train.batch_size and train.max_tokens
    predicts_tokens = not defaults.has_new_head
    special = TEMPLATE_TOKENS if predicts_tokens else SPECIAL_TOKENS
    tokens_per_row = min(amount.characters / CHARACTERS_PER_TOKEN + special, train.max_tokens)
    steps = math.ceil(train_rows / train.batch_size) * train.epochs
    steps = min(steps, train.max_steps or steps)
    tokens = min(steps * train.batch_size, train_rows * train.epochs) * tokens_per_row

    device = "cuda" if train.device == "cuda" or (train.device == "auto" and _has_gpu()) else "cpu"
    rate = CUDA_RATE if device == "cuda" else CPU_RATE_PER_CORE * _cores()
    trainable = method.trainable_parameters(recipe.method, facts)
    shape = shape_of(facts, is_frozen=not trainable, is_computed_twice=train.gradient_checkpointing)
    # Of a device nothing is known here but that it is there.
    most = micro_batch_tokens(device, machine_memory_bytes() if device == "cpu" else 0, shape)
    micro_batch = min(train.micro_batch_tokens or most, train.batch_size * tokens_per_row)
    operations = tokens * _operations_per_token(facts, trainable, train.gradient_checkpointing)
    if predicts_tokens:
        trains_matrix = trainable >= facts.parameters
        operations += tokens * SUPERVISED_SHARE * _operations_per_prediction(facts, trains_matrix)
    memory = {
        "weights": facts.parameters * FLOAT_BYTES,
        "gradients_and_optimizer": trainable * 3 * FLOAT_BYTES,
        "activations": int(micro_batch * shape.bytes_per_token) + SCORES_BYTES * predicts_tokens,
        "checkpoints": trainable * 3 * FLOAT_BYTES,  # a copy, while the second thread writes it
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


def shape_of(facts: ModelFacts, *, is_frozen: bool, is_computed_twice: bool) -> ModelShape:
    """What the budget of a pass has to know of a model."""
    return ModelShape(
        layers=facts.layers,
        width=facts.hidden_size,
        is_decoder=facts.is_decoder,
        is_frozen=is_frozen,
        is_computed_twice=is_computed_twice,
    )


def _operations_per_token(facts: ModelFacts, trainable: int, is_computed_twice: bool) -> int:
    """Of the trunk: forward, and backward through what is trained."""
    matrices = sum(rows * columns for rows, columns in facts.linear_modules().values())
    passes = (1 + is_computed_twice + 1) if trainable else 1
    return 2 * matrices * passes + 2 * min(trainable, matrices)


def _operations_per_prediction(facts: ModelFacts, trains_matrix: bool) -> int:
    """Of the output matrix, for one supervised token: scores and their gradient; where the matrix itself learns, its
    own gradient too, and the scores once more.
    """
    vocabulary = facts.config.get("vocab_size")
    matrix = facts.hidden_size * (vocabulary if isinstance(vocabulary, int) else 0)
    return matrix * (8 if trains_matrix else 4)


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _has_gpu() -> bool:
    """Whether a driver is there; asking torch would cost seconds."""
    return Path("/dev/nvidia0").exists()
