"""Which rows make a step, and how a step is cut into micro-batches.

The plan depends on the number of rows (and on their labels, where these are to come equally often), the batch size and
(seed, epoch), on nothing else: neither on hardware, nor on how many processes share a step, nor on the rows' lengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reglaj.core.seeding import derive_seed


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The steps of a training. lengths: tokens of each row.

    labels: (N,) class of each row, where they are to come equally often; None takes every row once an epoch.
    """

    lengths: np.ndarray[Any, np.dtype[np.int64]]
    batch_size: int
    epochs: int
    max_steps: int | None
    seed: int
    labels: np.ndarray[Any, np.dtype[np.int64]] | None = None
    _orders: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may have fewer rows than the others."""
        return math.ceil(len(self.lengths) / self.batch_size)

    @property
    def total_steps(self) -> int:
        steps = self.steps_per_epoch * self.epochs
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def steps(self, epoch: int) -> Iterator[list[int]]:
        """Row numbers of each step of an epoch; a pure function of (seed, epoch)."""
        order = self._order(epoch)
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size].tolist()

    def rows(self, step: int) -> list[int]:
        """Row numbers of one step, counted from 1."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        start = place * self.batch_size
        numbers: list[int] = self._order(epoch)[start : start + self.batch_size].tolist()
        return numbers

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The rows in the order of an epoch; a pure function of (seed, epoch)."""
        # The last one is kept: every step of an epoch asks for the same.
        if self._orders.get("epoch") != epoch:
            generator = np.random.default_rng(derive_seed(self.seed, "epoch", epoch))
            if self.labels is None:
                self._orders.update(epoch=epoch, order=generator.permutation(len(self.lengths)))
            else:
                self._orders.update(epoch=epoch, order=balanced_order(self.labels, generator))
        order: np.ndarray[Any, np.dtype[np.int64]] = self._orders["order"]
        return order

    def tokens(self, rows: Sequence[int]) -> int:
        """Tokens of these rows together."""
        return int(self.lengths[list(rows)].sum())


def balanced_order(
    labels: np.ndarray[Any, np.dtype[np.int64]], generator: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(N,) row numbers at random, as many as there are labels (N,), in which the labels come equally often, up to one.

    Of a label with more rows than its share some are drawn; of one with fewer, each comes as often as any other of
    its label, up to one.
    """
    classes, places = np.unique(labels, return_inverse=True)
    shares = np.full(len(classes), len(labels) // len(classes))
    # Who gets the rows that are left over is drawn anew each time, so that no label is ahead in the long run.
    shares[generator.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    drawn = []
    for number, share in enumerate(shares.tolist()):
        rows = np.flatnonzero(places == number)
        rounds, rest = divmod(share, len(rows))
        drawn += [np.repeat(rows, rounds), generator.permutation(rows)[:rest]]
    return np.asarray(generator.permutation(np.concatenate(drawn)))


def micro_batches(
    rows: Sequence[int], lengths: np.ndarray[Any, np.dtype[np.int64]], budget: int, *, is_padded: bool = True
) -> list[list[int]]:
    """Cut rows into groups of similar length that keep the token budget.

    is_padded: a group costs rows x longest, as where attention needs a grid; otherwise the sum of its tokens.
    A row longer than the budget is a group of its own. Longest first, so that memory peaks at the beginning.
    """
    groups: list[list[int]] = []
    longest = used = 0
    for row in sorted(rows, key=lambda row: (-int(lengths[row]), row)):
        length = int(lengths[row])
        cost = longest * (len(groups[-1]) + 1) if groups and is_padded else used + length
        if groups and cost <= budget:
            groups[-1].append(row)
            used += length
        else:
            groups.append([row])
            longest = used = length
    return groups
