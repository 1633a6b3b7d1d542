"""What a task hands to the writer of reports: which sections, which figures, and its own words for them.

The writer knows no task. A section is a function from a `Document` to a `Block`, or to None where the report has
nothing for it; a new task writes its own and takes the general ones from `sections`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reglaj.evaluation.report.markup import Markup


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One metric of `report["test"]`, or of a group of its rows.

    is_share: shown in percent. lower_is_better: a smaller value is good. has_best: whether more (or less) is better
    at all, which it is not of a ratio of lengths.
    """

    name: str
    title: str
    meaning: str
    is_share: bool = True
    lower_is_better: bool = False
    has_best: bool = True


@dataclass(frozen=True, kw_only=True)
class Document:
    """Everything a section may show. report: the document of report.json. extras: what only the page shows."""

    report: Mapping[str, Any]
    extras: Mapping[str, Any]
    plan: ReportPlan

    @property
    def confidence(self) -> float:
        """Coverage of every interval."""
        return float(self.report.get("confidence", 0.95))

    @property
    def compared(self) -> Mapping[str, Any]:
        """Scores of each baseline, by name."""
        baselines: Mapping[str, Any] = self.report.get("baselines") or {}
        return baselines

    @property
    def name(self) -> str:
        """What the model is called."""
        return str(self.report.get("name") or self.report.get("run") or self.report.get("task"))


@dataclass(frozen=True, kw_only=True)
class Block:
    """A section of the page. lead: the sentence under its title that says what is to be seen."""

    anchor: str
    title: str
    lead: Any = ""
    body: Markup


SectionMaker = Callable[[Document], "Block | None"]


@dataclass(frozen=True, kw_only=True)
class ReportPlan:
    """How the result of a task is told.

    headline: the result in one or two plain sentences. verdict: (good | open | bad, a few words).
    figures: the first one is what baselines are compared on. slice_figures: those of a group of rows, the first leads.
    limits: sentences about what the figures cannot say, beside the general ones. pipeline_tag and use: for the model
    card. commands: what to type next, after `reglaj`; `{run}` and `{example}` are filled in. too_long: what became of
    test texts that are longer than the context.
    """

    headline: Callable[[Document], str]
    verdict: Callable[[Document], tuple[str, str]]
    figures: tuple[Figure, ...]
    slice_figures: tuple[Figure, ...] = ()
    sections: tuple[SectionMaker, ...]
    limits: Callable[[Document], list[str]]
    pipeline_tag: str
    use: str
    example: str = "a text of yours"
    commands: tuple[str, ...] = ("predict {run} {example}",)
    too_long: str = "cut at the end"
