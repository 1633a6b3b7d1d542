"""The forecast is rough, but its parts move the right way, and memory is of the size that was counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_chat import write_chat_model

from reglaj.models.inspect import inspect_model
from reglaj.models.packing import TokenBatch
from reglaj.pipelines.assemble import assemble
from reglaj.pipelines.forecast import FLOAT_BYTES, Amount, forecast
from reglaj.pipelines.recipe import load_recipe
from reglaj.tasks.chat import Chat


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_model(tmp_path_factory.mktemp("llama"))


def recipe_for(folder: Path, method: str = "lora", **train: Any) -> Any:
    return load_recipe(
        {
            "task": "chat",
            "model": str(folder),
            "data": {"sources": [{"path": "none.jsonl"}]},
            "method": {"name": "lora", "rank": 8} if method == "lora" else method,
            "train": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "device": "cpu", "max_tokens": 256, **train},
        }
    )


def forecast_for(folder: Path, method: str = "lora", rows: int = 1000, **train: Any) -> dict[str, Any]:
    facts = inspect_model(str(folder), folder=Path())
    return forecast(recipe_for(folder, method, **train), facts, Amount(rows=rows, is_exact=True, characters=400.0))


def test_more_work_takes_longer_and_checkpointing_trades_memory_for_time(folder: Path) -> None:
    lora, full = forecast_for(folder, rows=10**6), forecast_for(folder, "full", rows=10**6)
    sparing = forecast_for(folder, rows=10**6, gradient_checkpointing=True)
    assert lora["train_seconds"] < full["train_seconds"] and lora["memory_bytes"] < full["memory_bytes"]
    assert lora["train_seconds"] < sparing["train_seconds"] and lora["memory_bytes"] > sparing["memory_bytes"]
    assert forecast_for(folder, rows=2 * 10**6)["train_seconds"] == pytest.approx(2 * lora["train_seconds"], rel=0.01)


def test_the_output_matrix_is_paid_for_at_answers_only(folder: Path) -> None:
    facts = inspect_model(str(folder), folder=Path())
    wider = dict(facts.config) | {"vocab_size": 10 * facts.config["vocab_size"]}
    amount = Amount(rows=10**6, is_exact=True, characters=400.0)
    plain = forecast(recipe_for(folder), facts, amount)["train_seconds"]
    more = forecast(recipe_for(folder), replace(facts, config=wider), amount)
    rate = float(more["assumes"].split()[0].replace(",", "")) * 1e9
    matrix = 9 / 10 * wider["vocab_size"] * facts.hidden_size
    assert (more["train_seconds"] - plain) * rate == pytest.approx(more["tokens"] / 2 * 4 * matrix, rel=0.01)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_memory_is_of_the_size_that_is_kept(folder: Path, method: str) -> None:
    """What autograd holds after a forward pass, counted, against the forecast: within a factor of two."""
    recipe = recipe_for(folder, method, micro_batch_tokens=200)
    assembled = assemble(recipe, inspect_model(str(folder), folder=Path()), Chat())
    assembled.learner.train()
    own = {p.untyped_storage().data_ptr() for p in assembled.learner.backbone.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = assembled.learner.hidden(TokenBatch.of([np.arange(100, 200)] * 2))
    assert states.requires_grad
    counted = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    facts = assembled.facts
    told = 22 * facts.hidden_size * facts.layers * FLOAT_BYTES * 200
    found = forecast_for(folder, method, micro_batch_tokens=200)["memory"]["activations"]
    assert told <= found <= told + 200_000_000, "22 values of the width, and the scores of a chunk"
    assert 0.5 < counted / told < 2
