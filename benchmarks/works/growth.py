"""Does the time per token stay flat: when steps are drawn from more rows, and when rows are longer?

SmolLM2-135M, LoRA q,v r8, tokens at random, half of each row learnt. Longer rows do need more attention, so its own
time is taken off: that of `scaled_dot_product_attention`, forward and backward, measured on the same shapes in the same
turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import conversations
from benchmarks.measuring import tell
from benchmarks.sides import ours
from benchmarks.works.chat import QV
from benchmarks.works.sizes import Sizes
from reglaj.models.encoding import TokenRows
from reglaj.tasks.base import Encoded
from reglaj.tasks.chat_records import Supervised

FEW, MANY = 64, 1024
BATCH = 4
LENGTHS_OF_ROWS = (32, 40, 52, 68, 88, 116, 160, 256)
"""The distribution of the first part, skewed as conversations are; every eighth row is of each."""
ROW_LENGTHS = (128, 512, 2048)
STEP_TOKENS = 2048
LENGTH_STEPS = 2
TRIES = 5


def growth(sizes: Sizes, repeats: int, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Turns of both parts; `keep` is called after each with the figures so far, which are returned at the end."""
    part: dict[str, Any] = {"sides": {}, "growth": {"rows": [], "length": []}}
    tell("  growth: warm-up")
    _seconds_a_token(_rows([LENGTHS_OF_ROWS[0]] * BATCH), BATCH, 1)
    for number in range(repeats):
        tell(f"  growth, turn {number + 1}")
        drawn = {}
        for rows in (FEW, MANY) if number % 2 == 0 else (MANY, FEW):
            data = _rows([LENGTHS_OF_ROWS[row % len(LENGTHS_OF_ROWS)] for row in range(rows)])
            drawn[rows] = _seconds_a_token(data, BATCH, sizes.growth_steps)
            _note(part, f"{sizes.growth_steps} steps drawn from {rows:,} rows", drawn[rows])
        part["growth"]["rows"].append(drawn[MANY] / drawn[FEW])
        long = {}
        for length in ROW_LENGTHS if number % 2 == 0 else ROW_LENGTHS[::-1]:
            rows = STEP_TOKENS // length
            whole = _seconds_a_token(_rows([length] * rows * LENGTH_STEPS), rows, LENGTH_STEPS)
            attention = _attention_seconds(length) / length
            long[length] = whole - attention
            _note(part, f"rows of {length:,} tokens", whole, attention)
        part["growth"]["length"].append(max(long.values()) / min(long.values()))
        keep(part)
    return part


def _rows(lengths: list[int]) -> Encoded:
    """Rows of these lengths, tokens at random, the second half of each learnt."""
    generator = np.random.default_rng(0)
    vocabulary = int(conversations.facts().config["vocab_size"])
    rows = TokenRows.of([generator.integers(100, vocabulary, size=length).tolist() for length in lengths])
    flags = np.concatenate([np.arange(length) >= length // 2 for length in lengths])
    places = [f"row {number}" for number in range(len(lengths))]
    return Encoded(places=places, rows=rows, targets=Supervised(flags=flags, owners=np.arange(len(lengths))), cut=0)


def _seconds_a_token(data: Encoded, batch: int, steps: int) -> float:
    """Seconds of all steps by `fit`, through the tokens that they held."""
    epochs = -(-steps * batch // len(data.places))
    work = replace(QV, batch=batch, epochs=epochs)
    tokens = _tokens(data, work, steps)
    return ours.train(work.build(steps, max_tokens=STEP_TOKENS), data).region.seconds / tokens


def _tokens(data: Encoded, work: conversations.ChatWork, steps: int) -> int:
    return sum(int(data.rows.lengths[rows].sum()) for rows in conversations.order(work, data, steps))


def _attention_seconds(length: int) -> float:
    """Of one row in all layers, forward and backward; the median of some tries."""
    config, layers = conversations.facts().config, conversations.facts().layers
    heads = int(config["num_attention_heads"])
    shape = (1, heads, length, conversations.facts().hidden_size // heads)
    query, key, value = (torch.randn(shape, requires_grad=True) for _ in range(3))
    upstream = torch.randn(shape)
    taken = []
    for _ in range(TRIES):
        started = time.perf_counter()
        scaled_dot_product_attention(query, key, value, is_causal=True).backward(upstream)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:]) * layers


def _note(part: dict[str, Any], name: str, seconds: float, attention: float | None = None) -> None:
    side = part["sides"].setdefault(name, {"microseconds_a_token": []})
    side["microseconds_a_token"].append(round(seconds * 1e6, 1))
    if attention is not None:
        side.setdefault("attention_microseconds_a_token", []).append(round(attention * 1e6, 1))
