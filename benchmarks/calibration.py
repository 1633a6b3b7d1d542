"""What calibration and abstention are worth on a model that was trained too long.

    python benchmarks/calibration.py [--data ../shared/data/hate_davidson/labeled_data.csv] [--rows 4000] [--epochs 10]

An eighth of the rows (drawn by the seed) trains MiniLM in full for many epochs without early stopping; the rest is
validation and test. What is measured stands on what the run keeps:

- log loss and expected calibration error on test, before and after the temperature, with paired intervals;
- for several target errors, the threshold that validation gives and the error among what is answered on test;
- the same for 500 other halves of validation and test together: how often the error among the answered rows of the
  other half is above the target, and how often it is shown to be above it. The other half is a sample, and has the
  errors that the first lacks: where the target is kept at 95%, it may still lie above it in 12% of the halves;
- the gain in macro-F1 of thresholds chosen for it.

Prints a table; --json writes the figures. The data is a CSV file with --text and --label columns.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import reglaj
from reglaj.core.console import RichConsole
from reglaj.evaluation.config import EvaluateConfig
from reglaj.evaluation.metrics.abstention import on_rows
from reglaj.evaluation.types import FloatArray, IntArray
from reglaj.pipelines.assemble import Assembled, load_run
from reglaj.tasks.classify_calibration import settle

HALVES = 500
TARGETS = (0.02, 0.05, 0.1)


def write_rows(source: Path, target: Path, options: argparse.Namespace) -> None:
    """A sample of a file's rows."""
    with source.open(newline="", encoding="utf-8") as file:
        rows = [(row[options.text], row[options.label]) for row in csv.DictReader(file)]
    random.Random(options.seed).shuffle(rows)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(rows[: options.rows])


def train(source: Path, runs: Path, options: argparse.Namespace) -> reglaj.Run:
    """The run that is trained too long."""
    recipe = {
        "name": "overtrained",
        "task": "classify",
        "data": {
            "sources": [{"path": str(source)}],
            "split": {"kind": "stratified", "train": 0.125, "validation": 0.4375, "test": 0.4375},
        },
        "train": {"epochs": options.epochs, "early_stopping": None, "evaluate_every": 10**6, "seed": options.seed},
        "evaluate": {"baselines": ["majority"], "thresholds": "macro_f1"},
    }
    return reglaj.train(recipe, runs=runs, console=RichConsole())


def scores_of(run: Path) -> tuple[Assembled, FloatArray, IntArray]:
    """Scores (N, C) and classes (N,) of validation and test together, from the saved model."""
    from reglaj.data.examples import load_prepared

    assembled = load_run(run)
    data = load_prepared(run.parent / ".data" / json.loads((run / "manifest.json").read_text())["data_key"])
    assert data is not None
    test, _ = data.open_test(opened_by="benchmarks/calibration.py")
    parts = [
        assembled.task.encode(part, assembled.tokenizer, assembled.max_tokens)
        for part in (data.visible.validation(), test)
    ]
    scores = [assembled.learner.scores(part.rows) for part in parts]
    return assembled, np.concatenate(scores), np.concatenate([part.targets for part in parts])


def promises(assembled: Assembled, scores: FloatArray, truth: IntArray, confidence: float) -> list[dict[str, Any]]:
    """For each target, over many halves: how often there is a threshold, what it answers, and how often it errs."""
    from scipy.stats import binom

    labels = assembled.task.labels  # type: ignore[attr-defined]
    config = EvaluateConfig(bootstrap_samples=100, confidence=confidence)
    found: dict[float, list[dict[str, Any]]] = {target: [] for target in TARGETS}
    for half in range(HALVES):
        order = np.random.default_rng(half).permutation(len(truth))
        known, other = order[: len(order) // 2], order[len(order) // 2 :]
        calibration = settle(labels, scores[known], truth[known], config, half)
        said = calibration.answers(scores[other])
        right = (said.classes == truth[other]).astype(np.int64)
        for target in TARGETS:
            threshold = calibration.threshold(target, confidence)
            if threshold is not None:
                found[target].append(on_rows(said.confidences, right, threshold.value, confidence))
    lines = []
    for target, tried in found.items():
        errors = np.array([one["error"]["value"] for one in tried])
        rows = np.array([one["rows"] for one in tried])
        shown = 1 - binom.cdf(np.round(errors * rows) - 1, rows, target) < 1 - confidence if len(tried) else []
        lines.append(
            {
                "target_error": target,
                "halves": HALVES,
                "with_threshold": len(tried),
                "mean_coverage": float(np.mean([one["coverage"]["value"] for one in tried])) if tried else None,
                "mean_error": float(errors.mean()) if tried else None,
                "above_target": int((errors > target).sum()) if tried else 0,
                "shown_above_target": int(np.sum(shown)),
            }
        )
    return lines


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hate_davidson/labeled_data.csv"))
    parser.add_argument("--text", default="tweet")
    parser.add_argument("--label", default="class")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, help="keeps the run there")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reglaj-calibration-") as scratch:
        rows = Path(options.runs or scratch) / "rows.csv"
        rows.parent.mkdir(parents=True, exist_ok=True)
        write_rows(options.data, rows, options)
        run = train(rows, options.runs or Path(scratch, "runs"), options)
        test = run.report["test"]
        document = {name: test[name] for name in ("accuracy", "macro_f1", "calibration", "thresholds", "abstention")}
        document["promises"] = promises(*scores_of(run.path), run.report["confidence"])
    _tell(document)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _tell(document: dict[str, Any]) -> None:
    print(f"temperature {document['calibration']['temperature']:.3f}, accuracy {_figure(document['accuracy'])}\n")
    print("| on test | before | after | difference | p |\n|---|---|---|---|---|")
    for part in ("calibration", "thresholds"):
        for name, values in (document[part]["test"] or {}).items():
            cells = [_figure(values[side]) for side in ("before", "after", "difference")]
            print(f"| {name} | {' | '.join(cells)} | {values['difference']['p']:.3f} |")
    print("\n| target error | answered on test | error among them |\n|---|---|---|")
    for one in document["abstention"]["targets"]:
        told = (
            "not to be had | " if one["threshold"] is None else f"{_figure(one['coverage'])} | {_figure(one['error'])}"
        )
        print(f"| {one['target_error']:.2f} | {told} |")
    print("\n| target error | halves with a threshold | answered | error | above the target | shown to be above it |")
    print("|---|---|---|---|---|---|")
    for one in document["promises"]:
        cells = [f"{one[name]:.3f}" if one["with_threshold"] else "" for name in ("mean_coverage", "mean_error")]
        cells += [one["above_target"], one["shown_above_target"]]
        halves = f"{one['with_threshold']} of {one['halves']}"
        print(f"| {one['target_error']:.2f} | {halves} | {' | '.join(map(str, cells))} |")


def _figure(values: dict[str, float]) -> str:
    return f"{values['value']:.4f} [{values['low']:.4f}, {values['high']:.4f}]"


if __name__ == "__main__":
    main()
