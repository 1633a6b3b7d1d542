"""LoRA on SmolLM2 against TRL's SFTTrainer: the same 64 conversations of skewed length, float32, answers only.

    python benchmarks/chat_training.py [--repeats 3] [--steps 8] [--sides reglaj,padding_free,padded]

Both sides start from the same weights (TRL gets the first values of our update), run the same 8 steps of 8 rows in
the same order with rank 16 on all linear layers, a constant learning rate, no dropout and no weight decay, and train
on the same tokens: the answers and their end tokens. TRL runs as it does by default (`padded`) and in its
`padding_free` mode, both with scaled_dot_product_attention and without gradient checkpointing. Construction is left
out, each side warms up on one step, and sides take turns. The number of supervised tokens must be equal and the loss
of every first step must agree within 1e-3, or there is no result. Peak memory is that of a process of its own per
side. Prints a Markdown table; writes JSON beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from reglaj.data.batching import micro_batches
from reglaj.data.conversation import Conversation
from reglaj.models.inspect import inspect_model
from reglaj.models.starters import fetch
from reglaj.pipelines.assemble import Assembled, assemble
from reglaj.pipelines.recipe import load_recipe
from reglaj.tasks.base import Encoded
from reglaj.tasks.chat import Chat
from reglaj.training.engine import peak_memory_bytes
from reglaj.training.fit import build_step, plan_for
from reglaj.training.loop import run, training_steps

ROWS, BATCH, CONTEXT = 64, 8, 512
RANK, ALPHA, RATE = 16, 32, 1e-3
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One side's training: seconds of all steps, and the loss of each."""

    seconds: float
    losses: list[float]


class Rows:
    """Conversations in memory."""

    def __init__(self, conversations: list[Conversation]) -> None:
        self.texts = [conversation.to_json() for conversation in conversations]
        self.ids = self.source = [str(i) for i in range(len(self.texts))]
        self.line = list(range(len(self.texts)))

    def column(self, role: str) -> list[str]:
        return self.texts


