"""What a leaking or careless split does to the figure of a test: three public data sets, each split twice.

Usage: python -m benchmarks.honest_splits [--only leak|time|document] [--data FOLDER] [--json FILE]
FOLDER holds the public sets `banking77`, `rustsec` and `medquad`. The tables stand in docs/splits.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reglaj
from reglaj.core.console import RichConsole

PUBLIC = Path(__file__).resolve().parents[2] / "shared" / "data"
SEED = 5
LEAST_ROWS = 20
"""Of a kind of flaw: rarer ones could not be in every part of either split."""


def leak(public: Path, place: Path) -> dict[str, Any]:
    """banking77, 2,500 rows, as given: 150 of the 300 test rows also stand in train, in other capitals and commas."""
    with (public / "banking77" / "train.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chance = random.Random(SEED)
    chance.shuffle(rows)
    rows = [{"text": row["text"], "label": row["category"]} for row in rows[:2500]]
    learnt = {row["label"] for row in rows[300:]}
    test = [row | {"part": "test"} for row in rows[:300] if row["label"] in learnt]
    train = [row | {"part": "train"} for row in rows[300:]]
    copies = [{"text": _retyped(row["text"]), "label": row["label"], "part": "train"} for row in test[:150]]
    path = _write(place / "leak.jsonl", train + copies + test)
    shared = {"task": "classify", "data.split.column": "part", "train.epochs": 6}
    return {
        "with the leak": _figure(path, place, shared | {"data.leakage": "report"}, "accuracy"),
        "repaired": _figure(path, place, shared | {"data.leakage": "repair"}, "accuracy"),
    }


def _retyped(text: str) -> str:
    return text.upper().replace("?", " ?").replace(".", " !") + "."


def time(public: Path, place: Path) -> dict[str, Any]:
    """rustsec, 1,205 advisories of 2016 to 2026: the kind of flaw, by a random split and by time; a linear probe."""
    rows = []
    with (public / "rustsec" / "advisories.jsonl").open(encoding="utf-8") as file:
        for one in map(json.loads, file):
            kind = (one["categories"] or [one["informational"] or "other"])[0]
            text = f"{one['title']}\n{one['description'][:500]}"
            rows.append({"text": text, "label": kind, "date": one["date"]})
    counts = Counter(row["label"] for row in rows)
    path = _write(place / "time.jsonl", [row for row in rows if counts[row["label"]] >= LEAST_ROWS])
    shared = {"task": "classify", "method.name": "linear-probe", "train.max_tokens": 128}
    parts = {"data.split.validation": 0.15, "data.split.test": 0.15}
    return {
        "random rows": _figure(path, place, shared | parts | {"data.split.kind": "stratified"}, "accuracy"),
        "latest rows": _figure(path, place, shared | parts | {"data.split.time": "date"}, "accuracy"),
    }


def document(public: Path, place: Path) -> dict[str, Any]:
    """medquad, 2,902 questions of 1,238 documents, answers cut to 400 characters: by row, and by document."""
    rows = []
    with (public / "medquad" / "qa.jsonl").open(encoding="utf-8") as file:
        for one in map(json.loads, file):
            rows.append({"prompt": one["question"], "completion": one["answer"][:400], "url": one["url"]})
    path = _write(place / "document.jsonl", rows)
    shared = {
        "task": "chat",
        "model": "starter:smollm2",
        "train.max_steps": 40,
        "train.batch_size": 8,
        "train.epochs": 1,
        "evaluate.generate_rows": 0,
        "evaluate.baselines": [],
    }
    by_row = {"data.split.kind": "random", "data.near_duplicates": None}
    return {
        "by row": _figure(path, place, shared | by_row, "loss"),
        "by document": _figure(path, place, shared | {"data.split.group": "url"}, "loss"),
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _figure(path: Path, place: Path, keys: dict[str, Any], metric: str) -> dict[str, Any]:
    recipe = {"name": path.stem, "data": {"sources": [{"path": str(path)}]}}
    changes = {key.replace(".", "__"): value for key, value in keys.items()}
    report = reglaj.train(recipe, runs=place / "runs", console=RichConsole(), **changes).report
    data = report["data"]
    found = {part: data[part] for part in ("train", "validation", "test")}
    return {"metric": metric, **report["test"][metric], **found, "dropped": data["dropped"]}


EXPERIMENTS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {"leak": leak, "time": time, "document": document}


def main() -> None:
    """Run, and print one line for each split."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=EXPERIMENTS, action="append")
    parser.add_argument("--data", type=Path, default=PUBLIC)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    results = json.loads(options.json.read_text()) if options.json.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or EXPERIMENTS:
            results[name] = EXPERIMENTS[name](options.data, Path(folder))
            for split, one in results[name].items():
                interval = f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
                line = f"{name:10}{split:18}{one['metric']} {interval}, {one['test']} test rows"
                print(line, flush=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
