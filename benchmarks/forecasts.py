"""What `reglaj check` forecasts against what the training then takes: peak memory and seconds, each in a fresh process.

    python benchmarks/forecasts.py [--only minilm-lora,...] [--repeats 1] [--json FILE]

Memory is the highest resident size of the whole process (VmHWM), from its start to its report; seconds are the report's
`cost.train_seconds`, without evaluations and checkpoints. Baselines are left out, as the forecast leaves them out. The
forecast is what the command line gives, calibration of this moment included: give the machine nothing else to do.
Held to: memory within 20%, time within a factor of 1.5. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MEMORY, TIME = 1.2, 1.5
"""Factors that forecast and truth may be apart."""
_TEXTS = {"task": "classify", "model": "starter:minilm", "data": {"sources": [{"path": "starter:medical"}]}}
_CHAT = {"task": "chat", "model": "starter:smollm2", "data": {"sources": [{"path": "starter:finance"}]}}
_FEW, _MANY = {"max_steps": 4, "batch_size": 8}, {"max_steps": 40, "batch_size": 32}
WORKS: dict[str, dict[str, Any]] = {
    "minilm-full": {**_TEXTS, "method": "full", "train": _MANY},
    "minilm-lora": {**_TEXTS, "method": "lora", "train": _MANY},
    "minilm-prompt": {**_TEXTS, "method": "prompt", "train": _MANY},
    "smollm2-lora": {**_CHAT, "method": "lora", "train": _FEW},
    "smollm2-full": {**_CHAT, "method": "full", "train": _FEW},
    "smollm2-lora-checkpointed": {**_CHAT, "method": "lora", "train": {**_FEW, "gradient_checkpointing": True}},
}
_CHILD = """
import json, sys, reglaj
report = reglaj.train(json.load(open(sys.argv[1])), runs=sys.argv[2]).report
high = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
cost = report["cost"] | {"high_water_bytes": int(high.split()[1]) * 1024, "steps": report["training"]["steps"]}
print(json.dumps(cost))
"""


def recipe_of(name: str) -> dict[str, Any]:
    """To the end of its steps, with one small evaluation and nothing generated."""
    work = WORKS[name]
    evaluate = {"baselines": [], "bootstrap_samples": 100} | ({"generate_rows": 0} if work["task"] == "chat" else {})
    train = {"early_stopping": None, "seed": 0, **work["train"]}
    # Few rows to evaluate on: that is in neither figure.
    data = {**work["data"], "split": {"train": 0.96, "validation": 0.02, "test": 0.02}}
    return {"name": name, **work, "data": data, "train": train, "evaluate": evaluate}


def forecast_of(recipe: Path) -> dict[str, Any]:
    """What `reglaj check` says of it."""
    command = [sys.executable, "-m", "reglaj", "check", str(recipe), "--json"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found: dict[str, Any] = answer["forecast"]
    return found


def truth_of(recipe: Path, folder: Path) -> dict[str, Any]:
    """What the training took, in a process of its own."""
    command = [sys.executable, "-c", _CHILD, str(recipe), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    cost: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return cost


def measured(name: str, repeats: int) -> dict[str, Any]:
    """Forecasts and truths of one work in turns; of each the quickest, for what slows one down is the machine."""
    forecasts, truths = [], []
    with tempfile.TemporaryDirectory() as place:
        recipe = Path(place) / f"{name}.json"
        recipe.write_text(json.dumps(recipe_of(name)), encoding="utf-8")
        for turn in range(repeats):
            forecasts.append(forecast_of(recipe))
            truths.append(truth_of(recipe, Path(place) / f"runs-{turn}"))
    told = min(forecasts, key=lambda one: one["train_seconds"])
    truth = min(truths, key=lambda one: one["train_seconds"])
    assert told["steps"] == truth["steps"], "the same work"
    figures = {
        "memory_forecast": told["memory_bytes"],
        "memory_truth": truth["high_water_bytes"],
        "seconds_forecast": told["train_seconds"],
        "seconds_truth": truth["train_seconds"],
        "parts": told["memory"],
    }
    figures["memory_ratio"] = figures["memory_forecast"] / figures["memory_truth"]
    figures["seconds_ratio"] = figures["seconds_forecast"] / figures["seconds_truth"]
    return figures


def row(name: str, figures: dict[str, Any]) -> str:
    """A line of the table."""
    memory, seconds = (figures[f"{what}_ratio"] for what in ("memory", "seconds"))
    is_held = 1 / MEMORY <= memory <= MEMORY and 1 / TIME <= seconds <= TIME
    cells = (
        name,
        f"{figures['memory_forecast'] / 1e6:,.0f} / {figures['memory_truth'] / 1e6:,.0f} MB",
        f"{memory:.2f}",
        f"{figures['seconds_forecast']:.1f} / {figures['seconds_truth']:.1f} s",
        f"{seconds:.2f}",
        "yes" if is_held else "NO",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="works by name, commas between", default=",".join(WORKS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print("| work | memory: forecast / truth | ratio | training: forecast / truth | ratio | held |")
    print("|---|---|---|---|---|---|", flush=True)
    found = {}
    for name in options.only.split(","):
        found[name] = measured(name, options.repeats)
        print(row(name, found[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
