"""The training that nobody disturbs: what all others are compared with, and when things happen in it."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.torture.cases import Case
from tests.torture.processes import Attempt, Launcher
from tests.torture.state import RunFolder, differences

PATIENCE_S = 1800.0
UNSEEN_SAVE_S = 0.01
LOOK_S = 0.001


class TortureError(Exception):
    """The torture itself could not go on."""


@dataclass(frozen=True)
class Calm:
    """seconds: of the whole command. first_step_s, last_step_s: after its start. save_s: of one save, the median."""

    run: RunFolder
    total_steps: int
    seconds: float
    first_step_s: float
    last_step_s: float
    save_s: float
    num_saves: int


def calm_run(case: Case, launcher: Launcher, folder: Path) -> Calm:
    """Train without a disturbance, watching. Raises `TortureError` when that fails."""
    run = RunFolder(folder / "runs", case.name)
    folder.mkdir(parents=True)
    log = folder / "log"
    started, wall = time.monotonic(), time.time()
    attempt = launcher.start(case.arguments(run.runs), folder, log)
    begun: dict[str, float] = {}
    taken: dict[str, float] = {}
    while (code := attempt.ended()) is None:
        now = time.monotonic()
        whole, writing = run.saves()
        for name in writing:
            begun.setdefault(name, now)
        for name in (whole & begun.keys()) - taken.keys():
            taken[name] = now - begun[name]
        if now - started > PATIENCE_S:
            attempt.kill()
        time.sleep(LOOK_S)
    seconds = time.monotonic() - started
    if code != 0:
        raise TortureError(f"the calm run of {case.name} ended with {code}:\n{tail(log)}")
    times = _step_times(run)
    return Calm(
        run=run,
        total_steps=int(run.report()["training"]["steps"]),
        seconds=seconds,
        first_step_s=times[0] - wall,
        last_step_s=times[-1] - wall,
        # On a busy machine every one of them may have been missed between two looks.
        save_s=statistics.median(taken.values()) if taken else UNSEEN_SAVE_S,
        num_saves=max(1, len(begun)),
    )


@dataclass(frozen=True)
class Scene:
    """A case, how its attempts are started, a folder for them, the calm run, and who is told what happens."""

    case: Case
    launcher: Launcher
    folder: Path
    calm: Calm
    say: Callable[[str], None]

    @classmethod
    def prepared(cls, case: Case, launcher: Launcher, folder: Path, say: Callable[[str], None] | None = None) -> Self:
        """With the calm run done."""
        calm = calm_run(case, launcher, folder / "calm")
        say = say or (lambda text: None)
        say(f"{case.name}: the calm run took {calm.seconds:.1f} s, a save {calm.save_s * 1000:.1f} ms")
        return cls(case, launcher, folder, calm, say)

    def start(self, run: RunFolder, log: Path) -> Attempt:
        """The command, which is the same before and after a disturbance."""
        return self.launcher.start(self.case.arguments(run.runs), self.folder, log)

    def differences_under(self, launcher: Launcher) -> list[str]:
        """How one more calm run that is started in another way differs; it should not."""
        other = calm_run(self.case, launcher, self.folder / "reference")
        return [f"two calm runs differ: {text}" for text in differences(self.calm.run, other.run)]


def _step_times(run: RunFolder) -> list[float]:
    lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["time"] for line in map(json.loads, lines) if line["event"] == "step"]


def tail(log: Path, characters: int = 2000) -> str:
    """The end of a log."""
    return log.read_text(encoding="utf-8", errors="replace")[-characters:].strip()


@dataclass(frozen=True)
class Moment:
    """When to strike. kind: `save`, inside the `number`th save that is seen to begin; `step`, around that step; `end`,
    once all is trained; `any`. delay_s: after that, or after the start."""

    kind: str
    number: int
    delay_s: float

    def wait_for(self, attempt: Attempt, run: RunFolder, total_steps: int) -> bool:
        """Until the moment has come; False where the attempt has ended before."""
        seen: set[str] = set()
        before = run.saves()[0]
        while not self._is_reached(run, total_steps, seen, before):
            if attempt.ended() is not None:
                return False
            time.sleep(LOOK_S)
        until = time.monotonic() + self.delay_s
        while (left := until - time.monotonic()) > 0:
            if attempt.ended() is not None:
                return False
            time.sleep(min(left, 0.01) if left > 0.002 else 0)
        return True

    def _is_reached(self, run: RunFolder, total_steps: int, seen: set[str], before: set[str]) -> bool:
        if self.kind == "save":
            whole, writing = run.saves()
            seen |= (whole | writing) - before
            # The right number, and on its way at this moment: not one that was written between two looks.
            return len(seen) >= self.number and bool(writing - before)
        if self.kind == "step":
            return run.step() >= self.number
        return self.kind == "any" or run.is_saved_to_the_end(total_steps)


def draw_moment(chance: random.Random, calm: Calm, kinds: dict[str, float], done: int = 0) -> Moment:
    """A moment in what is left of a training after `done` steps."""
    kind = chance.choices(list(kinds), list(kinds.values()))[0]
    left = calm.total_steps - done
    saves_left = max(1, round(calm.num_saves * left / calm.total_steps) - 1)
    step_s = (calm.last_step_s - calm.first_step_s) / max(1, calm.total_steps - 1)
    if kind == "save":
        # The nearest half of what is left, so that several kills fit into one training.
        return Moment(kind, chance.randint(1, max(1, saves_left // 2)), chance.uniform(0, calm.save_s))
    if kind == "step":
        return Moment(kind, done + chance.randint(1, max(1, left // 2)), chance.uniform(0, step_s))
    if kind == "end":
        return Moment(kind, 0, chance.uniform(0, calm.seconds - calm.last_step_s))
    return Moment(kind, 0, chance.uniform(0, calm.seconds))