class Losses:
    """Notes the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def after_step(self, finished: Any) -> bool:
        self.values.append(finished.loss)
        return False


def build(steps: int) -> Assembled:
    """The same untrained learner for every side."""
    train = {
        "epochs": 1, "batch_size": BATCH, "max_steps": steps, "learning_rate": RATE, "schedule": "constant",
        "warmup_ratio": 0, "weight_decay": 0, "max_tokens": CONTEXT, "precision": "float32", "device": "cpu",
        "early_stopping": None,
    }  # fmt: skip
    recipe = load_recipe(
        {
            "task": "chat",
            "model": "starter:smollm2",
            "data": {"sources": [{"path": "starter:finance"}]},
            "method": {"name": "lora", "rank": RANK, "alpha": ALPHA},
            "train": train,
        }
    )
    return assemble(recipe, inspect_model(recipe.model, folder=Path()), Chat())


def choose_rows(task: Chat) -> list[Conversation]:
    """64 of the questions that fit, from the shortest to the longest: many short ones and a long tail."""
    lines = fetch("starter:finance").read_text(encoding="utf-8").split("\n")
    sized = []
    for row in (json.loads(line) for line in lines if line):
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        conversation = Conversation.of(turns)
        sized.append((len(task.renderer.render(conversation).ids), conversation.to_json()))
    fitting = sorted(one for one in sized if one[0] <= CONTEXT)
    # The square crowds the choice at the short end: half of it comes from the shortest third.
    places = [i + round((i / (ROWS - 1)) ** 2 * (len(fitting) - ROWS)) for i in range(ROWS)]
    return [Conversation.from_json(fitting[place][1]) for place in places]


def prepare(assembled: Assembled) -> tuple[Encoded, list[list[int]]]:
    """The rows as tokens, and the rows of each step."""
    conversations = choose_rows(assembled.task)  # type: ignore[arg-type]
    encoded = assembled.task.encode(Rows(conversations), assembled.tokenizer, CONTEXT)  # type: ignore[arg-type]
    plan = plan_for(assembled.recipe.train.model_copy(update={"max_steps": None}), encoded.rows)
    return encoded, list(plan.steps(0))


def ours(steps: int) -> Turn:
    """The steps by reglaj."""
    assembled = build(steps)
    encoded, _ = prepare(assembled)
    task, learner, config = assembled.task, assembled.learner, assembled.recipe.train
    plan = plan_for(config, encoded.rows)

    class Hooks:
        objective = task.objective(config, encoded)
        row_places = staticmethod(task.row_places)
        cut_rows = staticmethod(task.cut_rows)

        @staticmethod
        def forward(batch: Any) -> torch.Tensor:
            return task.outputs(learner, batch)

    step = build_step(learner, Hooks, config)  # type: ignore[arg-type]
    engine = learner.engine

    def load(rows: Any) -> list[Any]:
        groups = micro_batches(rows, plan.lengths, engine.micro_batch_tokens, is_padded=engine.is_padded)
        return [task.batch(encoded, group, "cpu") for group in groups]

    learner.train()
    losses = Losses()
    started = time.perf_counter()
    run(training_steps(step, plan, load, config), [losses])
    return Turn(seconds=time.perf_counter() - started, losses=losses.values)


def peer(steps: int, *, padding_free: bool) -> Turn:
    """The same steps by TRL."""
    import datasets

    datasets.disable_progress_bars()
    assembled = build(steps)
    encoded, order = prepare(assembled)
    starts, flags = encoded.rows.starts, encoded.targets.flags
    data = []
    for row in (row for rows in order for row in rows):
        ids, learnt = encoded.rows[row].tolist(), flags[starts[row] : starts[row + 1]]
        labels = [token if is_learnt else IGNORED for token, is_learnt in zip(ids, learnt, strict=True)]
        data.append({"input_ids": ids, "labels": labels})
    update = {name: tensor.clone() for name, tensor in assembled.learner.trained().items()}
    model_folder, tokenizer = assembled.facts.folder, assembled.tokenizer
    del assembled  # its weights are not the peer's memory
    with tempfile.TemporaryDirectory() as folder:
        arguments = peer_arguments(folder, steps, padding_free)
        trainer = make_trainer(model_folder, tokenizer, datasets.Dataset.from_list(data), arguments, update)
        learnt = sum(token != IGNORED for row in trainer.train_dataset for token in row["labels"])
        assert learnt == flags.sum(), f"TRL learns {learnt} tokens, we {flags.sum()}"
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return Turn(seconds=seconds, losses=[line["loss"] for line in trainer.state.log_history if "loss" in line])


def peer_arguments(folder: str, steps: int, padding_free: bool) -> Any:
    """TRL's settings, equal to ours in all that changes the result."""
    import trl

    return trl.SFTConfig(
        folder,
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        completion_only_loss=True,
        padding_free=padding_free,
        max_length=None,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def make_trainer(model_folder: Path, tokenizer: Any, data: Any, arguments: Any, update: dict[str, torch.Tensor]) -> Any:
    """An SFTTrainer on a model of its own, whose low-rank update starts with the given values."""
    import peft
    import trl

    trainer = trl.SFTTrainer(
        transformers.AutoModelForCausalLM.from_pretrained(
            model_folder, dtype=torch.float32, attn_implementation="sdpa"
        ),
        arguments,
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(
            task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear"
        ),
    )
    trainer.log = lambda logs, *_, **__: trainer.state.log_history.append(logs)
    moving = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert len(moving) == len(update)
    with torch.no_grad():
        for name, parameter in moving.items():
            parameter.copy_(update[name.removeprefix("base_model.model.")])
    return trainer


SIDES: dict[str, Callable[[int], Turn]] = {
    "reglaj": ours,
    "padding_free": lambda steps: peer(steps, padding_free=True),
    "padded": lambda steps: peer(steps, padding_free=False),
}


def measure(sides: list[str], repeats: int, steps: int) -> dict[str, Any]:
    """Seconds of every turn and the losses of the last, side by side."""
    for name in sides:
        SIDES[name](1)
    results: dict[str, Any] = {name: {"seconds": [], "losses": []} for name in sides}
    for _ in range(repeats):
        for name in sides:
            turn = SIDES[name](steps)
            results[name]["seconds"].append(turn.seconds)
            results[name]["losses"] = turn.losses
            print(f"{name}: {turn.seconds:.1f} s, loss {turn.losses[0]:.4f} to {turn.losses[-1]:.4f}", file=sys.stderr)
    firsts = {name: result["losses"][0] for name, result in results.items()}
    if max(firsts.values()) - min(firsts.values()) > 1e-3:
        raise SystemExit(f"the sides do not train on the same thing; losses of the first step: {firsts}")
    return results


def peak_memory(side: str, steps: int) -> int:
    """Bytes that a process which runs nothing but this side holds at most."""
    command = [sys.executable, __file__, "--peak-of", side, "--steps", str(steps)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def describe(steps: int) -> dict[str, Any]:
    """What is trained on."""
    encoded, order = prepare(build(steps))
    used = [row for rows in order[:steps] for row in rows]
    lengths = encoded.rows.lengths
    padded = sum(len(rows) * int(lengths[rows].max()) for rows in order[:steps])
    learnt = [encoded.targets.flags[encoded.rows.starts[r] : encoded.rows.starts[r + 1]].sum() for r in used]
    return {
        "rows": len(used),
        "tokens": int(lengths[used].sum()),
        "tokens_with_padding": padded,
        "supervised_tokens": int(sum(learnt)),
        "lengths": np.percentile(lengths[used], [0, 25, 50, 75, 100]).astype(int).tolist(),
    }


def table(facts: dict[str, Any]) -> str:
    """The results in Markdown. A ratio is the median of the turns' own ratios: neighbours in time share a machine."""
    lines = [
        "| side | seconds, median (range) | tokens a second | times as long as reglaj, median (range) "
        "| peak memory | loss of the first and last step |",
        "|---|---|---|---|---|---|",
    ]
    results = facts["results"]
    for name, result in results.items():
        taken = result["seconds"]
        middle = statistics.median(taken)
        spread = f"{middle:.1f} ({min(taken):.1f}-{max(taken):.1f})"
        ratios = (
            [t / o for t, o in zip(taken, results["reglaj"]["seconds"], strict=True)] if "reglaj" in results else []
        )
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""
        memory = f"{result['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in result else ""
        losses = f"{result['losses'][0]:.4f}, {result['losses'][-1]:.4f}"
        label = name if name == "reglaj" else f"TRL, {name}"
        rate = facts["data"]["tokens"] / middle
        lines.append(f"| {label} | {spread} | {rate:.0f} | {ratio} | {memory} | {losses} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=ROWS // BATCH)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--peak-of", choices=list(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if options.peak_of:
        SIDES[options.peak_of](options.steps)
        print(peak_memory_bytes("cpu"))
        return
    results = measure(options.sides.split(","), options.repeats, options.steps)
    for name, result in results.items():
        result["peak_bytes"] = peak_memory(name, options.steps)
    import trl

    facts = {
        "data": describe(options.steps),
        "batch_size": BATCH,
        "rank": RANK,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "trl": trl.__version__,
            "python": platform.python_version(),
        },
        "results": results,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(facts["data"])
    print(table(facts))


if __name__ == "__main__":
    main()
