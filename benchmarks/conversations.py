"""The chat work: conversations of skewed length as tokens, the rows of each step, and the values LoRA begins with."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reglaj.data.conversation import Conversation
from reglaj.data.rendering import Renderer
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.models.loading import load_tokenizer
from reglaj.models.starters import fetch
from reglaj.pipelines.assemble import Assembled, assemble
from reglaj.pipelines.recipe import Recipe, load_recipe
from reglaj.tasks.base import Encoded
from reglaj.tasks.chat import Chat
from reglaj.tasks.chat_records import encode_conversations
from reglaj.training.fit import plan_for

BATCH, CONTEXT, RATE = 8, 512, 1e-3
MODEL = "starter:smollm2"
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class ChatWork:
    """LoRA on SmolLM2. targets: names of layers, or None for every linear one; layers: the upper N, or None for all."""

    rank: int
    alpha: float
    targets: tuple[str, ...] | None = None
    layers: int | None = None
    epochs: int = 1
    batch: int = BATCH

    def recipe(self, steps: int, **train: Any) -> Recipe:
        """Resolved by hand: a constant rate, no dropout, no decay, float32, so that every side can do the same."""
        method: dict[str, Any] = {"name": "lora", "rank": self.rank, "alpha": self.alpha, "dropout": 0.0}
        method |= {"target_modules": list(self.targets)} if self.targets else {}
        method |= {"layers": self.layers} if self.layers else {}
        settings = {
            "epochs": self.epochs, "batch_size": self.batch, "max_steps": steps, "learning_rate": RATE,
            "schedule": "constant", "warmup_ratio": 0, "weight_decay": 0, "max_tokens": CONTEXT,
            "precision": "float32", "device": "cpu", "early_stopping": None, "checkpoint_minutes": None,
        }  # fmt: skip
        data = {"sources": [{"path": "starter:finance"}]}
        return load_recipe({"task": "chat", "model": MODEL, "data": data, "method": method, "train": settings | train})

    def build(self, steps: int, **train: Any) -> Assembled:
        """Our untrained learner, with the values that every side begins with."""
        assembled = assemble(self.recipe(steps, **train), facts(), Chat())
        start_values(assembled.learner.trained())
        return assembled


@functools.cache
def facts() -> ModelFacts:
    """SmolLM2, read and not loaded."""
    return inspect_model(MODEL, folder=Path())


@functools.cache
def tokenizer() -> Any:
    """SmolLM2's own."""
    return load_tokenizer(facts().folder, MODEL)


@functools.cache
def _sized() -> list[tuple[int, str]]:
    """Conversations that fit, with their tokens, from the shortest to the longest."""
    renderer = Renderer(tokenizer())
    sized = []
    for line in fetch("finance").read_text(encoding="utf-8").split("\n"):
        if line:
            row = json.loads(line)
            turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
            conversation = Conversation.of(turns)
            sized.append((len(renderer.render(conversation).ids), conversation.to_json()))
    return sorted(one for one in sized if one[0] <= CONTEXT)


@functools.cache
def encoded(rows: int) -> Encoded:
    """So many conversations from the shortest to the longest as tokens: many short ones and a long tail.

    The square crowds the choice at the short end: half of it comes from the shortest third.
    """
    fitting = _sized()
    places = [i + round((i / max(rows - 1, 1)) ** 2 * (len(fitting) - rows)) for i in range(rows)]
    chosen = [Conversation.from_json(fitting[place][1]) for place in places]
    return encode_conversations(Renderer(tokenizer()), chosen, [f"row {place}" for place in places], CONTEXT, "drop")


def order(work: ChatWork, data: Encoded, steps: int) -> list[list[int]]:
    """Row numbers of each step, as our plan draws them; every side takes them so."""
    plan = plan_for(work.recipe(steps).train, data.rows)
    return [plan.rows(number) for number in range(1, plan.total_steps + 1)]


def labelled(data: Encoded, row: int) -> tuple[list[int], list[int]]:
    """Token ids of a row, and the same with what is not learnt put to -100."""
    start, end = data.rows.starts[row], data.rows.starts[row + 1]
    ids, flags = data.rows[row].tolist(), data.targets.flags[start:end]
    return ids, [token if is_learnt else IGNORED for token, is_learnt in zip(ids, flags, strict=True)]


def start_values(tensors: Mapping[str, torch.Tensor]) -> None:
    """The same first values on every side, whatever prefix its names have: A as PEFT draws it, B small.

    B is not zero, so that from the first step on a wrong gradient of A shows in the losses.
    """
    named = {re.sub(r"^.*?(layers?\.\d)", r"\1", name).replace(".default", ""): t for name, t in tensors.items()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in sorted(named):
            tensor = named[name]
            bound = 1 / math.sqrt(tensor.shape[1]) if "lora_A" in name else 0.01
            tensor.copy_((torch.rand(tensor.shape, generator=generator) * 2 - 1) * bound)


def describe(work: ChatWork, steps: int) -> dict[str, Any]:
    """Rows, lengths and tokens of the steps, what padding adds, and how many tokens are learnt."""
    data = encoded(work.batch * steps // work.epochs)
    lengths = data.rows.lengths
    rows = order(work, data, steps)
    every = [row for step in rows for row in step]
    flags, starts = data.targets.flags, data.rows.starts
    return {
        "steps": steps,
        "rows": len(every),
        "batch_size": work.batch,
        "tokens": int(lengths[every].sum()),
        "tokens_with_padding": int(sum(lengths[step].max() * len(step) for step in rows)),
        "supervised_tokens": int(sum(flags[starts[row] : starts[row + 1]].sum() for row in every)),
        "lengths": [int(lengths.min()), int(sorted(lengths)[len(lengths) // 2]), int(lengths.max())],
    }
