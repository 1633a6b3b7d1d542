"""TRL's SFTTrainer on the chat work: padding-free, padded, and as it comes.

`padding_free` and `padded` are set as fast as its settings allow: no gradient checkpointing. `defaults` leaves
everything that touches speed as `SFTConfig` has it: padded batches, gradient checkpointing on. What is set on all three
is what makes the work the same: rows and their order, batch, rate, no decay, and float32 (its default on a processor is
bfloat16, whose losses could not be compared).
"""

from __future__ import annotations

import tempfile
import time
import warnings
from typing import Any, Literal

import torch
import transformers

from benchmarks import conversations
from benchmarks.conversations import IGNORED, RATE, ChatWork, encoded, labelled, start_values
from benchmarks.measuring import Turn, timed, with_seconds
from benchmarks.sides.plain import lora_config

Mode = Literal["padding_free", "padded", "defaults"]


class StepClock(transformers.TrainerCallback):
    """Seconds from before the first step to after the last, as ours are counted; and when the first was finished."""

    def __init__(self) -> None:
        self.seconds = self.first_done = self._began = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.first_done = self.first_done or time.time()
        self.seconds = time.perf_counter() - self._began


def chat(work: ChatWork, rows: int, steps: int, mode: Mode) -> Turn:
    """The first `steps` of the work on so many rows."""
    data = encoded(rows)
    every = [row for step in conversations.order(work, data, steps) for row in step]
    pairs = [labelled(data, row) for row in every]
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(work, [{"input_ids": ids, "labels": learnt} for ids, learnt in pairs], folder, steps, mode)
        learnt = sum(token != IGNORED for row in trainer.train_dataset for token in row["labels"])
        expected = sum(token != IGNORED for _, labels in pairs for token in labels)
        assert learnt == expected, f"TRL learns {learnt} tokens, we {expected}"
        clock = StepClock()
        trainer.add_callback(clock)
        with timed() as region:
            trainer.train()
    losses = tuple(line["loss"] for line in trainer.state.log_history if "loss" in line)
    return Turn(region=with_seconds(region[0], clock.seconds), losses=losses, first_done=clock.first_done)


def _trainer(work: ChatWork, rows: list[dict[str, Any]], folder: str, steps: int, mode: Mode) -> Any:
    """An SFTTrainer on a model of its own, whose low-rank update starts with the values of every side."""
    import datasets
    import trl

    datasets.disable_progress_bars()
    fast: dict[str, Any] = (
        {} if mode == "defaults" else {"gradient_checkpointing": False, "padding_free": mode == "padding_free"}
    )
    if mode == "padding_free":
        fast["max_length"] = None
    arguments = trl.SFTConfig(
        folder,
        max_steps=steps,
        per_device_train_batch_size=work.batch,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        completion_only_loss=True,
        bf16=False,
        use_cpu=True,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **fast,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that padding-free wants a flash attention: losses show that sdpa is right
        trainer = trl.SFTTrainer(
            transformers.AutoModelForCausalLM.from_pretrained(
                conversations.facts().folder, dtype=torch.float32, attn_implementation="sdpa"
            ),
            arguments,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=conversations.tokenizer(),
            peft_config=lora_config(work),
        )
    trainer.log = lambda logs, *_, **__: trainer.state.log_history.append(logs)
    start_values({name: p for name, p in trainer.model.named_parameters() if p.requires_grad})
    return trainer
