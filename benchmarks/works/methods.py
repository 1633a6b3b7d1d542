"""Each method against plain PEFT under the Hugging Face Trainer on the same work: milliseconds a step.

Classification keeps the dropout of the model in its turns; losses of every step are compared in a warm-up without it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import OURS, Contest, Side, Turn
from benchmarks.method_works import BANKING77, WORKS
from benchmarks.sides import method_peers, ours
from reglaj.methods import METHODS
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.pipelines.assemble import Assembled, assemble
from reglaj.pipelines.recipe import load_recipe
from reglaj.tasks import TASKS
from reglaj.tasks.base import Encoded

PEER, LORA = "Trainer + PEFT", "reglaj lora, one by one"
TOLERANCE = {"float32": 2e-4, "bfloat16": 3e-2}
RATE, HEAD_RATE, CONTEXT = 1e-3, 1e-3, 512
NOISE = 0.01
"""What first values are moved by, so that no factor of zero hides the gradient of another."""
SECTIONS: dict[str, dict[str, Any]] = {
    "freeze": {"layers": 2},
    "peft": {"name": "peft", "type": "OFT"},
    "prefix": {"name": "prefix", "reparametrisation": False},
}
LEFT_AS_IT_COMES = ("full", "bitfit", "freeze", "linear-probe")
"""The base's own parameters: the peer's are read from its files."""


class Rows:
    """Rows in memory, as a task reads them."""

    def __init__(self, columns: dict[str, list[str]]) -> None:
        self.columns = columns
        count = len(next(iter(columns.values())))
        self.ids = self.source = [str(i) for i in range(count)]
        self.line = list(range(count))

    def column(self, role: str) -> list[str]:
        """All values of one role."""
        return self.columns[role]


@dataclass(frozen=True, kw_only=True)
class MethodWork:
    """Steps of one method. task: `classify` or `chat`. model: a starter or a folder. section: keys of the method."""

    method: str
    task: str
    batch: int
    rows: int
    model: str = ""
    section: tuple[tuple[str, Any], ...] = ()
    device: str = "cpu"
    precision: str = "float32"
    banking77: Path = BANKING77

    @property
    def source(self) -> Any:
        """Where the rows come from."""
        return WORKS["banking77" if self.task == "classify" else "finance"]

    @property
    def facts(self) -> ModelFacts:
        """The model, read and not loaded."""
        return _facts(self.model or self.source.model)

    def build(self, steps: int, dropout: float | None = None) -> Assembled:
        """The same untrained learner for every side, its first values moved a little."""
        train: dict[str, Any] = {
            "epochs": 1, "batch_size": self.batch, "max_steps": steps, "learning_rate": RATE, "schedule": "constant",
            "warmup_ratio": 0, "max_tokens": CONTEXT, "model_dropout": dropout, "precision": self.precision,
            "device": self.device, "early_stopping": None, "checkpoint_minutes": None,
        }  # fmt: skip
        train |= {"head_learning_rate": HEAD_RATE} if self.task == "classify" else {}
        recipe = load_recipe(
            {
                "task": self.task,
                "model": self.model or self.source.model,
                "data": {"sources": [{"path": "rows.jsonl"}]},
                "method": {"name": self.method, **SECTIONS.get(self.method, {}), **dict(self.section)},
                "train": train,
            }
        )
        kind: Any = TASKS.get(self.task)
        task = kind(_labels(self.banking77)) if self.task == "classify" else kind()
        assembled = assemble(recipe.with_method(self.facts), self.facts, task)
        if self.method not in LEFT_AS_IT_COMES:
            chance = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for group in assembled.learner.handle.parameters().values():
                    for _, parameter in group:
                        noise = torch.randn(parameter.shape, generator=chance) * NOISE
                        parameter += noise.to(parameter.device, parameter.dtype)
        return assembled

    def encoded(self, assembled: Assembled) -> Encoded:
        """The rows as tokens."""
        return _encoded(self.task, self.model or self.source.model, self.rows, self.banking77)

    def ours(self, steps: int, dropout: float | None = None) -> Turn:
        """The steps by `fit`."""
        assembled = self.build(steps, dropout)
        return self._measured(lambda: ours.train(assembled, self.encoded(assembled)))

    def peer(self, steps: int, dropout: float | None = None) -> Turn:
        """The steps by the Trainer."""
        assembled = self.build(steps, dropout)
        return self._measured(lambda: method_peers.train(assembled, self.encoded(assembled), steps))

    def unfused(self, steps: int, dropout: float | None = None) -> Turn:
        """The steps by `fit` with plain operations, one after the other."""
        assembled = self.build(steps, dropout)
        assembled.learner.engine = replace(assembled.learner.engine, operations="plain")
        return self._measured(lambda: ours.train(assembled, self.encoded(assembled)))

    def _measured(self, train: Any) -> Turn:
        """With the peak of the device's memory, where there is a device."""
        if self.device != "cuda":
            return train()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        turn: Turn = train()
        torch.cuda.synchronize()
        return replace(turn, engine={**turn.engine, "peak_bytes": torch.cuda.max_memory_allocated()})

    def describe(self) -> dict[str, Any]:
        """Rows and tokens, and what learns."""
        assembled = self.build(1)
        lengths = self.encoded(assembled).rows.lengths
        batches = range(0, len(lengths), self.batch)
        return {
            "rows": self.rows,
            "batch_size": self.batch,
            "tokens": int(lengths.sum()),
            "tokens_with_padding": sum(
                int(lengths[i : i + self.batch].max()) * len(lengths[i : i + self.batch]) for i in batches
            ),
            "trainable": sum(tensor.numel() for tensor in assembled.learner.trained().values()),
            "section": assembled.recipe.method.model_dump(mode="json"),
            "engine": str(assembled.learner.engine),
        }


