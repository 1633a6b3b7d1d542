"""Which learning rate each method wants: four of them each, and more where the best lies at an edge.

    python benchmarks/tune_methods.py [--only lora,prompt] [--works banking77] [--workers 2] [--seconds 500]

Every cell trains on 1,000 rows (all that there are of finance) through the product's own assembling, loop and early
stopping, and is judged on validation; the test part stays closed. Rates lie around the default of the method: a tenth,
a third, one, three times. Virtual prompts vary in length, first values and reparametrisation besides, classifiers in
the rate of their new head. Each finished cell is a line of --cells, and is not run again: the same command goes on
after a stop. Prints, and writes with --tables, one table a work.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import queue
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.method_works import BANKING77, WORKS
from benchmarks.tuning_table import RATE, by_work, document, key_of, markdown
from reglaj.methods import METHODS

HERE = Path(__file__).parent
FACTORS = (0.1, 1 / 3, 1.0, 3.0)
SEED = 0
HEAD_RATES = (1e-3, 5e-3)
PROMPTS = ("prompt", "p-tuning", "prefix")
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "prompt": tuple(
        {"method.num_virtual_tokens": length, "method.init": init}
        for length, init in ((20, "text"), (20, "random"), (5, "vocabulary"), (50, "vocabulary"))
    ),
    "p-tuning": ({"method.num_virtual_tokens": 5}, {"method.num_virtual_tokens": 50}),
    "prefix": tuple(
        {"method.num_virtual_tokens": length, "method.reparametrisation": is_on}
        for length, is_on in ((20, True), (5, False), (50, False))
    ),
}
"""What is tried beside rates. A key that the method does not have is left out."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training. settings: dotted keys of the recipe, the rate that is tuned among them."""

    work: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return key_of(self.work, self.method, self.settings)


def round_rate(rate: float) -> float:
    """To two digits."""
    return float(f"{rate:.1e}")


def tuned_key(work: str, method: str) -> str:
    """The rate that is tuned: a probe has none but its head's."""
    return "train.head_learning_rate" if method == "linear-probe" else RATE


def default_rate(work: str, method: str) -> float:
    """What the product would take."""
    from reglaj.models.inspect import inspect_model
    from reglaj.tasks import TASKS

    facts = inspect_model(WORKS[work].model, folder=Path())
    kind = METHODS.get(method)
    if method == "linear-probe":
        return kind.default_head_learning_rate(facts)
    return kind.default_learning_rate(facts, has_new_head=TASKS.get(WORKS[work].task).defaults.has_new_head)


def variants(work: str, method: str) -> list[dict[str, Any]]:
    """What is tried beside rates; the defaults first."""
    fields = METHODS.get(method).config_type.model_fields
    found: list[dict[str, Any]] = [{}]
    for variant in VARIANTS.get(method, ()):
        known = {key: value for key, value in variant.items() if key.removeprefix("method.") in fields}
        if known.get("method.init") == "text":
            known["method.init_text"] = WORKS[work].words
        if known and known not in found:
            found.append(known)
    if WORKS[work].task == "classify" and method != "linear-probe":
        found = [one | {"train.head_learning_rate": rate} for rate in HEAD_RATES for one in found]
    return found


def cells_of(work: str, method: str, done: dict[str, dict[str, Any]]) -> Iterator[Cell]:
    """Those that are to be run next: the four, or one beyond the best where that lies at an edge."""
    key, middle = tuned_key(work, method), default_rate(work, method)
    for variant in variants(work, method):
        rates = [round_rate(middle * factor) for factor in FACTORS]
        cells = {rate: Cell(work=work, method=method, settings={**variant, key: rate}) for rate in rates}
        missing = [cell for cell in cells.values() if cell.key not in done]
        if missing:
            yield from missing
            continue
        for _ in range(2):
            known = {rate: done[cell.key] for rate, cell in cells.items() if cell.key in done}
            scores = {rate: one["score"] for rate, one in known.items() if one.get("score") is not None}
            if not scores:
                break
            best, ordered = max(scores, key=lambda rate: scores[rate]), sorted(cells)
            if best not in (ordered[0], ordered[-1]):
                break
            further = round_rate(best * (3.0 if best == ordered[-1] else 1 / 3))
            cells[further] = Cell(work=work, method=method, settings={**variant, key: further})
            if cells[further].key not in done:
                yield cells[further]
                break


def applies(work: str, method: str) -> bool:
    """Whether the product takes the method on this work."""
    from reglaj.models.inspect import inspect_model
    from reglaj.pipelines.check import model_problems
    from reglaj.pipelines.recipe import load_recipe
    from reglaj.tasks import TASKS

    one = WORKS[work]
    if method == "peft":  # a door to others, with no rate of its own
        return False
    facts = inspect_model(one.model, folder=Path())
    recipe = load_recipe(
        {"task": one.task, "model": one.model, "data": {"sources": [{"path": "x"}]}, "method": method}
    ).with_method(facts)
    return not model_problems(TASKS.get(one.task), recipe.method, recipe.train, facts)


