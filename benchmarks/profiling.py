"""Where our side's time goes: torch's profiler over one warm turn, its table stored as text."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.measuring import OURS, Contest, profiled, tell
from reglaj.core.files import write_text

FOLDER = Path(__file__).parent / "profiles"
ROWS = 40


def profile(contest: Contest) -> None:
    """Print the operators with the most time of their own, and keep the table under benchmarks/profiles/."""
    side = contest.sides[OURS]
    tell(f"{contest.name}: {OURS}, warm-up")
    side.run(contest.warm_up)
    recorder = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    tell(f"{contest.name}: {OURS}, profiled (slower than it runs otherwise)")
    with profiled(lambda: recorder):
        turn = side.run(contest.amount)
    table = recorder.key_averages().table(sort_by="self_cpu_time_total", row_limit=ROWS, max_name_column_width=60)
    head = (
        f"{contest.name}: {contest.title}\n{machine.today()}; {machine.sentence(machine.facts())}\n"
        f"{turn.region.seconds:.2f} s under the profiler; engine: {dict(turn.engine)}\n"
    )
    FOLDER.mkdir(exist_ok=True)
    write_text(FOLDER / f"{contest.name}.txt", f"{head}\n{table}\n")
    print(head)
    print(table)
