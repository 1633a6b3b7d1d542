"""`reglaj train`: the main job."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from reglaj.cli import options
from reglaj.cli.figures import gate_exit_code, read_report
from reglaj.cli.verb import Answer
from reglaj.core.console import SILENT, RichConsole
from reglaj.core.errors import SaidElsewhere

Fresh = Annotated[bool, typer.Option("--fresh", help="Train anew even where the same run is there already.")]
Processes = Annotated[
    int | None,
    typer.Option("--processes", metavar="N", help="Train in N processes on this machine; many machines: torchrun."),
]


def train(
    context: typer.Context,
    recipe: options.Recipe,
    overrides: options.Overrides = None,
    runs: options.Runs = options.RUNS,
    fresh: Fresh = False,
    processes: Processes = None,
) -> Answer:
    """Train on a recipe: data, split, early stopping, test, report. The same command goes on where it was stopped."""
    if processes is not None and processes != 1:
        from reglaj.pipelines.launch import launch

        # What there is to say, and the document of --json, came from the first of them.
        raise SaidElsewhere(launch(_without_processes(context.obj), processes, RichConsole()))
    from reglaj import train as train_recipe

    is_first = os.environ.get("RANK", "0") == "0"
    console = RichConsole() if is_first else SILENT
    run = train_recipe(recipe, runs=runs, fresh=fresh, console=console, overrides=overrides or [])
    if not is_first:
        raise SaidElsewhere(gate_exit_code(run.report))
    return Answer(run.report, lambda page: read_report(page, run.report), exit_code=gate_exit_code(run.report))


def _without_processes(arguments: list[str]) -> list[str]:
    """The same command line for each of the processes."""
    kept, skips = [], False
    for argument in arguments:
        if skips or argument.startswith("--processes="):
            skips = False
        elif argument == "--processes":
            skips = True
        else:
            kept.append(argument)
    return kept
