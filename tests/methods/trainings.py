"""A training of any method on tiny rows, driven by hand: an encoder that classifies, a decoder that chats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.settings import ENCODER, section
from tests.training import chat_harness, harness
from torch import Tensor

from reglaj.data.batching import micro_batches
from reglaj.methods import METHODS
from reglaj.training.fit import build_step
from reglaj.training.trunk_cache import attach_states

ROWS = 12


class Training:
    """A learner with tiny rows: an encoder that classifies, a decoder that chats."""

    def __init__(self, case: str, family: str, folder: Path, count: int = ROWS, **train: Any) -> None:
        settings = {"precision": "float32", "batch_size": 8, "max_tokens": 56 if family == ENCODER else 200, **train}
        tests: Any = harness if family == ENCODER else chat_harness
        rows = harness.some_rows(count) if family == ENCODER else chat_harness.Rows(count)
        self.assembled = tests.learner_for(folder, section(case), **settings)
        self.learner, self.config = self.assembled.learner, self.assembled.recipe.train
        self.supervision, self.encoded = harness.supervise(self.assembled, rows)

    def batches(self, rows: Any, budget: int) -> list[Any]:
        """Those rows in micro-batches of so many tokens."""
        is_padded = self.learner.engine.is_padded
        groups = micro_batches(list(rows), self.encoded.rows.lengths, budget, is_padded=is_padded)
        return [self.supervision.load(group) for group in groups]

    def keep_states(self, runs: Path) -> None:
        """Run the frozen layers now, and never again."""
        task, parts = self.assembled.task, (self.encoded.rows, self.encoded.rows)
        rows, _ = attach_states(self.learner, parts, self.config.model_copy(update={"epochs": 20}), runs)
        assert rows.states is not None, self.learner.engine.trunk_cache
        encoded = self.encoded = replace(self.encoded, rows=rows)
        self.supervision = replace(
            self.supervision, rows=rows, load=lambda numbers: task.batch(encoded, numbers, "cpu")
        )

    def stir(self) -> None:
        """Move everything off its start, where a factor of zero hides the other one's gradient."""
        chance = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.learner.named_parameters().values():
                parameter += torch.randn(parameter.shape, generator=chance) * 0.02

    def take(self, layout: Any, attention: Any, *, is_fused: bool) -> None:
        """Let the learner run so."""
        self.learner.engine = replace(
            self.learner.engine,
            layout=layout,
            layout_reason="",
            attention=attention,
            operations="fused" if is_fused else "plain",
        )

    def gradients(self, budget: int) -> tuple[float, dict[str, Tensor]]:
        """Of one step over all rows: the loss, and the gradient of everything that learns."""
        for parameter in self.learner.named_parameters().values():
            parameter.grad = None
        step = build_step(self.learner, self.supervision, self.config)
        self.learner.train()
        loss = step.accumulate(self.batches(range(ROWS), budget)).item()
        return loss, {key: p.grad.clone() for key, p in self.learner.named_parameters().items() if p.grad is not None}


def trains(case: str, family: str, subject: Any) -> Path:
    """The model's folder, where the method learns something there; else the test is not for it."""
    here = subject(family)
    if here.problems(case):
        pytest.skip(f"{case} refuses {family}")
    method = METHODS.get(section(case)["name"])
    if family != ENCODER and not method.trainable_parameters(method.config_type(**section(case)), here.facts):
        pytest.skip(f"{case} trains a new head only, and there is none")
    return here.folder


class Planted(Exception):
    """What a test does to a training; nothing in the product knows it."""


def same_end(ours: Any, theirs: Any, before: dict[str, Tensor]) -> None:
    """Two learners ended bitwise alike, and elsewhere than they began."""
    found, expected = theirs.trained(), ours.trained()
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)
    assert any(not torch.equal(found[key], before[key]) for key in found), "something was learnt"
    for key, tensor in theirs.handle.state().items():
        assert torch.equal(tensor, ours.handle.state()[key]), key
