"""Trainings that are killed again and again, and have to end as if nothing had happened."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.calm import PATIENCE_S, Scene, TortureError, draw_moment, tail
from tests.torture.processes import KILLED
from tests.torture.state import INSIDE, PHASES, RunFolder, differences

KINDS = {"save": 0.4, "step": 0.25, "any": 0.2, "end": 0.15}


@dataclass(frozen=True)
class Trial:
    """One training: the phase of each kill, whether the next attempt began after a checkpoint, what is wrong."""

    phases: list[str]
    resumed: int
    problems: list[str]


@dataclass
class Tally:
    """What came of a case."""

    case: str
    trials: list[Trial] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(len(trial.phases) for trial in self.trials)

    @property
    def phases(self) -> Counter[str]:
        return Counter(phase for trial in self.trials for phase in trial.phases)

    @property
    def inside(self) -> int:
        return self.phases[INSIDE]

    @property
    def resumed(self) -> int:
        return sum(trial.resumed for trial in self.trials)

    @property
    def equal(self) -> int:
        return sum(not trial.problems for trial in self.trials)

    @property
    def problems(self) -> list[str]:
        return [f"{self.case}, trial {n}: {text}" for n, trial in enumerate(self.trials) for text in trial.problems]


def kill_often(scene: Scene, *, kills: int, per_training: int = 4, seed: int = 0) -> Tally:
    """Trainings of a case until so many SIGKILLs were given, each training then left to end and compared.

    A training that is equal in all is removed; one that is not stays in the scene's folder, with its log.
    """
    name = scene.case.name
    chance = random.Random(f"{seed} {name}")
    tally = Tally(name)
    barren = 0
    while tally.kills < kills:
        number = len(tally.trials)
        folder = scene.folder / f"{number:03d}"
        trial = _trial(scene, folder, chance, min(per_training, kills - tally.kills))
        tally.trials.append(trial)
        said = "; ".join(trial.problems) or "equal"
        scene.say(f"{name}: training {number}: {tally.kills} of {kills} kills; {', '.join(trial.phases)}: {said}")
        if not trial.problems:
            shutil.rmtree(folder)
        barren = 0 if trial.phases else barren + 1
        if barren > 10:
            raise TortureError(f"{name}: ten trainings ended before they could be killed")
    return tally


def _trial(scene: Scene, folder: Path, chance: random.Random, kills: int) -> Trial:
    folder.mkdir()
    run, log = RunFolder(folder / "runs", scene.case.name), folder / "log"
    total = scene.calm.total_steps
    phases: list[str] = []
    problems: list[str] = []
    resumed = 0
    for _ in range(kills):
        moment = draw_moment(chance, scene.calm, KINDS, run.step())
        _note(log, f"{moment}, at step {run.step()}")
        resumed += run.can_go_on()
        attempt = scene.start(run, log)
        moment.wait_for(attempt, run, total)
        code = attempt.kill()
        if code != KILLED:
            if code:
                problems.append(f"an attempt ended with {code}: {tail(log, 300)}")
            break
        phases.append(run.phase(total))
        _note(log, f"killed {phases[-1]}, at step {run.step()}; {run.saves()}")
        problems += run.damages()
    could_go_on, before = run.can_go_on(), time.time()
    last = scene.start(run, log)
    end = last.ended(PATIENCE_S)
    if end != 0:
        last.kill()
        return Trial(phases, resumed, [*problems, f"the last attempt ended with {end}: {tail(log, 300)}"])
    if could_go_on and not run.kept_lines_from_before(before):
        problems.append("the last attempt began anew instead of going on from a checkpoint")
    return Trial(phases, resumed + could_go_on, problems + differences(scene.calm.run, run))


def _note(log: Path, text: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"-- {text}\n")


def table(tallies: list[Tally]) -> str:
    """The results in Markdown."""
    lines = [
        f"| case | kills | {' | '.join(PHASES)} | starts from a checkpoint | trainings | bitwise equal |",
        f"|{'---|' * (len(PHASES) + 5)}",
    ]
    for tally in tallies:
        phases = " | ".join(str(tally.phases[phase]) for phase in PHASES)
        lines.append(
            f"| {tally.case} | {tally.kills} | {phases} | {tally.resumed} | {len(tally.trials)} | {tally.equal} |"
        )
    return "\n".join(lines)
