"""Promise 8: a number has an interval, and the seeds it hangs on are written down."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from reglaj.pipelines.verify.subject import Subject
from reglaj.pipelines.verify.verdicts import Finding, concluded, counted


def numbers_have_intervals(subject: Subject) -> Finding:
    """Figures within their intervals, differences with a p-value, seeds, and the report's files as they were."""
    report = subject.report
    problems = subject.changed_files(8)
    figures = [*_figures(report.get("test"), "test"), *_figures(report.get("baselines"), "baselines")]
    problems += [problem for name, figure in figures if (problem := _wrong(name, figure))]
    headline = subject.task_type.headline
    if not any(name == f"test.{headline}" for name, _ in figures):
        problems.append(f"test.{headline} has no interval")
    elif subject.manifest.get("headline") != {headline: report["test"][headline]}:
        problems.append(f"the manifest's headline is not report.json's {headline}")
    differences = sum(name.endswith(".difference") for name, _ in figures)
    seeds = {"train": subject.recipe.train.seed, "split": subject.recipe.data.split.seed}
    if subject.manifest.get("seeds") != seeds:
        problems.append(f"the manifest's seeds are {subject.manifest.get('seeds')}, the recipe's {seeds}")
    return concluded(
        problems,
        f"{counted(len(figures), 'figure')} with low <= value <= high, {counted(differences, 'difference')} among "
        f"them with p; seeds {seeds['train']} (train) and {seeds['split']} (split); report, card and recipe as in the "
        "manifest",
    )


def _figures(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Everything that has a value, at any depth, with where it stands."""
    if isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _figures(inner, f"{path}[{place}]")
    elif isinstance(value, dict):
        if "value" in value:
            yield path, value
        for key, inner in value.items():
            yield from _figures(inner, f"{path}.{key}")


def _wrong(name: str, figure: Mapping[str, Any]) -> str | None:
    low, value, high = (figure.get(part) for part in ("low", "value", "high"))
    for number in (low, value, high):
        if not isinstance(number, int | float) or not math.isfinite(number):
            return f"{name} has no finite value, low and high"
    if not low <= value <= high:  # type: ignore[operator]
        return f"{name}: {value} is not between {low} and {high}"
    p = figure.get("p")
    if name.endswith(".difference") and not (isinstance(p, int | float) and 0 <= p <= 1):
        return f"{name} has the p-value {p}"
    return None
