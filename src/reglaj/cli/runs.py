"""`reglaj runs`: what was trained, and how good it is; `reglaj runs rm`: removing it."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reglaj.cli import options
from reglaj.cli.figures import bytes_text, interval
from reglaj.cli.page import Page, one_line, printable
from reglaj.cli.verb import Answer
from reglaj.core.errors import unknown_name, user_error

if TYPE_CHECKING:
    from reglaj.pipelines.remove import Removal

_LESS = ("task", "method")
"""Columns that give way on a narrow screen."""
_WIDE_ENOUGH = 110

Action = Annotated[
    str | None, typer.Argument(metavar="rm", help="rm: remove the runs that are named.", show_default=False)
]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN", help="Exact folders, such as support-003.", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", help="Remove without asking.")]


def runs(action: Action = None, names: Names = None, yes: Yes = False, runs: options.Runs = options.RUNS) -> Answer:
    """List the runs with status, age, size and headline; or remove some, with the data that only they use."""
    if action is None:
        return _list(runs)
    if action != "rm":
        raise unknown_name("action", action, ["rm"])
    return _remove(names or [], yes, runs)


def _list(folder: Path) -> Answer:
    from reglaj.pipelines.describe import describe_data, describe_runs

    listed = describe_runs(folder)

    def read(page: Page) -> None:
        if listed:
            rows = [_row(run) for run in listed]
            columns = [column for column in rows[0] if column not in _LESS or not _is_narrow()]
            page.table(columns, [[row[column] for column in columns] for row in rows], right=["age", "size"])
        else:
            page.line(f"no runs in {str(folder)!r} yet; train one with `reglaj train RECIPE`")
        data = describe_data(folder)
        if data["sets"]:
            page.line()
            page.line(f"data: {_count(data['sets'], 'set')}, {bytes_text(data['size_bytes'])}, in {data['folder']}")

    return Answer(listed, read)


def _remove(names: Sequence[str], is_agreed: bool, folder: Path) -> Answer:
    from reglaj.core.console import RichConsole
    from reglaj.pipelines.remove import remove_runs

    if not names:
        raise user_error(
            "`reglaj runs rm` without a run",
            allowed="one or more names of runs",
            why="what goes must be said exactly",
            remedy="see their names with `reglaj runs`",
        )
    elsewhere = ["--runs", str(folder)] if folder != options.RUNS else []
    again = shlex.join(["reglaj", "runs", "rm", *names, *elsewhere, "--yes"])
    gone = remove_runs(
        names,
        runs=folder,
        agree=None if is_agreed else lambda removal: _ask(removal, again),
        console=RichConsole(),
    )

    def read(page: Page) -> None:
        if not gone["removed"]:
            page.line("nothing was removed")
            return
        data = f" and {_count(len(gone['data_removed']), 'data set')}" if gone["data_removed"] else ""
        page.line(f"removed {', '.join(gone['removed'])}{data}: {bytes_text(gone['freed_bytes'])}")

    return Answer(gone, read)


def _ask(removal: Removal, command: str) -> bool:
    """Show what goes on standard error, and read the answer. Raises `UserError` where nobody can be asked."""
    if not sys.stdin.isatty():
        raise user_error(
            f"removing {', '.join(run.path.name for run in removal.runs)} ({bytes_text(removal.size_bytes)})",
            allowed="an answer on a terminal, or --yes",
            why="what is removed cannot be brought back, and nobody can be asked here",
            remedy=command,
        )
    sys.stderr.write(printable("\n".join(_goes(removal))) + "\nremove this for ever? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().casefold() in ("y", "yes")


def _goes(removal: Removal) -> list[str]:
    """What goes, a line each."""
    lines = [
        f"  run   {run.path.name}  {run.status}, {_age(run.age_s)}, {bytes_text(run.size_bytes)}"
        for run in removal.runs
    ]
    lines += [
        f"  data  {data.path.name}  {bytes_text(data.size_bytes)}, from {', '.join(data.sources) or 'unknown sources'}"
        for data in removal.data
    ]
    if removal.states:
        lines.append(f"  states of frozen layers  {bytes_text(sum(size for _, size in removal.states))}")
    if removal.left:
        size = bytes_text(sum(size for _, size in removal.left))
        lines.append(f"  left by killed processes  {_count(len(removal.left), 'folder')}, {size}")
    return [*lines, f"  {bytes_text(removal.size_bytes)} in all"]


def _row(run: Mapping[str, Any]) -> dict[str, str]:
    """Column to cell."""
    return {
        "run": run["name"],
        "status": run["status"],
        "age": _age(run["age_s"]),
        "size": bytes_text(run["size_bytes"]),
        "task": run["task"],
        "method": run["method"],
        "result": _result(run),
    }


def _is_narrow() -> bool:
    """Whether names of runs would be folded, which nobody can copy, if every column stood there."""
    return sys.stdout.isatty() and shutil.get_terminal_size().columns < _WIDE_ENOUGH


def _result(run: Mapping[str, Any]) -> str:
    """The headline of a finished run; of others how far they came, and why not further."""
    if run["status"] == "finished":
        figures = run["headline"].items()
        told = [f"{name.replace('_', ' ')} {interval(figure)}" for name, figure in figures]
        return ", ".join([*told, "gate failed"] if run["gate"] == "failed" else told)
    parts = [f"process {run['process']}"] if run["process"] else []
    if run["step"] is not None:
        parts.append(f"step {run['step']:,}" + (f" of {run['total_steps']:,}" if run["total_steps"] else ""))
    if run["reason"]:
        parts.append(one_line(run["reason"].split("\n")[0], 70))
    return ", ".join(parts)


def _age(seconds: int | None) -> str:
    """`just now`, `12 min`, `3 h`, `5 days`; `?` where no manifest says it."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 48 * 3600 else f"{seconds // 86400} days"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
