"""Sides take turns on the same work, in one process, all of them warm; ratios are taken within each turn.

What else the machine does then falls on all sides alike, and a ratio is steadier than either of its times. The order
within a turn rotates. How much of the processors' time other processes took is noted for every side of every turn, so
that a reader can see which figures to trust.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

OURS = "reglaj"
"""The side that the others are compared with."""
SHOWN_LOSSES = 100
"""More figures than these are compared, but not written down."""


class NoResult(Exception):
    """This work cannot be measured here; the reason is its text."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """What a block cost. seconds on the clock; processor_seconds of this process, all threads, None where the seconds
    are those of a part of the block.

    others_share: of all processors' time, what other processes took meanwhile; None where the system does not tell.
    """

    seconds: float
    processor_seconds: float | None
    others_share: float | None


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One side's work, done once.

    losses: of each step in nats, or other figures that must be equal on all sides. first_done: `time.time()` when
    the first step was finished, for the cold start. answers: what is compared where there are no losses. engine: the
    choices of our side.
    """

    region: Region
    losses: tuple[float, ...] = ()
    first_done: float = 0.0
    answers: Any = None
    engine: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way to do the work. run: does so much of it (steps, mostly). most_turns: slow peers take part in fewer.

    check: the same with everything random turned off, where a plain run has dropout and cannot be compared by step.
    tolerance: that of the contest unless given. same_steps: whether its steps hold the same rows; a side that orders
    rows its own way is compared by the mean of its losses.
    """

    run: Callable[[int], Turn]
    most_turns: int = sys.maxsize
    check: Callable[[int], Turn] | None = None
    tolerance: float | None = None
    same_steps: bool = True


Comparison = Callable[[Turn, Turn], tuple[float, str]]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A piece of work and the sides that do it; the first is ours.

    amount, warm_up: how much a turn and a warm-up do. compare: ours and another's turn to a distance and words for it;
    beyond `tolerance` there is no result. facts: what the work consists of. limit: seconds that the useful matrix
    products of one turn take at least, and how that was found, from a turn of ours (for the engine's choices).
    alone: whether sides run in fresh processes too.
    """

    name: str
    title: str
    sides: Mapping[str, Side]
    amount: int
    warm_up: int
    tolerance: float
    compare: Comparison | None = None
    facts: Callable[[], dict[str, Any]] = dict
    limit: Callable[[Turn], dict[str, Any]] | None = None
    alone: bool = True


@dataclass
class Measured:
    """Everything that came out so far, as JSON values."""

    sides: dict[str, dict[str, Any]] = field(default_factory=dict)
    limits: list[dict[str, Any]] = field(default_factory=list)


