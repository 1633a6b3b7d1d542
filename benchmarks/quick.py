"""The guard of CI: we against our own plain loops, in minutes. `python -m benchmarks.quick`; exit 1 below a floor.

The plain loop is the steadiest denominator: it is short, ours, and pinned with torch and transformers, while a peer's
trainer was seen to vary by a factor of two. A floor is broken when the median of the turns' ratios lies below it *and*
the best turn does too: on a shared machine a neighbour can slow down one side of one or two turns, but hardly ours in
every turn, so one good turn clears the median of noise. What has really become slower is slower in every turn.
Losses that do not agree break it as well: speed with another loss is no speed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from dataclasses import dataclass, replace

import transformers

from benchmarks.measuring import OURS, Contest, Measured, measure, ratios, tell
from benchmarks.works import chat, classify
from benchmarks.works.sizes import Sizes

REPEATS = 3


@dataclass(frozen=True)
class Guard:
    """A contest, the plain side in it, and the floor with its reason."""

    contest: Contest
    against: str
    floor: float
    reason: str


def guards(steps: int, rows: int) -> list[Guard]:
    """Both works: a decoder's LoRA and an encoder's."""
    (decoder,) = chat.chat(Sizes(steps=steps))
    encoder = next(one for one in classify.classify(Sizes(rows=rows)) if one.name == "classify-lora-32")
    return [
        Guard(
            _only(decoder, "plain packed"),
            "plain packed",
            1.1,
            "it is promised to be 1.3 times as fast as the plain loop (floors.py); half of the gain is left for other "
            "processors and for steps that are fewer than in the real measurement",
        ),
        Guard(
            _only(encoder, "plain padded"),
            "plain padded",
            1.6,
            "it is promised to be 1.6 times as fast as the Trainer (floors.py), this loop with more around it: "
            "padding alone costs nearly that, so whoever is below has stopped packing",
        ),
    ]


def _only(contest: Contest, against: str) -> Contest:
    """The contest between ours and one other, without what takes time beside it."""
    sides = {name: replace(contest.sides[name], most_turns=sys.maxsize) for name in (OURS, against)}
    return replace(contest, sides=sides, limit=None, alone=False)


def verdict(guard: Guard, measured: Measured) -> str:
    """Why the floor is broken, or nothing."""
    agreement = measured.sides[guard.against]["agreement"]
    name = f"{guard.contest.name} against {guard.against}"
    if not agreement["agrees"]:
        return f"{name}: the losses differ: {agreement['words']}, allowed {agreement['tolerance']:g}"
    found = ratios(measured.sides, guard.against)
    shown = ", ".join(f"{ratio:.2f}" for ratio in found)
    if statistics.median(found) < guard.floor and max(found) < guard.floor:
        return f"{name}: {shown} times as fast in its turns, every one below the floor of {guard.floor}: {guard.reason}"
    return ""


def main() -> None:
    """Measure both, say what came out, exit with 1 where a floor is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quick", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"turns of every side, at least {REPEATS}")
    parser.add_argument("--steps", type=int, default=1, help="of 8 conversations in a turn")
    parser.add_argument("--rows", type=int, default=192, help="texts in a turn")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # transformers about the names of its own settings
    broken = []
    for guard in guards(options.steps, options.rows):
        tell(f"{guard.contest.name}: {guard.contest.title}, against {guard.against}")
        measured = measure(guard.contest, max(options.repeats, REPEATS), lambda _: None)
        found = ratios(measured.sides, guard.against)
        told = f"{statistics.median(found):.2f} times as fast ({min(found):.2f}-{max(found):.2f})"
        print(f"{guard.contest.name} against {guard.against}: {told}, floor {guard.floor}")
        broken.append(verdict(guard, measured))
    reasons = [reason for reason in broken if reason]
    for reason in reasons:
        print(f"SLOWER THAN PROMISED: {reason}", file=sys.stderr)
    sys.exit(1 if reasons else 0)


if __name__ == "__main__":
    main()
