"""`reglaj data`: read, account, split, look at what is there; train nothing.

With `--show`, what the model will learn of each example; with `--where`, the file and line that a row came from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from reglaj.cli import options
from reglaj.cli.figures import read_rows
from reglaj.cli.found_rows import read_found
from reglaj.cli.page import Page, printable, write_out
from reglaj.cli.quality import read_quality
from reglaj.cli.verb import Answer
from reglaj.core.errors import user_error

_TRAINED, _MASKED, _PLAIN = "\x1b[1;4;32m", "\x1b[2m", "\x1b[0m"
_OPEN, _CLOSE = "⟦", "⟧"

What = Annotated[
    Path,
    typer.Argument(metavar="RECIPE", help="The recipe, a YAML file; with --where also a run.", show_default=False),
]
Show = Annotated[
    int,
    typer.Option("--show", metavar="N", min=0, help="Print N training examples: which tokens are learnt, which not."),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="TEXT",
        help="Say where a row came from: by its text or a part of it, its id, or FILE:LINE.",
    ),
]
Quality = Annotated[
    bool,
    typer.Option("--quality/--no-quality", help="Look at the texts too, or (--no-quality) only account for them."),
]


def data(
    recipe: What,
    overrides: options.Overrides = None,
    show: Show = 0,
    where: Where = None,
    quality: Quality = True,
    runs: options.Runs = options.RUNS,
) -> Answer:
    """Read the data, account for every row, split it, and say what is wrong with it; train nothing."""
    if where is not None:
        return _where(str(recipe), where, overrides or [], show, runs)
    from reglaj import prepare_data
    from reglaj.core.console import RichConsole

    prepared = prepare_data(
        recipe, runs=runs, show=show, quality=quality, console=RichConsole(), overrides=overrides or []
    )
    return Answer(prepared, lambda page: _read(page, prepared))


def _read(page: Page, prepared: Mapping[str, Any]) -> None:
    for number, pieces in enumerate(prepared.get("shown", []), 1):
        page.line(f"-- training example {number}: {_legend()}")
        write_out(_painted(pieces) + "\n")
    read_quality(page, prepared["data"], prepared.get("quality") or {})
    page.pairs([*read_rows(prepared["data"]), *_places(Path(prepared["folder"]))])
    for note in prepared["data"].get("notes", []):
        page.line(f"note: {note}")


def _places(folder: Path) -> list[tuple[str, str]]:
    pages = [("page", str(folder / "report.html"))] if (folder / "report.html").is_file() else []
    return [("folder", str(folder)), *pages]


def _where(run: str, text: str, overrides: list[str], show: int, runs: Path) -> Answer:
    from reglaj.core.console import RichConsole
    from reglaj.pipelines.provenance import where

    if show:
        raise user_error(
            "--show together with --where",
            allowed="one of them",
            why="--show prints the first examples, --where looks for a row",
            remedy="give the command twice",
        )
    found = where(run, text, runs=runs, overrides=overrides, console=RichConsole())
    return Answer(found, lambda page: read_found(page, found))


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
