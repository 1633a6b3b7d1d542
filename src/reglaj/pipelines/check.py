"""`check`: everything that can be known before training, all problems at once. Loads no model and no torch.

One stage's problems do not hide another's: whatever part of the recipe is valid by itself is checked further.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reglaj.core.config import Config, apply_override, read_yaml_mapping, validate
from reglaj.core.console import SILENT, Console
from reglaj.core.errors import Problem, environment_fault
from reglaj.data.asked import check_split
from reglaj.data.config import DataConfig
from reglaj.evaluation.config import EvaluateConfig
from reglaj.methods import METHODS
from reglaj.methods.config import MethodConfig
from reglaj.pipelines.check_sources import Seen, amount_of, check_contents, columns_beside, look_at_sources
from reglaj.pipelines.findings import Findings
from reglaj.pipelines.forecast import Amount, forecast, what_would_fit
from reglaj.pipelines.machine_speed import measured_speed
from reglaj.pipelines.recipe import Recipe, load_recipe, resolve_method
from reglaj.pipelines.room import no_room
from reglaj.tasks import TASKS
from reglaj.training.config import TrainConfig

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts
    from reglaj.tasks.base import Task


def check(
    recipe: str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    runs: str | Path = "runs",
    console: Console = SILENT,
) -> dict[str, Any]:
    """What this recipe would train, and a forecast of memory and time.

    Raises `UserError` with every problem found (`EnvironmentFault` when all of them are the machine's).
    Only the first rows of each source are read; what needs them all is for `reglaj data` to find.
    """
    findings = Findings()
    assignments = list(overrides)
    whole = findings.attempt(lambda: load_recipe(recipe, assignments))
    parts = _parts_of(whole) if whole else _valid_parts(recipe, assignments)
    seen = look_at_sources(parts.data, parts.task, parts.folder, findings, console) if parts.data else []
    if parts.data:
        findings.attempt(lambda: check_split(cast("DataConfig", parts.data)))
        findings.add(columns_beside(parts.data, parts.evaluate, seen))
    facts = findings.attempt(lambda: _inspect(parts, console)) if parts.model else None
    if facts:
        findings.add(model_problems(parts.task, parts.method, parts.train, facts))
    if parts.data and parts.task:
        check_contents(parts.data, parts.task, seen, findings, facts)
    findings.attempt(lambda: _check_writable(Path(runs)))
    findings.raise_all()
    assert whole and facts
    name = None if isinstance(recipe, Mapping) else str(recipe)
    return {"recipe": name, "name": whole.name, **_summary(whole.with_method(facts), facts, seen, findings.notes)}


def model_problems(
    task: type[Task] | None, method: MethodConfig | None, train: TrainConfig | None, facts: ModelFacts
) -> list[Problem]:
    """What does not fit between task, method, context and model, told from names and shapes."""
    problems: list[Problem] = []
    taken = 0
    if task:
        problems += task.check_model(facts)
    if task and method:
        method, _ = resolve_method(method, facts, task)
    if method:
        problems += METHODS.get(method.name).check(method, facts)
        taken = METHODS.get(method.name).virtual_tokens(method, facts)
    if task and method and not problems and not task.defaults.has_new_head:
        problems += _nothing_learns(task, method, facts)
    room = no_room(train.max_tokens if train else None, taken, facts)
    # Of two limits for one key the narrower one: whoever follows the other is refused again.
    told = {problem.where for problem in room}
    return [problem for problem in problems if problem.where not in told] + room


def _nothing_learns(task: type[Task], method: MethodConfig, facts: ModelFacts) -> list[Problem]:
    if METHODS.get(method.name).trainable_parameters(method, facts):
        return []
    return [
        Problem(
            where="method.name",
            given=f"{method.name} for the task {task.name}",
            allowed="a method that trains parameters of the model",
            why=f"{method.name} trains a new head only, and {task.name} has none: nothing would learn",
            remedy="choose lora or full",
        )
    ]


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What of a recipe can be checked further; None where that part is broken."""

    folder: Path
    task: type[Task] | None = None
    model: str | None = None
    data: DataConfig | None = None
    method: MethodConfig | None = None
    train: TrainConfig | None = None
    evaluate: EvaluateConfig | None = None


def _parts_of(recipe: Recipe) -> _Parts:
    return _Parts(
        folder=recipe.folder,
        task=TASKS.get(recipe.task),
        model=recipe.model,
        data=recipe.data,
        method=recipe.method,
        train=recipe.train,
        evaluate=recipe.evaluate,
    )


def _valid_parts(recipe: str | Path | Mapping[str, Any], overrides: list[str]) -> _Parts:
    """The sections of a broken recipe that are valid by themselves. Their problems are known already."""
    quiet = Findings()
    values = quiet.attempt(lambda: _values(recipe, overrides)) or {}
    folder = Path.cwd() if isinstance(recipe, Mapping) else Path(recipe).resolve().parent
    name, model, method = values.get("task"), values.get("model"), values.get("method")
    task = TASKS.get(name) if isinstance(name, str) and name in TASKS else None
    if method is None and task:
        method = task.default_method
    if isinstance(method, str):
        method = {"name": method}
    method_type = method.get("name") if isinstance(method, dict) else None
    config = METHODS.get(method_type).config_type if isinstance(method_type, str) and method_type in METHODS else None

    def section(kind: type[Config], given: Any, where: str) -> Any:
        return quiet.attempt(lambda: validate(kind, given, where=where))

    return _Parts(
        folder=folder,
        task=task,
        model=model if isinstance(model, str) else task.default_model if task and model is None else None,
        data=section(DataConfig, values.get("data"), "data"),
        method=section(config, method, "method") if config else None,
        train=section(TrainConfig, values.get("train"), "train"),
        evaluate=section(EvaluateConfig, values.get("evaluate"), "evaluate"),
    )


def _values(recipe: str | Path | Mapping[str, Any], overrides: list[str]) -> dict[str, Any]:
    values = copy.deepcopy(dict(recipe)) if isinstance(recipe, Mapping) else read_yaml_mapping(Path(recipe))
    for assignment in overrides:
        apply_override(values, assignment)
    return values


def _inspect(parts: _Parts, console: Console) -> ModelFacts:
    from reglaj.models.inspect import inspect_model

    return inspect_model(cast("str", parts.model), folder=parts.folder, console=console)


def _check_writable(runs: Path) -> None:
    """The runs folder, or the nearest folder above it that exists, must take new files."""
    place = runs.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return
    raise environment_fault(
        f"cannot write below {str(runs)!r}",
        allowed="a folder that can be written to, or made",
        why=f"{str(place)!r} is {'read-only for this user' if place.is_dir() else 'a file, not a folder'}",
        remedy="choose another folder with --runs DIR",
        where="--runs",
    )


def _forecasts(recipe: Recipe, facts: ModelFacts, amount: Amount) -> dict[str, Any]:
    """Of the recipe's method, and of every other one on the same model and data."""
    speed = measured_speed(facts)
    return {"forecast": forecast(recipe, facts, amount, speed), "methods": what_would_fit(recipe, facts, amount, speed)}


def _summary(recipe: Recipe, facts: ModelFacts, seen: list[Seen], notes: list[str]) -> dict[str, Any]:
    trainable = METHODS.get(recipe.method.name).trainable_parameters(recipe.method, facts)
    return {
        "task": recipe.task,
        "model": {
            "name": facts.name,
            "type": facts.model_type,
            "parameters": facts.parameters,
            "licence": facts.licence,
        },
        "method": {
            "name": recipe.method.name,
            "trainable_parameters": trainable,
            "share": trainable / facts.parameters if facts.parameters else 0.0,
            "has_new_head": TASKS.get(recipe.task).defaults.has_new_head,
        },
        "sources": [
            {
                "path": one.config.path,
                "kind": one.preview.kind,
                "encoding": one.preview.encoding,
                "rows_seen": one.preview.rows_seen,
                "is_complete": one.preview.is_complete,
            }
            for one in seen
        ],
        **_forecasts(recipe, facts, amount_of(TASKS.get(recipe.task), seen)),
        "notes": notes,
    }
