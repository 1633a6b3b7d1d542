"""How this process shares the processors with others; set once, by a program's entry, before torch is loaded."""

from __future__ import annotations

import os

_SPINS = "1000"


def share_processors() -> None:
    """Let waiting OpenMP threads give up the processor soon, unless the environment already says how they wait.

    GNU OpenMP, which torch brings, spins for millions of turns at each barrier. Alone on a machine that costs nothing
    and brings nothing that could be measured (0.354 s a training step against 0.364 s); two trainings on two cores
    take 6.5 s a step each with it and 0.6 s without. A library must not decide this for its host: only our own
    programs call it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
