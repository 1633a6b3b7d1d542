"""Standard output: lines and tables for a person, or one JSON document."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

WIDE = 200
"""Columns that a table may take where nobody's screen sets a limit (a pipe, a file)."""


_HARMLESS = "\n\t\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
"""Not printable by themselves, but parts of lines, of emoji and of Persian words."""


def printable(text: str) -> str:
    """`text` without what a terminal would obey: user data must not move the cursor or change colours."""
    return "".join(c if c.isprintable() or c in _HARMLESS else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str, limit: int = 200) -> str:
    """`text` on one line, cut in the middle of nothing longer than `limit` characters."""
    flat = printable(" ".join(text.split()))
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def write_out(text: str) -> None:
    """Write to standard output; a reader that has gone away (`| head`) is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence_output()


def silence_output() -> None:
    """Send what is still to come nowhere, the interpreter's own last flush included."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def print_json(document: Any) -> None:
    """One JSON document; not-a-number is refused, for JSON has none."""
    write_out(json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


class Page:
    """Lines and tables on standard output. Text is shown as it is: nothing in it is markup."""

    def line(self, text: str = "") -> None:
        """One line, never wrapped by us: paths and commands can be copied from it."""
        write_out(printable(text) + "\n")

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and values below each other."""
        every = list(pairs)
        width = max((len(name) for name, _ in every), default=0)
        for name, value in every:
            self.line(f"{name:<{width}}  {value}")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
        """A table; the columns named in `right` are numbers."""
        lines = [[printable(cell) for cell in line] for line in (columns, *rows)]
        if not sys.stdout.isatty() and (text := _aligned(lines, [column in right for column in columns])):
            write_out(text)
            return
        import io

        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_edge=False)
        for column in columns:
            table.add_column(Text(printable(column)), justify="right" if column in right else "left", overflow="fold")
        for line in lines[1:]:
            table.add_row(*map(Text, line))
        screen = Console(file=sys.stdout)
        buffer = io.StringIO()
        Console(
            file=buffer,
            width=screen.width if screen.is_terminal else WIDE,
            force_terminal=screen.is_terminal,
            highlight=False,
        ).print(table)
        write_out("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n")


def _aligned(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> str | None:
    """A table whose lines all fit whole, or None: for hundreds of rows rich takes a third of a second."""
    from rich.cells import cell_len

    widths = [[cell_len(cell) for cell in line] for line in lines]
    columns = [max(column) for column in zip(*widths, strict=True)]
    if sum(columns) + 3 * len(columns) > WIDE or any("\n" in cell or "\t" in cell for line in lines for cell in line):
        return None
    text = ""
    for line, taken in zip(lines, widths, strict=True):
        gaps = [" " * (column - width) for column, width in zip(columns, taken, strict=True)]
        cells = [gap + cell if is_right else cell + gap for cell, gap, is_right in zip(line, gaps, right, strict=True)]
        text += "   ".join(cells).rstrip() + "\n"
    return text
