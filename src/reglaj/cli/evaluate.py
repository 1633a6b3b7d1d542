"""`reglaj evaluate`: score a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reglaj.cli import options
from reglaj.cli.figures import gate_exit_code, read_report
from reglaj.cli.verb import Answer

Data = Annotated[
    Path | None, typer.Option("--data", metavar="FILE", help="A new file to score on; by default the sealed test part.")
]


def evaluate(run: options.Run, data: Data = None, runs: options.Runs = options.RUNS) -> Answer:
    """Score a run again, on its test part or on a new file. Exit code 3 where its gate says no."""
    from reglaj import evaluate as evaluate_run
    from reglaj.core.console import RichConsole

    report = evaluate_run(run, data=data, runs=runs, console=RichConsole())
    return Answer(report, lambda page: read_report(page, report), exit_code=gate_exit_code(report))
