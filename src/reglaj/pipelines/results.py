"""What came of a training, in the form of report.json, of its page, and of the manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.runs import software
from reglaj.models.inspect import ModelFacts
from reglaj.pipelines.recipe import Recipe
from reglaj.tasks import TASKS

if TYPE_CHECKING:
    from reglaj.data.examples import VisibleData
    from reglaj.tasks.base import EvaluationResult
    from reglaj.training.fit import Fitted
    from reglaj.training.learner import Learner


def report_of(path: Path, plan: Recipe, data: VisibleData, fitted: Fitted, result: EvaluationResult) -> dict[str, Any]:
    """What report.json says of data, test and training."""
    return {
        "run": os.path.relpath(path),
        "name": plan.name,
        "task": plan.task,
        "model": plan.model,
        "method": plan.method.name,
        "confidence": plan.evaluate.confidence,
        "data": {**data.report, "key": data.key},
        "test": result.test,
        "baselines": result.baselines,
        "notes": result.notes,
        "training": {
            "steps": fitted.steps,
            "best_step": fitted.best_step,
            "stopped": fitted.stopped,
            "skipped_steps": fitted.skipped,
            "resumed_at": fitted.resumed_at,
        },
    }


def learnt_of(learner: Learner, tokenizer: Any) -> dict[str, Any]:
    """What report.json shows of what was learnt: `learnt`, where the method has something that can be looked at."""
    learnt = learner.handle.learnt(tokenizer)
    return {"learnt": learnt} if learnt else {}


def extras_of(plan: Recipe, facts: ModelFacts, fitted: Fitted, result: EvaluationResult) -> dict[str, Any]:
    """What only the page shows."""
    licences = [{"name": plan.model, "licence": facts.licence, "source": facts.source}]
    for source in plan.data.sources:
        if source.path.startswith("starter:"):
            from reglaj.models.starters import STARTERS

            starter = STARTERS[source.path.removeprefix("starter:")]
            licences.append({"name": source.path, "licence": starter.licence, "source": starter.source})
    return {
        "metrics": fitted.metrics,
        "mistakes": result.mistakes,
        **result.extras,
        "recipe_yaml": plan.to_yaml(),
        "derived": dict(plan.derived),
        "software": software(),
        "licences": licences,
    }


def manifest_facts(plan: Recipe, report: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest of a finished run adds; `gate` where the recipe has one."""
    metric = TASKS.get(plan.task).headline
    gate = {"gate": gate_mark(report)} if "gate" in report else {}
    return {
        **gate,
        "headline": {metric: report["test"][metric]},
        "engine": report["engine"],
        "seeds": {"train": plan.train.seed, "split": plan.data.split.seed},
        "weights_sha256": report["weights_sha256"],
    }


def gate_mark(report: Mapping[str, Any]) -> dict[str, Any]:
    """How a run is marked: whether its gate passed, and a sentence for each rule that did not hold."""
    from reglaj.evaluation.gates import failed_rules

    return {"passed": report["gate"]["passed"], "failed": failed_rules(report)}


def cost_of(path: Path, learner: Learner, fitted: Fitted) -> dict[str, Any]:
    """What the training took: of several starts of a run together, where one was interrupted."""
    from reglaj.training.engine import peak_memory_bytes

    whole = fitted.seconds + fitted.evaluation_seconds + fitted.checkpoint_seconds
    return {
        "train_seconds": round(fitted.seconds, 3),
        "validation_seconds": round(fitted.evaluation_seconds, 3),
        "checkpoint_seconds": round(fitted.checkpoint_seconds, 3),
        "checkpoint_share": round(fitted.checkpoint_seconds / whole, 4) if whole else 0.0,
        "tokens_per_second": round(fitted.tokens / fitted.seconds, 1) if fitted.seconds else 0.0,
        "peak_memory_bytes": peak_memory_bytes(learner.engine.device),
        "trainable_parameters": sum(tensor.numel() for tensor in learner.trained().values()),
        "stored_bytes": sum(file.stat().st_size for file in (path / "model").iterdir()),
    }
