"""Sections on rows to read again: outliers, boilerplate and markup, prompts with several answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reglaj.evaluation.report.markup import joined, tag
from reglaj.evaluation.report.plan import Block
from reglaj.evaluation.report.quality_findings import examples_of
from reglaj.evaluation.report.quality_groups import facts_and_rows

_CHECKS = {
    "outliers": ("Outliers", "Texts that are far from every other one: another matter, another language, or noise."),
    "boilerplate": (
        "Boilerplate and markup",
        "Texts that are mostly tags, addresses or the same words as many others; a model learns those by heart.",
    ),
    "many_answers": (
        "Prompts with several answers",
        "The same prompt, answered in different ways: right where answers vary, a contradiction where they should not.",
    ),
}


def odd_rows(data: Mapping[str, Any], quality: Mapping[str, Any]) -> Block | None:
    """Each check that found rows, with its figures and examples."""
    body: list[Any] = []
    for name, (title, meaning) in _CHECKS.items():
        values = quality.get(name)
        if not values or not any(v for v in values.values() if isinstance(v, int | float | list)):
            continue
        examples = values.get("examples") or examples_of(quality, name)
        body += [tag("h3", title), tag("p", meaning), *facts_and_rows({**values, "examples": examples})]
    if not body:
        return None
    return Block(
        anchor="odd-rows", title="Rows to read again", lead="Read a few before you drop any.", body=joined(body)
    )
