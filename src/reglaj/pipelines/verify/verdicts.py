"""What a check says: its verdict, and one sentence of evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reglaj.pipelines.verify.subject import Subject

PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "not applicable"
_SHOWN = 3

PROMISES = {
    1: "Every row is accounted for",
    2: "The test split is sealed",
    3: "Only the answer is trained on",
    4: "The loss is one number",
    5: "A run can die at any moment",
    6: "Nothing non-finite is applied or saved",
    7: "What was evaluated is what is served",
    8: "A number has an interval",
    9: "Loading runs no code",
}


@dataclass(frozen=True)
class Finding:
    """The outcome of a check. evidence: one sentence, with figures."""

    verdict: str
    evidence: str


@dataclass(frozen=True)
class Check:
    """Shows one promise, or a part of it (then `part` says which), on a run."""

    promise: int
    examine: Callable[[Subject], Finding]
    part: str = ""

    @property
    def name(self) -> str:
        """The words of the promise."""
        return f"{PROMISES[self.promise]}: {self.part}" if self.part else PROMISES[self.promise]


def concluded(problems: Sequence[str], evidence: str) -> Finding:
    """A fail where there are problems, named as far as a sentence holds them; else a pass with its evidence."""
    if not problems:
        return Finding(PASS, evidence)
    more = f"; and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
    return Finding(FAIL, "; ".join(problems[:_SHOWN]) + more)


def not_applicable(why: str) -> Finding:
    """Nothing can be shown here, and nothing is known to be wrong."""
    return Finding(NOT_APPLICABLE, why)


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
