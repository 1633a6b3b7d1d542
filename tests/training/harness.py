"""A learner on tiny labelled rows, without files or a recipe on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tests.tiny import WORDS

from reglaj.models.inspect import inspect_model
from reglaj.pipelines.assemble import Assembled, assemble
from reglaj.pipelines.recipe import load_recipe
from reglaj.tasks.base import Encoded
from reglaj.tasks.classify import Classify
from reglaj.training.fit import Supervision

LABELS = ["cards", "fees", "transfers"]


class Rows:
    """Examples in memory, as the data room gives them."""

    def __init__(self, texts: list[str], labels: list[str]) -> None:
        self.columns = {"text": texts, "label": labels}
        self.ids = self.source = [f"row-{i}" for i in range(len(texts))]
        self.line = list(range(1, len(texts) + 1))

    def column(self, role: str) -> list[str]:
        return self.columns[role]

    def __len__(self) -> int:
        return len(self.ids)


def some_rows(count: int, seed: int = 0) -> Rows:
    chance = np.random.default_rng(seed)
    texts = [" ".join(chance.choice(WORDS, size=int(chance.integers(1, 20)))) for _ in range(count)]
    return Rows(texts, [LABELS[int(i)] for i in chance.integers(0, 3, size=count)])


def learner_for(folder: Path, method: Any = "full", **train: Any) -> Assembled:
    """An assembled learner with a resolved `train` section."""
    settings = {
        "epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "head_learning_rate": 1e-2, "max_tokens": 64,
        "model_dropout": 0.0, "device": "cpu", **train,
    }  # fmt: skip
    recipe = load_recipe(
        {
            "task": "classify",
            "model": str(folder),
            "data": {"sources": [{"path": "none.csv"}]},
            "method": method,
            "train": settings,
        }
    )
    facts = inspect_model(str(folder), folder=Path())
    return assemble(recipe, facts, Classify(LABELS))


def supervise(assembled: Assembled, rows: Rows) -> tuple[Supervision[Any], Encoded]:
    task, learner = assembled.task, assembled.learner
    encoded = task.encode(rows, assembled.tokenizer, assembled.max_tokens)
    supervision = Supervision(
        rows=encoded.rows,
        load=lambda numbers: task.batch(encoded, numbers, "cpu"),
        forward=lambda batch: task.outputs(learner, batch),
        objective=task.objective(assembled.recipe.train, encoded),
        row_places=task.row_places,
        cut_rows=task.cut_rows,
        measure=lambda: task.validate(learner, encoded),
    )
    return supervision, encoded
