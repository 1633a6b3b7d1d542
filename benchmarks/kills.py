"""A training killed by SIGKILL while it saves, and the same command again: reglaj and the Hugging Face Trainer.

    python benchmarks/kills.py [--kills 30] [--seed 0] [--sides reglaj,Trainer] [--moments inside,any]

Both sides train the same tiny BERT on the same rows for 24 steps and save every 2. Two kinds of moments, `--kills` of
each a side: `inside` is a random share of the time that a save took in the calm run, after the folder of a random save
has appeared; `any` is a random share of the time from one save to the next. Then the same command runs again, as its
documentation says (the Trainer with `resume_from_checkpoint=True` where it has saved something), to its end. The
outcome of a trial: bitwise the weights of the calm run, other weights, or no end, with the last line of the error.
"Unfinished" counts the kills that left a save without all its files.

Each attempt is a process of its own, forked from this one, which has imported the libraries and computed nothing.
Prints a Markdown table; writes JSON beside this file.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import itertools
import json
import os
import platform
import random
import re
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from killing.sides import EVERY, STEPS, Reglaj, Side, Trainer, write_material

LOADED = (
    *("reglaj.cli", "reglaj.evaluation.report", "reglaj.pipelines.assemble", "reglaj.pipelines.train"),
    *("reglaj.training.fit", "sklearn.linear_model", "transformers.models.bert.modeling_bert", "transformers.trainer"),
)
PATIENCE_S = 120.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Calm:
    """What an undisturbed training shows: its weights, seconds of a save, seconds from one save to the next."""

    weights: str
    save_s: float
    between_s: float


def fork(work: Callable[[], int], log: Path) -> int:
    """A process that does `work`, its output in `log`; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no attempt outlives us
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> int | None:
    """The exit code of a process, below zero for a signal; None while it runs."""
    process, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if process else None


def finish(child: int) -> int:
    """Wait for a process, and end it when it never does."""
    until = time.monotonic() + PATIENCE_S
    while (code := ended(child)) is None:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -int(signal.SIGKILL)
        time.sleep(0.005)
    return code


def seconds_of(side: Side, save: Path, begun: float) -> float:
    """Seconds from `begun`, when its folder was seen, until a save was whole or had its final name."""
    while save.exists() and not side.is_whole(save) and time.monotonic() - begun < PATIENCE_S:
        pass
    return time.monotonic() - begun


def calm_run(side: Side, folder: Path) -> Calm:
    """A training that nobody disturbs, watched."""
    folder.mkdir(parents=True)
    child = fork(lambda: side.train(folder), folder / "log")
    seen: dict[str, float] = {}
    taken = []
    while (code := ended(child)) is None:
        for name, save in side.saves(folder).items():
            if name not in seen:
                seen[name] = time.monotonic()
                if not side.is_whole(save):
                    taken.append(seconds_of(side, save, seen[name]))
    if code != 0:
        raise SystemExit(f"the calm run of {side.name} ended with {code}:\n{(folder / 'log').read_text()[-2000:]}")
    between = [later - earlier for earlier, later in itertools.pairwise(sorted(seen.values()))]
    return Calm(side.weights(folder), statistics.median(taken), statistics.median(between))


def trial(side: Side, folder: Path, chance: random.Random, calm: Calm, longest_s: float) -> dict[str, Any]:
    """One training, killed once and run again."""
    folder.mkdir(parents=True)
    # Not the first save: without it there is nothing to go back to on either side.
    wanted, delay = chance.randint(2, STEPS // EVERY - 1), chance.uniform(0, longest_s)
    child = fork(lambda: side.train(folder), folder / "log")
    seen: set[str] = set()
    while len(seen := seen | set(side.saves(folder))) < wanted:  # older ones may be gone by then
        if ended(child) is not None:
            raise SystemExit(f"{side.name} ended before its save {wanted}; see {folder / 'log'}")
    until = time.monotonic() + delay
    while time.monotonic() < until:
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    killed_at = time.time()
    unfinished = any(not side.is_whole(save) for save in side.saves(folder).values())
    code = finish(fork(lambda: side.train(folder), folder / "log"))
    outcome = {"save": wanted, "delay_ms": round(delay * 1000, 2), "unfinished": unfinished}
    if code != 0:
        said = (folder / "log").read_text(encoding="utf-8").strip().splitlines() or [""]
        return {**outcome, "outcome": "failed", "exit_code": code, "error": said[-1].replace(f"{folder}/", "")}
    equal = side.weights(folder) == calm.weights
    return {
        **outcome,
        "outcome": "bitwise equal" if equal else "different",
        "resumed_after_step": side.resumed_at(folder, killed_at),
    }


def measure(side: Side, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every trial of one side, by kind of moment."""
    calm = calm_run(side, folder / "calm")
    results = []
    for kind in options.moments.split(","):
        longest_s = {"inside": calm.save_s, "any": calm.between_s}[kind]
        chance = random.Random(options.seed)
        trials = []
        for number in range(options.kills):
            trials.append(trial(side, folder / kind / str(number), chance, calm, longest_s))
            print(f"  {side.name}, {kind} {number + 1}/{options.kills}: {trials[-1]}", file=sys.stderr, flush=True)
        results.append({"side": side.name, "moments": kind, "longest_delay_ms": round(longest_s * 1000, 2)})
        results[-1] |= counted(trials) | {"trials": trials}
    return results


def counted(trials: list[dict[str, Any]]) -> dict[str, int]:
    """How many there were of each kind."""
    outcomes = [trial["outcome"] for trial in trials]
    return {
        "kills": len(trials),
        "unfinished_saves": sum(trial["unfinished"] for trial in trials),
        "went_on_from_a_checkpoint": sum(trial.get("resumed_after_step", 0) > 0 for trial in trials),
        **{name.replace(" ", "_"): outcomes.count(name) for name in ("bitwise equal", "different", "failed")},
    }


def import_everything() -> None:
    """What a training of either side loads, so that a fork of this process begins at once."""
    for name in LOADED:
        importlib.import_module(name)


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(results: list[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| side | moments | kills | left an unfinished save | bitwise equal | other weights | did not come back |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        keys = ("side", "moments", "kills", "unfinished_saves", "bitwise_equal", "different", "failed")
        lines.append(f"| {' | '.join(str(result[key]) for key in keys)} |")
    errors = Counter(
        f"{result['side']}: {re.sub('[0-9]+', 'N', trial['error'])}"
        for result in results
        for trial in result["trials"]
        if "error" in trial
    )
    return "\n".join([*lines, "", *(f"- {count} times {error}" for error, count in errors.most_common())])


def main() -> None:
    """Measure, write JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sides", default="reglaj,Trainer")
    parser.add_argument("--moments", default="inside,any")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import_everything()
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)

        def material() -> int:
            write_material(folder)
            return 0

        assert finish(fork(material, folder / "log")) == 0, (folder / "log").read_text()
        sides = {side.name: side(folder / "model", folder / "rows.jsonl") for side in (Reglaj, Trainer)}
        results = [r for name in options.sides.split(",") for r in measure(sides[name], folder / name, options)]
    facts = {
        "steps": STEPS,
        "save_every_steps": EVERY,
        "seed": options.seed,
        "processors": os.cpu_count(),
        "hardware": processor(),
        "load_average": os.getloadavg()[0],
        "versions": {
            "python": platform.python_version(),
            **{library: version(library) for library in ("reglaj", "torch", "transformers", "accelerate")},
        },
        "results": results,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
