"""`reglaj runs`: what was trained, and how good it is."""

from __future__ import annotations

from typing import Any

from reglaj.cli import options
from reglaj.cli.figures import interval
from reglaj.cli.page import Page
from reglaj.cli.verb import Answer


def runs(runs: options.Runs = options.RUNS) -> Answer:
    """List the runs with their headline figures."""
    from reglaj.pipelines.describe import describe_runs

    listed = describe_runs(runs)

    def read(page: Page) -> None:
        if not listed:
            page.line(f"no runs in {str(runs)!r} yet; train one with `reglaj train RECIPE`")
            return
        page.table(
            ["run", "status", "task", "method", "headline", "created"],
            [
                [run["name"], run["status"], run["task"], run["method"], _headline(run["headline"]), run["created"]]
                for run in listed
            ],
        )

    return Answer(listed, read)


def _headline(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {interval(figure)}" for name, figure in figures.items())
