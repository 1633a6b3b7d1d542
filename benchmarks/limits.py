"""How long the useful matrix products of a piece of training take at least: measured on the same shapes, here and now.

Legend: T tokens of a micro-batch, P learnt positions of it, K inner and N outer width of a product, R rank.

What counts as useful: the forward product of every linear layer; its gradient by the input wherever a trained layer
lies below; the products of LoRA, or the gradient of a trained weight; the vocabulary projection and its gradient at
learnt positions. What does not: attention (its operations are noted beside), padding, anything done twice.
The rate of each kind of product is the best of several tries with torch's own `matmul`, in float32, with the threads of
the run: the limit is what the machine can do, not what it does under load.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from reglaj.models.inspect import ModelFacts

TRIES = 5
READS_TRUNK_INPUT = ("q_proj", "k_proj", "v_proj", "query", "key", "value")
"""Layers that read a block's input: under the lowest trained one of them nothing wants a gradient."""

Kind = Literal["forward", "by input", "by weight"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What learns: a LoRA of this rank on these endings of module names (empty: all linear layers), or all weights."""

    rank: int | None = None
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Product:
    """(rows, K) times (K, N). `by weight` is transposed on the left: (K, rows) times (rows, N)."""

    kind: Kind
    inner: int
    outer: int
    site: Literal["trunk", "vocabulary"] = "trunk"


def products(facts: ModelFacts, trained: Trained, *, has_vocabulary: bool) -> Counter[Product]:
    """Every useful product of one micro-batch, with how often it is done."""
    modules = {name: shape for name, shape in facts.linear_modules().items() if _layer(name) is not None}
    adapted = {name for name in modules if _is_target(name, trained)} if trained.rank else set()
    lowest = min((_layer(name) or 0 for name in adapted), default=-1)
    found: Counter[Product] = Counter()
    for name, (outer, inner) in modules.items():
        layer = _layer(name) or 0
        wants_input = layer > lowest or (layer == lowest and not name.endswith(READS_TRUNK_INPUT))
        found[Product("forward", inner, outer)] += 1
        found[Product("by input", outer, inner)] += wants_input
        if trained.rank is None:
            found[Product("by weight", inner, outer)] += 1
        elif name in adapted:
            found.update(_of_lora(inner, outer, trained.rank, wants_input))
    if has_vocabulary:
        vocabulary = int(facts.config["vocab_size"])
        found[Product("forward", facts.hidden_size, vocabulary, "vocabulary")] += 1
        found[Product("by input", vocabulary, facts.hidden_size, "vocabulary")] += 1
    return +found


def _of_lora(inner: int, outer: int, rank: int, wants_input: bool) -> list[Product]:
    """x A and (x A) B forward; the gradients of B, of x A, of A, and of x where anything below learns."""
    every = [
        Product("forward", inner, rank),
        Product("forward", rank, outer),
        Product("by weight", rank, outer),
        Product("by input", outer, rank),
        Product("by weight", inner, rank),
    ]
    return [*every, Product("by input", rank, inner)] if wants_input else every


def measured_limit(
    facts: ModelFacts, trained: Trained, micro_batches: Sequence[tuple[int, int, Sequence[int]]]
) -> dict[str, Any]:
    """Seconds that the useful products of these micro-batches take at the measured rates, and the parts of the sum.

    micro_batches: of each, its tokens, its learnt positions (0 where there is no vocabulary) and its rows' lengths.
    """
    tokens = sum(T for T, _, _ in micro_batches)
    positions = sum(P for _, P, _ in micro_batches)
    typical = {
        "trunk": sorted(T for T, _, _ in micro_batches)[len(micro_batches) // 2],
        "vocabulary": sorted(P for _, P, _ in micro_batches)[len(micro_batches) // 2],
    }
    total = {"trunk": tokens, "vocabulary": positions}
    seconds = operations = 0.0
    for product, count in products(facts, trained, has_vocabulary=positions > 0).items():
        work = 2.0 * product.inner * product.outer * total[product.site] * count
        operations += work
        seconds += work / _rate(product, typical[product.site])
    attention = _attention_operations(facts, [length for _, _, lengths in micro_batches for length in lengths])
    rate = operations / seconds
    return {
        "seconds": seconds,
        "operations": operations,
        "operations_per_second": rate,
        "micro_batch_tokens": typical["trunk"],
        "seconds_with_attention": seconds + attention / rate,
    }


def _rate(product: Product, rows: int) -> float:
    """Operations per second of one product on so many rows, at best."""
    left = torch.randn(rows, product.inner)
    if product.kind == "by weight":
        right = torch.randn(rows, product.outer)
        multiply = lambda: left.T @ right  # noqa: E731
    elif product.kind == "forward":  # weights lie as (N, K)
        weight = torch.randn(product.outer, product.inner)
        multiply = lambda: left @ weight.T  # noqa: E731
    else:
        weight = torch.randn(product.inner, product.outer)
        multiply = lambda: left @ weight  # noqa: E731
    multiply()
    best = float("inf")
    for _ in range(TRIES):
        started = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - started)
    return 2.0 * rows * product.inner * product.outer / best


def _attention_operations(facts: ModelFacts, lengths: Sequence[int]) -> float:
    """Q K^T and the weighted sum of V, once forward and twice backward; a decoder needs half of each square."""
    half = 0.5 if facts.is_decoder else 1.0
    return sum(3 * 4.0 * length**2 * facts.hidden_size * half for length in lengths) * facts.layers


def _layer(name: str) -> int | None:
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _is_target(name: str, trained: Trained) -> bool:
    return not trained.targets or any(name.endswith(f".{target}") for target in trained.targets)
