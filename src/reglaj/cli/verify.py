"""`reglaj verify`: the promises, shown on a finished run."""

from __future__ import annotations

from typing import Any

from reglaj.cli import options
from reglaj.cli.page import Page
from reglaj.cli.verb import Answer
from reglaj.core.errors import GateRefused


def verify(run: options.Run, runs: options.Runs = options.RUNS) -> Answer:
    """Show on a finished run that its data, model and figures are what they are said to be."""
    from reglaj import verify as verify_run
    from reglaj.core.console import RichConsole

    shown = verify_run(run, runs=runs, console=RichConsole())
    return Answer(shown, lambda page: _read(page, shown), 0 if shown["verdict"] == "pass" else GateRefused.exit_code)


def _read(page: Page, shown: dict[str, Any]) -> None:
    checks = shown["checks"]
    page.table(
        ["", "promise", "verdict", "evidence"],
        [[str(check["promise"]), check["name"], check["verdict"], check["evidence"]] for check in checks],
        right=[""],
    )
    failed = [check for check in checks if check["verdict"] == "fail"]
    left = sum(check["verdict"] == "not applicable" for check in checks)
    seconds = sum(check["seconds"] for check in checks)
    page.line()
    told = f"{len(failed)} of {len(checks)} checks failed" if failed else f"nothing failed in {len(checks)} checks"
    aside = f", {left} not applicable" if left else ""
    page.line(f"{shown['run']}: {told}{aside} ({seconds:.0f} s)")
    if failed:
        numbers = sorted({check["promise"] for check in failed})
        page.line(f"do not trust this run: promise {', '.join(map(str, numbers))} does not hold (docs/verify.md)")
