"""Which group of a slice each row falls into: the values of a column, or ranges of a number.

Ranges are cut at the quartiles of what may be looked at (train and validation), so that they are the same for every
test that a run is scored on. Values are taken as they come; where there are many, the largest groups of the scored rows
keep their names and the rest is `(other)`: that looks at how often a value occurs, never at how the model did on it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reglaj.evaluation.types import IntArray

MOST_GROUPS = 10
"""Values of a slice that have a group of their own."""
OTHER, EMPTY, NO_NUMBER = "(other)", "(empty)", "(no number)"
_RANGES = 4
_LEARNT_FROM = 50_000
"""Cells that the quartiles are taken of, spread evenly over all: more would not move them."""
_LONGEST_NAME = 80
EVERY = "(all)"
"""The only range where the quartiles are all the same number."""

Cells = Sequence[str | None]


@dataclass(frozen=True, kw_only=True)
class Slicing:
    """How cells become groups. edges: upper ends of all ranges but the last, where the cells are numbers.

    is_whole: whether those are whole numbers. unit: what they count, such as `words`.
    """

    edges: tuple[float, ...] | None = None
    is_whole: bool = True
    unit: str = ""

    def facts(self) -> dict[str, Any]:
        """As JSON values, for the report."""
        edges = list(self.edges) if self.edges is not None else None
        return {"edges": edges, "is_whole": self.is_whole, "unit": self.unit}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Slicing:
        """What `facts` gave."""
        edges = facts.get("edges")
        return cls(
            edges=tuple(edges) if edges is not None else None,
            is_whole=bool(facts.get("is_whole", True)),
            unit=str(facts.get("unit") or ""),
        )

    def ranges(self) -> list[str]:
        """The names of the ranges, lowest first; none where the cells are values."""
        if self.edges is None:
            return []
        return [self._range_name(place) for place in range(len(self.edges) + 1)]

    def groups(self, cells: Cells, kept: frozenset[str] = frozenset()) -> tuple[list[str], IntArray]:
        """Names of the groups, ranges in order and values by how often they occur, and the group of each cell (N,).

        kept: values that have a group of their own however rare they are.
        """
        named = self._as_values(cells, kept) if self.edges is None else self._in_ranges(cells)
        counts = Counter(named)
        order = self.ranges() or sorted(counts, key=lambda name: (-counts[name], name))
        last = (OTHER, NO_NUMBER, EMPTY)
        names = [name for name in order if name in counts and name not in last]
        names += [name for name in last if name in counts]
        number = {name: i for i, name in enumerate(names)}
        return names, np.array([number[name] for name in named], dtype=np.int64)

    def _as_values(self, cells: Cells, kept: frozenset[str]) -> list[str]:
        named = [_as_value(cell) for cell in cells]
        counts = Counter(name for name in named if name != EMPTY)
        if len(counts) <= MOST_GROUPS:
            return named
        largest = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_GROUPS]
        own = {*largest, *kept, EMPTY}
        return [name if name in own else OTHER for name in named]

    def _in_ranges(self, cells: Cells) -> list[str]:
        assert self.edges is not None, "cells that are values have no ranges"
        names, edges = self.ranges(), np.array(self.edges)
        found = []
        for cell in cells:
            number = _as_number(cell)
            if number is None:
                found.append(EMPTY if _as_value(cell) == EMPTY else NO_NUMBER)
            else:  # a range holds its upper end
                found.append(names[int(np.searchsorted(edges, number, side="left"))])
        return found

    def _range_name(self, place: int) -> str:
        """`up to 6 words`, `7 to 11 words`, `12 words and more`; with fractions `over 2.5 to 4`."""
        assert self.edges is not None, "cells that are values have no ranges"
        behind, last = f" {self.unit}" if self.unit else "", len(self.edges)
        if not last:
            return EVERY
        if place == 0:
            return f"up to {_digits(self.edges[0])}{behind}"
        low = self.edges[place - 1]
        if not self.is_whole:
            return f"over {_digits(low)}" + (f" to {_digits(self.edges[place])}" if place < last else "") + behind
        if place == last:
            return f"{_digits(low + 1)}{behind} and more"
        first, end = low + 1, self.edges[place]
        return f"{_digits(first)}{'' if first == end else f' to {_digits(end)}'}{behind}"


def learn_slicing(cells: Cells, *, unit: str = "", is_number: bool | None = None) -> Slicing:
    """How to group cells like these, which are of rows that may be looked at.

    Ranges where all cells are numbers, and more different ones than there are groups; else values. is_number: told by
    who knows it.
    """
    step = max(1, len(cells) // _LEARNT_FROM)
    seen = [cell for cell in cells[::step] if _as_value(cell) != EMPTY]
    numbers = [number for cell in seen if (number := _as_number(cell)) is not None]
    if is_number is None:
        is_number = bool(seen) and len(numbers) == len(seen) and len(set(numbers)) > MOST_GROUPS
    if not is_number:
        return Slicing(unit=unit)
    if not numbers:
        return Slicing(edges=(), unit=unit)
    is_whole = all(number == int(number) for number in numbers)
    quantiles = np.quantile(numbers, np.arange(1, _RANGES) / _RANGES, method="inverted_cdf")
    # An edge is what its name says: as many digits as a reader can bear, but for whole numbers, which stay as they are.
    edges = {float(q) if is_whole else float(f"{q:.4g}") for q in quantiles}
    return Slicing(edges=tuple(sorted(q for q in edges if q < max(numbers))), is_whole=is_whole, unit=unit)


def _as_value(cell: str | None) -> str:
    """The name of a cell's group: on one line, and not too long for a table."""
    value = " ".join(cell.split()) if cell else ""
    return (value if len(value) <= _LONGEST_NAME else f"{value[: _LONGEST_NAME - 1]}…") or EMPTY


def _as_number(cell: str | None) -> float | None:
    try:
        number = float(cell) if cell else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None


def _digits(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:.4g}"
