"""A command line that answers at once. Measured alone: a busy neighbour would be measured with it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

HELP_SECONDS = 0.4


@pytest.mark.alone
def test_help_answers_at_once() -> None:
    command = [str(Path(sys.executable).with_name("reglaj")), "--help"]
    times = []
    for _ in range(7):
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - started)
    assert "train" in done.stdout
    # The quickest: what slows one of them down is the machine.
    assert min(times) < HELP_SECONDS, f"{min(times):.2f} s at best"
