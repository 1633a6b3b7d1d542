"""Read, account, clean, split: what `reglaj data` does, and what every training begins with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reglaj.core.console import SILENT, Console
from reglaj.data.examples import PreparedData
from reglaj.data.prepare import prepare
from reglaj.models.starters import fetch
from reglaj.pipelines.recipe import Recipe, load_recipe
from reglaj.tasks import TASKS


def prepare_data(
    recipe: str | Path | Mapping[str, Any],
    *,
    runs: str | Path = "runs",
    console: Console = SILENT,
    overrides: Iterable[str] = (),
    **keys: Any,
) -> dict[str, Any]:
    """The account of a recipe's data; trains nothing.

    keys: overrides as `data__split__seed=3`. Returns `data` as in report.json, with `key` and `folder`.
    """
    loaded = load_recipe(recipe, overrides, keys)
    data = read_data(loaded, Path(runs), console)
    return {"data": data.report, "key": data.key, "folder": str(data.folder)}


def read_data(recipe: Recipe, runs: Path, console: Console) -> PreparedData:
    """The prepared data of a valid recipe, read now or found in the store."""
    task = TASKS.get(recipe.task)
    return prepare(
        recipe.data,
        task.roles,
        folder=recipe.folder,
        store=runs / ".data",
        task=recipe.task,
        default_split=task.default_split,
        resolve_starter=lambda name: fetch(name, console),
        console=console,
    )
