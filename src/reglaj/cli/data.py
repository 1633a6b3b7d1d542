"""`reglaj data`: read, account, split; train nothing."""

from __future__ import annotations

from reglaj.cli import options
from reglaj.cli.figures import read_rows
from reglaj.cli.page import Page
from reglaj.cli.verb import Answer


def data(recipe: options.Recipe, overrides: options.Overrides = None, runs: options.Runs = options.RUNS) -> Answer:
    """Read the data, account for every row and split it; train nothing."""
    from reglaj import prepare_data
    from reglaj.core.console import RichConsole

    prepared = prepare_data(recipe, runs=runs, console=RichConsole(), overrides=overrides or [])

    def read(page: Page) -> None:
        page.pairs([*read_rows(prepared["data"]), ("folder", prepared["folder"])])
        for note in prepared["data"].get("notes", []):
            page.line(f"note: {note}")

    return Answer(prepared, read)
