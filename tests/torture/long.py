"""One long training that is killed again and again, beside the same one that is not; with the time of everything."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tests.torture.calm import tail
from tests.torture.cases import Case
from tests.torture.processes import KILLED, Attempt, Commands
from tests.torture.state import RunFolder, differences

LOOK_S = 0.05
TOLD_S = 60.0


class Log:
    """Lines with the time, on the screen and in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        minutes, seconds = divmod(time.monotonic() - self._started, 60)
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} (+{minutes:02.0f}:{seconds:04.1f}) {text}"
        print(line, flush=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def long_training(case: Case, folder: Path, *, minutes: float, kills: int, seed: int = 0) -> list[str]:
    """Two trainings side by side, one of them killed at `kills` random moments of its first `minutes`.

    Returns what is wrong: where they differ, kills that were not given, a training that was shorter than `minutes`.
    """
    folder.mkdir(parents=True)
    say = Log(folder / "long.log")
    calm = RunFolder(folder / "calm", case.name)
    run = RunFolder(folder / "killed", case.name)
    say(f"reglaj {' '.join(case.arguments(Path('RUNS')))}")
    launcher = Commands()
    started = time.monotonic()
    peaceful = launcher.start(case.arguments(calm.runs), Path.cwd(), folder / "calm.output")
    say(f"calm: started as process {peaceful.pid}")
    chance = random.Random(seed)
    moments = sorted(started + chance.uniform(0, minutes * 60) for _ in range(kills))
    problems = []
    for number, moment in enumerate(moments, 1):
        attempt = _started(case, run, folder, say)
        if not _sleep_until(moment, attempt, run, say):
            problems.append(f"it ended with {attempt.ended()} before kill {number} of {kills}")
            break
        if attempt.kill() == KILLED:
            whole, begun = run.saves()
            at = f"at step {run.step()}, checkpoints {', '.join(sorted(whole)) or 'none'}"
            say(f"killed: SIGKILL {number} of {kills} {at}{', inside a save' if begun else ''}")
        problems += run.damages()
    last = _started(case, run, folder, say)
    ends = {"killed": _wait(last, run, say), "calm": _wait(peaceful, calm, say)}
    problems += [
        f"{name} ended with {code}: {tail(folder / f'{name}.output', 300)}" for name, code in ends.items() if code
    ]
    return problems + _compared(calm, run, minutes, say)


def _started(case: Case, run: RunFolder, folder: Path, say: Log) -> Attempt:
    attempt = Commands().start(case.arguments(run.runs), Path.cwd(), folder / "killed.output")
    say(f"killed: started as process {attempt.pid}, newest checkpoint {max(run.saves()[0], default='none')}")
    return attempt


def _sleep_until(moment: float, attempt: Attempt, run: RunFolder, say: Log) -> bool:
    told = time.monotonic()
    while (left := moment - time.monotonic()) > 0:
        if attempt.ended(min(left, LOOK_S)) is not None:
            return False
        if time.monotonic() - told > TOLD_S:
            told = time.monotonic()
            say(f"killed: at step {run.step()}")
    return attempt.ended() is None


def _wait(attempt: Attempt, run: RunFolder, say: Log) -> int | None:
    while (code := attempt.ended(TOLD_S)) is None:
        say(f"{run.runs.name}: at step {run.step()}")
    say(f"{run.runs.name}: ended with {code}")
    return code


def _compared(calm: RunFolder, run: RunFolder, minutes: float, say: Log) -> list[str]:
    """What the two have in common, said; what they have not, returned."""
    if not (calm.path / "report.json").is_file() or not (run.path / "report.json").is_file():
        return ["a run has no report"]
    problems = differences(calm, run)
    seconds = float(calm.report()["cost"]["train_seconds"])
    if seconds < minutes * 60:
        problems.append(f"the calm training took {seconds / 60:.1f} minutes, fewer than the {minutes:g} asked for")
    for name, each in (("calm", calm), ("killed", run)):
        report = each.report()
        say(f"{name}: weights_sha256 {report['weights_sha256']}, {report['training']['steps']} steps")
    say("; ".join(problems) or f"bitwise equal, metrics.jsonl too ({len(run.metrics())} lines but for their times)")
    return problems
