"""Nothing in a micro-batch asks a device for a value: on CUDA each such question waits for all that was queued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_chat import write_chat_model
from tests.training import chat_harness, harness
from torch.utils._python_dispatch import TorchDispatchMode

from reglaj.data.batching import micro_batches
from reglaj.training.fit import build_step

# What gives a value, or a shape that depends on values, to the host.
ASKING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal.", "unique", "item")


class Questions(TorchDispatchMode):
    """Notes every operation that would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.seen = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        self.seen += 1
        if any(part in name for part in ASKING):
            self.asked.append(name)
        return function(*args, **(kwargs or {}))


def asked_by(assembled: Any, supervision: Any, encoded: Any) -> Questions:
    step = build_step(assembled.learner, supervision, assembled.recipe.train)
    groups = micro_batches(range(len(encoded)), encoded.rows.lengths, 100, is_padded=False)
    batches = [supervision.load(group) for group in groups]
    assert len(batches) > 2
    assembled.learner.train()
    with Questions() as questions:
        step.accumulate(batches)
    assert questions.seen > 100
    return questions


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_classifier_asks_nothing(tiny_model: Any, method: str, weights: str) -> None:
    assembled = harness.learner_for(tiny_model("bert"), method, class_weights=weights, model_dropout=0.1)
    assert asked_by(assembled, *harness.supervise(assembled, harness.some_rows(24))).asked == []


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_decoder_asks_nothing(tmp_path: Path, family: str) -> None:
    folder = write_chat_model(tmp_path, family)
    assembled = chat_harness.learner_for(folder, "lora")
    rows = chat_harness.Rows()
    assert asked_by(assembled, *chat_harness.supervise(assembled, rows)).asked == []


def test_a_question_is_heard() -> None:
    with Questions() as questions:
        torch.ones(1).item()
    assert questions.asked
