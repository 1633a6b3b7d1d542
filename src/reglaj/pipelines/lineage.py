"""The runs that a run starts from: what they have learnt must not stand in its validation or test, and their labels
are its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from reglaj.core.errors import Problem, listing
from reglaj.core.runs import read_manifest
from reglaj.data.others import EarlierRun

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts
    from reglaj.pipelines.recipe import Recipe
    from reglaj.tasks.base import Task

_MOST = 100  # a chain of runs longer than this is a circle


def earlier_runs(recipe: Recipe) -> tuple[EarlierRun, ...]:
    """The run whose model the recipe starts from, the run that one started from, and so on; none for other models."""
    found: list[EarlierRun] = []
    folder = (recipe.folder / recipe.model).expanduser()
    while (run := _run_of(folder)) and len(found) < _MOST and all(run.name != other.name for other in found):
        key = read_manifest(run).get("data_key", "")
        if key:
            found.append(EarlierRun(name=run.name, data=run.parent / ".data" / key))
        folder = run / _model_of(run)
    return tuple(found)


def changed_labels(task: type[Task], labels: Iterable[str], facts: ModelFacts | None) -> list[Problem]:
    """What is wrong where the recipe starts from a run of the same task that had other labels.

    labels: those that would be learnt now. facts: of the model; without a model nothing is wrong.
    """
    if facts is None:
        return []
    before = _json(facts.folder / "task.json")
    known, now = before.get("labels"), set(labels)
    if before.get("task") != task.name or not isinstance(known, list) or now == set(known):
        return []
    fresh, gone = sorted(now - set(known)), sorted(set(known) - now)
    changes = [
        *([f"the data have {listing(map(repr, fresh), 8)} besides"] if fresh else []),
        *([f"the data lack {listing(map(repr, gone), 8)}"] if gone else []),
    ]
    run = _run_of(facts.folder)
    base = _json(facts.folder / "base.json").get("model")
    return [
        Problem(
            where="model",
            given=f"{run.name if run else facts.name} was trained on {len(known)} labels, and {'; '.join(changes)}",
            allowed=f"the labels of the run that is gone on from: {listing(sorted(known))}",
            why="its answers are among those: with others the two could not be compared, and a label that was renamed "
            "by mistake would be learnt as a new one",
            remedy=f"mend the labels{' or leave new ones out by data.exclude_labels' if fresh else ''}; or start from "
            f"what that run started from{f' (model: {base})' if base else ''}; or, to take its weights alone, from a "
            "copy of the folder without task.json",
        )
    ]


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _run_of(folder: Path) -> Path | None:
    """The run that a model's folder belongs to, where it is one of ours."""
    if not folder.is_dir():
        return None
    run = folder.resolve().parent
    return run if (run / "manifest.json").is_file() and (folder / "base.json").is_file() else None


def _model_of(run: Path) -> str:
    """What the run itself started from: a path, or a name that is no path."""
    try:
        values = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return ""
    return str(values.get("model", "")) if isinstance(values, dict) else ""
