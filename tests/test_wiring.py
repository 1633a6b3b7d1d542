"""Every key of a recipe is read: changing it changes tokens, split, weights, metrics or output.

A key that is added to a section without a line here fails the first test; a key that nothing reads fails the second.
Those of chat and of the methods have their lines beside this file (`test_wiring_chat.py`, `test_wiring_methods.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.test_wiring_chat import CHAT_CHANGES
from tests.test_wiring_methods import METHOD_CHANGES
from tests.tiny import recipe_for, write_model, write_rows

import reglaj
from reglaj.core.config import Config
from reglaj.core.errors import EnvironmentFault, UserError
from reglaj.data.cleaning import CleanConfig
from reglaj.data.config import DataConfig, NearDuplicatesConfig, SourceConfig, SplitConfig
from reglaj.evaluation.config import EvaluateConfig
from reglaj.methods import METHODS
from reglaj.pipelines.recipe import KEYS
from reglaj.training.checkpoints import list_checkpoints
from reglaj.training.config import EarlyStoppingConfig, TrainConfig

Look = Callable[[reglaj.Run], Any]


def weights(run: reglaj.Run) -> Any:
    return run.report["weights_sha256"]


def split(run: reglaj.Run) -> Any:
    return run.report["data"]["test_hash"]


def counts(run: reglaj.Run) -> Any:
    return {key: run.report["data"][key] for key in ("read", "train", "validation", "test", "dropped")}


def steps(run: reglaj.Run) -> Any:
    return run.report["training"]


def evaluations(run: reglaj.Run) -> Any:
    lines = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line["event"] == "evaluation"]


def checkpoints(run: reglaj.Run) -> Any:
    return [path.name for path in list_checkpoints(run.path / "checkpoints")]


def interval(run: reglaj.Run) -> Any:
    return run.report["test"]["macro_f1"]


def trunk_cache(run: reglaj.Run) -> Any:
    return run.report["engine"]["trunk_cache"]


WIDE = {"method.name": "p-tuning", "method.hidden_size": 128}  # tensors that are large enough for eight bits
PROBE = {"method.name": "linear-probe"}
# Looked at after every step, no training gets better each time, whatever the last digits of a processor are.
RESTLESS = {"train.learning_rate": 0.03, "train.schedule": "constant", "train.epochs": 12, "train.evaluate_every": 1}
# Key: (what is changed, what must differ; overrides of both sides). Sections are named by their dotted key.
CHANGES: dict[str, tuple[Any, Look, dict[str, Any]]] = {
    "name": ("other", lambda run: run.path.name, {}),
    "model": ("{other_model}", weights, {}),
    "method.name": ("linear-probe", weights, {}),
    "full.train_embeddings": (False, weights, {}),
    "data.sources.path": ("{other_rows}", counts, {}),
    "data.sources.columns": ({"text": "other_text"}, weights, {}),
    "data.split.train": (0.6, counts, {}),
    "data.split.validation": (0.2, counts, {}),
    "data.split.test": (0.2, counts, {}),
    "data.split.seed": (9, split, {}),
    "data.split.group": ("other_text", split, {}),
    "data.split.time": ("number", split, {}),
    "data.split.column": ("side", split, {"data.leakage": "report"}),
    "data.near_duplicates": (None, split, {}),
    "data.near_duplicates.threshold": (0.5, split, {}),
    "data.leakage": ("report", split, {}),
    "data.decontaminate": (["{mine}"], counts, {}),
    "data.clean.label_errors": ("drop", counts, {}),
    "data.clean.languages": (["ja"], counts, {}),
    "data.exclude_labels": (["fees"], counts, {}),
    "data.contradictory_labels": ("keep", counts, {}),
    "data.min_label_rows": (6, counts, {}),
    "train.epochs": (3, weights, {}),
    "train.max_steps": (3, steps, {}),
    "train.batch_size": (8, weights, {}),
    "train.micro_batch_tokens": (30, lambda run: run.report["engine"]["micro_batch_tokens"], {}),
    "train.learning_rate": (1e-3, weights, {}),
    "train.head_learning_rate": (1e-3, weights, {}),
    "train.schedule": ("cosine", weights, {}),
    "train.warmup_ratio": (0.5, weights, {}),
    "train.optimizer": ("adamw-8bit", weights, WIDE),
    "train.weight_decay": (0.3, weights, {}),
    "train.max_grad_norm": (0.01, weights, {}),
    "train.max_tokens": (5, lambda run: run.report["cut_texts"], {}),
    "train.class_weights": ({"fees": 5.0}, weights, {}),
    "train.sampling": ("balanced", weights, {}),
    "train.early_stopping": (None, steps, RESTLESS),
    "train.evaluate_every": (2, evaluations, {}),
    "train.checkpoint_every": (5, checkpoints, {"train.keep": 9}),
    "train.keep": (1, checkpoints, {"train.checkpoint_every": 5}),
    "train.model_dropout": (0.0, weights, {}),
    "train.seed": (4, weights, {}),
    "train.precision": ("bfloat16", weights, {}),
    "train.trunk_cache": ("off", trunk_cache, PROBE),
    "train.trunk_cache_gb": (1e-6, trunk_cache, PROBE),
    "train.early_stopping.metric": (
        "validation_loss", steps, {"train.learning_rate": 0.003, "train.epochs": 12, "train.evaluate_every": 1},
    ),
    "train.early_stopping.patience": (6, steps, RESTLESS),
    "evaluate.baselines": (["majority"], lambda run: list(run.report["baselines"]), {}),
    "evaluate.confidence": (0.8, interval, {}),
    "evaluate.bootstrap_samples": (150, lambda run: run.report["test"]["log_loss"], {}),
    "evaluate.calibration": ("none", lambda run: run.report["test"]["calibration"], {}),
    "evaluate.thresholds": ("macro_f1", lambda run: run.report["test"]["thresholds"], {}),
    "evaluate.slices": (["length"], lambda run: run.report.get("slices"), {}),
    "evaluate.gate": ({"accuracy": ">= 0.5"}, lambda run: run.report.get("gate"), {}),
}  # fmt: skip
# Keys whose other values are refused or cannot be had here; each has its own test below.
ELSEWHERE = {
    "task", "data.sources.kind", "data.split.kind", "train.device", "train.gradient_checkpointing",
    "train.checkpoint_minutes", "train.on_nonfinite", "train.max_skipped_steps",  # tests/training/test_fit.py
    "data.sources.part",  # tests/data/test_leakage.py
    "train.frozen_weights",  # tests/methods/test_memory_options.py
    "data.near_duplicates.semantic",  # tests/pipelines/test_quality.py, and the next three
    "data.clean.outliers", "data.clean.boilerplate", "data.clean.encodings",
}  # fmt: skip


def every_key() -> set[str]:
    keys = {"name", "task", "model"}
    assert set(KEYS) - keys == {"data", "method", "train", "evaluate"}, "a new section needs its keys here"
    sections: dict[str, type[Config]] = {
        "data": DataConfig, "data.sources": SourceConfig, "data.split": SplitConfig, "train": TrainConfig,
        "train.early_stopping": EarlyStoppingConfig, "evaluate": EvaluateConfig,
        "data.near_duplicates": NearDuplicatesConfig, "data.clean": CleanConfig,
    }  # fmt: skip
    for name in METHODS.names():
        sections[name] = METHODS.get(name).config_type
    for section, config in sections.items():
        for key in config.model_fields:
            dotted = "method.name" if section in METHODS and key == "name" else f"{section}.{key}"
            if dotted not in sections or dotted in ("train.early_stopping", "data.near_duplicates"):
                keys.add(dotted)
    return keys


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wiring")
    rows = [json.loads(line) for line in write_rows(folder / "plain.jsonl", 150).read_text().splitlines()]
    rows += [{"text": rows[0]["text"], "label": "transfers"}, {"text": rows[1]["text"], "label": "cards"}]
    rows += [{"text": f"unde este taxa {word}", "label": "rare"} for word in ("mea", "ta", "lor", "noua", "veche")]
    # Near-duplicates: of some rows by punctuation alone, of others by a word more.
    rows += [row | {"text": row["text"].replace(" ", ", ", 1)} for row in rows[10:30]]
    rows += [row | {"text": f"{row['text']} taxa"} for row in rows[30:60]]
    (folder / "mine.jsonl").write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows[60:66]))
    with (folder / "rows.jsonl").open("w") as file:
        file.writelines(
            json.dumps(row | {"other_text": " ".join(reversed(row["text"].split())), **_beside(number)}) + "\n"
            for number, row in enumerate(rows)
        )
    return {
        "rows": folder / "rows.jsonl",
        "other_rows": write_rows(folder / "other.jsonl", 120, seed=3),
        "mine": folder / "mine.jsonl",
        "model": write_model(folder / "model"),
        "other_model": write_model(folder / "other", seed=8),
        "runs": folder / "runs",
    }


def _beside(number: int) -> dict[str, Any]:
    """Columns that a split may go by, where a recipe names them."""
    return {"number": 10**9 + 86_400 * number, "side": ("train", "train", "train", "val", "test")[number % 5]}


_done: dict[str, reglaj.Run] = {}


def run_with(place: dict[str, Path], overrides: dict[str, Any]) -> reglaj.Run:
    """A fresh run; the same overrides are trained once."""
    recipe = recipe_for(place["model"], place["rows"], train={"epochs": 2})
    known = json.dumps(overrides, sort_keys=True)
    if known not in _done:
        dotted = {key.replace(".", "__"): value for key, value in overrides.items()}
        # Keys of checkpoints alone do not make another run of it.
        fresh = any(key in overrides for key in ("train.checkpoint_every", "train.keep"))
        _done[known] = reglaj.train(recipe, runs=place["runs"], fresh=fresh, **dotted)
    return _done[known]


def test_every_key_is_walked():
    assert every_key() == set(CHANGES) | set(CHAT_CHANGES) | set(METHOD_CHANGES) | ELSEWHERE
    assert len(CHANGES) > 35 and len(METHOD_CHANGES) > 50


@pytest.mark.parametrize("key", CHANGES)
def test_changing_the_key_changes_what_it_should(key, place):
    value, look, context = CHANGES[key]
    if isinstance(value, str) and value.startswith("{"):
        value = str(place[value.strip("{}")])
    if value == ["{mine}"]:
        value = [str(place["mine"])]
    section, _, name = key.partition(".")
    dotted = f"method.{name}" if section in METHODS else key.replace("data.sources.", "data.sources.0.")
    before, after = context, context | {dotted: value}
    assert look(run_with(place, before)) != look(run_with(place, after))


def test_an_unknown_task_and_split_are_refused_with_the_known_ones(place):
    with pytest.raises(UserError, match="did you mean 'classify'"):
        reglaj.train(recipe_for(place["model"], place["rows"]) | {"task": "clasify"}, runs=place["runs"])
    with pytest.raises(UserError, match="stratified"):
        run_with(place, {"data.split.kind": "stratifed"})
    assert run_with(place, {"data.split.kind": "stratified"}).report["data"]["split"]["kind"] == "stratified"


def test_the_kind_of_a_source_decides_how_it_is_read(place):
    with pytest.raises(UserError, match="is not parquet"):
        run_with(place, {"data.sources.0.kind": "parquet"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device asked for is there")
def test_a_device_that_is_not_there_is_an_environment_fault(place):
    with pytest.raises(EnvironmentFault, match="no CUDA device"):
        run_with(place, {"train.device": "cuda"})
    assert run_with(place, {"train.device": "cpu"}).report["engine"]["device"] == "cpu"
