"""What the engine may choose, as tests force it, on encoders that classify and decoders that chat."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tests.training import chat_harness, harness

from reglaj.data.batching import micro_batches
from reglaj.models.attention import Attention
from reglaj.models.packing import Layout
from reglaj.training.learner import Learner
from reglaj.training.trunk_cache import attach_states

DECODERS = ("llama", "qwen2", "mistral", "gpt2")
UPPER_LORA = {"name": "lora", "rank": 4, "layers": 1}
"""On the upper one of two layers: what the lower one gives can be kept."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to run a training.

    method: a name, or `upper-lora`. layout: None leaves it, attention and operations to the engine. is_fused: LoRA's
    fused operation; no effect on other methods.
    """

    family: str
    method: str
    layout: Layout | None
    attention: Attention = "per-text"
    is_fused: bool = True
    is_checkpointed: bool = False

    def by_itself(self) -> Choice:
        """The same recipe, of which the engine makes what it likes."""
        return replace(self, layout=None)

    def __str__(self) -> str:
        attention = self.attention if self.layout in ("packed", "packed-causal") else ""
        marks = ["" if self.is_fused else "unfused", "checkpointed" if self.is_checkpointed else ""]
        return "-".join(filter(None, [self.family, self.method, self.layout, attention, *marks]))

    @property
    def is_chat(self) -> bool:
        return self.family in DECODERS

    def take(self, learner: Learner) -> None:
        """Let the learner run so, whatever it had chosen."""
        if self.layout is not None:
            operations: Any = "fused" if self.is_fused and "lora" in self.method else "plain"
            learner.engine = replace(
                learner.engine, layout=self.layout, layout_reason="", attention=self.attention, operations=operations
            )
        if self.is_checkpointed:
            learner.checkpoint_gradients()


class Training:
    """A learner, its rows and its supervision, run as a choice says."""

    def __init__(self, folder: Path, choice: Choice, count: int = 24, **train: Any) -> None:
        settings = {"precision": "float32", "batch_size": 8, **train}
        method: Any = UPPER_LORA if choice.method == "upper-lora" else choice.method
        if choice.is_chat:
            self.rows: Any = chat_harness.Rows(count)
            self.assembled = chat_harness.learner_for(folder, method, **settings)
        else:
            self.rows = harness.some_rows(count)
            self.assembled = harness.learner_for(folder, method, **settings)
        self.learner, self.config = self.assembled.learner, self.assembled.recipe.train
        choice.take(self.learner)
        self.supervision, self.encoded = harness.supervise(self.assembled, self.rows)

    def keep_states(self, runs: Path) -> None:
        """Run the frozen layers now, and never again."""
        task, (rows, _) = (
            self.assembled.task,
            attach_states(self.learner, (self.encoded.rows, self.encoded.rows), self.config, runs),
        )
        assert rows.states is not None, self.learner.engine.trunk_cache
        encoded = self.encoded = replace(self.encoded, rows=rows)
        self.supervision = replace(
            self.supervision, rows=rows, load=lambda numbers: task.batch(encoded, numbers, "cpu")
        )

    def batches(self, rows: Any, budget: int) -> list[Any]:
        """Those rows in micro-batches of so many tokens."""
        is_padded = self.learner.engine.is_padded
        groups = micro_batches(list(rows), self.encoded.rows.lengths, budget, is_padded=is_padded)
        return [self.supervision.load(group) for group in groups]

    def waken_updates(self) -> None:
        """LoRA's B is zero at the start, and then A has no gradient: give it one."""
        with torch.no_grad():
            for key, parameter in self.learner.named_parameters().items():
                if "lora_B" in key:
                    parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
