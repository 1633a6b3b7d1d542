"""The runs that a run starts from: what they have learnt must not stand in its validation or test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from reglaj.core.runs import read_manifest
from reglaj.data.others import EarlierRun

if TYPE_CHECKING:
    from reglaj.pipelines.recipe import Recipe

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
