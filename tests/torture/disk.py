"""Trainings on a small file system that is filled up at random moments."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.torture.calm import PATIENCE_S, Scene, TortureError, draw_moment, tail
from tests.torture.state import RunFolder, differences

KINDS = {"save": 0.35, "step": 0.3, "any": 0.25, "end": 0.1}
FULL = 4
"""The exit code where the environment fails."""


@dataclass(frozen=True)
class Filled:
    """One moment: the phase at it, the exit code that followed, what is wrong."""

    phase: str
    code: int | None
    problems: list[str]


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[str | None]:
    """A file system of that size under `folder`, in memory; gives the reason where it cannot be had, else None."""
    if sys.platform != "linux":
        yield "a file system in memory is mounted on Linux only"
        return
    folder.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        yield f"mount refuses: {done.stderr.strip()}"
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(path: Path) -> int:
    """Write until there is no room for another byte; how many bytes that took."""
    written = 0
    with path.open("ab", buffering=0) as file:
        for piece in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while count := file.write(b"\0" * piece):
                    written += count
    return written


def fill_often(scene: Scene, disk: Path, *, moments: int, seed: int = 0) -> list[Filled]:
    """Trainings below `disk`, each of which meets a full disk once, gets room again and is compared."""
    name = scene.case.name
    chance = random.Random(f"{seed} {name}")
    results: list[Filled] = []
    drawn = 0
    while len(results) < moments:
        number = len(results) + 1
        done = _filled(scene, disk, scene.folder / f"full-{number:03d}.log", chance)
        drawn += 1
        if done is None:
            if drawn > 10 * moments:
                raise TortureError(f"{name}: nearly every training ended before its moment")
        else:
            results.append(done)
            said = "; ".join(done.problems) or "equal"
            scene.say(f"{name}: moment {number} of {moments}: {done.phase}, exit code {done.code}: {said}")
            if done.problems:
                shutil.copytree(disk / "runs", scene.folder / f"full-{number:03d}", symlinks=True)
        shutil.rmtree(disk / "runs", ignore_errors=True)
    return results


def _filled(scene: Scene, disk: Path, log: Path, chance: random.Random) -> Filled | None:
    """None where the training ended before the moment came: that says nothing."""
    run, filler = RunFolder(disk / "runs", scene.case.name), disk / "filler"
    total = scene.calm.total_steps
    # Every other time the command is tried once more while there is still no room.
    moment, tries_again = draw_moment(chance, scene.calm, KINDS), chance.random() < 0.5
    attempt = scene.start(run, log)
    is_alive = moment.wait_for(attempt, run, total)
    fill(filler)
    phase, safe = run.phase(total), run.saves()[0]
    if not is_alive or attempt.ended() is not None:
        filler.unlink()
        return None
    codes = [attempt.ended(PATIENCE_S)]
    if codes[0] is None:
        attempt.kill()
    if tries_again and codes[0] == FULL:
        fill(filler)
        codes.append(scene.start(run, log).ended(PATIENCE_S))
    problems = [f"exit code {code}: {tail(log, 300)}" for code in codes if code not in (0, FULL)]
    problems += run.damages()
    if safe and max(run.saves()[0], default="") < max(safe):
        problems.append(f"{max(safe)} was safe, and then there was {sorted(run.saves()[0])}")
    filler.unlink()
    last = scene.start(run, log).ended(PATIENCE_S)
    if last != 0:
        return Filled(phase, codes[0], [*problems, f"with room again it ended with {last}: {tail(log, 300)}"])
    return Filled(phase, codes[0], problems + differences(scene.calm.run, run))


def table(case: str, results: list[Filled]) -> str:
    """The results in Markdown."""
    lines = [
        "| case | phase when the disk was full | moments | exit code 4 | finished all the same | equal in the end |",
        "|---|---|---|---|---|---|",
    ]
    for phase, count in Counter(result.phase for result in results).most_common():
        of_phase = [result for result in results if result.phase == phase]
        full, done = (sum(result.code == code for result in of_phase) for code in (FULL, 0))
        equal = sum(not result.problems for result in of_phase)
        lines.append(f"| {case} | {phase} | {count} | {full} | {done} | {equal} |")
    return "\n".join(lines)
