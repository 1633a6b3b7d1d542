"""Arguments and options that several verbs take, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _show_version(asked: bool) -> None:
    if asked:
        from reglaj import __version__

        print(f"reglaj {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
]
Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Keys of the recipe to change: train.epochs=3", show_default=False),
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name in --runs.", show_default=False)]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The folder that holds the runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document; everything else goes to standard error.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback when something fails.")]
RUNS = Path("runs")
