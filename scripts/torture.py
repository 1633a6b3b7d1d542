"""Trainings that are killed, and disks that are filled, at seeded random moments; all must end as if undisturbed.

    python scripts/torture.py kills [--case classifier|decoder|minilm|smollm2|all] [--kills N] [--real]
    python scripts/torture.py disk [--case classifier|decoder|all] [--moments N] [--size 24m]
    python scripts/torture.py long RECIPE [dotted.key=value ...] [--minutes 20] [--kills 10]

Each takes --seed N and --folder DIR (what went wrong stays there; by default a temporary folder that is removed).
Exit code 0 where everything was equal (or could not be tried here, which is said), 1 where something was not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.torture import disk, kills, long  # noqa: E402
from tests.torture.calm import Scene  # noqa: E402
from tests.torture.cases import STARTERS, TINY, Case  # noqa: E402
from tests.torture.processes import Commands, Launcher, Zygote  # noqa: E402

NUM_KILLS = {**dict.fromkeys(TINY, 50), **dict.fromkeys(STARTERS, 5)}
LEAST_INSIDE = 0.3
"""Of the kills of a tiny case, so many must meet a save on its way: 15 of 50."""


def main() -> int:
    """Read the command line, torture, print a table; the exit code."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is mounted and started goes
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as name:
        return int(options.work(options, Path(name).resolve()))


def run_kills(options: argparse.Namespace, folder: Path) -> int:
    """Every case that was asked for; the tiny ones from a zygote, the starters as real commands."""
    everything = {**TINY, **STARTERS}
    tallies = []
    problems = []
    for name in everything if options.case == "all" else [options.case]:
        place = folder / f"kills-{name}"
        place.mkdir(parents=True)
        asked = options.kills or NUM_KILLS[name]
        is_real = options.real or name in STARTERS
        with _launcher(is_real=is_real) as launcher:
            scene = Scene.prepared(everything[name](place), launcher, place, _say)
            # What a zygote forks is no different from the command that a user gives.
            problems += [] if is_real else [f"{name}: {text}" for text in scene.differences_under(Commands())]
            tally = kills.kill_often(scene, kills=asked, seed=options.seed)
        tallies.append(tally)
        problems += tally.problems
        if name in TINY and tally.inside < LEAST_INSIDE * asked:
            problems.append(f"{name}: {tally.inside} of {asked} kills met a save on its way, too few to say anything")
    _say(f"\n{kills.table(tallies)}\n")
    return _verdict(problems)


def run_disk(options: argparse.Namespace, folder: Path) -> int:
    """A small file system, filled at random moments."""
    tables, problems = [], []
    with disk.small_disk(folder / "disk", options.size) as reason:
        if reason:
            _say(f"skipped: {reason}")
            return 0
        for name in TINY if options.case == "all" else [options.case]:
            place = folder / f"disk-{name}"
            place.mkdir(parents=True)
            with _launcher(is_real=options.real) as launcher:
                scene = Scene.prepared(TINY[name](place), launcher, place, _say)
                results = disk.fill_often(scene, folder / "disk", moments=options.moments, seed=options.seed)
            tables.append(disk.table(name, results))
            problems += [f"{name}, moment {n}: {text}" for n, r in enumerate(results, 1) for text in r.problems]
    _say("\n" + "\n\n".join(tables) + "\n")
    return _verdict(problems)


def run_long(options: argparse.Namespace, folder: Path) -> int:
    """One recipe of the user's, beside itself undisturbed."""
    from reglaj.pipelines.recipe import load_recipe

    recipe = options.recipe.resolve()
    name = load_recipe(recipe, options.overrides, {}).name
    case = Case(name, recipe, options.overrides)
    return _verdict(
        long.long_training(case, folder / "long", minutes=options.minutes, kills=options.kills, seed=options.seed)
    )


@contextlib.contextmanager
def _launcher(*, is_real: bool) -> Iterator[Launcher]:
    if is_real:
        yield Commands()
        return
    with Zygote() as zygote:
        yield zygote


def _verdict(problems: list[str]) -> int:
    for problem in problems:
        _say(f"WRONG: {problem}")
    _say(f"{len(problems)} problems" if problems else "all equal to the calm run")
    return 1 if problems else 0


def _say(text: str) -> None:
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--seed", type=int, default=0)
    shared.add_argument("--folder", type=Path)
    verbs = parser.add_subparsers(required=True)
    killing = verbs.add_parser("kills", parents=[shared])
    killing.add_argument("--case", choices=[*TINY, *STARTERS, "all"], default="all")
    killing.add_argument("--kills", type=int, help="a case; by default 50 for the tiny ones and 5 for the starters")
    killing.set_defaults(work=run_kills)
    filling = verbs.add_parser("disk", parents=[shared])
    filling.add_argument("--case", choices=[*TINY, "all"], default="classifier")
    filling.add_argument("--moments", type=int, default=20)
    filling.add_argument("--size", default="24m", help="of the file system, as mount takes it")
    filling.set_defaults(work=run_disk)
    for verb in (killing, filling):
        verb.add_argument("--real", action="store_true", help="start each attempt as a command, not from a zygote")
    lasting = verbs.add_parser("long", parents=[shared])
    lasting.add_argument("recipe", type=Path)
    lasting.add_argument("overrides", nargs="*")
    lasting.add_argument("--minutes", type=float, default=20.0)
    lasting.add_argument("--kills", type=int, default=10)
    lasting.set_defaults(work=run_long)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
