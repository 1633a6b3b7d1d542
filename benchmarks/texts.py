"""The classification works: rows of the medical starter for MiniLM, in memory."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.models.starters import fetch
from reglaj.pipelines.assemble import Assembled, assemble
from reglaj.pipelines.recipe import Recipe, load_recipe
from reglaj.tasks.base import Encoded
from reglaj.tasks.classify import Classify

MODEL, CONTEXT = "starter:minilm", 512
RATES = {"full": 2e-4, "lora": 2e-3}
HEAD_RATE = 1e-3


class Rows:
    """Texts and labels in memory, as a task reads them."""

    def __init__(self, rows: list[dict[str, str]]) -> None:
        self.rows = rows
        self.ids = self.source = [str(i) for i in range(len(rows))]
        self.line = list(range(len(rows)))

    def column(self, role: str) -> list[str]:
        """All values of one role."""
        return [row[role] for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class ClassifyWork:
    """MiniLM with a mean-pooling head. method: full or lora (rank 16, all linear layers)."""

    method: str
    batch: int

    def recipe(self, steps: int, dropout: float | None = None) -> Recipe:
        """One pass. dropout: None keeps the model's own (0.1), 0 turns it off."""
        train = {
            "epochs": 1, "batch_size": self.batch, "max_steps": steps, "learning_rate": RATES[self.method],
            "head_learning_rate": HEAD_RATE, "max_tokens": CONTEXT, "model_dropout": dropout, "precision": "float32",
            "device": "cpu", "early_stopping": None, "checkpoint_minutes": None,
        }  # fmt: skip
        data = {"sources": [{"path": "starter:medical"}]}
        recipe = {"task": "classify", "model": MODEL, "data": data, "method": self.method, "train": train}
        return load_recipe(recipe)

    def build(self, steps: int, dropout: float | None = None) -> Assembled:
        """The same untrained learner for every side."""
        return assemble(self.recipe(steps, dropout), facts(), Classify(labels()))


@functools.cache
def facts() -> ModelFacts:
    """MiniLM, read and not loaded."""
    return inspect_model(MODEL, folder=Path())


@functools.cache
def _shuffled() -> list[dict[str, str]]:
    lines = fetch("starter:medical").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["label"] != "Unknown"]
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


def labels() -> list[str]:
    """Names of all classes."""
    return sorted({row["label"] for row in _shuffled()})


@functools.cache
def encoded(rows: int) -> Encoded:
    """So many texts as tokens, with the numbers of their classes."""
    from reglaj.models.loading import load_tokenizer

    tokenizer: Any = load_tokenizer(facts().folder, MODEL)
    return Classify(labels()).encode(Rows(_shuffled()[:rows]), tokenizer, CONTEXT)  # type: ignore[arg-type]


def describe(rows: int, batch: int) -> dict[str, Any]:
    """Rows and tokens, and what padding in the rows' own order adds."""
    lengths = encoded(rows).rows.lengths
    padded = sum(int(lengths[i : i + batch].max()) * len(lengths[i : i + batch]) for i in range(0, rows, batch))
    return {
        "rows": rows,
        "batch_size": batch,
        "tokens": int(lengths.sum()),
        "tokens_with_padding": padded,
        "lengths": [int(lengths.min()), int(sorted(lengths)[rows // 2]), int(lengths.max())],
    }
