"""`reglaj train`: the main job."""

from __future__ import annotations

from typing import Annotated

import typer

from reglaj.cli import options
from reglaj.cli.figures import read_report
from reglaj.cli.verb import Answer

Fresh = Annotated[bool, typer.Option("--fresh", help="Train anew even where the same run is finished.")]


def train(
    recipe: options.Recipe,
    overrides: options.Overrides = None,
    runs: options.Runs = options.RUNS,
    fresh: Fresh = False,
) -> Answer:
    """Train on a recipe: data, split, early stopping, test, report."""
    from reglaj import train as train_recipe
    from reglaj.core.console import RichConsole

    run = train_recipe(recipe, runs=runs, fresh=fresh, console=RichConsole(), overrides=overrides or [])
    return Answer(run.report, lambda page: read_report(page, run.report))
