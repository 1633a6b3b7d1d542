"""MiniLM classification against the Hugging Face Trainer: training in four settings, and evaluation.

Turns keep the model's own dropout, as a user would train; losses of every step are compared in the warm-up with dropout
off, on every side that takes the same rows in a step.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.limits import Trained, measured_limit
from benchmarks.measuring import OURS, Contest, Side, Turn, timed
from benchmarks.sides import ours, trainer
from benchmarks.texts import ClassifyWork, describe, encoded, facts
from benchmarks.works.sizes import Sizes
from reglaj.data.batching import micro_batches
from reglaj.training.fit import plan_for

TOLERANCE = 1e-4
MEAN_TOLERANCE = 0.15
"""Nats between mean losses where a side draws other rows into a step, under dropout."""
RANK = 16
EVALUATED_PER_TRAINED = 3
"""A pass without gradients is so much cheaper; more rows make it as long."""


def classify(sizes: Sizes) -> list[Contest]:
    """LoRA and full, batch 32 and 8."""
    works = [ClassifyWork(method=method, batch=batch) for batch in (32, 8) for method in ("lora", "full")]
    return [_contest(work, sizes.rows, sizes.slow_turns) for work in works]


def _contest(work: ClassifyWork, rows: int, slow_turns: int) -> Contest:
    def grouped(steps: int) -> Turn:
        return trainer.train(work, rows, steps, "group_by_length")

    def padded(steps: int, dropout: float | None = None) -> Turn:
        return trainer.train(work, rows, steps, "sequential", dropout)

    ours_of, plain_of = partial(run_ours, work, rows), partial(trainer.plain, work, rows)
    method = "full fine-tuning" if work.method == "full" else f"LoRA r{RANK}, all linear layers"
    return Contest(
        name=f"classify-{work.method}-{work.batch}",
        title=f"MiniLM {method}, batch {work.batch}",
        sides={
            OURS: Side(run=ours_of, check=partial(ours_of, dropout=0.0)),
            "Trainer padded": Side(run=padded, check=partial(padded, dropout=0.0)),
            "Trainer grouped by length": Side(
                run=grouped, same_steps=False, tolerance=MEAN_TOLERANCE, most_turns=slow_turns
            ),
            "plain padded": Side(run=plain_of, check=partial(plain_of, dropout=0.0), most_turns=slow_turns),
        },
        amount=max(rows // work.batch, 1),
        warm_up=max(min(4, rows // work.batch), 1),
        tolerance=TOLERANCE,
        facts=lambda: describe(rows, work.batch) | {"steps": max(rows // work.batch, 1)},
        limit=lambda turn: limit_of(work, rows, turn),
        alone=work.batch == 32,  # the micro-batches, and so the memory, are the same
    )


def run_ours(work: ClassifyWork, rows: int, steps: int, dropout: float | None = None) -> Turn:
    """The steps by `fit`."""
    return ours.train(work.build(steps, dropout), encoded(rows))


def limit_of(work: ClassifyWork, rows: int, turn: Turn) -> dict[str, Any]:
    """The limit of one turn; the small products of the head are left out."""
    data = encoded(rows)
    lengths = data.rows.lengths
    plan = plan_for(work.recipe(max(rows // work.batch, 1)).train, data.rows)
    budget = turn.engine["micro_batch_tokens"]
    groups = [
        group
        for number in range(1, plan.total_steps + 1)
        for group in micro_batches(plan.rows(number), lengths, budget, is_padded=turn.engine["is_padded"])
    ]
    trained = Trained(rank=RANK) if work.method == "lora" else Trained()
    figures = [(int(lengths[group].sum()), 0, [int(lengths[row]) for row in group]) for group in groups]
    return measured_limit(facts(), trained, figures)


def evaluate(sizes: Sizes) -> list[Contest]:
    """Scores of rows in no order of length: sorted and packed, against `Trainer.predict`."""
    rows = sizes.rows * EVALUATED_PER_TRAINED
    return [
        Contest(
            name="evaluate",
            title=f"MiniLM scores of {rows:,} texts",
            sides={
                OURS: Side(run=lambda _: _scores(rows)),
                "Trainer.predict, batch 8": Side(run=lambda _: trainer.predict(rows, 8)),
                "Trainer.predict, batch 32": Side(run=lambda _: trainer.predict(rows, 32)),
            },
            amount=1,
            warm_up=1,
            tolerance=TOLERANCE,
            compare=_compare_scores,
            facts=lambda: describe(rows, 32),
        )
    ]


def _scores(rows: int) -> Turn:
    assembled = ClassifyWork(method="full", batch=32).build(1)
    data = encoded(rows)
    with timed() as region:
        scores = assembled.learner.scores(data.rows)
    return Turn(region=region[0], answers=scores, engine=assembled.learner.engine.facts())


def _compare_scores(mine: Turn, other: Turn) -> tuple[float, str]:
    """The largest difference of any score, and how many predictions are equal."""
    distance = float(np.abs(mine.answers - other.answers).max())
    equal = int((mine.answers.argmax(1) == other.answers.argmax(1)).sum())
    return distance, f"{equal:,} of {len(mine.answers):,} predictions equal, scores within {distance:.1e}"
