"""One epoch of fine-tuning against the Hugging Face Trainer (with PEFT for LoRA): same rows, same order, same model.

    python benchmarks/training.py [--rows 640] [--repeats 3] [--methods full,lora]

Both sides train the same backbone with the same mean-pooling head from the same weights, with the model's own
dropout, the same AdamW, schedule and clipping, batch 32, float32. The Trainer gets its rows already in our
order (so that each step holds the same rows) and pads each batch to its longest row, as it does by default; a
third side lets it group by length, which is faster but changes what a step holds. Construction is left out, each
side warms up on a few steps, sides take turns, and the loss on held-out rows is compared: a speed-up with another
loss would not count. Prints a Markdown table; writes JSON beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from reglaj.data.batching import micro_batches
from reglaj.models.heads import ScoreHead
from reglaj.models.inspect import inspect_model
from reglaj.models.starters import fetch
from reglaj.pipelines.assemble import Assembled, assemble
from reglaj.pipelines.recipe import load_recipe
from reglaj.tasks.base import Encoded
from reglaj.tasks.classify import Classify, softmax
from reglaj.training.fit import build_step, plan_for
from reglaj.training.loop import run, training_steps
from reglaj.training.optimizer import schedule_factor

BATCH = 32
WARM_UP_STEPS = 4
HELD_OUT = 1000
RATES = {"full": 2e-4, "lora": 2e-3}


class Rows:
    """Texts and labels in memory."""

    def __init__(self, rows: list[dict[str, str]]) -> None:
        self.rows = rows
        self.ids = self.source = [str(i) for i in range(len(rows))]
        self.line = list(range(len(rows)))

    def column(self, role: str) -> list[str]:
        return [row[role] for row in self.rows]


class PlainClassifier(torch.nn.Module):
    """The peer's model: a padded backbone, the mean over real tokens, the same head."""

    def __init__(self, backbone: torch.nn.Module, head: ScoreHead) -> None:
        super().__init__()
        self.backbone, self.dropout, self.linear = backbone, head.dropout, head.linear

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        logits = self.linear(self.dropout((hidden * mask).sum(1) / mask.sum(1)))
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def load_rows(count: int) -> tuple[Rows, Rows, list[str]]:
    """Training rows, held-out rows and labels of the medical starter."""
    lines = fetch("starter:medical").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["label"] != "Unknown"]
    order = np.random.default_rng(0).permutation(len(rows))
    chosen = [rows[i] for i in order]
    labels = sorted({row["label"] for row in rows})
    return Rows(chosen[:count]), Rows(chosen[count : count + HELD_OUT]), labels


