"""LoRA on SmolLM2, conversations of skewed length, answers only: against TRL and against our own plain loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks import conversations
from benchmarks.conversations import ChatWork, describe, encoded, order
from benchmarks.limits import Trained, measured_limit
from benchmarks.measuring import OURS, Contest, Side, Turn
from benchmarks.sides import ours, plain, trl_trainer
from benchmarks.works.sizes import Sizes
from reglaj.data.batching import micro_batches

QV = ChatWork(rank=8, alpha=16, targets=("q_proj", "v_proj"))
ALL_LINEAR = ChatWork(rank=16, alpha=32)
TOLERANCE = 1e-4
"""Nats between the losses of any step: sums in another order, no more."""


def chat(sizes: Sizes) -> list[Contest]:
    """Rank 8 on queries and values, against everything."""
    work, rows, slow = replace(QV, batch=sizes.batch), sizes.batch * sizes.steps, sizes.slow_turns
    return [
        Contest(
            name="chat",
            title="LoRA q,v r8, SmolLM2-135M, chat rows of skewed length, batch 8",
            sides={
                OURS: Side(run=lambda steps: run_ours(work, rows, steps)),
                "plain packed": Side(run=lambda steps: plain.chat(work, rows, steps, plain.packed_loss)),
                "plain padded": Side(
                    run=lambda steps: plain.chat(work, rows, steps, plain.padded_loss), most_turns=slow
                ),
                "TRL padding_free": Side(run=lambda steps: trl_trainer.chat(work, rows, steps, "padding_free")),
                "TRL padded": Side(run=lambda steps: trl_trainer.chat(work, rows, steps, "padded"), most_turns=slow),
                "TRL defaults": Side(
                    run=lambda steps: trl_trainer.chat(work, rows, steps, "defaults"), most_turns=slow
                ),
            },
            amount=sizes.steps,
            warm_up=1,
            tolerance=TOLERANCE,
            facts=lambda: describe(work, sizes.steps),
            limit=lambda turn: limit_of(work, rows, sizes.steps, turn),
        )
    ]


def all_linear(sizes: Sizes) -> list[Contest]:
    """Rank 16 on every linear layer."""
    work, rows = replace(ALL_LINEAR, batch=sizes.batch), sizes.batch * sizes.steps
    return [
        Contest(
            name="chat-all-linear",
            title="LoRA on all linear layers, r16, SmolLM2-135M, the same rows",
            sides={
                OURS: Side(run=lambda steps: run_ours(work, rows, steps)),
                "plain packed": Side(run=lambda steps: plain.chat(work, rows, steps, plain.packed_loss)),
                "TRL padding_free": Side(run=lambda steps: trl_trainer.chat(work, rows, steps, "padding_free")),
            },
            amount=sizes.steps,
            warm_up=1,
            tolerance=TOLERANCE,
            facts=lambda: describe(work, sizes.steps),
            limit=lambda turn: limit_of(work, rows, sizes.steps, turn),
        )
    ]


def run_ours(work: ChatWork, rows: int, steps: int, **train: Any) -> Turn:
    """The first `steps` of the work on so many rows, by `fit`."""
    return ours.train(work.build(steps, **train), encoded(rows))


def limit_of(work: ChatWork, rows: int, steps: int, turn: Turn) -> dict[str, Any]:
    """The limit of a turn, on micro-batches as the engine cut them in the turn that is given."""
    data = encoded(rows)
    lengths, starts, flags = data.rows.lengths, data.rows.starts, data.targets.flags
    budget, is_padded = turn.engine["micro_batch_tokens"], turn.engine["is_padded"]
    groups = [
        group
        for step in order(work, data, steps)
        for group in micro_batches(step, lengths, budget, is_padded=is_padded)
    ]
    figures = [
        (
            int(lengths[group].sum()),
            int(sum(flags[starts[row] : starts[row + 1]].sum() for row in group)),
            [int(lengths[row]) for row in group],
        )
        for group in groups
    ]
    return measured_limit(conversations.facts(), Trained(rank=work.rank, targets=work.targets or ()), figures)
