"""The forecast moves with what costs, and what waits for the backward pass is of the size that is counted.

Against whole trainings it is held by `benchmarks/forecasts.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny_chat import write_chat_model

from reglaj.methods import METHODS
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.models.packing import TokenBatch
from reglaj.pipelines import forecast as forecasts
from reglaj.pipelines.assemble import assemble
from reglaj.pipelines.forecast import Amount, forecast, what_would_fit
from reglaj.pipelines.machine_speed import assumed_speed, measured_speed
from reglaj.pipelines.memory_cost import ALLOCATOR
from reglaj.pipelines.recipe import load_recipe
from reglaj.tasks.chat import Chat
from reglaj.training.budget import FLOAT_BYTES

AMOUNT = Amount(rows=1000, is_exact=True, characters=400.0)
MUCH = replace(AMOUNT, rows=10**6)
SETTINGS: dict[str, dict[str, Any]] = {"lora": {"rank": 8}, "prompt": {"num_virtual_tokens": 4}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def facts(folder: Path) -> ModelFacts:
    return inspect_model(str(folder), folder=Path())


def recipe_for(folder: Path, method: str = "lora", **train: Any) -> Any:
    return load_recipe(
        {
            "task": "chat",
            "model": str(folder),
            "data": {"sources": [{"path": "none.jsonl"}]},
            "method": {"name": method, **SETTINGS.get(method, {})},
            "train": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "device": "cpu", "max_tokens": 256, **train},
        }
    )


def wide(facts: ModelFacts) -> ModelFacts:
    """The same architecture with matrices a hundred times as large: what a model weighs then matters."""
    tensors = {name: tuple(10 * side for side in shape) for name, shape in facts.tensors.items()}
    sides = {key: 10 * facts.config[key] for key in ("hidden_size", "vocab_size")}
    return replace(facts, tensors=tensors, config=facts.config | sides)


def test_more_work_takes_longer_and_checkpointing_trades_memory_for_time(folder: Path, facts: ModelFacts) -> None:
    large = wide(facts)
    lora, full = (forecast(recipe_for(folder, method), large, MUCH) for method in ("lora", "full"))
    sparing = forecast(recipe_for(folder, gradient_checkpointing=True), large, MUCH)
    assert lora["train_seconds"] < full["train_seconds"] and lora["memory_bytes"] < full["memory_bytes"]
    assert lora["train_seconds"] < sparing["train_seconds"] and lora["memory_bytes"] > sparing["memory_bytes"]
    twice = forecast(recipe_for(folder), large, replace(MUCH, rows=2 * 10**6))
    assert twice["train_seconds"] == pytest.approx(2 * lora["train_seconds"], rel=0.01)


def test_moments_in_eight_bits_four_bit_weights_and_upper_layers_take_less(folder: Path, facts: ModelFacts) -> None:
    large = wide(facts)

    def parts(method: str, **train: Any) -> dict[str, int]:
        found: dict[str, int] = forecast(recipe_for(folder, method, **train), large, AMOUNT)["memory"]
        return found

    single = recipe_for(folder, "qlora")
    single = replace(single, method=single.method.model_copy(update={"is_double_quantised": False}))
    plain, eight = parts("full"), parts("full", optimizer="adamw-8bit")
    learns = METHODS.get("full").trainable_parameters(METHODS.get("full").config_type(name="full"), large)
    saved = plain["gradients_and_optimizer"] - eight["gradients_and_optimizer"]
    assert saved == pytest.approx(5.95 * learns, rel=0.01)
    assert parts("full", early_stopping=None)["best_weights"] == 0 < plain["best_weights"]
    assert plain["checkpoints"] == 0 < parts("full", checkpoint_every=1)["checkpoints"]
    assert parts("qlora")["weights"] < forecast(single, large, AMOUNT)["memory"]["weights"] < parts("lora")["weights"]
    assert parts("freeze")["activations"] < parts("full")["activations"]
    assert parts("full")["weights"] == large.parameters * FLOAT_BYTES


def test_the_output_matrix_is_paid_for_at_answers_only(folder: Path, facts: ModelFacts) -> None:
    wider = replace(facts, config=facts.config | {"vocab_size": 10 * facts.config["vocab_size"]})
    plain = forecast(recipe_for(folder), facts, MUCH)["train_seconds"]
    more = forecast(recipe_for(folder), wider, MUCH)
    matrix = 9 / 10 * wider.config["vocab_size"] * facts.hidden_size
    rate = assumed_speed("cpu").operations
    assert (more["train_seconds"] - plain) * rate == pytest.approx(more["tokens"] / 2 * 4 * matrix, rel=0.05)


@pytest.mark.parametrize("method", ["lora", "full", "dora", "prompt", "adapter", "ia3", "freeze"])
def test_memory_is_of_the_size_that_is_kept(folder: Path, facts: ModelFacts, method: str) -> None:
    """What autograd holds after a forward pass, counted, against the forecast."""
    recipe = recipe_for(folder, method, micro_batch_tokens=200).with_method(facts)
    assembled = assemble(recipe, facts, Chat())
    learner = assembled.learner
    learner.train()
    own = {p.untyped_storage().data_ptr() for p in learner.backbone.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = learner.hidden(TokenBatch.of([np.arange(100, 200 - learner.handle.capabilities.virtual_tokens)] * 2))
    assert states.requires_grad
    counted = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    told = forecast(recipe, facts, AMOUNT)["memory"]["activations"]
    one_layer = 200 * FLOAT_BYTES * (6 * facts.hidden_size + 3 * facts.config["intermediate_size"])
    assert 0.75 < (told / ALLOCATOR - one_layer) / counted < 1.3


def test_the_longest_row_counts_where_it_does_not_fit_into_a_pass(folder: Path, facts: ModelFacts) -> None:
    def activations(amount: Amount, **train: Any) -> int:
        found: int = forecast(recipe_for(folder, micro_batch_tokens=100, **train), facts, amount)["memory"][
            "activations"
        ]
        return found

    uneven = replace(AMOUNT, lengths=(*[400] * 990, *[4000] * 10))
    assert activations(uneven) > 2 * activations(AMOUNT)
    assert activations(uneven, max_steps=1) < activations(uneven), "among few rows there is hardly one of those"


def test_every_method_is_told_with_what_it_takes_or_why_it_cannot(
    folder: Path, facts: ModelFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, large = recipe_for(folder, "lora"), wide(facts)
    lines = {line["method"]: line for line in what_would_fit(recipe, large, AMOUNT)}
    assert set(lines) == set(METHODS.names())
    assert [name for name, line in lines.items() if line["is_chosen"]] == ["lora"]
    assert lines["lora"]["memory_bytes"] == forecast(recipe, large, AMOUNT)["memory_bytes"]
    told = [line["memory_bytes"] for line in lines.values() if "problem" not in line]
    assert told == sorted(told) and len(told) > 8
    assert "new head" in lines["linear-probe"]["problem"] and lines["linear-probe"]["remedy"]
    longest = recipe_for(folder, "lora", max_tokens=large.context)
    refused = [
        line["method"] for line in what_would_fit(longest, large, AMOUNT) if "virtual" in line.get("problem", "")
    ]
    assert sorted(refused) == ["p-tuning", "prefix", "prompt"], "as `check` would"
    middle = told[len(told) // 2]
    monkeypatch.setattr(forecasts, "available_bytes", lambda device: middle)
    fits = [line["fits"] for line in what_would_fit(recipe, large, AMOUNT) if "problem" not in line]
    assert fits == sorted(fits, reverse=True) and set(fits) == {True, False}
    monkeypatch.setattr(forecasts, "available_bytes", lambda device: 0)
    assert {line.get("fits") for line in what_would_fit(recipe, large, AMOUNT)} == {None}


def test_the_speed_of_this_machine_is_that_of_its_products(facts: ModelFacts) -> None:
    """A processor makes between one and a thousand billion operations a second on each core."""
    speed = measured_speed(wide(facts))
    assert 1e9 < speed.operations / speed.cores < 1e12 and "measured" in speed.told
