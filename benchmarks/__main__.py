"""Every benchmark by one command; see --help. Progress goes to stderr, the table to stdout."""

from __future__ import annotations

import argparse
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from benchmarks import machine, processes, profiling, results
from benchmarks.measuring import Contest, Measured, NoResult, measure, tell
from benchmarks.works import chat, classify, generate, growth, trunk
from benchmarks.works.sizes import Sizes

ROOT = Path(__file__).resolve().parents[1]
WORKS: dict[str, Callable[[Sizes], list[Contest]]] = {
    "chat": chat.chat,
    "chat-all-linear": chat.all_linear,
    "classify": classify.classify,
    "trunk": trunk.trunk,
    "generate": generate.generate,
    "evaluate": classify.evaluate,
}
GROWTH = "growth"
SCRIPTS = ("reading.py", "tokenising.py", "near_duplicates.py", "kills.py", "checkpointing.py")
"""Measure other things than speed of training, each with a table of its own; --all runs them too."""


def main() -> None:
    """Measure, write results.json and RESULTS.md, print the table of floors."""
    options = _parser().parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # the peers about the names of their own settings
    sizes = Sizes.of(options)
    if options.alone:
        return processes.run_alone(_contest(options.alone, sizes), options.side)
    if options.readme:
        return results.into_readme(options.readme)
    if options.profile:
        return profiling.profile(_contest(options.profile, sizes))
    chosen = options.only.split(",") if options.only else [*WORKS, GROWTH]
    contests = {name: _contests(name, sizes) for name in chosen if name != GROWTH}
    is_whole = True
    for name in chosen:
        if name == GROWTH:
            _run_growth(sizes, options)
            continue
        for contest in contests[name]:
            is_whole = _run(contest, sizes, options) and is_whole
    for script in SCRIPTS if options.all else ():
        tell(f"== {script}")
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / script)], check=True, cwd=ROOT)
    print(results.floors_table(results.read(options.output)["parts"]))
    sys.exit(0 if is_whole else 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="", help=f"works or contests of theirs, by commas: {', '.join((*WORKS, GROWTH))}"
    )
    parser.add_argument("--repeats", type=int, default=3, help="turns of every side")
    parser.add_argument("--full", action="store_true", help="all 64 conversations, 640 texts, 50 questions")
    parser.add_argument("--all", action="store_true", help=f"also {', '.join(SCRIPTS)}")
    parser.add_argument("--steps", type=int, help="of the chat works in a turn (2; --full: 8)")
    parser.add_argument("--batch", type=int, help="rows of a step in the chat works (8)")
    parser.add_argument("--rows", type=int, help="texts of the classification works (320; --full: 640)")
    parser.add_argument("--new-tokens", type=int, help="of each generated answer (64)")
    parser.add_argument("--growth-steps", type=int, help="drawn from few and from many rows (20)")
    parser.add_argument("--no-alone", action="store_true", help="leave out peak memory and cold start")
    parser.add_argument("--output", type=Path, default=results.JSON, help="a JSON file; RESULTS.md lies beside it")
    parser.add_argument("--readme", type=Path, nargs="?", const=ROOT / "README.md", help="put the table there, and end")
    parser.add_argument("--profile", metavar="CONTEST", help="profile our side of one contest, and end")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser


def _contests(name: str, sizes: Sizes) -> list[Contest]:
    """All of a work, or the one of this name."""
    return WORKS[name](sizes) if name in WORKS else [_contest(name, sizes)]


def _contest(name: str, sizes: Sizes) -> Contest:
    """The contest of this name; a work stands for the first of its own."""
    every = [(work, contest) for work, make in WORKS.items() for contest in make(sizes)]
    found = [contest for work, contest in every if name in (contest.name, work)]
    if not found:
        sys.exit(f"no contest is called {name!r}; there are {', '.join(contest.name for _, contest in every)}")
    return next((contest for contest in found if contest.name == name), found[0])


def _run(contest: Contest, sizes: Sizes, options: argparse.Namespace) -> bool:
    """Measure one contest and write its part, after every turn and at the end; whether it came to its end."""
    tell(f"{contest.name}: {contest.title}")
    before = machine.load_average()
    head = {"title": contest.title, "date": machine.today(), "machine": machine.facts()}

    def part(measured: Measured, **more: Any) -> dict[str, Any]:
        turns = max((len(side["seconds"]) for side in measured.sides.values()), default=0)
        load = {"load_average": [before, machine.load_average()], "turns": turns}
        return head | load | {"facts": facts, "sides": measured.sides, "limits": measured.limits} | more

    facts: dict[str, Any] = {}
    try:
        facts = contest.facts() | {"amount": contest.amount}
        measured = measure(contest, options.repeats, lambda m: _keep(contest.name, part(m), False, options))
    except NoResult as why:
        tell(f"  {contest.name}: no result: {why}")
        _keep(contest.name, part(Measured(), no_result=str(why)), True, options)
        return True
    except Exception:  # a peer may break in its own way; what the other works give is not lost for it
        traceback.print_exc()
        tell(f"  {contest.name}: broke off; what its finished turns gave is kept")
        return False
    if contest.alone and not options.no_alone:
        for name, found in processes.alone(contest, sizes.arguments()).items():
            measured.sides[name] |= found
    _keep(contest.name, part(measured), True, options)
    return True


def _run_growth(sizes: Sizes, options: argparse.Namespace) -> None:
    title = "growth of the time per token, SmolLM2-135M, LoRA q,v r8"
    tell(f"{GROWTH}: {title}")
    head = {"title": title, "date": machine.today(), "machine": machine.facts(), "facts": {}}
    before = machine.load_average()

    def keep(figures: dict[str, Any], *, is_finished: bool = False) -> None:
        load = {"load_average": [before, machine.load_average()], "turns": len(figures["growth"]["length"])}
        _keep(GROWTH, head | load | figures, is_finished, options)

    keep(growth.growth(sizes, options.repeats, keep), is_finished=True)


def _keep(name: str, part: dict[str, Any], is_finished: bool, options: argparse.Namespace) -> None:
    results.put(name, part, is_finished=is_finished, file=options.output)


if __name__ == "__main__":
    main()
