"""`reglaj methods`: which parameters can learn, what that takes, and who serves the result."""

from __future__ import annotations

import textwrap
from typing import Annotated, Any

import typer

from reglaj.cli.figures import bytes_text
from reglaj.cli.page import Page
from reglaj.cli.verb import Answer

Model = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="A starter, a folder or a hub id to count on.", show_default=False)
]
_COLUMNS, _INDENT = 100, 14
_FIGURES = ("trains", "stored", "memory")


def methods(model: Model = None) -> Answer:
    """List the methods, what each can do, and with a model what each would take there."""
    from reglaj.core.console import RichConsole
    from reglaj.pipelines.describe import describe_methods

    listed = describe_methods(model, console=RichConsole())

    def read(page: Page) -> None:
        figures = _FIGURES if model else ()
        columns = ["method", *figures, "merges", "served as it is by", "tasks"]
        able = [method for method in listed if "problem" not in method]
        page.table(columns, [_row(method, counted=model is not None) for method in able], right=figures)
        if model:
            _read_remarks(page, listed)
        page.line()
        for method in listed:
            page.line(f"{method['name']:<{_INDENT}}{method['summary']}")
            if method["architectures"] != "all":
                _read_wrapped(page, f"models: {method['architectures']}")
            _read_wrapped(page, method["citation"])

    return Answer(listed, read)


def _read_wrapped(page: Page, text: str, indent: int = _INDENT) -> None:
    for line in textwrap.wrap(text, _COLUMNS - indent, break_long_words=False, break_on_hyphens=False):
        page.line(" " * indent + line)


def _row(method: dict[str, Any], *, counted: bool) -> list[str]:
    figures = []
    if counted:
        count, stored, memory = (method[key] for key in ("trainable_parameters", "stored_bytes", "memory_bytes"))
        figures = ["unknown" if count is None else f"{count:,}", *(_bytes(size) for size in (stored, memory))]
    served = ", ".join(method["served_by"]) or "reglaj"
    return [method["name"], *figures, "yes" if method["is_mergeable"] else "no", served, ", ".join(method["tasks"])]


def _bytes(count: int | None) -> str:
    return "unknown" if count is None else bytes_text(count)


def _read_remarks(page: Page, listed: list[dict[str, Any]]) -> None:
    told = (
        "trains: without a classifier's new head. memory: the highest point of a training in float32 on a processor,"
        " process included, on texts of 128 tokens, 32 a step; `reglaj check` tells it for a recipe."
    )
    _read_wrapped(page, told, 0)
    for method in listed:
        if "problem" in method:
            _read_wrapped(page, f"cannot: {method['name']}: {method['problem']}", 0)
            _read_wrapped(page, method["remedy"], 8)
