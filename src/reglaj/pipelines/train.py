"""The main job: data, split, train with early stopping, test, report. Stopped anywhere, the same command goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import (
    EnvironmentFault,
    GateRefused,
    Problem,
    ReglajError,
    SaidElsewhere,
    UserError,
    environment_fault,
    is_out_of_memory,
    refusal,
    user_error,
)
from reglaj.core.files import canonical_hash, new_folder, sweep, write_json, write_text
from reglaj.core.run_listing import TOKENS
from reglaj.core.runs import begin_run, finish_run, locked, read_manifest, run_before, write_manifest
from reglaj.core.signals import Stopped
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.pipelines.changes import what_changed
from reglaj.pipelines.check import model_problems
from reglaj.pipelines.data import read_data, refuse_missing_data, with_context
from reglaj.pipelines.judging import judged, refuse_unknown_groups
from reglaj.pipelines.lineage import changed_labels
from reglaj.pipelines.recipe import Recipe, load_recipe
from reglaj.pipelines.results import cost_of, extras_of, learnt_of, manifest_facts, report_of
from reglaj.tasks import TASKS
from reglaj.training.parallel import Ranks, check_batch_size, joined

if TYPE_CHECKING:
    from reglaj.data.examples import PreparedData
    from reglaj.pipelines.assemble import Assembled
    from reglaj.tasks.base import Encoded, Task
    from reglaj.training.fit import Supervision
    from reglaj.training.learner import Learner

RECIPE = "recipe.yaml"
SUPERVISION = "supervision.json"
_NO_RESULT = ("checkpoint_every", "checkpoint_minutes", "keep")
"""Keys of `train` that decide nothing about the result: with other values of these a run goes on."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run. report: the document in its report.json. was_finished: it was only printed again."""

    path: Path
    report: dict[str, Any]
    was_finished: bool = False


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is to be done, resolved: everything that is known before a run begins."""

    plan: Recipe
    facts: ModelFacts
    data: PreparedData
    task: Task

    @property
    def identity(self) -> str:
        """The same recipe on the same data and base, wherever the files lie."""
        values = self.plan.values()
        del (
            values["data"]["sources"],
            values["data"]["decontaminate"],
            values["model"],
        )  # the data key and the fingerprint stand for their content
        values["train"] = {key: value for key, value in values["train"].items() if key not in _NO_RESULT}
        return canonical_hash({"recipe": values, "data": self.data.key, "base": self.facts.fingerprint})


def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    runs: str | Path = "runs",
    fresh: bool = False,
    console: Console = SILENT,
    overrides: Iterable[str] = (),
    **keys: Any,
) -> Run:
    """Train on a recipe, go on where an earlier call was stopped, or print again what it gave.

    keys: overrides as `train__epochs=3`; overrides: the same as `train.epochs=3` texts. fresh: a new run even
    where one of the same recipe and data is there. Under torchrun every process calls this, and each gets the report.
    Raises `UserError`, `GateRefused` or `EnvironmentFault`, and `Stopped` where a signal asked for it.
    """
    plan = load_recipe(recipe, overrides, keys)
    with joined(plan.train.device) as ranks:
        job = ranks.first_then_rest(lambda: _prepare(plan, Path(runs), console if ranks.is_first else SILENT))
        _check_shares(job, ranks)
        with contextlib.ExitStack() as stack:
            run = ranks.together(lambda: _begin(job, Path(runs), fresh, console, stack) if ranks.is_first else None)
            path, status, report = ranks.from_first(run and [str(run[0]), run[1], run[2]])
            if report is not None:
                return Run(path=Path(path), report=report, was_finished=True)
            try:
                return _run(job, Path(path), status, console, ranks)
            except Stopped as stopped:
                if fresh:  # given again as it is, the command would take a new run once more
                    stopped.saved = stopped.saved.replace("the same command", "the same command without --fresh")
                raise


def _prepare(plan: Recipe, runs: Path, console: Console) -> _Job:
    facts = inspect_model(plan.model, folder=plan.folder, console=console)
    plan = plan.with_method(facts)
    problems = model_problems(TASKS.get(plan.task), plan.method, plan.train, facts)
    if problems:
        raise refusal(problems)
    plan = with_context(plan, facts)
    data = read_data(plan, runs, console, facts)
    task = TASKS.get(plan.task).from_data(data.visible)
    return _Job(plan=_resolve(plan, facts, task, data, console), facts=facts, data=data, task=task)


def _check_shares(job: _Job, ranks: Ranks) -> None:
    """Raises `UserError` where a process sees another recipe, base or data than the first, or there are too many."""
    facts = {"the data": job.data.key, "the base": job.facts.fingerprint, "the recipe": job.identity}
    seen = ranks.gather(facts)
    assert job.plan.train.batch_size, "a resolved recipe names it"
    batch_size = job.plan.train.batch_size

    def check() -> None:
        for rank, other in enumerate(seen):
            different = [name for name in facts if other[name] != seen[0][name]]
            if different:
                raise user_error(
                    f"process {rank} of {ranks.size} sees {different[0]} otherwise than the first process",
                    allowed="the same recipe, data and base in every process",
                    why="their gradients would be those of different trainings",
                    remedy="give every machine the same files, or a folder that all of them share",
                )
        check_batch_size(batch_size, ranks)

    ranks.together(check)


def _begin(
    job: _Job, runs: Path, fresh: bool, console: Console, stack: contextlib.ExitStack
) -> tuple[Path, str, dict[str, Any] | None]:
    """The run's folder, locked for as long as `stack` lasts; how far it is; and its report where it is finished."""
    plan = job.plan
    facts = {"task": plan.task, "method": plan.method.name, "model": plan.model}
    facts |= {"data_key": job.data.key, "base": job.facts.fingerprint}
    path, status = begin_run(runs, plan.name, job.identity, fresh=fresh, facts=facts)
    if status == "finished" and (report := _finished(path, console)):
        return path, status, report
    stack.enter_context(locked(path))
    # Asked again under the lock: another process may have finished the run since.
    if report := _finished(path, console):
        return path, status, report
    refuse_missing_data(job.data)
    sweep(path)
    before = run_before(path) if status == "new" else None
    changes = what_changed(before, plan, facts) if before else []
    told = "a new run" if status == "new" else "going on, for it was not finished"
    console.say(
        f"{path}: {told}" + (f"; other than {before.name} in {'; '.join(changes)}" if before and changes else "")
    )
    return path, status, None


