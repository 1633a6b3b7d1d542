"""How long a training takes, told from names and shapes and the speed of the machine.

The arithmetic is the usual one (Kaplan et al. 2020, arXiv:2001.08361, section 2.1): a forward pass costs 2 operations
per matrix parameter and token, the gradient of the activations another 2, the gradient of each trained weight 2 more.
What is not a product of matrices goes by the values that it passes through memory, and each layer of each pass costs a
moment by itself: small models are mostly these two.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from reglaj.methods.base import Method
from reglaj.methods.config import MethodConfig
from reglaj.pipelines.machine_speed import Speed
from reglaj.pipelines.memory_cost import Work, frozen_linear, values_per_layer

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts

SUPERVISED_SHARE = 0.5
"""Of a conversation's tokens, those of the answers; before the data is read nobody knows it better."""
MOVE_S = {"adamw": 3e-9, "adamw-8bit": 11e-9}
"""Seconds of one core to norm, clip and move one value that learns; a GPU takes next to nothing."""
ATTENTION = 2.0
"""Products of attention are small: so much slower a piece than those of the layers."""


def seconds_of(
    method: type[Method[MethodConfig]],
    config: MethodConfig,
    facts: ModelFacts,
    work: Work,
    speed: Speed,
    *,
    frozen_passes: float = 1.0,
) -> float:
    """Of the training alone, without evaluations and checkpoints.

    frozen_passes: how often the layers below the lowest trained one are run, as a share of the passes of the others.
    """
    tokens = work.rows * (work.tokens_per_row + method.virtual_tokens(config, facts))
    below = method.lowest_trained_layer(config, facts) / max(1, facts.layers)
    above = 1.0 - below
    learns = bool(method.trainable_parameters(config, facts))
    # Passes of the layers above: forward, once more where nothing was kept, and backward.
    passes = above * (1 + (1 + work.is_computed_twice) * learns) + below * frozen_passes
    operations = tokens * (passes * _forward(facts, work) + _of_what_learns(method, config, facts))
    operations += work.rows * work.tokens_per_row * _predictions(method, config, facts, work)
    values = tokens * facts.layers * passes * values_per_layer(facts, work) / 2
    values += tokens * method.kept_values(config, facts)
    micro_batches = max(work.steps, tokens / max(1.0, work.micro_batch_tokens))
    moved = work.steps * method.trainable_parameters(config, facts) * MOVE_S[work.optimizer] / speed.cores
    return (
        operations / speed.operations
        + values / speed.values
        + micro_batches * facts.layers * passes * speed.per_layer_s
        + (moved if work.device == "cpu" else 0.0)
    )


def _forward(facts: ModelFacts, work: Work) -> float:
    """Operations of one token through all layers."""
    matrices = sum(rows * columns for rows, columns in facts.linear_modules().values())
    seen = work.tokens_per_row / (2 if facts.is_decoder else 1)
    return 2 * matrices + ATTENTION * 4 * seen * facts.hidden_size * facts.layers


def _of_what_learns(method: type[Method[MethodConfig]], config: MethodConfig, facts: ModelFacts) -> float:
    """Operations of one token for the gradients of the base's weights, or through what stands beside them."""
    _, learns = frozen_linear(method, config, facts)
    return 2 * learns + 3 * method.added_operations(config, facts)


def _predictions(method: type[Method[MethodConfig]], config: MethodConfig, facts: ModelFacts, work: Work) -> float:
    """Operations of the output matrix for one token of a text: of a supervised one the scores and their gradient; where
    the matrix itself learns its own gradient too, and the scores once more.
    """
    vocabulary = facts.config.get("vocab_size")
    if not work.predicts_tokens or not isinstance(vocabulary, int):
        return 0.0
    frozen, _ = frozen_linear(method, config, facts)
    learns = method.trains_base and not frozen
    return SUPERVISED_SHARE * facts.hidden_size * vocabulary * (8 if learns else 4)


def steps_of(rows: int, batch_size: int, epochs: int, most: int | None) -> int:
    """Optimizer steps of a training; the last one of an epoch may be smaller."""
    steps = math.ceil(rows / batch_size) * epochs
    return min(steps, most or steps)
