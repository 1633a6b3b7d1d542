"""What a person should do about the data: findings, what matters most first.

`account_findings` and `row_findings` make them of the sections of the quality report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["act", "look", "fine"]
_LEVELS = ("act", "look", "fine")
_HARM = {
    "leakage": 20.0, "contradictory": 5.0, "label_errors": 8.0, "encodings": 6.0, "truncation": 4.0, "imbalance": 3.0,
    "few_rows": 3.0, "near_duplicates": 1.5, "contained": 1.0, "semantic": 1.0, "many_answers": 3.0, "languages": 2.0,
    "boilerplate": 3.0, "outliers": 2.0, "duplicates": 0.5, "difficulty": 0.1,
}  # fmt: skip
"""How much one row of a kind spoils a model or its figures, beside the others; the order of the keys breaks ties."""
MANY = 0.01
"""Share of the rows from which something is to be acted on and not only looked at."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked for. do: what to do about it, with the key of the recipe; empty where nothing is."""

    id: str
    level: Level
    title: str
    count: int = 0
    share: float = 0.0
    why: str = ""
    do: str = ""
    examples: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The finding as a JSON value."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """`act` before `look` before `fine`; within a level by share times harm."""
    names = list(_HARM)

    def place(one: Finding) -> tuple[int, float, int]:
        return _LEVELS.index(one.level), -one.share * _HARM[one.id], names.index(one.id)

    return sorted(findings, key=place)


Sections = Mapping[str, Any]
"""The quality report while it grows."""
Shown = Mapping[str, list[dict[str, Any]]]
"""Id of a finding to the rows that are quoted."""


def level_of(count: int, share: float, many: float = MANY) -> Level:
    """`fine` without a row, `act` from the share `many` on, else `look`."""
    return "fine" if not count else "act" if share >= many else "look"


def as_example(value: Any) -> dict[str, Any]:
    """A text, or a mapping with some of the keys, as an example with all of them."""
    empty = {"text": "", "label": None, "note": "", "source": None, "line": None, "part": None}
    return empty | (dict(value) if isinstance(value, Mapping) else {"text": str(value)})
