"""The nine promises, shown on a finished run: what `reglaj verify` does."""

from __future__ import annotations

import os
import time
import traceback
from pathlib import Path
from typing import Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import ReglajError
from reglaj.pipelines.verify.answers import only_answers
from reglaj.pipelines.verify.durable import kept_whole
from reglaj.pipelines.verify.finite import nothing_non_finite
from reglaj.pipelines.verify.intervals import numbers_have_intervals
from reglaj.pipelines.verify.no_code import runs_no_code
from reglaj.pipelines.verify.one_number import loss_is_one_number
from reglaj.pipelines.verify.rehearsal import rehearsed
from reglaj.pipelines.verify.rows import every_row
from reglaj.pipelines.verify.sealed import sealed_test
from reglaj.pipelines.verify.served import same_figures, same_files
from reglaj.pipelines.verify.subject import Subject, open_subject
from reglaj.pipelines.verify.verdicts import FAIL, PASS, PROMISES, Check, Finding

__all__ = ["CHECKS", "PROMISES", "verify"]

# The rehearsal before the weights are loaded for the others: its processes need the memory.
CHECKS = (
    Check(1, every_row),
    Check(2, sealed_test),
    Check(3, only_answers),
    Check(5, rehearsed, "a kill, rehearsed"),
    Check(4, loss_is_one_number),
    Check(5, kept_whole, "checkpoints"),
    Check(6, nothing_non_finite),
    Check(7, same_files, "files and weights"),
    Check(7, same_figures, "test figures"),
    Check(8, numbers_have_intervals),
    Check(9, runs_no_code),
)


def verify(run: str | Path, *, runs: str | Path = "runs", console: Console = SILENT) -> dict[str, Any]:
    """Show the promises on a finished run: its data, its model, its checkpoints and its figures.

    Returns `run`, `verdict` (`fail` where a check fails, else `pass`) and `checks`, each with `promise` (its number),
    `name`, `verdict` (`pass`, `fail` or `not applicable`), `evidence` and `seconds`. Nothing of the run is changed;
    the test part is opened once, which is counted. Raises `UserError` for what is no finished run.
    """
    subject = open_subject(run, Path(runs), console)
    done = []
    for number, check in enumerate(CHECKS, start=1):
        console.say(f"{number} of {len(CHECKS)}: {check.name}")
        done.append(_examined(check, subject))
    done.sort(key=lambda one: (one["promise"], one["name"]))
    is_broken = any(one["verdict"] == FAIL for one in done)
    return {"run": os.path.relpath(subject.path), "verdict": FAIL if is_broken else PASS, "checks": done}


def _examined(check: Check, subject: Subject) -> dict[str, Any]:
    """The outcome of one check. Whatever goes wrong in it is a fail, and never a pass."""
    started = time.perf_counter()
    try:
        finding = check.examine(subject)
    except ReglajError as error:
        told = [f"{problem.given}: {problem.why}" for problem in error.problems]
        finding = Finding(FAIL, "; ".join(told))
    except Exception as error:
        finding = Finding(FAIL, _fault_of_ours(error))
    return {
        "promise": check.promise,
        "name": check.name,
        "verdict": finding.verdict,
        "evidence": finding.evidence,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _fault_of_ours(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
    told = " ".join(str(error).split())
    return f"the check itself broke, so nothing is shown: {type(error).__name__}: {told} ({place})"
