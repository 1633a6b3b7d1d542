"""The Hugging Face Trainer on the classification works, with PEFT for LoRA; and a plain padded loop.

The backbone, its update, the head and their first values are those of our learner; model code, padding and loop are the
peer's. Steps hold the same rows in the same order, unless the Trainer groups by length.
"""

from __future__ import annotations

import tempfile
from functools import partial
from typing import Any

import torch
import transformers
from torch.nn import functional as F

from benchmarks.measuring import Turn, timed, with_seconds
from benchmarks.sides.plain import loop
from benchmarks.sides.trl_trainer import StepClock
from benchmarks.texts import HEAD_RATE, RATES, ClassifyWork, encoded
from reglaj.models.heads import ScoreHead
from reglaj.pipelines.assemble import Assembled
from reglaj.training.fit import plan_for
from reglaj.training.optimizer import schedule_factor


class PlainClassifier(torch.nn.Module):
    """The peer's model: a padded backbone, the mean over real tokens, the same head."""

    def __init__(self, backbone: torch.nn.Module, head: ScoreHead) -> None:
        super().__init__()
        self.backbone, self.dropout, self.linear = backbone, head.dropout, head.linear

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        logits = self.linear(self.dropout((hidden * mask).sum(1) / mask.sum(1)))
        if labels is None:
            return {"logits": logits}
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def train(work: ClassifyWork, rows: int, steps: int, sampling: str, dropout: float | None = None) -> Turn:
    """The Trainer's steps. sampling: `sequential` over rows in our order, or `group_by_length`."""
    assembled, model, data = _prepared(work, rows, steps, dropout)
    optimizer, factor = _optimizer(assembled, rows, work)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=work.batch,
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            train_sampling_strategy=sampling,
            remove_unused_columns=False,
        )
        clock = StepClock()
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=data,
            data_collator=transformers.DataCollatorWithPadding(assembled.tokenizer),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)),
            processing_class=assembled.tokenizer,
            callbacks=[clock],
        )
        trainer.log = lambda logs, *_, **__: trainer.state.log_history.append(logs)
        model.train()
        with timed() as region:
            trainer.train()
    losses = tuple(line["loss"] for line in trainer.state.log_history if "loss" in line)
    return Turn(region=with_seconds(region[0], clock.seconds), losses=losses, first_done=clock.first_done)


def plain(work: ClassifyWork, rows: int, steps: int, dropout: float | None = None) -> Turn:
    """The same steps by a plain loop over padded batches."""
    assembled, model, data = _prepared(work, rows, steps, dropout)
    optimizer, factor = _optimizer(assembled, rows, work)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    collate = transformers.DataCollatorWithPadding(assembled.tokenizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    model.train()

    def loss_of(number: int) -> torch.Tensor:
        if number:
            schedule.step()
        loss: torch.Tensor = model(**collate(data[number * work.batch : (number + 1) * work.batch]))["loss"]
        return loss

    return loop(parameters, [partial(loss_of, number) for number in range(steps)], optimizer)


def predict(rows: int, batch: int) -> Turn:
    """`Trainer.predict` as it comes: rows in their own order, each batch padded to its longest."""
    assembled = ClassifyWork(method="full", batch=32).build(1)
    data = encoded(rows)
    items = [{"input_ids": data.rows[i].tolist(), "labels": int(data.targets[i])} for i in range(rows)]
    model = PlainClassifier(assembled.learner.backbone, assembled.learner.head).eval()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_eval_batch_size=batch,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
        )
        trainer = transformers.Trainer(
            model,
            arguments,
            data_collator=transformers.DataCollatorWithPadding(assembled.tokenizer),
            processing_class=assembled.tokenizer,
        )
        with timed() as region:
            output = trainer.predict(items)
    return Turn(region=region[0], answers=output.predictions)


def _prepared(
    work: ClassifyWork, rows: int, steps: int, dropout: float | None
) -> tuple[Assembled, PlainClassifier, list[dict[str, Any]]]:
    """The learner, the peer's model around its parts, and the rows in the order of our plan."""
    assembled = work.build(steps, dropout)
    data = encoded(rows)
    plan = plan_for(assembled.recipe.train, data.rows)
    order = [row for number in range(1, plan.total_steps + 1) for row in plan.rows(number)]
    items = [{"input_ids": data.rows[i].tolist(), "labels": int(data.targets[i])} for i in order]
    return assembled, PlainClassifier(assembled.learner.backbone, assembled.learner.head), items


def _optimizer(assembled: Assembled, rows: int, work: ClassifyWork) -> tuple[torch.optim.AdamW, Any]:
    """AdamW with our groups and decay, and our schedule as a factor of steps done. The fused kernel, as the Trainer's
    default is."""
    config = assembled.recipe.train
    groups = assembled.learner.parameter_groups(RATES[work.method], HEAD_RATE)
    settings = [
        {
            "params": [p for _, p in named if (p.ndim >= 2) == decays],
            "lr": rate,
            "weight_decay": config.weight_decay * decays,
        }
        for named, rate in groups
        for decays in (True, False)
    ]
    total = plan_for(config, encoded(rows).rows).total_steps
    optimizer = torch.optim.AdamW([s for s in settings if s["params"]], fused=True)
    return optimizer, lambda done: schedule_factor(min(done + 1, total), total, config)
