"""The main job: data, split, train with early stopping, test, report."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import EnvironmentFault, ReglajError, UserError
from reglaj.core.files import canonical_hash, new_folder, write_text
from reglaj.core.runs import begin_run, finish_run, locked, read_manifest, software, write_manifest
from reglaj.methods import METHODS
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.pipelines.check import model_problems
from reglaj.pipelines.data import read_data, with_context
from reglaj.pipelines.recipe import Recipe, load_recipe
from reglaj.tasks import TASKS

if TYPE_CHECKING:
    from reglaj.data.examples import PreparedData
    from reglaj.pipelines.assemble import Assembled
    from reglaj.tasks.base import EvaluationResult, Task
    from reglaj.training.fit import Fitted


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run. report: the document in its report.json. was_finished: it was only printed again."""

    path: Path
    report: dict[str, Any]
    was_finished: bool = False


def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    runs: str | Path = "runs",
    fresh: bool = False,
    console: Console = SILENT,
    overrides: Iterable[str] = (),
    **keys: Any,
) -> Run:
    """Train on a recipe, or print again what it gave.

    keys: overrides as `train__epochs=3`; overrides: the same as `train.epochs=3` texts. fresh: a new run even
    where one of the same recipe and data is finished. Raises `UserError`, `GateRefused` or `EnvironmentFault`.
    """
    plan = load_recipe(recipe, overrides, keys)
    facts = inspect_model(plan.model, folder=plan.folder, console=console)
    problems = model_problems(TASKS.get(plan.task), plan.method, plan.train, facts)
    if problems:
        raise UserError(*problems)
    plan = with_context(plan, facts)
    data = read_data(plan, Path(runs), console, facts)
    task = TASKS.get(plan.task).from_data(data)
    plan = _resolve(plan, facts, task, data, console)

    path, status = begin_run(
        Path(runs),
        plan.name,
        _identity(plan, facts, data),
        fresh=fresh,
        facts={"task": plan.task, "method": plan.method.name, "model": plan.model, "data_key": data.key},
    )
    if status == "finished" and (finished := _finished(path, console)):
        return finished
    with locked(path):
        # Asked again under the lock: another process may have finished the run since.
        if finished := _finished(path, console):
            return finished
        console.say(f"{path}: {'a new run' if status == 'new' else 'starting again, for it was not finished'}")
        try:
            write_text(path / "recipe.yaml", plan.to_yaml())
            return _execute(path, plan, facts, task, data, console)
        except BaseException as error:
            _close(path, error, is_new=status == "new")
            raise


def _finished(path: Path, console: Console) -> Run | None:
    """The run if it is finished and its report can be read."""
    try:
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if read_manifest(path).get("status") != "finished":
        return None
    console.say(f"{path} is finished: the same recipe on the same data. Its result again (--fresh trains anew):")
    return Run(path=path, report=report | {"run": os.path.relpath(path)}, was_finished=True)


def _resolve(plan: Recipe, facts: ModelFacts, task: Task, data: PreparedData, console: Console) -> Recipe:
    """Every value that was left out, derived and printed."""
    from reglaj.training.defaults import derive_training

    problems = task.check_train(plan.train)
    if problems:
        raise UserError(*problems)
    derived = derive_training(plan.train, METHODS.get(plan.method.name), facts, data.report["train"], task.defaults)
    plan = plan.with_train(derived).with_split(data.report["split"]["kind"])
    for key, value in plan.derived.items():
        console.say(f"  {key} = {value}")
    return plan


def _identity(plan: Recipe, facts: ModelFacts, data: PreparedData) -> str:
    """The same recipe on the same data and base, wherever the files lie."""
    values = plan.values()
    del values["data"]["sources"], values["model"]  # the data key and the fingerprint stand for their content
    return canonical_hash({"recipe": values, "data": data.key, "base": facts.fingerprint})


