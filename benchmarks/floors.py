"""What is promised: floors and aims of the ratios, each on a contest, and the verdict on what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.measuring import OURS, ratios


@dataclass(frozen=True, kw_only=True)
class Floor:
    """One line of the table. speed: how many times as long the other side takes. memory: our peak through its peak.

    limit: seconds of the useful matrix products through ours. growth: the larger time per token through the smaller.
    """

    text: str
    contest: str
    what: Literal["speed", "memory", "limit", "growth"]
    against: str = ""
    floor: float | None
    aim: float | None = None

    @property
    def is_upper_bound(self) -> bool:
        """Whether less is better."""
        return self.what in ("memory", "growth")


def _speed(text: str, contest: str, against: str, floor: float | None, aim: float | None = None) -> Floor:
    return Floor(text=text, contest=contest, what="speed", against=against, floor=floor, aim=aim)


def _limit(text: str, contest: str, floor: float | None = 0.55, aim: float | None = 0.7) -> Floor:
    return Floor(text=text, contest=contest, what="limit", floor=floor, aim=aim)


def _memory(text: str, contest: str) -> Floor:
    return Floor(text=text, contest=contest, what="memory", against="TRL padding_free", floor=0.65, aim=0.4)


def _growth(text: str, part: str) -> Floor:
    return Floor(text=text, contest="growth", what="growth", against=part, floor=1.15)


_METHODS = {"lora": "LoRA", "full": "full"}
_GENERATE, _PREDICT = "transformers generate", "Trainer.predict, batch {}"
_CHAT = "LoRA q,v r8, SmolLM2, chat rows of skewed length"
FLOORS: tuple[Floor, ...] = (
    _speed(f"{_CHAT}, against TRL padding-free", "chat", "TRL padding_free", 2.0, 3.0),
    _speed("the same against TRL padded", "chat", "TRL padded", 2.5, 3.5),
    _speed("the same against TRL's defaults", "chat", "TRL defaults", 4.0, 6.0),
    _speed("the same against our own plain loop, packed with a block mask", "chat", "plain packed", 1.3, 1.5),
    _speed("the same against a plain padded loop", "chat", "plain padded", None),
    _limit("share of the matrix-product limit, useful work only", "chat"),
    _memory("peak memory against TRL padding-free", "chat"),
    _speed("LoRA on all linear layers, r16, against TRL padding-free", "chat-all-linear", "TRL padding_free", 2.2, 4.0),
    _speed("the same against our own plain loop", "chat-all-linear", "plain packed", None),
    _limit("share of the limit, all linear layers", "chat-all-linear"),
    _memory("peak memory, all linear layers, against TRL padding-free", "chat-all-linear"),
    _speed("MiniLM LoRA, batch 32, against the Trainer padded", "classify-lora-32", "Trainer padded", 1.6, 2.5),
    _speed("MiniLM full, batch 32, against the Trainer padded", "classify-full-32", "Trainer padded", 1.5, 2.5),
    _speed("MiniLM LoRA, batch 8, against the Trainer padded", "classify-lora-8", "Trainer padded", 1.3, 1.6),
    _speed("MiniLM full, batch 8, against the Trainer padded", "classify-full-8", "Trainer padded", 1.3, 1.6),
    *(
        _speed(
            f"MiniLM {_METHODS[method]}, batch {batch}, against the Trainer grouped by length",
            f"classify-{method}-{batch}",
            "Trainer grouped by length",
            None,
        )
        for batch in (32, 8)
        for method in ("lora", "full")
    ),
    _limit("share of the limit, MiniLM LoRA, batch 32", "classify-lora-32", None, None),
    _limit("share of the limit, MiniLM full, batch 32", "classify-full-32", None, None),
    _speed("LoRA on the upper 8 of 30 layers, trunk cache, second epoch", "trunk", "without the cache", 1.7, 3.0),
    _speed("16 prompts of unequal length against `generate`, LoRA merged", "generate", _GENERATE, 1.15, 2.0),
    _speed(
        "evaluation against the Trainer's `predict`, batch 8 (its default)", "evaluate", _PREDICT.format(8), 2.0, 3.0
    ),
    _speed("the same, batch 32", "evaluate", _PREDICT.format(32), None),
    _growth("time per token, 20 steps drawn from 1,024 rows against 64", "rows"),
    _growth("time per token, rows of 128 to 2,048 tokens, less attention's own", "length"),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of a floor. values: one for each turn; empty where there are none. agreement: in words."""

    floor: Floor
    values: tuple[float, ...]
    agreement: str
    text: str

    @property
    def median(self) -> float | None:
        """Of the turns."""
        return statistics.median(self.values) if self.values else None


def judge(floor: Floor, parts: Mapping[str, Any]) -> Verdict:
    """The verdict on one floor by the parts of a results file."""
    part = parts.get(floor.contest)
    if part is None:
        return Verdict(floor=floor, values=(), agreement="", text="not measured")
    if "no_result" in part:
        return Verdict(floor=floor, values=(), agreement="", text=f"no result: {part['no_result']}")
    values = tuple(_values(floor, part))
    agreement = part["sides"].get(floor.against, {}).get("agreement")
    words = agreement["words"] if agreement else ""
    if not values:
        return Verdict(floor=floor, values=(), agreement=words, text="not measured")
    if agreement and not agreement["agrees"]:
        told = f"no result: beyond {agreement['tolerance']:g}, the sides do not do the same"
        return Verdict(floor=floor, values=(), agreement=words, text=told)
    return Verdict(floor=floor, values=values, agreement=words, text=_compared(floor, statistics.median(values)))


def _values(floor: Floor, part: Mapping[str, Any]) -> list[float]:
    sides = part["sides"]
    if floor.what == "growth":
        return list(part["growth"][floor.against])
    if floor.what == "memory":
        ours, other = (sides.get(name, {}).get("peak_bytes") for name in (OURS, floor.against))
        return [ours / other] if ours and other else []
    if floor.what == "limit":
        pairs = zip(part.get("limits", ()), sides[OURS]["seconds"], strict=False)
        return [limit["seconds"] / seconds for limit, seconds in pairs if seconds]
    return ratios(sides, floor.against)


def _compared(floor: Floor, value: float) -> str:
    def reaches(bound: float) -> bool:
        return value <= bound if floor.is_upper_bound else value >= bound

    if floor.floor is None:
        return "no floor"
    if floor.aim is not None and reaches(floor.aim):
        return "aim reached"
    return "floor reached" if reaches(floor.floor) else "**below the floor**"