def build(method: str, labels: list[str], count: int) -> Assembled:
    """The same untrained learner for every side."""
    steps = -(-count // BATCH)
    train = {
        "epochs": 1,
        "batch_size": BATCH,
        "learning_rate": RATES[method],
        "head_learning_rate": 1e-3,
        "max_tokens": 512,
    }
    recipe = load_recipe(
        {
            "task": "classify",
            "model": "starter:minilm",
            "data": {"sources": [{"path": "starter:medical"}]},
            "method": method,
            "train": {**train, "max_steps": steps, "warmup_ratio": 0.06},
        }
    )
    return assemble(recipe, inspect_model(recipe.model, folder=Path()), Classify(labels))


def ours(method: str, train: Rows, labels: list[str], max_steps: int | None) -> tuple[float, Assembled]:
    """Seconds of the epoch, and what it made."""
    assembled = build(method, labels, len(train.ids))
    task, learner, config = assembled.task, assembled.learner, assembled.recipe.train
    encoded = task.encode(train, assembled.tokenizer, 512)
    plan = plan_for(config.model_copy(update={"max_steps": max_steps}), encoded.rows)

    class Hooks:
        rows = encoded.rows
        objective = task.objective(config, encoded)
        row_places = staticmethod(task.row_places)
        cut_rows = staticmethod(task.cut_rows)

        @staticmethod
        def forward(batch: Any) -> torch.Tensor:
            return task.outputs(learner, batch)

    step = build_step(learner, Hooks, config)  # type: ignore[arg-type]

    def load(rows: Any) -> list[Any]:
        groups = micro_batches(rows, plan.lengths, learner.engine.micro_batch_tokens)
        return [task.batch(encoded, group, "cpu") for group in groups]

    learner.train()
    started = time.perf_counter()
    run(training_steps(step, plan, load, config), [])
    return time.perf_counter() - started, assembled


def peer(method: str, train: Rows, labels: list[str], max_steps: int | None, sampling: str) -> tuple[float, Assembled]:
    """The same epoch with the Hugging Face Trainer."""
    assembled = build(method, labels, len(train.ids))
    task, learner, config = assembled.task, assembled.learner, assembled.recipe.train
    encoded: Encoded = task.encode(train, assembled.tokenizer, 512)
    plan = plan_for(config, encoded.rows)
    order = [row for rows in plan.steps(0) for row in rows]
    data = [{"input_ids": encoded.rows[i].tolist(), "labels": int(encoded.targets[i])} for i in order]
    model = PlainClassifier(learner.backbone, learner.head)
    groups = learner.parameter_groups(config.learning_rate or 0, config.head_learning_rate or 0)
    settings = [
        {
            "params": [p for _, p in named if (p.ndim >= 2) == decays],
            "lr": rate,
            "weight_decay": config.weight_decay * decays,
        }
        for named, rate in groups
        for decays in (True, False)
    ]
    optimizer = torch.optim.AdamW([s for s in settings if s["params"]], fused=True)

    def factor(done: int) -> float:
        return schedule_factor(done + 1, plan.total_steps, config)

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            num_train_epochs=1,
            max_steps=max_steps or -1,
            per_device_train_batch_size=BATCH,
            max_grad_norm=1.0,
            logging_steps=50,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            train_sampling_strategy=sampling,
            remove_unused_columns=False,
        )
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=data,  # type: ignore[arg-type]
            data_collator=transformers.DataCollatorWithPadding(assembled.tokenizer),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)),
            processing_class=assembled.tokenizer,
        )
        trainer.log = lambda *_, **__: None  # type: ignore[method-assign]
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return seconds, assembled


def held_out_loss(assembled: Assembled, rows: Rows) -> float:
    """Mean negative log-likelihood in nats, after training."""
    encoded = assembled.task.encode(rows, assembled.tokenizer, 512)
    probabilities = softmax(assembled.learner.scores(encoded.rows))
    return float(-np.log(probabilities[np.arange(len(rows.ids)), encoded.targets]).mean())


Side = Callable[[str, Rows, list[str], int | None], tuple[float, Assembled]]
SIDES: dict[str, Side] = {
    "reglaj": ours,
    "Trainer": lambda *a: peer(*a, sampling="sequential"),
    "Trainer, grouped by length": lambda *a: peer(*a, sampling="group_by_length"),
}


def measure(method: str, train: Rows, held_out: Rows, labels: list[str], repeats: int) -> dict[str, Any]:
    """Seconds of every repetition and the last held-out loss, side by side."""
    for side in SIDES.values():
        side(method, train, labels, WARM_UP_STEPS)
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    losses: dict[str, float] = {}
    for _ in range(repeats):
        for name, side in SIDES.items():
            taken, assembled = side(method, train, labels, None)
            seconds[name].append(taken)
            losses[name] = held_out_loss(assembled, held_out)
    return {"seconds": seconds, "held_out_loss": losses}


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "| method | side | seconds an epoch, median (range) | times as fast as the Trainer | held-out loss |",
        "|---|---|---|---|---|",
    ]
    for method, result in results.items():
        base = statistics.median(result["seconds"]["Trainer"])
        for name, taken in result["seconds"].items():
            middle = statistics.median(taken)
            spread = f"{middle:.1f} ({min(taken):.1f}-{max(taken):.1f})"
            lines.append(
                f"| {method} | {name} | {spread} | {base / middle:.2f} | {result['held_out_loss'][name]:.4f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, write JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", default="full,lora")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    train, held_out, labels = load_rows(options.rows)
    results = {m: measure(m, train, held_out, labels, options.repeats) for m in options.methods.split(",")}
    facts = {
        "rows": options.rows,
        "batch_size": BATCH,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "results": results,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
