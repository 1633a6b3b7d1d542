"""What the command line can tell without working: methods, the schema of a recipe, the runs.

Runs are listed often, and by programs: what the others need is imported where they need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.run_listing import DATA, data_folders, list_runs, size_of

if TYPE_CHECKING:
    from reglaj.core.config import Config
    from reglaj.models.inspect import ModelFacts

_REF = "#/$defs/{model}"


def describe_methods(model: str | None = None, *, console: Console = SILENT) -> list[dict[str, Any]]:
    """Every method: what it does, for what, who serves its files, the citation; with a model, what it takes there.

    model: a starter, a folder or a hub id. `tasks` are those that it applies to. `trainable_parameters` are those of
    the model or the method, without the new head; `share` is of the model's own parameters; `memory_bytes` is the peak
    of a training on texts of 128 tokens, 32 a step (see `standard_memory`). `problem` says why a method cannot do this
    model, and then these are None; `remedy` says what would work.
    """
    from reglaj.methods import METHODS

    facts = None
    if model is not None:
        from reglaj.models.inspect import inspect_model

        facts = inspect_model(model, folder=Path.cwd(), console=console)
    return [
        {
            "name": name,
            "summary": METHODS.get(name).summary,
            "citation": METHODS.get(name).citation,
            "is_mergeable": METHODS.get(name).is_mergeable,
            "served_by": list(METHODS.get(name).served_by),
            "stands_on_base": METHODS.get(name).stands_on_base,
            "architectures": METHODS.get(name).architectures,
            "tasks": _tasks_of(name, facts),
            **(_on_model(name, facts) if facts else {}),
        }
        for name in METHODS.names()
    ]


def _tasks_of(name: str, facts: ModelFacts | None) -> list[str]:
    """Where nothing learns but a new head, the task has to bring one; and the model has to suit the task."""
    from reglaj.methods import METHODS
    from reglaj.tasks import TASKS

    return [
        task
        for task in TASKS.names()
        if (METHODS.get(name).learns_without_head or TASKS.get(task).defaults.has_new_head)
        and (facts is None or not TASKS.get(task).check_model(facts))
    ]


def _on_model(name: str, facts: ModelFacts) -> dict[str, Any]:
    """What a method takes on a model, with its own defaults; a model that writes is taken as one that learns to."""
    from reglaj.methods import METHODS
    from reglaj.pipelines.forecast import standard_memory, told_problem
    from reglaj.pipelines.recipe import resolve_method
    from reglaj.tasks import TASKS

    method = METHODS.get(name)
    tasks = [TASKS.get(task) for task in _tasks_of(name, facts) or TASKS.names()]
    task = min(tasks, key=lambda one: one.defaults.has_new_head)
    config, _ = resolve_method(method.config_type(name=name), facts, task)
    problems = method.check(config, facts)
    figures: dict[str, Any] = dict.fromkeys(("trainable_parameters", "share", "stored_bytes", "memory_bytes"))
    if problems:
        return figures | told_problem(problems[0])
    figures["memory_bytes"] = standard_memory(config, facts, predicts_tokens=not task.defaults.has_new_head)
    figures["stored_bytes"] = method.stored_bytes(config, facts)
    count = figures["trainable_parameters"] = method.trainable_parameters(config, facts)
    return figures | {"share": count / facts.parameters}


def describe_runs(runs: Path) -> list[dict[str, Any]]:
    """Every run of a folder, half ones too, oldest first; the keys are those of `RunSummary`."""
    return [
        {
            "name": run.path.name,
            "path": str(run.path),
            "status": run.status,
            "task": run.task,
            "method": run.method,
            "headline": run.headline,
            "created": run.created,
            "age_s": run.age_s,
            "size_bytes": run.size_bytes,
            "step": run.step,
            "total_steps": run.total_steps,
            "process": run.process,
            "reason": run.reason,
            "gate": run.gate,
        }
        for run in list_runs(runs)
    ]


def describe_data(runs: Path) -> dict[str, Any]:
    """The data that the runs of a folder share: the folder it lies in, how many sets, and their size in bytes."""
    folders = data_folders(runs)
    return {"folder": str(runs / DATA), "sets": len(folders), "size_bytes": sum(size_of(folder) for folder in folders)}


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a recipe: what editors complete and check against."""
    from pydantic.json_schema import models_json_schema

    from reglaj.data.config import DataConfig
    from reglaj.evaluation.config import EvaluateConfig
    from reglaj.methods import METHODS
    from reglaj.tasks import TASKS
    from reglaj.training.config import TrainConfig

    methods: dict[str, type[Config]] = {name: METHODS.get(name).config_type for name in METHODS.names()}
    sections: dict[str, type[Config]] = {"data": DataConfig, "train": TrainConfig, "evaluate": EvaluateConfig}
    _, document = models_json_schema(
        [(config, "validation") for config in (*sections.values(), *methods.values())], ref_template=_REF
    )
    definitions = document["$defs"]
    _name_the_plugins(definitions, methods)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "reglaj recipe",
        "type": "object",
        "properties": {
            "name": {
                "type": "string",
                "description": "The run's folder is called after it; by default the recipe's file.",
            },
            "task": {"enum": TASKS.names(), "description": "What the model learns to do."},
            "model": {
                "type": "string",
                "description": "What it starts from: a starter, a folder (relative to the recipe), or a hub id.",
            },
            "method": {
                "description": "Which parameters learn: a name, or a mapping with the method's own keys.",
                "anyOf": [{"enum": list(methods)}, *({"$ref": _ref(config)} for config in methods.values())],
            },
            **{key: {"$ref": _ref(config)} for key, config in sections.items()},
        },
        "required": ["task", "data"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _name_the_plugins(definitions: dict[str, Any], methods: dict[str, type[Config]]) -> None:
    """Put the registered names where the classes only know that it is a text."""
    from reglaj.data.splits import SPLITS
    from reglaj.methods import METHODS
    from reglaj.tasks import TASKS

    for name, config in methods.items():
        schema = definitions[config.__name__]
        schema["properties"]["name"] = {"const": name, "description": METHODS.get(name).summary}
        # Without its name a mapping would fit several methods; the reader of recipes asks for it too.
        schema["required"] = sorted({*schema.get("required", []), "name"})
    definitions["SplitConfig"]["properties"]["kind"]["enum"] = sorted({"auto", *SPLITS.names()})
    names = sorted({baseline for task in TASKS for baseline in TASKS.get(task).baselines})
    for option in definitions["EvaluateConfig"]["properties"]["baselines"]["anyOf"]:
        if option.get("type") == "array":
            option["items"] = {"enum": names}


def _ref(config: type[Config]) -> str:
    return _REF.format(model=config.__name__)
