"""A learner on tiny conversations, without files or a recipe on disk."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.training.harness import supervise

from reglaj.data.conversation import Conversation
from reglaj.models.inspect import inspect_model
from reglaj.pipelines.assemble import Assembled, assemble
from reglaj.pipelines.recipe import load_recipe
from reglaj.tasks.chat import Chat

__all__ = ["Rows", "learner_for", "supervise"]
WORDS = ["where", "is", "my", "card", "when", "will", "the", "money", "come", "unde", "este", "cardul", "și", "42"]


class Rows:
    """Questions and answers of unequal length, as the data room gives them."""

    def __init__(self, count: int = 24, seed: int = 0) -> None:
        chance = random.Random(seed)

        def say(most: int) -> str:
            return " ".join(chance.choices(WORDS, k=chance.randint(1, most)))

        self.pairs = [(say(12), say(16)) for _ in range(count)]
        turns = [[{"role": "user", "content": p}, {"role": "assistant", "content": c}] for p, c in self.pairs]
        self.texts = [Conversation.of(turn).to_json() for turn in turns]
        self.ids = self.source = [f"row-{i}" for i in range(count)]
        self.line = list(range(1, count + 1))

    def column(self, role: str) -> list[str]:
        return self.texts

    def __len__(self) -> int:
        return len(self.ids)


def learner_for(folder: Path, method: Any, **train: Any) -> Assembled:
    """An assembled learner with a resolved `train` section."""
    settings = {
        "epochs": 5, "batch_size": 8, "learning_rate": 3e-3, "max_tokens": 256, "device": "cpu", "model_dropout": 0.0,
        "precision": "float32", **train,
    }  # fmt: skip
    recipe = load_recipe(
        {
            "task": "chat",
            "model": str(folder),
            "data": {"sources": [{"path": "none.jsonl"}]},
            "method": {"name": "lora", "rank": 8} if method == "lora" else method,
            "train": settings,
        }
    )
    return assemble(recipe, inspect_model(str(folder), folder=Path()), Chat())
