"""`reglaj data`: read, account, split; train nothing. With `--show`, what the model will learn of each example."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from reglaj.cli import options
from reglaj.cli.figures import read_rows
from reglaj.cli.page import Page, printable, write_out
from reglaj.cli.verb import Answer

_TRAINED, _MASKED, _PLAIN = "\x1b[1;4;32m", "\x1b[2m", "\x1b[0m"
_OPEN, _CLOSE = "⟦", "⟧"

Show = Annotated[
    int,
    typer.Option("--show", metavar="N", min=0, help="Print N training examples: which tokens are learnt, which not."),
]


def data(
    recipe: options.Recipe, overrides: options.Overrides = None, show: Show = 0, runs: options.Runs = options.RUNS
) -> Answer:
    """Read the data, account for every row and split it; train nothing."""
    from reglaj import prepare_data
    from reglaj.core.console import RichConsole

    prepared = prepare_data(recipe, runs=runs, show=show, console=RichConsole(), overrides=overrides or [])

    def read(page: Page) -> None:
        for number, pieces in enumerate(prepared.get("shown", []), 1):
            page.line(f"-- training example {number}: {_legend()}")
            write_out(_painted(pieces) + "\n")
        page.pairs([*read_rows(prepared["data"]), ("folder", prepared["folder"])])
        for note in prepared["data"].get("notes", []):
            page.line(f"note: {note}")

    return Answer(prepared, read)


def _has_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _legend() -> str:
    return "green and underlined is learnt" if _has_colours() else f"what stands in {_OPEN}{_CLOSE} is learnt"


def _painted(pieces: Iterable[tuple[str, bool]]) -> str:
    """The pieces one after the other; line breaks stay, whatever else a terminal would obey does not."""
    before, after = (_TRAINED, _PLAIN) if _has_colours() else (_OPEN, _CLOSE)
    dim, plain = (_MASKED, _PLAIN) if _has_colours() else ("", "")
    return "".join(
        f"{before}{printable(text)}{after}" if is_trained else f"{dim}{printable(text)}{plain}"
        for text, is_trained in pieces
    )
