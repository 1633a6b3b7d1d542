"""`reglaj methods`: which parameters can learn, and how many that is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reglaj.cli.figures import share
from reglaj.cli.page import Page
from reglaj.cli.verb import Answer

Model = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="A starter, a folder or a hub id to count on.", show_default=False)
]


def methods(model: Model = None) -> Answer:
    """List the methods, and with a model how many parameters each would train."""
    from reglaj.core.console import RichConsole
    from reglaj.pipelines.describe import describe_methods

    listed = describe_methods(model, console=RichConsole())

    def read(page: Page) -> None:
        columns = ["method", *(["trains", "share"] if model else []), "what learns", "source"]
        page.table(columns, [_row(method, counted=model is not None) for method in listed], right=("trains", "share"))
        if model:
            page.line("a classifier trains a new head besides; shares are of the model's own parameters")

    return Answer(listed, read)


def _row(method: dict[str, Any], *, counted: bool) -> list[str]:
    cost: list[str] = []
    if counted and "problem" in method:
        cost = [f"cannot: {method['problem']}", ""]
    elif counted:
        cost = [f"{method['trainable_parameters']:,}", share(method["share"])]
    return [method["name"], *cost, method["summary"], method["citation"]]
