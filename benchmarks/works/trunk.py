"""LoRA on the upper 8 of 30 layers: with the states of the frozen layers kept, against without; the second epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.conversations import ChatWork, describe, encoded
from benchmarks.measuring import OURS, Contest, NoResult, Side, Turn
from benchmarks.sides import ours
from benchmarks.works.chat import TOLERANCE
from benchmarks.works.sizes import Sizes

LAYERS, ALL_LAYERS = 8, 30
WITHOUT = "without the cache"
UPPER = ChatWork(rank=16, alpha=32, layers=LAYERS, epochs=2)


def trunk(sizes: Sizes) -> list[Contest]:
    """Two passes over the rows; the seconds are those of the second. Both sides are ours."""
    work = replace(UPPER, batch=sizes.batch)

    def run(cache: str, steps: int) -> Turn:
        def second_epoch(lines: list[dict[str, Any]]) -> float:
            return float(lines[-1]["time"] - lines[sizes.steps - 1]["time"])

        assembled = work.build(steps, trunk_cache=cache)
        turn = ours.train(assembled, encoded(work.batch * sizes.steps), second_epoch)
        decision = str(turn.engine["trunk_cache"])
        if not decision.startswith("on" if cache == "auto" else "off"):
            raise NoResult(f"train.trunk_cache={cache} gave {decision!r}")
        return turn

    return [
        Contest(
            name="trunk",
            title=f"LoRA on the upper {LAYERS} of {ALL_LAYERS} layers, second epoch, trunk cache",
            sides={
                OURS: Side(run=lambda steps: run("auto", steps)),
                WITHOUT: Side(run=lambda steps: run("off", steps)),
            },
            amount=2 * sizes.steps,
            warm_up=2 * sizes.steps,  # fewer steps would be too few passes for the cache
            tolerance=TOLERANCE,
            facts=lambda: _facts(work, sizes),
        )
    ]


def _facts(work: ChatWork, sizes: Sizes) -> dict[str, Any]:
    """Tokens are those of the second epoch, as the seconds are."""
    facts = describe(work, 2 * sizes.steps)
    halves = ("tokens", "tokens_with_padding", "supervised_tokens")
    return facts | {name: facts[name] // 2 for name in halves}
