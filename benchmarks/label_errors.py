"""Labels flipped on purpose in banking77: how many of those flagged are flipped, and what cleaning does for training.

Usage: python -m benchmarks.label_errors [--share 0.05] [--seeds 0 1 2] [--train METHOD] [--data FOLDER] [--json FILE]
FOLDER holds the public set `banking77`. Two kinds of flips: to any other label, and to one of the three labels whose
mean embeddings are nearest, as people confuse them. --train trains on the dirty rows, on what `data.clean` leaves of
them, and on the rows as they came; all three are tested on the 3,080 rows of the official test.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reglaj
from reglaj.core.console import RichConsole
from reglaj.curation.label_errors import find_label_errors
from reglaj.curation.probing import cross_validated
from reglaj.pipelines.embedding import DEFAULT, embedder_of
from reglaj.pipelines.recipe import load_recipe

PUBLIC = Path(__file__).resolve().parents[2] / "shared" / "data"
KINDS = ("any", "near")
NEAREST = 3
EPOCHS = {"full": 4, "lora": 4, "linear-probe": 20}
RESAMPLES = 10_000

Targets = NDArray[np.int64]


def read(path: Path) -> tuple[list[str], list[str]]:
    """Texts and labels of one of the two files."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["category"] for row in rows]


def flip(targets: Targets, vectors: NDArray[np.float32], share: float, kind: str, seed: int) -> tuple[Targets, Targets]:
    """The labels with that share of them flipped, and the rows that were."""
    rng = np.random.default_rng(seed)
    classes = int(targets.max()) + 1
    rows = rng.choice(len(targets), round(share * len(targets)), replace=False)
    given = targets.copy()
    if kind == "any":
        given[rows] = (targets[rows] + rng.integers(1, classes, len(rows))) % classes
        return given, rows
    means = np.stack([vectors[targets == label].mean(axis=0) for label in range(classes)])
    near = means @ means.T
    np.fill_diagonal(near, -np.inf)
    nearest = np.argsort(-near, axis=1)[:, :NEAREST]
    given[rows] = nearest[targets[rows], rng.integers(0, NEAREST, len(rows))]
    return given, rows


def found(targets: Targets, vectors: NDArray[np.float32], share: float, kind: str, seed: int) -> dict[str, Any]:
    """Precision of the most suspicious rows, as many as were flipped, and of those that are called wrong."""
    given, rows = flip(targets, vectors, share, kind, seed)
    is_flipped = np.isin(np.arange(len(targets)), rows)
    began = time.perf_counter()
    errors = find_label_errors(cross_validated(vectors, given, int(targets.max()) + 1, seed=0), given)
    seconds = time.perf_counter() - began
    # As the report ranks them: those that are called wrong first, the others by the same measure.
    order = np.lexsort((errors.confidence, ~errors.is_error))
    flagged = errors.is_error
    return {
        "kind": kind,
        "seed": seed,
        "flipped": len(rows),
        "precision_at_share": float(is_flipped[order[: len(rows)]].mean()),
        "flagged": int(flagged.sum()),
        "precision_of_flagged": float(is_flipped[flagged].mean()),
        "recall_of_flagged": float(flagged[rows].mean()),
        "guess_is_right": float((errors.guess == targets)[flagged & is_flipped].mean()),
        "seconds": round(seconds, 1),
    }


def trained(
    public: Path, place: Path, given: list[str], method: str, *, clean: bool
) -> tuple[float, NDArray[np.bool_]]:
    """Accuracy on the official test of a model that was trained on these labels, and which rows it gets right."""
    texts, _ = read(public / "train.csv")
    path = place / "train.jsonl"
    rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, given, strict=True)]
    path.write_text("\n".join(rows), encoding="utf-8")
    recipe = {
        "task": "classify",
        "model": DEFAULT,
        "method": method,
        "data": {
            "sources": [
                {"path": str(path), "part": "train"},
                {"path": str(public / "test.csv"), "part": "test", "columns": {"label": "category"}},
            ],
            "split": {"kind": "given"},
            # What the official parts share stays as it is: all trainings share it alike.
            "leakage": "report",
            "clean": {"label_errors": "drop" if clean else "keep"},
        },
        "train": {"epochs": EPOCHS[method]},
        "evaluate": {"baselines": []},
    }
    run = reglaj.train(recipe, runs=place / "runs", console=RichConsole())
    tests, labels = read(public / "test.csv")
    answers = reglaj.load(run.path).predict(tests)
    right = np.array([answer["prediction"] == label for answer, label in zip(answers, labels, strict=True)])
    return float(right.mean()), right


def compared(public: Path, method: str, given: list[str], true: list[str]) -> dict[str, Any]:
    """Dirty against cleaned against the rows as they came; the difference is paired, its interval by bootstrap."""
    right: dict[str, NDArray[np.bool_]] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, labels, clean in (("dirty", given, False), ("cleaned", given, True), ("as they came", true, False)):
            _, right[name] = trained(public, Path(place), labels, method, clean=clean)
    rng = np.random.default_rng(0)
    gain = right["cleaned"].astype(float) - right["dirty"]
    samples = gain[rng.integers(0, len(gain), (RESAMPLES, len(gain)))].mean(axis=1)
    low, high = np.quantile(samples, [0.025, 0.975])
    accuracy = {name: float(values.mean()) for name, values in right.items()}
    difference = {"value": float(gain.mean()), "low": float(low), "high": float(high)}
    return {"method": method, "accuracy": accuracy, "cleaned_minus_dirty": difference}


def main() -> None:
    """Measure, print a table, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument(
        "--train", choices=sorted(EPOCHS), help="train with this method, on the first seed of each kind"
    )
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--data", type=Path, default=PUBLIC)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where embeddings are kept")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    public = options.data / "banking77"
    texts, labels = read(public / "train.csv")
    names, targets = np.unique(labels, return_inverse=True)
    source = {"path": str(public / "train.csv"), "columns": {"label": "category"}}
    recipe = load_recipe({"task": "classify", "model": DEFAULT, "data": {"sources": [source]}})
    vectors = embedder_of(recipe, options.runs, RichConsole()).unit(texts)
    results: dict[str, Any] = {"share": options.share, "found": [], "trained": []}
    print("| flips | seed | precision of the top share | flagged | their precision | their recall | right guess |")
    print("|---|---|---|---|---|---|---|")
    for kind in options.kinds:
        for seed in options.seeds:
            one = found(targets, vectors, options.share, kind, seed)
            results["found"].append(one)
            figures = [one[key] for key in ("precision_at_share", "precision_of_flagged", "recall_of_flagged")]
            print(
                f"| {kind} | {seed} | {figures[0]:.3f} | {one['flagged']} | {figures[1]:.3f} | {figures[2]:.3f} "
                f"| {one['guess_is_right']:.3f} |",
                flush=True,
            )
    for kind in options.kinds if options.train else ():
        given, _ = flip(targets, vectors, options.share, kind, options.seeds[0])
        one = compared(public, options.train, names[given].tolist(), labels) | {"kind": kind}
        results["trained"].append(one)
        print(json.dumps(one), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
