"""The gate: figures that must be reached, counted at the end of their interval that is nearer to failing.

A rule is a key and a bound: `macro_f1: ">= 0.8"`. Keys: a figure of the test; `worst_slice.FIGURE`, which must hold in
every group with enough rows; `slice.SLICE.GROUP.FIGURE`. For `>=` the lower end of the interval counts, for `<=` the
upper end: a rule holds where the figure is shown to be there, not where it happens to be.

Several groups need no correction here: each of them must pass by itself, so that trying many makes nothing pass more
easily (an intersection-union test, Berger 1982).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reglaj.core.errors import Problem, listing, nearest

if TYPE_CHECKING:
    from reglaj.evaluation.report.plan import Figure

WORST, SLICE = "worst_slice.", "slice."
_BOUND = re.compile(r"(>=|<=)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
_WHERE = "evaluate.gate"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One line of the gate. slice, group: both for a named group; `*` is every group with enough rows."""

    key: str
    figure: str
    is_at_least: bool
    bound: float
    slice: str | None = None
    group: str | None = None

    @property
    def end(self) -> str:
        """The end of the interval that counts."""
        return "low" if self.is_at_least else "high"

    def __str__(self) -> str:
        return f"{self.key} {'>=' if self.is_at_least else '<='} {self.bound:g}"

    def holds(self, figure: Mapping[str, float]) -> bool:
        """Whether a figure `{value, low, high}` is shown to be there."""
        return figure["low"] >= self.bound if self.is_at_least else figure["high"] <= self.bound


def read_gate(
    gate: Mapping[str, str], slices: Sequence[str], figures: Sequence[Figure], of_groups: Sequence[Figure]
) -> tuple[list[Rule], list[Problem]]:
    """The rules of a recipe, and what is wrong with those that cannot be understood.

    figures: those of the whole test. of_groups: those of a group. slices: names of `evaluate.slices`.
    """
    rules: list[Rule] = []
    problems: list[Problem] = []
    for key, text in gate.items():
        found = _read_key(key, slices, figures, of_groups)
        if isinstance(found, Problem):
            problems.append(found)
            continue
        name, group, figure = found
        rule = _read_bound(key, text, figure)
        if isinstance(rule, Problem):
            problems.append(rule)
        else:
            is_at_least, bound = rule
            rules.append(
                Rule(key=key, figure=figure.name, is_at_least=is_at_least, bound=bound, slice=name, group=group)
            )
    return rules, problems


def _read_key(
    key: str, slices: Sequence[str], figures: Sequence[Figure], of_groups: Sequence[Figure]
) -> tuple[str | None, str | None, Figure] | Problem:
    """Slice, group and figure."""
    is_of_groups = key.startswith((WORST, SLICE))
    if is_of_groups and not slices:
        return _problem(
            key,
            given="a rule about slices, and no slice",
            allowed="rules about the whole test, unless `evaluate.slices` names some",
            why="without slices there is no group to measure",
            remedy="add `slices: [length]`, or a column, to `evaluate`",
        )
    place, _, name = key.rpartition(".")
    known = {figure.name: figure for figure in (of_groups if is_of_groups else figures)}
    if name not in known or (place and not is_of_groups):
        return _unknown_figure(key, name if is_of_groups or not place else key, known, is_of_groups)
    if key.startswith(WORST):
        return ("*", "*", known[name]) if place == WORST.rstrip(".") else _unknown_figure(key, name, known, True)
    if not key.startswith(SLICE):
        return None, None, known[name]
    inside = place.removeprefix(SLICE)
    # A slice may have a dot in its name: the longest that fits is meant.
    fitting = [one for one in slices if inside.startswith(f"{one}.") and len(inside) > len(one) + 1]
    if fitting:
        one = max(fitting, key=len)
        return one, inside.removeprefix(f"{one}."), known[name]
    guess = nearest(inside.split(".")[0], slices)
    return _problem(
        key,
        given=f"no group of a slice is called {inside!r}",
        allowed=f"slice.SLICE.GROUP.{name}, with a slice of `evaluate.slices`: {listing(slices)}",
        why="a rule must name the slice and one of its groups",
        remedy=f"did you mean slice.{guess}.GROUP.{name}?" if guess else "name a slice, or add it to `evaluate.slices`",
    )


def _unknown_figure(key: str, name: str, known: Mapping[str, Figure], is_of_groups: bool) -> Problem:
    guess = nearest(name, known)
    return _problem(
        key,
        given=f"unknown figure {name!r}",
        allowed=listing(known) + ("" if is_of_groups else f"; of groups: {WORST}FIGURE, {SLICE}SLICE.GROUP.FIGURE"),
        why=f"it is no figure that {'a group of rows' if is_of_groups else 'the test'} has in this task",
        remedy=f"did you mean {guess!r}?" if guess else "name one of the figures above",
    )


