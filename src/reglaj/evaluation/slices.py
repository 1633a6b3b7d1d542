"""Figures of groups of test rows: which of them the model is worse at, and how sure that is.

A slice is a column, or the length or language of the texts; its groups are those of `grouping`. The worst group is the
one with the worst figure among those that have enough rows. Some group is always the worst: so its difference to the
rows outside of it has an interval for having been chosen among all groups (Bonferroni's correction).

N test rows, K groups that are judged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from reglaj.evaluation.grouping import Slicing
from reglaj.evaluation.intervals import Interval
from reglaj.evaluation.metrics.groups import difference_of
from reglaj.evaluation.types import IntArray

MINIMUM_ROWS = 20
"""Rows below which a group is shown and never judged: its interval covers nearly everything, and among many such
groups one is bad by chance."""

ScoreGroup = Callable[[IntArray], Mapping[str, Mapping[str, Any]]]
"""Numbers of some test rows to their figures, each `{value, low, high, rows}`: how many rows it was measured on."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One way to part the test rows. codes: (N,) numbers into `names`."""

    name: str
    slicing: Slicing
    names: list[str]
    codes: IntArray


def score_slices(
    slices: Sequence[Slice], score: ScoreGroup, lower_is_better: Mapping[str, bool], confidence: float
) -> dict[str, Any]:
    """What report.json says under `slices`: the figures of each group, and of each figure the worst group.

    lower_is_better: by name of the figures that are looked for a worst group on. See docs/evaluation.md for the form.
    """
    by = {one.name: _scored(one, score) for one in slices}
    known = {one.name: one for one in slices}

    @functools.cache  # one group is often the worst by several figures
    def outside(name: str, group: str) -> Mapping[str, Mapping[str, Any]]:
        one = known[name]
        return score(np.flatnonzero(one.codes != one.names.index(group)))

    worst = {}
    num_judged = 0
    for figure, is_lower in lower_is_better.items():
        judged = list(judged_groups(by, figure))
        num_judged = max(num_judged, len(judged))
        found = _worst(judged, figure, is_lower, outside, confidence)
        if found:
            worst[figure] = found
    return {"minimum_rows": MINIMUM_ROWS, "judged_groups": num_judged, "by": by, "worst": worst}


def judged_groups(by: Mapping[str, Any], figure: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name of the slice and the group, for all that have enough rows for this figure.

    A slice with a single group says nothing that the whole test does not.
    """
    for name, one in by.items():
        for group in one["groups"] if len(one["groups"]) > 1 else ():
            if group["figures"].get(figure, {}).get("rows", 0) >= MINIMUM_ROWS:
                yield name, group


def _scored(one: Slice, score: ScoreGroup) -> dict[str, Any]:
    groups = []
    for number, name in enumerate(one.names):
        rows = np.flatnonzero(one.codes == number)
        figures = {figure: dict(values) for figure, values in score(rows).items()}
        groups.append({"group": name, "rows": len(rows), "figures": figures})
    return {**one.slicing.facts(), "groups": groups}


def _worst(
    judged: Sequence[tuple[str, Mapping[str, Any]]],
    figure: str,
    is_lower: bool,
    outside: Callable[[str, str], Mapping[str, Mapping[str, Any]]],
    confidence: float,
) -> dict[str, Any] | None:
    """The group with the worst figure, and its difference to the rows outside of it; None where no group is judged.

    outside: the figures of the rows that are not in a group of a slice.
    """
    if not judged:
        return None
    sign = -1 if is_lower else 1
    name, group = min(judged, key=lambda one: (sign * one[1]["figures"][figure]["value"], -one[1]["rows"]))
    ours = group["figures"][figure]
    rest = outside(name, group["group"]).get(figure)
    found: dict[str, Any] = {"slice": name, "group": group["group"], **ours, "of_groups": len(judged)}
    if rest is None:
        return found
    difference = corrected(difference_of(_interval(ours), _interval(rest)), len(judged), confidence)
    is_worse = difference["low"] > 0 if is_lower else difference["high"] < 0
    return {**found, "rest": dict(rest), "difference": difference, "is_shown": is_worse}


def corrected(difference: Interval, of_groups: int, confidence: float) -> Interval:
    """The interval of a difference that was picked out of so many: as wide as 1 - (1 - confidence) / K calls for.

    Both ends are moved out by the ratio of the normal quantiles.
    """
    normal, alpha = NormalDist(), 1 - confidence
    wider = normal.inv_cdf(1 - alpha / (2 * of_groups)) / normal.inv_cdf(1 - alpha / 2)
    value = difference["value"]
    return Interval(
        value=value,
        low=value - wider * (value - difference["low"]),
        high=value + wider * (difference["high"] - value),
    )


def _interval(figure: Mapping[str, Any]) -> Interval:
    return Interval(value=figure["value"], low=figure["low"], high=figure["high"])