def tell(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _busy_seconds() -> float | None:
    """Seconds that all processors together were busy since boot, what a hypervisor took away included."""
    try:
        numbers = [int(part) for part in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    user, nice, system, _idle, _waiting, irq, soft_irq, stolen = numbers
    return (user + nice + system + irq + soft_irq + stolen) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


_PROFILER: list[Callable[[], contextlib.AbstractContextManager[Any]]] = []


@contextlib.contextmanager
def timed() -> Iterator[list[Region]]:
    """Measure the block; the list holds one `Region` afterwards. Under `profiled` it is recorded as well."""
    found: list[Region] = []
    gc.collect()  # what the side before left behind is not this one's work
    with _PROFILER[0]() if _PROFILER else contextlib.nullcontext():
        busy, own, processor, started = _busy_seconds(), _own_seconds(), time.process_time(), time.perf_counter()
        yield found
        seconds = time.perf_counter() - started
        processor_seconds = time.process_time() - processor
        busy_after, own_after = _busy_seconds(), _own_seconds()
    others = None
    if busy is not None and busy_after is not None:
        share = (busy_after - busy - (own_after - own)) / max(seconds * (os.cpu_count() or 1), 1e-9)
        others = round(min(max(share, 0.0), 1.0), 3)
    found.append(Region(seconds=seconds, processor_seconds=processor_seconds, others_share=others))


@contextlib.contextmanager
def profiled(recorder: Callable[[], contextlib.AbstractContextManager[Any]]) -> Iterator[None]:
    """Every `timed` block inside runs under the recorder: construction and warm-up then stay out of a profile."""
    _PROFILER.append(recorder)
    try:
        yield
    finally:
        _PROFILER.pop()


def with_seconds(region: Region, seconds: float, *, is_part: bool = False) -> Region:
    """The region with the seconds that a side counts itself: all but setting up, or (is_part) only some steps."""
    return replace(region, seconds=seconds, processor_seconds=None if is_part else region.processor_seconds)


def by_losses(ours: Turn, other: Turn) -> tuple[float, str]:
    """The largest difference between the losses of any step; infinite where their numbers differ."""
    if not ours.losses or len(ours.losses) != len(other.losses):
        return float("inf"), f"{len(ours.losses)} and {len(other.losses)} losses"
    if not all(map(math.isfinite, (*ours.losses, *other.losses))):  # which max() would pass over
        return float("inf"), "a loss is not finite"
    difference = max(abs(a - b) for a, b in zip(ours.losses, other.losses, strict=True))
    return difference, f"losses of every step within {difference:.1e} ({len(ours.losses)})"


def by_mean_loss(ours: Turn, other: Turn) -> tuple[float, str]:
    """The difference between the mean losses, for a side whose steps hold other rows."""
    if not ours.losses or not other.losses:
        return float("inf"), "no losses"
    difference = abs(statistics.fmean(ours.losses) - statistics.fmean(other.losses))
    difference = difference if math.isfinite(difference) else float("inf")
    return difference, f"mean losses differ by {difference:.1e} (its steps hold other rows)"


def measure(contest: Contest, repeats: int, keep: Callable[[Measured], None]) -> Measured:
    """Warm up, compare, take turns. `keep` is called after every turn with all that is known by then."""
    measured = Measured(sides={name: _nothing() for name in contest.sides})
    warm = {}
    for name, side in contest.sides.items():
        tell(f"  {contest.name}: {name}, warm-up")
        warm[name] = (side.check or side.run)(contest.warm_up)
    if any(side.check for side in contest.sides.values()):
        _compare(contest, measured, warm, is_check=True)
    names = list(contest.sides)
    for number in range(repeats):
        if contest.limit is not None:
            measured.limits.append(contest.limit(warm[OURS]))
        turns = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if number < contest.sides[name].most_turns:
                turns[name] = contest.sides[name].run(contest.amount)
                _say(contest, number, name, turns[name])
        for name in names:
            _note(measured.sides[name], turns.get(name))
        _compare(contest, measured, turns, is_check=False)
        keep(measured)
    return measured


def _nothing() -> dict[str, Any]:
    return {"seconds": [], "processor_seconds": [], "others_share": [], "losses": []}


def _note(side: dict[str, Any], turn: Turn | None) -> None:
    """Add a turn; None keeps the place of one that was left out, so that turns of all sides stay side by side."""
    region = turn.region if turn else None
    side["seconds"].append(region and round(region.seconds, 4))
    busy = region and region.processor_seconds
    side["processor_seconds"].append(busy and round(busy, 3))
    side["others_share"].append(region and region.others_share)
    if turn and len(turn.losses) <= SHOWN_LOSSES:
        side["losses"] = list(turn.losses)
    if turn and turn.engine:
        side["engine"] = dict(turn.engine)


def _compare(contest: Contest, measured: Measured, turns: Mapping[str, Turn], *, is_check: bool) -> None:
    """Note the worst agreement of each side with ours. A check decides where there is one; turns are noted beside."""
    for name, turn in turns.items():
        if name == OURS:
            continue
        side = contest.sides[name]
        by_step = contest.compare or by_losses
        has_check = side.check is not None and side.same_steps
        if is_check and not has_check:
            continue
        compare = by_step if side.same_steps and (is_check or not has_check) else by_mean_loss
        distance, words = compare(turns[OURS], turn)
        if has_check and not is_check:
            measured.sides[name]["turns_agree"] = words
            continue
        before = measured.sides[name].get("agreement")
        if before is None or distance > before["distance"]:
            tolerance = contest.tolerance if side.tolerance is None else side.tolerance
            finite = distance if distance < float("inf") else 1e9
            measured.sides[name]["agreement"] = {
                "distance": finite,
                "tolerance": tolerance,
                "agrees": distance <= tolerance,
                "words": words + (", dropout off" if is_check else ""),
            }


def _say(contest: Contest, number: int, name: str, turn: Turn) -> None:
    losses = f", loss {turn.losses[0]:.4f} to {turn.losses[-1]:.4f}" if 0 < len(turn.losses) <= SHOWN_LOSSES else ""
    others = turn.region.others_share
    load = "" if others is None else f", others took {others:.0%} of the processors"
    tell(f"  {contest.name}, turn {number + 1}: {name} {turn.region.seconds:.2f} s{losses}{load}")


def ratios(sides: Mapping[str, Mapping[str, Any]], against: str, key: str = "seconds") -> list[float]:
    """How many times as long as ours another side took, one figure for each turn that both were in."""
    if OURS not in sides or against not in sides:
        return []
    pairs = zip(sides[against][key], sides[OURS][key], strict=False)
    return [other / own for other, own in pairs if other is not None and own]
