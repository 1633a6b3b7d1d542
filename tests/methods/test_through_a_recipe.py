"""Methods from a recipe to answers from disk: what was evaluated is what is loaded.

`tests/pipelines/test_methods_end_to_end.py` has more of it for one method of each family; here are all others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.methods.settings import section
from tests.tiny import recipe_for, write_model, write_rows
from tests.tiny_chat import write_chat_model, write_conversations

import reglaj
from reglaj.methods import METHODS

VIRTUAL = {"prefix", "prompt", "p-tuning"}
CLASSIFY = [name for name in METHODS.names() if name not in VIRTUAL | {"adapter", "ia3", "adalora", "full", "lora"}]
CHAT = [name for name in METHODS.names() if name not in VIRTUAL | {"adapter", "lora", "linear-probe"}]
FEW = {"max_steps": 3, "batch_size": 8, "early_stopping": None}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    write_model(folder / "bert")
    write_rows(folder / "rows.jsonl", 60)
    write_chat_model(folder / "chat")
    write_conversations(folder / "turns.jsonl", 40)
    return folder


@pytest.mark.parametrize("name", CLASSIFY)
def test_a_classifier_answers_from_disk_as_it_was_evaluated(place: Path, name: str) -> None:
    values = recipe_for(place / "bert", place / "rows.jsonl", method=section(name), train=FEW | {"max_tokens": 40})
    run = reglaj.train(values | {"name": name}, runs=place / "runs")
    again = reglaj.evaluate(run.path)
    assert again["test"] == run.report["test"]
    assert run.report["method"] == name and run.report["cost"]["stored_bytes"] > 0
    assert reglaj.train(values | {"name": name}, runs=place / "runs").was_finished


@pytest.mark.parametrize("name", CHAT)
def test_a_chat_answers_from_disk(place: Path, name: str) -> None:
    values: dict[str, Any] = {
        "name": f"chat-{name}",
        "task": "chat",
        "model": str(place / "chat"),
        "data": {"sources": [{"path": str(place / "turns.jsonl")}]},
        "method": section("bitfit, norms" if name == "bitfit" else name),
        "train": FEW | {"learning_rate": 1e-2},
        "evaluate": {"baselines": ["untuned"], "bootstrap_samples": 100, "generate_rows": 2, "max_new_tokens": 6},
    }
    run = reglaj.train(values, runs=place / "runs")
    test, base = run.report["test"], run.report["baselines"]["untuned"]
    assert test["loss"] != base["loss"], "something was learnt, and the untuned model is another one"
    again = reglaj.evaluate(run.path)
    assert again["test"]["loss"]["value"] == pytest.approx(test["loss"]["value"], abs=1e-6)
    (answer,) = reglaj.load(run.path).predict(["where is my card"])
    assert "prediction" in answer
