"""Two tiny finished runs, trained once a session, and copies of them to spoil."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import recipe_for, write_rows
from tests.tiny_chat import write_chat_model, write_conversations

import reglaj

CHAT_TRAIN = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu", "checkpoint_every": 3}


def chat_recipe(place: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "talk",
        "task": "chat",
        "model": str(place / "chat"),
        "data": {"sources": [{"path": str(place / "talks.jsonl")}]},
        "method": "full",
        "train": {**CHAT_TRAIN, **train},
        "evaluate": {"generate_rows": 2, "max_new_tokens": 8, "bootstrap_samples": 100, "few_shot_examples": 1},
    }


@pytest.fixture(scope="session")
def place(tiny_model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sources, models and, in `runs/`, the finished runs `sort-001` and `talk-001`."""
    folder = tmp_path_factory.mktemp("verified")
    rows = write_rows(folder / "rows.jsonl", 120)
    with rows.open("a") as file:
        file.write(json.dumps({"text": "  ", "label": "fees"}) + "\n" + rows.read_text().splitlines()[0] + "\n")
    settings: dict[str, Any] = {"name": "sort", "train": {"epochs": 2, "checkpoint_every": 4}}
    settings["evaluate"] = {"baselines": ["majority"], "bootstrap_samples": 100}
    reglaj.train(recipe_for(tiny_model("bert"), rows, **settings), runs=folder / "runs")
    write_chat_model(folder / "chat")
    write_conversations(folder / "talks.jsonl", 60)
    reglaj.train(chat_recipe(folder), runs=folder / "runs")
    return folder


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Callable[[str], Path]:
    """`copy("sort-001")` is that run in a copy of all runs, with their data."""

    def make(name: str) -> Path:
        shutil.copytree(place / "runs", tmp_path / "runs")
        return tmp_path / "runs" / name

    return make