@functools.cache
def _facts(model: str) -> ModelFacts:
    return inspect_model(model, folder=Path())


@functools.cache
def _labels(banking77: Path) -> list[str]:
    return sorted({row["label"] for row in WORKS["banking77"].read(banking77)[0]})


@functools.cache
def _encoded(kind: str, model: str, rows: int, banking77: Path) -> Encoded:
    from reglaj.data.conversation import Conversation
    from reglaj.data.rendering import Renderer
    from reglaj.models.loading import load_tokenizer
    from reglaj.tasks.chat_records import encode_conversations
    from reglaj.tasks.classify import Classify

    tokenizer: Any = load_tokenizer(_facts(model).folder, model)
    if kind == "classify":
        chosen = WORKS["banking77"].read(banking77)[0][:rows]
        columns = {key: [row[key] for row in chosen] for key in ("text", "label")}
        return Classify(_labels(banking77)).encode(Rows(columns), tokenizer, CONTEXT)  # type: ignore[arg-type]
    talks = [
        Conversation.of(
            [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        )
        for row in WORKS["finance"].read(banking77)[0]
    ]
    renderer = Renderer(tokenizer)
    fitting = [talk for talk in talks if len(renderer.render(talk).ids) <= CONTEXT][:rows]
    assert len(fitting) == rows, f"{len(fitting)} conversations fit, {rows} are wanted"
    return encode_conversations(renderer, fitting, [f"row {i}" for i in range(rows)], CONTEXT, "drop")


def contest(work: MethodWork, *, has_peer: bool = True) -> Contest:
    """Ours against the peer; the adapter against LoRA of as many parameters, ours and PEFT's."""
    sides = {OURS: Side(run=work.ours, check=functools.partial(work.ours, dropout=0.0))}
    if work.method == "adapter":
        lora = replace(work, method="lora", section=(("rank", equal_rank(work)),))
        sides["reglaj lora"] = Side(run=lora.ours, same_steps=False, tolerance=float("inf"))
        sides[LORA] = Side(run=lora.unfused, same_steps=False, tolerance=float("inf"))
        sides[f"{PEER} lora"] = Side(run=lora.peer, same_steps=False, tolerance=float("inf"))
    elif has_peer:
        sides[PEER] = Side(run=work.peer, check=functools.partial(work.peer, dropout=0.0))
    steps = work.rows // work.batch
    return Contest(
        name=f"{work.task}-{work.method}",
        title=f"{work.method}, {work.task}, batch {work.batch}",
        sides=sides,
        amount=steps,
        warm_up=min(4, steps),
        tolerance=TOLERANCE[work.precision],
        facts=work.describe,
        alone=False,
    )


def equal_rank(work: MethodWork) -> int:
    """The rank at which LoRA on all linear layers has as many parameters as the adapter, to the nearest."""
    kind = METHODS.get("adapter")
    facts = work.facts
    count = kind.trainable_parameters(kind.config_type(**{"name": "adapter", **dict(work.section)}), facts)
    lora = METHODS.get("lora")
    one = lora.trainable_parameters(lora.config_type(rank=1), facts)  # type: ignore[call-arg]
    return max(1, round(count / one))
