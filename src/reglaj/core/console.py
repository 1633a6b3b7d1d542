"""What a person sees while work goes on. Everything goes to standard error; standard output is for results.

The library is silent by default (`SILENT`); the command line hands in a `RichConsole`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Advance = Callable[[int], None]


class Console:
    """A console that shows nothing; the base of those that do."""

    def say(self, text: str) -> None:
        """One line about what was decided or done."""

    def warn(self, text: str) -> None:
        """One line about something that makes the result worse, not wrong."""

    @contextlib.contextmanager
    def progress(
        self, description: str, total: int | None = None, unit: str = "rows", done: int = 0
    ) -> Iterator[Advance]:
        """A bar with rate and time left; the block calls `advance(n)` for n more units. done: units before it."""
        yield lambda count: None


SILENT = Console()


class RichConsole(Console):
    """Lines and progress bars on standard error; without a terminal, a line at the end of each bar."""

    def __init__(self) -> None:
        from rich.console import Console as Terminal

        self._terminal = Terminal(file=sys.stderr, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self._terminal.print(text, markup=False)

    def warn(self, text: str) -> None:
        self._terminal.print(f"warning: {text}", style="yellow", markup=False)

    @contextlib.contextmanager
    def progress(
        self, description: str, total: int | None = None, unit: str = "rows", done: int = 0
    ) -> Iterator[Advance]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(f"{task.speed:,.1f} {unit}/s" if task.speed else "")

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
        # Off a terminal rich would print every refresh as a line of its own; one closing line is enough.
        bar = Progress(*columns, console=self._terminal, transient=False, disable=not self._terminal.is_terminal)
        with bar:
            task = bar.add_task(description, total=total, completed=done)
            yield lambda count: bar.advance(task, count)
