"""What being able to go on costs: checkpoints while training, a resumed start, and the list of many runs.

    python benchmarks/checkpointing.py [--parts cost,start,runs] [--repeats 3]

cost: the same training of MiniLM on medical questions with a checkpoint every 50 steps and with none, in turns, LoRA
and full. The time goes from the first step to the last but one of 105, so that two checkpoints lie in it and the one at
the end, which both sides write, does not. Processor time counts every thread, the one that writes too.

start: `reglaj train` from the start of the process to the first step that it finishes, for a new run and for one that
was killed after its second step, in turns. The data is prepared already in both cases, as it always is on resume, and
the rows are of one length, so that every step is the same work.

runs: `reglaj runs` over 500 run folders, copies of a finished tiny run of which some were killed or failed.

Prints Markdown tables; writes JSON beside this file, keeping there what this call did not measure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from killing.sides import Reglaj, write_material

STEPS, EVERY = 105, 50
LIMITS = {"lora": 0.03, "full": 0.10, "start": 1.3, "runs_s": 1.0}
RUNS = 500
SIDES = {"checkpoints": {"checkpoint_every": EVERY}, "none": {"checkpoint_every": None}}
RATES = {"full": 1e-4, "lora": 2e-3}
STARTS: dict[str, dict[str, Any]] = {
    "MiniLM, full": {"task": "classify", "model": "starter:minilm", "data": "starter:medical", "method": "full"},
    "SmolLM2-135M, LoRA": {"task": "chat", "model": "starter:smollm2", "data": "starter:finance", "method": "lora"},
}
START_ROWS = 60
PATIENCE_S = 600.0


def recipe_of(method: str, side: str) -> dict[str, Any]:
    """The training whose time is taken. Two small evaluations, so that the best weights are in the checkpoints."""
    train = {"max_steps": STEPS, "batch_size": 32, "learning_rate": RATES[method], "evaluate_every": 40}
    return {
        "name": f"{method}-{side}",
        "task": "classify",
        "model": "starter:minilm",
        "data": {
            "sources": [{"path": "starter:medical"}],
            "split": {"kind": "stratified", "train": 0.97, "validation": 0.015, "test": 0.015},
        },
        "method": method,
        "train": {**train, "early_stopping": {"patience": 10}, "checkpoint_minutes": None, **SIDES[side]},
        "evaluate": {"baselines": [], "bootstrap_samples": 100},
    }


def train_once(recipe: dict[str, Any], runs: Path) -> dict[str, float]:
    """In a process of its own: train, and say how long the steps took."""
    from reglaj.core.processors import share_processors

    share_processors()
    import reglaj
    from reglaj.core.console import Console

    marks: list[tuple[float, float]] = []

    class Stopwatch(Console):
        @contextlib.contextmanager
        def progress(self, description: str, *_: Any, **__: Any) -> Iterator[Callable[[int], None]]:
            def advance(count: int) -> None:
                if description == "training":
                    marks.append((time.perf_counter(), time.process_time()))

            yield advance

    run = reglaj.train(recipe, runs=runs, console=Stopwatch())
    (wall, processor), (wall_end, processor_end) = marks[0], marks[-2]
    sizes = [file.stat().st_size for file in sorted((run.path / "checkpoints").iterdir())[-1].iterdir()]
    told = {key: value for key, value in run.report["cost"].items() if "checkpoint" in key}
    return {
        "wall_s": wall_end - wall,
        "processor_s": processor_end - processor,
        "checkpoint_bytes": sum(sizes),
        **{f"reported_{key}": value for key, value in told.items()},
    }


def cost(folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds of every training, by method and side."""
    results: dict[str, Any] = {method: {side: [] for side in SIDES} for method in RATES}
    for number in range(repeats):
        for method in RATES:
            # Each goes first in turn: a machine that gets busier would favour one.
            for side in list(SIDES) if number % 2 == 0 else reversed(SIDES):
                place = folder / f"{method}-{side}-{number}"
                order = json.dumps({"recipe": recipe_of(method, side), "runs": str(place)})
                command = [sys.executable, __file__, "--child", order]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"{method}, {side}: {done.stderr[-2000:]}")
                results[method][side].append(json.loads(done.stdout.splitlines()[-1]))
                shutil.rmtree(place)
                print(f"  {method}, {side}: {results[method][side][-1]}", file=sys.stderr, flush=True)
    for result in results.values():
        result["more"] = {key: _more(result, key) for key in ("wall_s", "processor_s")}
    return results


