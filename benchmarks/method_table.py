"""Every method on real data with the real starters, by its default recipe: what it gives, and what it costs.

    python benchmarks/method_table.py [--works banking77,finance] [--only lora,prompt] [--workers 1] [--tables]

Each row is one `reglaj.train` in a process of its own, with nothing set but the data: 2,000 rows (480 of finance), the
rest by the product's defaults. Tested on rows that no choice of defaults has seen; for classification beside a probe on
the frozen model, for chat beside the untuned model, paired over the test rows. A finished row is a line of --rows and
is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from benchmarks.method_works import BANKING77, WORKS
from benchmarks.tune_methods import applies
from reglaj.core.files import write_text
from reglaj.methods import METHODS

HERE = Path(__file__).parent
ROOT = HERE.resolve().parent
Row = dict[str, Any]
REFERENCES = {"accuracy": ("frozen_probe", "the probe on the frozen model"), "loss": ("untuned", "the untuned model")}


def run_here(work: str, method: str, options: argparse.Namespace) -> Row:
    """Train and test one method in this process."""
    import reglaj

    one = WORKS[work]
    recipe = {
        "name": f"{work}-{method}",
        "task": one.task,
        "model": one.model,
        "data": one.for_table(options.scratch / "table" / work, options.banking77),
        "method": method,
        "train": {"epochs": options.epochs} if options.epochs else {},
        "evaluate": {"baselines": list(one.baselines)} | ({"generate_rows": 0} if one.task == "chat" else {}),
    }
    started = time.perf_counter()
    run = reglaj.train(recipe, runs=options.scratch / "table-runs" / f"{work}-{method}")
    report = run.report
    reference = REFERENCES[one.metric][0]
    return {
        "work": work,
        "method": method,
        "metric": one.metric,
        "test": report["test"][one.metric],
        "reference": {"name": reference, **report["baselines"][reference][one.metric]},
        "cost": report["cost"],
        "training": report["training"],
        "data": {part: report["data"][part] for part in ("train", "validation", "test")},
        "engine": {key: report["engine"][key] for key in ("device", "hardware", "precision")},
        "weights_sha256": report["weights_sha256"],
        "seconds": round(time.perf_counter() - started, 1),
        "date": machine.today(),
        "epochs": options.epochs,
    }


def run_alone(work: str, method: str, options: argparse.Namespace) -> Row:
    """The same in a fresh process, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--here", f"{work}:{method}", "--scratch", str(options.scratch)]
    command += ["--banking77", str(options.banking77)]
    command += ["--epochs", str(options.epochs)] if options.epochs else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    if done.returncode or not done.stdout.strip():
        return {"work": work, "method": method, "error": f"exit {done.returncode}"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def read_rows(file: Path) -> dict[tuple[str, str], Row]:
    """Finished rows; the later line counts."""
    if not file.is_file():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return {(line["work"], line["method"]): line for line in lines if "error" not in line}


def markdown(rows: list[Row]) -> str:
    """One table a work, and in words which methods do not beat their reference."""
    lines = ["# Every method on real data", "", "Made by `python benchmarks/method_table.py --tables`: the product's"]
    lines += ["default recipes, one process a row. Intervals are of 95%, over the test rows; differences are paired."]
    for work in sorted({row["work"] for row in rows}):
        some = sorted((row for row in rows if row["work"] == work), key=_goodness, reverse=True)
        lines += ["", f"## {work}", "", *_table(some)]
    return "\n".join(lines) + "\n"


def _goodness(row: Row) -> float:
    return float(row["test"]["value"] if row["metric"] == "accuracy" else -row["test"]["value"])


def _table(rows: list[Row]) -> list[str]:
    first = rows[0]
    name, words = REFERENCES[first["metric"]]
    data, engine = first["data"], first["engine"]
    unit = "accuracy" if first["metric"] == "accuracy" else "loss, nats an answer token"
    told = f"{data['train']} rows learnt, {data['validation']} to choose by, {data['test']} tested; "
    told += f"{first['epochs']} epochs for every method; " if first.get("epochs") else ""
    lines = [
        told + f"{engine['hardware']}, {engine['precision']}. {words.capitalize()}: {_figure(first['reference'])}."
    ]
    lines += ["", f"| method | {unit} | minus `{name}` | training, s | peak memory | stored | trainable |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        cost = row["cost"]
        lines.append(
            f"| {row['method']} | {_figure(row['test'])} | {_figure(row['reference']['difference'], '+.3f')} "
            f"| {cost['train_seconds']:.1f} | {cost['peak_memory_bytes'] / 1e9:.2f} GB "
            f"| {cost['stored_bytes'] / 1e6:.2f} MB | {cost['trainable_parameters']:,} |"
        )
    unbeaten = [row["method"] for row in rows if not is_better(row)]
    worse = [row["method"] for row in rows if is_better(row, -1)]
    lines += ["", f"Shown to be better than {words}: {len(rows) - len(unbeaten)} of {len(rows)} methods. "]
    lines[-1] += f"Not shown to be: {', '.join(unbeaten)}." if unbeaten else "That is all of them."
    lines[-1] += f" Shown to be worse: {', '.join(worse)}." if worse else ""
    return lines


def is_better(row: Row, sign: int = 1) -> bool:
    """Whether the interval of the difference lies wholly on the better side; sign -1: on the worse."""
    difference = row["reference"]["difference"]
    sign = sign if row["metric"] == "accuracy" else -sign
    return bool(difference["low"] > 0 if sign > 0 else difference["high"] < 0)


def _figure(values: dict[str, float], form: str = ".3f") -> str:
    return f"{values['value']:{form}} [{values['low']:{form}}, {values['high']:{form}}]"


def main() -> None:
    """Run what is not done yet, then tell; or be one row."""
    options = _parser().parse_args()
    options.scratch = options.scratch or Path(tempfile.mkdtemp(prefix="reglaj-table-"))
    if options.here:
        print(json.dumps(run_here(*options.here.split(":"), options)))
        return
    done = read_rows(options.rows)
    chosen = options.only.split(",") if options.only else METHODS.names()
    todo = [(w, m) for w in options.works.split(",") for m in chosen if (w, m) not in done and applies(w, m)]
    end = time.monotonic() + options.seconds

    def one(place: tuple[str, str]) -> Row | None:
        return run_alone(*place, options) if time.monotonic() < end else None

    with ThreadPoolExecutor(max(options.workers, 1)) as pool:
        for row in pool.map(one, todo if options.workers else []):
            if row is None:
                continue
            with options.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{row['work']} {row['method']}: {row.get('test') or row.get('error')}", file=sys.stderr, flush=True)
    rows = list(read_rows(options.rows).values())
    text = markdown(rows)
    print(text)
    if options.tables:
        write_text(HERE / "method-table.md", text)
        write_text(HERE / "method-table.json", json.dumps(rows, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", default=",".join(WORKS), help="by commas")
    parser.add_argument("--only", default="", help="methods, by commas; all that apply by default")
    parser.add_argument("--workers", type=int, default=1, help="rows at a time; 0 only tells")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no row is begun after these")
    parser.add_argument("--rows", type=Path, default=HERE / "method-table.jsonl", help="finished rows")
    parser.add_argument("--scratch", type=Path, help="keeps data and runs there")
    parser.add_argument("--banking77", type=Path, default=BANKING77)
    parser.add_argument("--epochs", type=int, help="for every method, where the defaults would take too long")
    parser.add_argument("--tables", action="store_true", help="write method-table.md and .json")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