def _read_bound(key: str, text: str, figure: Figure) -> tuple[bool, float] | Problem:
    """Whether the figure must be at least the bound (or at most), and the bound."""
    best = "<=" if figure.lower_is_better else ">="
    example = '">= 0.8"' if best == ">=" else '"<= 0.5"'
    match = _BOUND.fullmatch(text.strip())
    if not match or not math.isfinite(float(match[2])):
        return _problem(
            key,
            given=f"{text!r}",
            allowed=f"`>=` or `<=` and a number, such as {example}",
            why="a rule says which side of a number the figure must be on",
            remedy=f"write `{key}: {example}`, with the quotes",
        )
    sign, bound = match[1], float(match[2])
    if figure.has_best and sign != best:
        return _problem(
            key,
            given=f"{text!r}",
            allowed=f"`{best}` for {figure.name}",
            why=f"{'less' if figure.lower_is_better else 'more'} is better, so this would refuse good models",
            remedy=f'write `{key}: "{best} {match[2]}"`',
        )
    if figure.is_share and not 0 <= bound <= 1:
        return _problem(
            key,
            given=f"{text!r}",
            allowed="a share from 0 to 1",
            why=f"{figure.name} is never outside of that",
            remedy=f'write "{sign} {bound / 100:g}"' if 1 < bound <= 100 else "choose a number from 0 to 1",
        )
    return sign == ">=", bound


def _problem(key: str, *, given: str, allowed: str, why: str, remedy: str) -> Problem:
    return Problem(where=f"{_WHERE}.{key}", given=given, allowed=allowed, why=why, remedy=remedy)


def judge(rules: Sequence[Rule], test: Mapping[str, Any], slices: Mapping[str, Any] | None) -> dict[str, Any]:
    """What report.json says under `gate`: whether it passed, and each rule with what it was measured on.

    test: figures of the whole test. slices: what `score_slices` gave. A rule whose figure was not measured fails.
    """
    verdicts = [_judged(rule, test, slices or {}) for rule in rules]
    return {"passed": all(verdict["passed"] for verdict in verdicts), "rules": verdicts}


def failed_rules(report: Mapping[str, Any]) -> list[str]:
    """A sentence for each rule that does not hold; none where the gate passed or there is none."""
    rules = (report.get("gate") or {}).get("rules", [])
    return [str(rule["told"]) for rule in rules if not rule["passed"]]


def _judged(rule: Rule, test: Mapping[str, Any], slices: Mapping[str, Any]) -> dict[str, Any]:
    verdict: dict[str, Any] = {"rule": str(rule), "of": rule.figure, "passed": False, "end": rule.end, "figure": None}
    if rule.slice is None:
        figure, missing = test.get(rule.figure), f"{rule.figure} was not measured"
    elif rule.slice == "*":
        from reglaj.evaluation.slices import judged_groups

        found = list(judged_groups(slices.get("by", {}), rule.figure))
        sign = 1 if rule.is_at_least else -1
        name, group = min(found, key=lambda one: sign * one[1]["figures"][rule.figure][rule.end], default=(None, None))
        figure = group["figures"][rule.figure] if group else None
        missing = f"no slice has two groups of which one has {slices.get('minimum_rows')} test rows"
        verdict |= {"slice": name, "group": group["group"]} if group else {}
    else:
        figure, missing = _named_group(rule, slices)
        verdict |= {"slice": rule.slice, "group": rule.group}
    if figure is None:
        return {**verdict, "told": f"{rule} cannot be shown: {missing}"}
    measured = {key: figure[key] for key in ("value", "low", "high", "rows") if key in figure}
    verdict |= {"passed": rule.holds(figure), "figure": measured}
    return {**verdict, "told": _told(rule, verdict)}


def _named_group(rule: Rule, slices: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    """The figure of the group that the rule names, and what is said where there is none."""
    groups = slices.get("by", {}).get(rule.slice, {}).get("groups", [])
    for group in groups:
        if group["group"] == rule.group:
            return group["figures"].get(rule.figure), f"{rule.figure} was not measured on its rows"
    return None, f"no test row is in it; groups of {rule.slice}: {listing(group['group'] for group in groups)}"


def _told(rule: Rule, verdict: Mapping[str, Any]) -> str:
    figure = verdict["figure"]
    where = f" in {verdict['slice']} = {verdict['group']}" if verdict.get("group") is not None else ""
    rows = f", {figure['rows']:,} rows" if "rows" in figure else ""
    end = "lower" if rule.is_at_least else "upper"
    return (
        f"{rule} {'holds' if verdict['passed'] else 'fails'}: the {end} end is {figure[rule.end]:.3f}{where} "
        f"({figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]{rows})"
    )


def groups_named(rules: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    """Slice and group of each rule that names one."""
    for rule in rules:
        if rule.slice not in (None, "*") and rule.group is not None:
            assert rule.slice is not None
            yield rule.slice, rule.group
