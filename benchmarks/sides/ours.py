"""Our side: the product's own `fit`, with everything that a run has but evaluations and checkpoints in the time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measuring import Turn, timed, with_seconds
from reglaj.models.encoding import TokenRows
from reglaj.pipelines.assemble import Assembled
from reglaj.tasks.base import Encoded
from reglaj.training.fit import Supervision, fit
from reglaj.training.trunk_cache import attach_states


def supervise(assembled: Assembled, encoded: Encoded) -> Supervision[Any]:
    """What a task hands to the loop, as the training pipeline builds it. Validation gives a constant at no cost."""
    task, learner = assembled.task, assembled.learner
    return Supervision(
        rows=encoded.rows,
        load=lambda rows: task.batch(encoded, rows, learner.engine.device),
        forward=lambda batch: task.outputs(learner, batch),
        objective=task.objective(assembled.recipe.train, encoded),
        row_places=task.row_places,
        cut_rows=task.cut_rows,
        measure=lambda: {"validation_loss": 0.0, "validation_accuracy": 0.0},
    )


def train(
    assembled: Assembled,
    encoded: Encoded,
    seconds_of: Callable[[list[dict[str, Any]]], float] | None = None,
) -> Turn:
    """Train by the resolved recipe. seconds_of: seconds of some steps, from the lines that they left in the log;
    by default those of all, as the report counts them.

    States of a frozen trunk, where the engine keeps them, are made before the first step; `states_seconds` says how
    long that took.
    """
    config = assembled.recipe.train
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        rows, _ = attach_states(assembled.learner, [encoded.rows, TokenRows.of([])], config, Path(folder) / "runs")
        states_seconds = round(time.perf_counter() - started, 3)
        supervision = supervise(assembled, replace(encoded, rows=rows))
        with timed() as region:
            fitted = fit(assembled.learner, supervision, config, Path(folder))
    steps = [line for line in fitted.metrics if line["event"] == "step"]
    seconds = seconds_of(steps) if seconds_of else fitted.seconds
    engine = assembled.learner.engine
    return Turn(
        region=with_seconds(region[0], seconds, is_part=seconds_of is not None),
        losses=tuple(line["loss"] for line in steps),
        first_done=steps[0]["time"],
        engine=engine.facts() | {"is_padded": engine.is_padded, "states_seconds": states_seconds},
    )