def _more(result: dict[str, Any], key: str) -> float:
    with_them, without = (statistics.median(each[key] for each in result[side]) for side in SIDES)
    return with_them / without - 1


def start(folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds from the start of the process to its first finished step: new and resumed."""
    results: dict[str, Any] = {}
    for name, parts in STARTS.items():
        place = folder / parts["task"]
        place.mkdir(parents=True)
        command = [str(write_start(place, parts))]
        prepared, killed = place / "prepared", place / "killed"
        reglaj("data", *command, "--runs", str(prepared))
        shutil.copytree(prepared, killed)
        until_step(command, killed, lambda run: (run / "checkpoints" / "step-000002").is_dir())
        times: dict[str, list[dict[str, float]]] = {"new": [], "resumed": []}
        for _ in range(repeats):
            for kind, source in (("new", prepared), ("resumed", killed)):
                runs = place / kind
                shutil.copytree(source, runs)
                times[kind].append(until_step(command, runs, lambda run: True))
                shutil.rmtree(runs)
                print(f"  {name}, {kind}: {times[kind][-1]}", file=sys.stderr, flush=True)
        medians = {kind: {k: statistics.median(t[k] for t in each) for k in each[0]} for kind, each in times.items()}
        ratios = {key: medians["resumed"][key] / medians["new"][key] for key in ("wall_s", "processor_s")}
        results[name] = {"times": times, "ratio": ratios}
    return results


def write_start(place: Path, parts: dict[str, Any]) -> Path:
    """A recipe on the rows of a starter that are nearest to the middle length."""
    from reglaj.models.starters import fetch

    lines = fetch(parts["data"]).read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if '"Unknown"' not in line]
    middle = statistics.median(map(len, lines))
    chosen = sorted(lines, key=lambda line: abs(len(line) - middle))
    if parts["task"] == "classify":  # two labels are enough
        labels = [label for label, _ in Counter(json.loads(line)["label"] for line in chosen[:500]).most_common(2)]
        chosen = [line for line in chosen if json.loads(line)["label"] in labels]
    (place / "rows.jsonl").write_text("\n".join(chosen[:START_ROWS]) + "\n", encoding="utf-8")
    recipe = {
        "name": "start",
        **parts,
        "data": {"sources": [{"path": str(place / "rows.jsonl")}]},
        "train": {"max_steps": 20, "batch_size": 2, "checkpoint_every": 2, "evaluate_every": 20},
    }
    (place / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    return place / "recipe.yaml"


def until_step(command: list[str], runs: Path, is_enough: Callable[[Path], bool]) -> dict[str, float]:
    """Train until a step of this process is in metrics.jsonl and `is_enough`, then kill. Seconds to that step."""
    log = runs.with_suffix(".log")
    with log.open("wb") as file:
        started = time.time()
        process = subprocess.Popen(
            [sys.executable, "-m", "reglaj", "train", *command, "--runs", str(runs)], stdout=file, stderr=file
        )
    taken: dict[str, float] | None = None
    try:
        while taken is None or not is_enough(_run_in(runs)):
            if process.poll() is not None or time.time() - started > PATIENCE_S:
                raise SystemExit(f"no step in {runs}:\n{log.read_text(encoding='utf-8')[-2000:]}")
            if taken is None and (moment := _first_step_since(_run_in(runs), started)):
                taken = {"wall_s": moment - started, "processor_s": _processor_seconds(process.pid)}
            time.sleep(0.005)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return taken


def reglaj(*arguments: str) -> str:
    """What the command line says on standard output."""
    command = [sys.executable, "-m", "reglaj", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _run_in(runs: Path) -> Path:
    return next((path for path in runs.iterdir() if path.name.endswith("-001")), runs / "none")


def _first_step_since(run: Path, started: float) -> float | None:
    """When the first step was finished that this process took."""
    with contextlib.suppress(OSError, ValueError):
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            told = json.loads(line)
            if told["event"] == "step" and told["time"] > started:
                return float(told["time"])
    return None


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def listing(folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds of `reglaj runs` over many runs."""
    folder.mkdir()
    write_material(folder)
    side = Reglaj(folder / "model", folder / "rows.jsonl")
    runs = folder / "many"
    reglaj("train", str(side.recipe), "--runs", str(runs))
    first = runs / "tiny-001"
    for number in range(2, RUNS + 1):
        copy = runs / f"tiny-{number:03d}"
        shutil.copytree(first, copy)
        # As a fifth of them would be: killed, or ended by an error.
        if number % 5 == 0:
            manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
            manifest |= {"status": "running"} if number % 2 else {"status": "failed", "reason": "the disk was full"}
            (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    times = []
    for _ in range(max(5, repeats)):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        said = reglaj("runs", "--runs", str(runs))
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        times.append({"wall_s": wall, "processor_s": processor})
        assert said.count("tiny-") >= RUNS
    medians = {key: statistics.median(each[key] for each in times) for key in times[0]}
    return {"runs": RUNS, "files": sum(len(files) for _, _, files in os.walk(runs)), "times": times, "median": medians}


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = []
    if "cost" in results:
        lines += ["| what | without | with | more wall time | more processor time | limit |", f"|{'---|' * 6}"]
    for method, result in results.get("cost", {}).items():
        medians = {side: statistics.median(each["wall_s"] for each in result[side]) for side in SIDES}
        size = result["checkpoints"][-1]["checkpoint_bytes"] / 1e6
        more = [f"{result['more'][key]:+.1%}" for key in ("wall_s", "processor_s")]
        lines.append(
            f"| {method}, a checkpoint of {size:.0f} MB every {EVERY} steps | {medians['none']:.1f} s "
            f"| {medians['checkpoints']:.1f} s | {more[0]} | {more[1]} | {LIMITS[method]:.0%} |"
        )
    if "start" in results:
        lines += ["", "| first step of | new run | resumed run | times as long | processor time | limit |"]
        lines += [f"|{'---|' * 6}"]
    for name, result in results.get("start", {}).items():
        new, resumed = (statistics.median(t["wall_s"] for t in result["times"][kind]) for kind in ("new", "resumed"))
        ratio = result["ratio"]
        lines.append(
            f"| {name} | {new:.1f} s | {resumed:.1f} s | {ratio['wall_s']:.2f} | {ratio['processor_s']:.2f} "
            f"| {LIMITS['start']} |"
        )
    if "runs" in results:
        median = results["runs"]["median"]
        told = f"{median['wall_s']:.2f} s, {median['processor_s']:.2f} s of processor time"
        lines += ["", f"`reglaj runs` with {results['runs']['runs']} runs: {told} (limit {LIMITS['runs_s']:.0f} s)"]
    return "\n".join(lines).strip()


PARTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {"cost": cost, "start": start, "runs": listing}


def main() -> None:
    """Measure, write JSON, print the tables."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        order = json.loads(options.child)
        print(json.dumps(train_once(order["recipe"], Path(order["runs"]))))
        return
    target = Path(__file__).with_suffix(".json")
    known = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {"results": {}}
    results = known["results"]
    for name in options.parts.split(","):
        with tempfile.TemporaryDirectory(prefix="checkpointing-") as folder:
            before = os.getloadavg()[0]
            results[name] = PARTS[name](Path(folder) / name, options.repeats)
            known.setdefault("load_average", {})[name] = {"before": before, "after": os.getloadavg()[0]}
    versions = {library: version(library) for library in ("reglaj", "torch", "transformers", "safetensors")}
    facts = {"processors": os.cpu_count(), "versions": {"python": platform.python_version(), **versions}}
    target.write_text(json.dumps({**known, **facts, "results": results}, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
