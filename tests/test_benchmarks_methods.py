"""The machinery of the benchmarks of methods: cells of a tuning, rows of a table."""

import json
from pathlib import Path

import pytest
from benchmarks import method_table, tune_methods, tuning_table
from benchmarks.method_works import WORKS


@pytest.fixture
def fixed_rate(monkeypatch):
    monkeypatch.setattr(tune_methods, "default_rate", lambda work, method: 1e-3)
    monkeypatch.setattr(tune_methods, "variants", lambda work, method: [{}])


def finished(cell, score) -> dict:
    return {
        "key": cell.key, "work": cell.work, "method": cell.method, "settings": cell.settings, "score": score,
        "validation_loss": 1 - (score or 0), "metric": "validation_accuracy", "epochs": 8, "best_epoch": 3.0,
        "train_seconds": 1.0,
    }  # fmt: skip


def rates(cells) -> list[float]:
    return [cell.settings["train.learning_rate"] for cell in cells]


def test_four_rates_around_the_default_and_one_more_beyond_a_best_at_the_edge(fixed_rate):
    cells = list(tune_methods.cells_of("banking77", "lora", {}))
    assert rates(cells) == [1e-4, 3.3e-4, 1e-3, 3e-3]
    rising = {cell.key: finished(cell, score) for cell, score in zip(cells, (0.1, 0.2, 0.3, 0.4), strict=True)}
    (further,) = tune_methods.cells_of("banking77", "lora", rising)
    assert rates([further]) == [9e-3]
    assert not list(tune_methods.cells_of("banking77", "lora", rising | {further.key: finished(further, 0.2)}))
    peaked = {cell.key: finished(cell, score) for cell, score in zip(cells, (0.1, 0.4, 0.3, None), strict=True)}
    assert not list(tune_methods.cells_of("banking77", "lora", peaked))


def test_the_best_rate_of_a_method_is_marked_and_a_broken_cell_is_told(fixed_rate):
    cells = list(tune_methods.cells_of("banking77", "lora", {}))
    lines = [finished(cell, score) for cell, score in zip(cells, (0.1, 0.4, 0.3, None), strict=True)]
    text = tuning_table.markdown(tuning_table.by_work(lines))
    assert "**3.3e-04**" in text and "3.0e-03: broke off" in text
    assert json.loads(tuning_table.document(lines))[0]["work"] == "banking77"


def row(method: str, metric: str, difference: tuple[float, float, float]) -> dict:
    value, low, high = difference
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    cost = {"train_seconds": 1.0, "peak_memory_bytes": 1, "stored_bytes": 1, "trainable_parameters": 1}
    reference = {"name": "frozen_probe", **figure, "difference": {"value": value, "low": low, "high": high}}
    return {
        "work": "banking77", "method": method, "metric": metric, "test": figure, "reference": reference, "cost": cost,
        "data": dict.fromkeys(("train", "validation", "test"), 1), "engine": {"hardware": "h", "precision": "float32"},
    }  # fmt: skip


def test_the_table_says_which_methods_are_not_shown_to_beat_the_probe():
    rows = [
        row("good", "accuracy", (0.1, 0.05, 0.2)),
        row("equal", "accuracy", (0.01, -0.05, 0.1)),
        row("worse", "accuracy", (-0.1, -0.2, -0.05)),
    ]
    text = method_table.markdown(rows)
    assert "1 of 3 methods" in text and "Not shown to be: equal, worse." in text and "Shown to be worse: worse." in text
    assert method_table.is_better(row("chat", "loss", (-0.1, -0.2, -0.05)))


def test_rows_that_tuning_had_are_not_tested_on(tmp_path: Path, monkeypatch):
    work = WORKS["medical"]
    some = [{"text": f"text {i}", "label": f"label {i % 20}"} for i in range(3000)]
    monkeypatch.setitem(work.__dict__, "read", lambda folder: (some, []))
    tuning = work.for_tuning(tmp_path / "tuning")
    table = work.for_table(tmp_path / "table")

    def read(path: str) -> set[str]:
        return set(Path(path).read_text(encoding="utf-8").splitlines())

    seen = read(tuning["sources"][0]["path"])
    parts = {source["part"]: read(source["path"]) for source in table["sources"]}
    assert len(parts["test"]) == 960 and not parts["test"] & (seen | parts["train"] | parts["validation"])
    assert len(parts["train"]) + len(parts["validation"]) == work.shown
