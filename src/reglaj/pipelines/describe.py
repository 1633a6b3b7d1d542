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

_REF = "#/$defs/{model}"


def describe_methods(model: str | None = None, *, console: Console = SILENT) -> list[dict[str, Any]]:
    """Name, summary and citation of every method; with a model, what it would train there by default.

    model: a starter, a folder or a hub id. `trainable_parameters` are those of the model or the method, without
    the new head; `share` is of the model's own parameters. `problem` says why a method cannot do this model.
    """
    from reglaj.methods import METHODS

    facts = None
    if model is not None:
        from reglaj.models.inspect import inspect_model

        facts = inspect_model(model, folder=Path.cwd(), console=console)
    listed = []
    for name in METHODS.names():
        method = METHODS.get(name)
        line: dict[str, Any] = {"name": name, "summary": method.summary, "citation": method.citation}
        if facts is not None:
            config = method.config_type(name=name)
            problems = method.check(config, facts)
            count = None if problems else method.trainable_parameters(config, facts)
            line |= {"trainable_parameters": count, "share": None if count is None else count / facts.parameters}
            if problems:
                line["problem"] = problems[0].given
        listed.append(line)
    return listed


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
