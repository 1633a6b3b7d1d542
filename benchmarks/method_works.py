"""The data on which methods are tuned and compared: rows to choose by, and rows of the final test, never the same.

Rows are drawn once, by a fixed seed. Tuning gets the first ones, and among them those that choose; the table of methods
trains on the first ones too, and is tested on rows that no choice has seen.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reglaj.core.files import write_text
from reglaj.models.starters import fetch

Rows = list[dict[str, str]]
BANKING77 = Path("../shared/data/banking77")


@dataclass(frozen=True, kw_only=True)
class Work:
    """A task on a model. read: its rows in an order of chance, and those of a test part of its own, where it has one.

    learnt, chosen: rows that are learnt from and that choose, in tuning. shown: rows for training and validation
    together in the table of methods; chosen_then: of these, those that choose. tested: rows of the test, at most.
    words: what a learnt prompt may start from.
    """

    name: str
    task: str
    model: str
    read: Callable[[Path], tuple[Rows, Rows]]
    metric: str
    learnt: int
    chosen: int
    shown: int
    chosen_then: int
    tested: int
    baselines: tuple[str, ...]
    words: str

    def for_tuning(self, folder: Path, banking77: Path = BANKING77) -> dict[str, Any]:
        """The `data` section of a recipe, with its file in the folder. The test part is small, and never opened."""
        rows, _ = self.read(banking77)
        rows = rows[: self.learnt + self.chosen + _spare(rows)]
        split = {"kind": "random", "validation": self.chosen, "test": _spare(rows)}
        return {"sources": [{"path": _write(folder / "tuning.jsonl", rows)}], "split": split, "leakage": "repair"}

    def for_table(self, folder: Path, banking77: Path = BANKING77) -> dict[str, Any]:
        """The `data` section of a recipe whose parts are given: the test rows are none of those that tuning had."""
        rows, test = self.read(banking77)
        known = max(self.shown, self.learnt + self.chosen + _spare(rows))
        test = (test or rows[known:])[: self.tested]
        parts = {
            "train": rows[: self.shown - self.chosen_then],
            "validation": rows[self.shown - self.chosen_then : self.shown],
            "test": test,
        }
        sources = [{"path": _write(folder / f"{part}.jsonl", some), "part": part} for part, some in parts.items()]
        return {"sources": sources, "split": {"kind": "given"}, "leakage": "repair"}


def _spare(rows: Rows) -> int:
    """Rows of the test part that tuning never opens: a part may not be empty, and holds every label."""
    return 2 * len({row.get("label") for row in rows})


def _write(file: Path, rows: Rows) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:  # others may be reading it
        write_text(file, text)
    return str(file.resolve())


def _shuffled(rows: Rows) -> Rows:
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


def _banking77(folder: Path) -> tuple[Rows, Rows]:
    def read(name: str) -> Rows:
        with (folder / name).open(newline="", encoding="utf-8") as file:
            return [{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)]

    return _shuffled(read("train.csv")), _shuffled(read("test.csv"))


def _medical(_: Path) -> tuple[Rows, Rows]:
    lines = fetch("starter:medical").read_text(encoding="utf-8").splitlines()
    return _shuffled([row for row in map(json.loads, lines) if row["label"] != "Unknown"]), []


def _finance(_: Path) -> tuple[Rows, Rows]:
    lines = fetch("starter:finance").read_text(encoding="utf-8").split("\n")
    return _shuffled([json.loads(line) for line in lines if line]), []


def _finance_short(_: Path) -> tuple[Rows, Rows]:
    """What a processor trains on in minutes: texts of at most 1,000 characters, tested on rows that no tuning saw."""
    rows, _none = _finance(_)
    tuned = 350 + 130 + _spare(rows)

    def short(some: Rows) -> Rows:
        return [row for row in some if len(row["prompt"] + row["completion"]) <= 1000]

    return short(rows[:tuned]), short(rows[tuned:])


WORKS = {
    work.name: work
    for work in (
        Work(name="banking77", task="classify", model="starter:minilm", read=_banking77, metric="accuracy",
             learnt=1000, chosen=1000, shown=2000, chosen_then=250, tested=3080,
             baselines=("majority", "frozen_probe"), words="the topic of a question of a bank's customer"),
        Work(name="medical", task="classify", model="starter:minilm", read=_medical, metric="accuracy",
             learnt=1000, chosen=1000, shown=2000, chosen_then=250, tested=3000,
             baselines=("majority", "frozen_probe"), words="the specialty of a medical question"),
        # 648 rows are all there are.
        Work(name="finance", task="chat", model="starter:smollm2", read=_finance, metric="loss",
             learnt=350, chosen=130, shown=480, chosen_then=50, tested=150,
             baselines=("untuned",), words="answer a question about money as people in a forum do"),
        Work(name="finance-short", task="chat", model="starter:smollm2", read=_finance_short, metric="loss",
             learnt=160, chosen=60, shown=237, chosen_then=37, tested=95,
             baselines=("untuned",), words="answer a question about money as people in a forum do"),
    )
}  # fmt: skip
