"""A step's rows as micro-batches that fit into memory; on a device those of the next step are made ready meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Generic, TypeVar

import torch

from reglaj.core.console import Console
from reglaj.core.errors import is_out_of_memory
from reglaj.data.batching import BatchPlan, micro_batches
from reglaj.training.learner import Learner
from reglaj.training.memory import nothing_smaller, release_memory, smaller_budget

B = TypeVar("B")


class Feeding(Generic[B]):
    """What this process has to do in each step.

    load: row numbers to a micro-batch; it draws nothing at random, for with `is_ahead` a second thread calls it for the
    next step while a device works on this one. (A processor's cores are all at work on the step itself.)
    """

    def __init__(
        self, plan: BatchPlan, learner: Learner, load: Callable[[list[int]], B], console: Console, *, is_ahead: bool
    ) -> None:
        self._plan, self._learner, self._load, self._console = plan, learner, load, console
        self._thread = _thread() if is_ahead else None
        self._begun: tuple[int, Future[list[B]]] | None = None
        self._number = 0
        self._groups: list[list[int]] = []

    def batches(self, number: int) -> list[B]:
        """This process's share of a step's rows, in micro-batches."""
        self._number, self._groups = number, self._cut(number)
        begun, self._begun = self._begun, None
        batches = self._begun_before(begun[1]) if begun is not None and begun[0] == number else self._made(self._groups)
        if self._thread is not None and number < self._plan.total_steps:
            self._begun = number + 1, self._thread.submit(self._made, self._cut(number + 1))
        return batches

    def _begun_before(self, future: Future[list[B]]) -> list[B]:
        try:
            return future.result()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release_memory()  # there was no room beside the step before; now there is
        return self._made(self._groups)

    def again(self) -> list[B]:
        """The same rows in micro-batches of half the size, from here on. Raises `EnvironmentFault` for a single row."""
        lengths, engine = self._plan.lengths, self._learner.engine
        costs = self._learner.costs(lengths).tolist()
        budget = smaller_budget(self._groups, costs, is_padded=engine.is_padded)
        if budget is None:
            longest = max(int(lengths[row]) for group in self._groups for row in group)
            raise nothing_smaller(longest, where=f"step {self._number}")
        self._halve(budget, "out of memory")
        self._groups = self._cut(self._number)
        return self._made(self._groups)

    def agree(self) -> None:
        """What did not fit in one process is halved in all: what evaluation shares out must be cut alike."""
        engine = self._learner.engine
        smallest = -int(self._learner.ranks.most([-float(engine.micro_batch_tokens)])[0])
        if smallest < engine.micro_batch_tokens:
            self._halve(smallest, "out of memory elsewhere")

    def close(self) -> None:
        """Nothing more is asked for."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _halve(self, budget: int, why: str) -> None:
        engine = self._learner.engine
        halved = (*engine.halved_at, self._number)
        self._learner.engine = replace(engine, micro_batch_tokens=budget, halved_at=halved)
        self._begun = None  # what was made ready is cut as before
        self._console.warn(f"{why} at step {self._number}: micro-batches of {budget:,} tokens from here on")

    def _cut(self, number: int) -> list[list[int]]:
        lengths, engine = self._plan.lengths, self._learner.engine
        # Long and short rows in turn, so that processes have about the same work.
        rows = sorted(self._plan.rows(number), key=lambda row: (-int(lengths[row]), row))
        mine = self._learner.ranks.share(rows)
        costs = self._learner.costs(lengths)
        return micro_batches(mine, costs, engine.micro_batch_tokens, is_padded=engine.is_padded)

    def _made(self, groups: list[list[int]]) -> list[B]:
        return [self._load(group) for group in groups]


def _thread() -> ThreadPoolExecutor:
    """A thread on the same CUDA device as this one: a new thread would be on the first."""
    if not torch.cuda.is_available():
        return ThreadPoolExecutor(1, thread_name_prefix="data")
    device = torch.cuda.current_device()
    return ThreadPoolExecutor(1, thread_name_prefix="data", initializer=torch.cuda.set_device, initargs=(device,))
