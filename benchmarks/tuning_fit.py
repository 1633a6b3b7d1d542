"""One training that is judged on validation alone: what the training pipeline does, without its final evaluation."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.sides.ours import supervise
from reglaj.core.console import SILENT
from reglaj.core.errors import UserError
from reglaj.models.inspect import inspect_model
from reglaj.pipelines.assemble import assemble
from reglaj.pipelines.check import model_problems
from reglaj.pipelines.data import read_data, with_context
from reglaj.pipelines.recipe import load_recipe
from reglaj.tasks import TASKS
from reglaj.training.defaults import derive_training
from reglaj.training.fit import fit
from reglaj.training.trunk_cache import attach_states


def fitted_on_validation(recipe: Mapping[str, Any], settings: Mapping[str, Any], runs: Path) -> dict[str, Any]:
    """The figures of the evaluation that is kept, and what the training took.

    settings: dotted keys beside the recipe. Raises what the product raises where a method does not apply.
    """
    plan = load_recipe(recipe, keys=settings)
    facts = inspect_model(plan.model, folder=plan.folder)
    plan = plan.with_method(facts)
    if problems := model_problems(TASKS.get(plan.task), plan.method, plan.train, facts):
        raise UserError(*problems)
    plan = with_context(plan, facts)
    data = read_data(plan, runs, SILENT, facts).visible
    task = TASKS.get(plan.task).from_data(data)
    plan = plan.with_train(derive_training(plan.train, plan.method, facts, data.report["train"], task.defaults))
    assembled = assemble(plan, facts, task)
    learner = assembled.learner
    encoded = task.encode(data.train(), assembled.tokenizer, assembled.max_tokens)
    validation = task.encode(data.validation(), assembled.tokenizer, assembled.max_tokens)
    with tempfile.TemporaryDirectory(prefix="reglaj-cell-") as folder:
        states = Path(folder) / "states"
        rows = attach_states(learner, (encoded.rows, validation.rows), plan.train, states)
        encoded, validation = replace(encoded, rows=rows[0]), replace(validation, rows=rows[1])
        supervision = replace(
            supervise(assembled, encoded),
            measure=lambda: task.validate(learner, validation),
            labels=task.strata(encoded),
        )
        fitted = fit(learner, supervision, plan.train, _made(Path(folder) / "run"))
    seen = [line for line in fitted.metrics if line["event"] == "evaluation"]
    kept = next(line for line in seen if line["step"] == fitted.best_step)
    stopping = plan.train.early_stopping
    assert stopping and stopping.metric
    value = kept[stopping.metric]
    return {
        "metric": stopping.metric,
        # Larger is better.
        "score": -value if stopping.metric.endswith("loss") else value,
        "validation_loss": kept["validation_loss"],
        "rows": {"train": len(encoded), "validation": len(validation)},
        "epochs": plan.train.epochs,
        "best_epoch": kept["epoch"],
        "stopped": fitted.stopped,
        "train_seconds": round(fitted.seconds, 2),
        "trainable_parameters": sum(t.numel() for t in learner.trained().values()),
        "method_section": plan.method.model_dump(mode="json"),
        "head_learning_rate": plan.train.head_learning_rate,
        "batch_size": plan.train.batch_size,
        "engine": {key: learner.engine.facts()[key] for key in ("device", "hardware", "precision")},
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
