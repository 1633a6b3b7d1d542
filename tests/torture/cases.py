"""What is trained under torture: recipes with their models and data, each written into a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tiny import write_model, write_rows
from tests.tiny_chat import write_chat_model, write_conversations


@dataclass(frozen=True)
class Case:
    """A recipe on disk, with overrides; its runs are called `name`."""

    name: str
    recipe: Path
    overrides: list[str] = field(default_factory=list)

    def arguments(self, runs: Path) -> list[str]:
        """What the command line is given."""
        return ["train", str(self.recipe), *self.overrides, "--runs", str(runs)]


def tiny_classifier(folder: Path) -> Case:
    """Full fine-tuning of a tiny BERT, with dropout and early stopping: 60 steps, a save every 3."""
    train = {"max_steps": 60, "batch_size": 8, "learning_rate": 2e-3, "head_learning_rate": 1e-2, "evaluate_every": 9}
    return _written(
        folder,
        "classifier",
        task="classify",
        model=str(write_model(folder / "classifier-model")),
        source=write_rows(folder / "rows.jsonl", 480),
        method="full",
        train={**train, "checkpoint_every": 3, "early_stopping": {"patience": 50}},
        evaluate={"baselines": ["majority"], "bootstrap_samples": 100},
    )


def tiny_decoder(folder: Path) -> Case:
    """LoRA on a tiny Llama, with dropout in the adapter: 40 steps, a save every 2."""
    train = {"max_steps": 40, "batch_size": 4, "learning_rate": 1e-2, "evaluate_every": 10, "max_tokens": 128}
    return _written(
        folder,
        "decoder",
        task="chat",
        model=str(write_chat_model(folder / "decoder-model")),
        source=write_conversations(folder / "conversations.jsonl"),
        method={"name": "lora", "rank": 4, "dropout": 0.1},
        train={**train, "checkpoint_every": 2, "early_stopping": {"patience": 50}},
        evaluate={"baselines": [], "bootstrap_samples": 100, "generate_rows": 2, "max_new_tokens": 8},
    )


def starter_classifier(folder: Path) -> Case:
    """Full fine-tuning of MiniLM on the first rows of the medical starter: 12 steps, a save every 2."""
    return _written(
        folder,
        "minilm",
        task="classify",
        model="starter:minilm",
        source=_first_rows("starter:medical", folder / "medical.jsonl", 480),
        method="full",
        train={"max_steps": 12, "batch_size": 8, "checkpoint_every": 2, "evaluate_every": 6, "max_tokens": 64},
        evaluate={"baselines": [], "bootstrap_samples": 100},
    )


def starter_decoder(folder: Path) -> Case:
    """LoRA on SmolLM2 on the first rows of the finance starter: 10 steps, a save every 2."""
    return _written(
        folder,
        "smollm2",
        task="chat",
        model="starter:smollm2",
        source=_first_rows("starter:finance", folder / "finance.jsonl", 80),
        method={"name": "lora", "rank": 8, "dropout": 0.05},
        train={"max_steps": 10, "batch_size": 2, "checkpoint_every": 2, "evaluate_every": 1000, "max_tokens": 256},
        evaluate={"baselines": [], "bootstrap_samples": 100, "generate_rows": 2, "max_new_tokens": 32},
    )


TINY: dict[str, Callable[[Path], Case]] = {"classifier": tiny_classifier, "decoder": tiny_decoder}
STARTERS: dict[str, Callable[[Path], Case]] = {"minilm": starter_classifier, "smollm2": starter_decoder}


def _first_rows(starter: str, path: Path, count: int) -> Path:
    from reglaj.models.starters import fetch

    lines = fetch(starter).read_text(encoding="utf-8").splitlines()
    # The rows that say no specialty teach nothing.
    path.write_text("\n".join([line for line in lines if '"Unknown"' not in line][:count]) + "\n", "utf-8")
    return path


def _written(folder: Path, name: str, *, source: Path, **keys: Any) -> Case:
    """The recipe as a file; JSON is YAML."""
    recipe = {"name": name, "data": {"sources": [{"path": str(source)}]}, **keys}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return Case(name, path)
