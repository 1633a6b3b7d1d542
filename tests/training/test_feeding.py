"""A step's data made ready by a second thread is the step's data, also where memory does not suffice."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from tests.training.harness import learner_for, some_rows, supervise

from reglaj.core.console import SILENT
from reglaj.core.errors import EnvironmentFault
from reglaj.training.feeding import Feeding
from reglaj.training.fit import plan_for

STEPS = 6


@pytest.fixture
def parts(tiny_model: Any) -> Any:
    assembled = learner_for(tiny_model("bert"), batch_size=8, epochs=2, micro_batch_tokens=64)
    supervision, encoded = supervise(assembled, some_rows(24))
    return assembled.learner, supervision, plan_for(assembled.recipe.train, encoded.rows)


def feeding(parts: Any, load: Any = None, *, is_ahead: bool = True) -> Feeding[Any]:
    learner, supervision, plan = parts
    assert plan.total_steps == STEPS
    return Feeding(plan, learner, load or supervision.load, SILENT, is_ahead=is_ahead)


def ids(batches: list[Any]) -> list[list[int]]:
    return [batch.tokens.input_ids.tolist() for batch in batches]


def tokens(batches: list[Any]) -> list[int]:
    return sorted(token for batch in ids(batches) for token in batch)


def test_the_next_step_is_made_by_another_thread_and_is_the_same(parts: Any) -> None:
    _, supervision, _ = parts
    makers: list[str] = []

    def load(rows: list[int]) -> Any:
        makers.append(threading.current_thread().name)
        return supervision.load(rows)

    ahead, plain = feeding(parts, load), feeding(parts, is_ahead=False)
    for number in range(1, STEPS + 1):
        assert ids(ahead.batches(number)) == ids(plain.batches(number))
    ahead.close()
    main = threading.current_thread().name
    assert makers[0] == main and makers[-1] != main
    assert makers.count(main) < len(makers) / 3, "only the first step has to wait"


def test_smaller_micro_batches_forget_what_was_made_ready(parts: Any) -> None:
    learner, _, _ = parts
    ahead = feeding(parts)
    first = ahead.batches(1)
    halved = ahead.again()
    assert len(halved) > len(first) and tokens(halved) == tokens(first)
    assert learner.engine.halved_at == (1,)
    assert ids(ahead.batches(2)) == ids(feeding(parts, is_ahead=False).batches(2))
    ahead.close()


def test_a_single_row_cannot_be_cut(parts: Any) -> None:
    one = feeding(parts, is_ahead=False)
    one.batches(1)
    with pytest.raises(EnvironmentFault, match="single row"):
        for _ in range(10):
            one.again()


def test_what_fails_ahead_fails_at_its_step(parts: Any) -> None:
    _, supervision, plan = parts

    def load(rows: list[int]) -> Any:
        if set(rows) & set(plan.rows(2)):
            raise RuntimeError("a row of step 2")
        return supervision.load(rows)

    ahead = feeding(parts, load)
    assert ahead.batches(1)
    with pytest.raises(RuntimeError, match="step 2"):
        ahead.batches(2)
    ahead.close()


def test_no_room_beside_the_step_before_is_tried_again(parts: Any) -> None:
    _, supervision, _ = parts
    main = threading.current_thread().name

    def load(rows: list[int]) -> Any:
        if threading.current_thread().name != main:
            raise torch.OutOfMemoryError("no room for it yet")
        return supervision.load(rows)

    ahead, plain = feeding(parts, load), feeding(parts, is_ahead=False)
    for number in (1, 2, 3):
        assert ids(ahead.batches(number)) == ids(plain.batches(number))
    ahead.close()