def _finished(path: Path, console: Console) -> dict[str, Any] | None:
    """The report of the run if it is finished and its report can be read."""
    try:
        report: dict[str, Any] = json.loads((path / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if read_manifest(path).get("status") != "finished":
        return None
    console.say(f"{path} is finished: the same recipe on the same data. Its result again (--fresh trains anew):")
    return report | {"run": os.path.relpath(path)}


def _run(job: _Job, path: Path, status: str, console: Console, ranks: Ranks) -> Run:
    begun = read_manifest(path)  # should somebody remove it under the run
    try:
        if ranks.is_first:
            write_text(path / RECIPE, job.plan.to_yaml())
        with _memory_faults():
            report = _execute(path, job, begun, console if ranks.is_first else SILENT, ranks)
        return Run(path=path, report=report)
    except BaseException as error:
        if ranks.is_first:
            _close(path, error, begun, is_new=status == "new")
        elif isinstance(error, GateRefused):  # sums are the same everywhere, and so is what they are refused for
            raise SaidElsewhere(error.exit_code) from error
        raise


@contextlib.contextmanager
def _memory_faults() -> Iterator[None]:
    """Turn an allocation that failed, wherever it was, into an `EnvironmentFault`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise environment_fault(
            "out of memory",
            allowed="memory for the model, its gradients and the optimizer (`reglaj check` forecasts it)",
            why=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            remedy="free memory, or take method lora or train.gradient_checkpointing=true; then give the same command",
        ) from error


def _resolve(plan: Recipe, facts: ModelFacts, task: Task, data: PreparedData, console: Console) -> Recipe:
    """Every value that was left out, derived and printed."""
    from reglaj.training.defaults import derive_training

    problems = task.check_train(plan.train) + _changed_labels(task, facts, data)
    if problems:
        raise UserError(*problems)
    refuse_unknown_groups(task, plan.evaluate, data.visible)
    derived = derive_training(plan.train, plan.method, facts, data.report["train"], task.defaults)
    plan = plan.with_train(derived).with_split(data.report["split"], data.report["leakage"]["policy"])
    for key, value in plan.derived.items():
        console.say(f"  {key} = {value}")
    return plan


def _changed_labels(task: Task, facts: ModelFacts, data: PreparedData) -> list[Problem]:
    role = task.roles.target
    return changed_labels(type(task), data.visible.train().column(role), facts) if role else []


def _execute(path: Path, job: _Job, begun: Mapping[str, Any], console: Console, ranks: Ranks) -> dict[str, Any]:
    """Train, save, test, report; returns the report in every process."""
    from reglaj.evaluation.report import write_report
    from reglaj.pipelines.assemble import assemble, save_model
    from reglaj.tasks.base import Evaluation
    from reglaj.training.fit import fit, plan_for

    plan, data, started = job.plan, job.data, time.perf_counter()
    assembled = assemble(plan, job.facts, job.task)
    learner = assembled.learner
    learner.ranks = ranks
    _choose_engine(path, learner, console)
    _save_memory(learner, plan, console)
    supervision, validation, cut = _supervise(assembled, data, path, console)
    if ranks.is_first:
        steps = plan_for(plan.train, supervision.rows).total_steps
        facts = {"status": "running", "engine": learner.engine.facts(), "total_steps": steps, "reason": ""}
        write_manifest(path, {**(read_manifest(path) or begun), **facts})
    fitted = fit(learner, supervision, plan.train, path, console, identity=job.identity)
    job.task.settle(learner, validation, plan, console)
    digest = _weights_digest(learner)
    if ranks.is_first:
        with new_folder(path / "model") as folder:
            save_model(assembled, folder)

    # One opening, recorded by the first process, however many read.
    test, openings = data.open_test(opened_by=path.name if ranks.is_first else None)
    test_started = time.perf_counter()
    evaluation = Evaluation(
        learner=learner,
        tokenizer=assembled.tokenizer,
        test=test,
        config=plan.evaluate,
        max_tokens=assembled.max_tokens,
        seed=plan.train.seed,
        data=data.visible,
    )
    result = job.task.evaluate(evaluation, console)
    if not ranks.is_first:
        report: dict[str, Any] = ranks.from_first(None)
        return report
    seconds = {"test_seconds": time.perf_counter() - test_started, "total_seconds": time.perf_counter() - started}
    report = {
        **report_of(path, plan, data.visible, fitted, result),
        **judged(job.task, evaluation, result, console),
        **learnt_of(learner, assembled.tokenizer),
        "cost": cost_of(path, learner, fitted) | {name: round(value, 3) for name, value in seconds.items()},
        "test_openings": openings,
        "weights_sha256": digest,
        "cut_texts": {**cut, "test": result.cut},
        "max_tokens": assembled.max_tokens,
        "engine": learner.engine.facts(),
    }
    write_report(path, report, extras_of(plan, job.facts, fitted, result), job.task.report_plan())
    if not (path / RECIPE).is_file():  # somebody removed it under the run
        write_text(path / RECIPE, plan.to_yaml())
    finish_run(path, manifest_facts(plan, report), begun)
    ranks.from_first(report)
    return report


def _choose_engine(path: Path, learner: Learner, console: Console) -> None:
    """What the engine chose stays with the run: a run that goes on takes the choices that it was begun with."""
    from reglaj.training.engine import go_on_with

    ranks = learner.ranks
    before = read_manifest(path).get("engine") if ranks.is_first else None
    # The first process chooses for all: what is shared out by length must be shared out alike.
    before = ranks.from_first(before or learner.engine.facts())
    learner.engine, _ = go_on_with(learner.engine, before)
    console.say(f"  {learner.engine}")
    if learner.engine.remark:
        console.warn(learner.engine.remark)


def _save_memory(learner: Learner, plan: Recipe, console: Console) -> None:
    """What the recipe allows that changes no result beyond rounding."""
    if plan.train.gradient_checkpointing:
        learner.checkpoint_gradients()
    if plan.train.frozen_weights == "auto" and (freed := learner.narrow_frozen()):
        console.say(f"  frozen linear weights lie in bfloat16: {freed / 1e6:,.0f} MB less, the same products")


def _supervise(
    assembled: Assembled, data: PreparedData, path: Path, console: Console
) -> tuple[Supervision[Any], Encoded, dict[str, int]]:
    """What the task hands to the loop, the rows of validation, and how many texts were cut.

    The run keeps what is learnt from.
    """
    from reglaj.models.token_cache import TokenStore, keeping_tokens
    from reglaj.training.fit import Supervision
    from reglaj.training.trunk_cache import attach_states

    task, learner, max_tokens = assembled.task, assembled.learner, assembled.max_tokens
    # Never the test: what is kept can be read by whoever comes later.
    with keeping_tokens(TokenStore(folder=path.parent / TOKENS, data_key=data.key, console=console)):
        encoded = task.encode(data.train(), assembled.tokenizer, max_tokens)
        validation = task.encode(data.validation(), assembled.tokenizer, max_tokens)
    cut = {"train": encoded.cut, "validation": validation.cut}
    if any(cut.values()):
        console.warn(f"texts longer than {max_tokens} tokens were cut at the end: {cut}")
    parts, settings = (encoded.rows, validation.rows), assembled.recipe.train
    rows = attach_states(learner, parts, settings, path.parent, console, data_key=data.key)
    encoded, validation = replace(encoded, rows=rows[0]), replace(validation, rows=rows[1])
    supervision = Supervision(
        rows=encoded.rows,
        load=lambda rows: task.batch(encoded, rows, learner.engine.device),
        forward=lambda batch: task.outputs(learner, batch),
        objective=task.objective(settings, encoded),
        row_places=task.row_places,
        cut_rows=task.cut_rows,
        measure=lambda: task.validate(learner, validation),
        labels=task.strata(encoded),
    )
    if learner.ranks.is_first and (record := task.supervision(encoded)):
        write_json(path / SUPERVISION, record)
    return supervision, validation, cut


def _weights_digest(learner: Learner) -> str:
    """SHA-256 of the trained weights. Raises `ReglajError` where processes do not have the same ones."""
    from reglaj.training.learner import weights_sha256

    digests = learner.ranks.gather(weights_sha256(learner.trained()))
    if len(set(digests)) > 1:
        raise ReglajError(
            Problem(
                given="the processes have ended with different weights",
                allowed="the same weights in every process, after the same sums of gradients",
                why="which of them were evaluated would depend on the process",
                remedy="train again with one process, and report this",
            )
        )
    return str(digests[0])


def _close(path: Path, error: BaseException, begun: Mapping[str, Any], *, is_new: bool) -> None:
    """Say in the manifest why the run ended; the same command goes on. Without a step there is no run."""
    with contextlib.suppress(OSError):  # the error on its way up says more than that the disk is full
        if read_manifest(path).get("status") == "finished":
            return  # what came after its end does not undo it
        if is_new and isinstance(error, UserError | EnvironmentFault) and not (path / "metrics.jsonl").exists():
            shutil.rmtree(path)
            return
        is_interrupted = isinstance(error, Stopped | KeyboardInterrupt | EnvironmentFault)
        reason = str(error) if isinstance(error, ReglajError | Stopped) else type(error).__name__
        facts = {"status": "interrupted" if is_interrupted else "failed", "reason": reason}
        write_manifest(path, {**(read_manifest(path) or begun), **facts})
