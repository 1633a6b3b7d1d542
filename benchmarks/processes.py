"""One side alone in a fresh process: its peak memory, and how long its first step takes from the process's start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import Contest, tell
from reglaj.training.engine import peak_memory_bytes

ROOT = Path(__file__).resolve().parents[1]


def alone(contest: Contest, options: list[str]) -> dict[str, dict[str, Any]]:
    """Of each side of the contest: `peak_bytes`, `cold_start_s`, or `alone_failed` with the last line of the reason.

    options: the command line's own sizes, so that the processes do the same work.
    """
    found = {}
    for name in contest.sides:
        tell(f"  {contest.name}: {name}, alone in a process")
        command = [sys.executable, "-m", "benchmarks", "--alone", contest.name, "--side", name, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        lines = done.stdout.strip().splitlines()
        if done.returncode == 0 and lines:
            found[name] = json.loads(lines[-1])
        else:
            found[name] = {"alone_failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return found


def run_alone(contest: Contest, name: str) -> None:
    """In the fresh process: do one turn, print what it took as JSON. A step's peak is the same cold or warm."""
    turn = contest.sides[name].run(contest.amount)
    started = _process_started()
    cold = round(turn.first_done - started, 2) if turn.first_done and started else None
    print(json.dumps({"peak_bytes": peak_memory_bytes("cpu"), "cold_start_s": cold}))


def _process_started() -> float | None:
    """`time.time()` when this process began, to a hundredth of a second; None where the system does not tell."""
    try:
        # Field 22, counted after the name, which may hold spaces: ticks from boot to the start.
        ticks = float(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")