def run_cell(cell: Cell, scratch: Path, banking77: Path) -> dict[str, Any]:
    """Train, and give the figures of the best evaluation on validation."""
    from benchmarks.tuning_fit import fitted_on_validation

    work = WORKS[cell.work]
    settings = {"train.seed": SEED, "train.checkpoint_minutes": None, **cell.settings}
    recipe = {
        "name": "tuning",
        "task": work.task,
        "model": work.model,
        "data": work.for_tuning(scratch / cell.work, banking77),
        "method": cell.method,
    }
    started = time.perf_counter()
    figures = fitted_on_validation(recipe, settings, scratch / "runs")
    return figures | {"seconds": round(time.perf_counter() - started, 1)}


def _work(tasks: Any, results: Any, scratch: str, banking77: str) -> None:
    """In a process of its own: cells until there are none."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    while (cell := tasks.get()) is not None:
        line = {"key": cell.key, "work": cell.work, "method": cell.method, "settings": cell.settings}
        try:
            line |= run_cell(cell, Path(scratch), Path(banking77))
        except Exception as error:  # a rate may be so high that training breaks: that is a finding
            line |= {"score": None, "error": f"{type(error).__name__}: {error}"[:300]}
            traceback.print_exc()
        results.put(line)


class Pool:
    """Processes that take cells from one queue, and a file that every finished cell is added to."""

    def __init__(self, options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.tasks, self.results = context.Queue(), context.Queue()
        self.file, self.deadline = options.cells, time.monotonic() + options.seconds
        arguments = (self.tasks, self.results, str(options.scratch), str(options.banking77))
        self.workers = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(options.workers)]
        for worker in self.workers:
            worker.start()

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def run(self, cells: list[Cell]) -> bool:
        """All of them, or as many as the time allows; whether all."""
        waiting, running = list(reversed(cells)), 0
        while waiting or running:
            while waiting and running < len(self.workers) and not self.is_late:
                self.tasks.put(waiting.pop())
                running += 1
            if not running or time.monotonic() > self.deadline:
                return not waiting and not running
            try:
                line = self.results.get(timeout=5)
            except queue.Empty:
                assert any(worker.is_alive() for worker in self.workers), "every worker has died"
                continue
            running -= 1
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            print(_told(line, len(waiting)), file=sys.stderr, flush=True)
        return True

    def close(self) -> None:
        for worker in self.workers:
            worker.terminate()


def _told(line: dict[str, Any], waiting: int) -> str:
    said = line.get("error") or f"{line['metric']} {line['score']:.4f}, loss {line['validation_loss']:.4f}"
    return f"{line['key']}: {said} ({line.get('seconds', 0)} s; {waiting} to go)"


def read_cells(file: Path) -> dict[str, dict[str, Any]]:
    """Every finished cell by its key; the later line counts."""
    if not file.is_file():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return {line["key"]: line for line in lines}


def wanted(options: argparse.Namespace, done: dict[str, dict[str, Any]]) -> list[Cell]:
    """The cells of the next round, methods and works taking turns, this shard's only."""
    chosen = options.only.split(",") if options.only else METHODS.names()
    works = options.works.split(",")
    lists = [list(cells_of(work, m, done)) for work in works for m in chosen if applies(work, m)]
    longest = max(map(len, lists), default=0)
    turned = [one[i] for i in range(longest) for one in lists if i < len(one)]
    shard, shards = (int(part) for part in options.shard.split("/"))
    return [cell for number, cell in enumerate(turned) if number % shards == shard]


def main() -> None:
    """Run what is not done yet, then tell."""
    options = _parser().parse_args()
    options.scratch = options.scratch or Path(tempfile.mkdtemp(prefix="reglaj-tuning-"))
    pool: Pool | None = None
    while options.workers and (cells := wanted(options, read_cells(options.cells))):
        pool = pool or Pool(options)
        if not pool.run(cells):
            break
    if pool:
        pool.close()
    lines = [line for line in read_cells(options.cells).values() if math.isfinite(line.get("score") or 0.0)]
    text = markdown(by_work(lines))
    print(text)
    if options.tables:
        (HERE / "tuning-methods.md").write_text(text, encoding="utf-8")
        (HERE / "tuning-methods.json").write_text(document(lines), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="methods, by commas; all that apply by default")
    parser.add_argument("--works", default="banking77,medical,finance", help="by commas")
    parser.add_argument("--workers", type=int, default=1, help="processes; 0 only tells")
    parser.add_argument("--shard", default="0/1", help="NUMBER/COUNT: every COUNTth cell, for several machines")
    parser.add_argument("--seconds", type=float, default=math.inf, help="no cell is waited for after these")
    parser.add_argument("--cells", type=Path, default=HERE / "tuning-methods.jsonl", help="finished cells")
    parser.add_argument("--scratch", type=Path, help="keeps data and prepared rows there")
    parser.add_argument("--banking77", type=Path, default=BANKING77)
    parser.add_argument("--tables", action="store_true", help="write tuning-methods.md and .json")
    return parser


if __name__ == "__main__":
    main()