def _execute(path: Path, plan: Recipe, facts: ModelFacts, task: Task, data: PreparedData, console: Console) -> Run:
    from reglaj.evaluation.report import write_report
    from reglaj.pipelines.assemble import assemble, save_model
    from reglaj.tasks.base import Evaluation
    from reglaj.training.engine import peak_memory_bytes
    from reglaj.training.fit import fit
    from reglaj.training.learner import weights_sha256

    started = time.perf_counter()
    assembled = assemble(plan, facts, task)
    learner, engine = assembled.learner, assembled.learner.engine
    rows = f"{engine.layout} rows ({engine.layout_reason})"
    console.say(f"  {engine.device}, {engine.precision}, {rows}, {engine.threads} threads")
    if plan.train.gradient_checkpointing:
        learner.checkpoint_gradients()
    supervision, cut = _supervise(assembled, data, console)
    fitted = fit(learner, supervision, plan.train, path / "metrics.jsonl", console)
    with new_folder(path / "model") as folder:
        save_model(assembled, folder)

    test, openings = data.open_test(opened_by=path.name)
    test_started = time.perf_counter()
    result = task.evaluate(
        Evaluation(
            learner=learner,
            tokenizer=assembled.tokenizer,
            test=test,
            config=plan.evaluate,
            max_tokens=assembled.max_tokens,
            seed=plan.train.seed,
            data=data,
        ),
        console,
    )
    stored = sum(file.stat().st_size for file in (path / "model").iterdir())
    cost = {
        "train_seconds": round(fitted.seconds, 3),
        "validation_seconds": round(fitted.evaluation_seconds, 3),
        "test_seconds": round(time.perf_counter() - test_started, 3),
        "total_seconds": round(time.perf_counter() - started, 3),
        "tokens_per_second": round(fitted.tokens / fitted.seconds, 1) if fitted.seconds else 0.0,
        "peak_memory_bytes": peak_memory_bytes(engine.device),
        "trainable_parameters": sum(tensor.numel() for tensor in learner.trained().values()),
        "stored_bytes": stored,
    }
    report = {
        **_report(path, plan, data, fitted, result),
        "cost": cost,
        "test_openings": openings,
        "weights_sha256": weights_sha256(learner.trained()),
        "cut_texts": {**cut, "test": result.cut},
        "max_tokens": assembled.max_tokens,
        "engine": engine.facts(),
    }
    write_report(path, report, _extras(plan, facts, fitted, result), task.report_plan())
    finish_run(path, _manifest_facts(plan, report))
    return Run(path=path, report=report)


def _supervise(assembled: Assembled, data: PreparedData, console: Console) -> tuple[Any, dict[str, int]]:
    """What the task hands to the loop, and how many texts were cut at the context."""
    from reglaj.training.fit import Supervision

    task, learner, max_tokens = assembled.task, assembled.learner, assembled.max_tokens
    encoded = task.encode(data.train(), assembled.tokenizer, max_tokens)
    validation = task.encode(data.validation(), assembled.tokenizer, max_tokens)
    cut = {"train": encoded.cut, "validation": validation.cut}
    if any(cut.values()):
        console.warn(f"texts longer than {max_tokens} tokens were cut at the end: {cut}")
    supervision = Supervision(
        rows=encoded.rows,
        load=lambda rows: task.batch(encoded, rows, learner.engine.device),
        forward=lambda batch: task.outputs(learner, batch),
        objective=task.objective(assembled.recipe.train, encoded),
        row_places=task.row_places,
        cut_rows=task.cut_rows,
        measure=lambda: task.validate(learner, validation),
    )
    return supervision, cut


def _report(path: Path, plan: Recipe, data: PreparedData, fitted: Fitted, result: EvaluationResult) -> dict[str, Any]:
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
        "training": {"steps": fitted.steps, "best_step": fitted.best_step, "stopped": fitted.stopped},
    }


def _extras(plan: Recipe, facts: ModelFacts, fitted: Fitted, result: EvaluationResult) -> dict[str, Any]:
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


def _manifest_facts(plan: Recipe, report: Mapping[str, Any]) -> dict[str, Any]:
    metric = TASKS.get(plan.task).headline
    return {
        "headline": {metric: report["test"][metric]},
        "engine": report["engine"],
        "seeds": {"train": plan.train.seed, "split": plan.data.split.seed},
        "weights_sha256": report["weights_sha256"],
    }


def _close(path: Path, error: BaseException, *, is_new: bool) -> None:
    """Say in the manifest why the run ended; the same command starts it again. Without a step there is no run."""
    with contextlib.suppress(OSError):  # the error on its way up says more than that the disk is full
        if is_new and isinstance(error, UserError | EnvironmentFault) and not (path / "metrics.jsonl").exists():
            shutil.rmtree(path)
            return
        reason = str(error) if isinstance(error, ReglajError) else type(error).__name__
        write_manifest(path, read_manifest(path) | {"status": "failed", "reason": reason})
