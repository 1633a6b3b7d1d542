"""Sections on rows to read again: outliers, boilerplate and markup, prompts with several answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, figure, folded, joined, table, tag
from reglaj.evaluation.report.plan import Block
from reglaj.evaluation.report.plots import Axis, histogram
from reglaj.evaluation.report.quality_findings import examples_of
from reglaj.evaluation.report.quality_plots import Bar, bars, quote, quotes
from reglaj.evaluation.report.words import count, number, plural

_ROWS_SHOWN = 6
_SHOWN = ("checked", "flagged", "rows", "lines", "starts", "prompts", "examples")
"""Figures of which one must say something, or a check is not shown at all."""


def odd_rows(data: Mapping[str, Any], quality: Mapping[str, Any]) -> Block | None:
    """Each check that was made, with its plot and rows that show it."""
    checks: dict[str, Callable[[Mapping[str, Any], Sequence[Any]], list[Any]]] = {
        "outliers": _outliers,
        "boilerplate": _boilerplate,
        "many_answers": _many_answers,
    }
    body: list[Any] = []
    for name, draw in checks.items():
        values = quality.get(name)
        if values and any(value for key, value in values.items() if key in _SHOWN):
            body += draw(values, values.get("examples") or examples_of(quality, name))
    if not body:
        return None
    lead = "Read a few before you drop any: an odd row may be the one that matters."
    return Block(anchor="odd-rows", title="Rows to read again", lead=lead, body=joined(body))


def _outliers(values: Mapping[str, Any], examples: Sequence[Any]) -> list[Any]:
    flagged, checked = values.get("flagged") or 0, values.get("checked")
    told = f"{count(flagged)} of {plural(checked, 'text')}" if checked else plural(flagged, "text")
    told += (
        f" {'lies' if flagged == 1 else 'lie'} far from every other one: another matter, another language, or noise."
    )
    body: list[Any] = [tag("h3", "Outliers"), tag("p", told)]
    counts, edges, threshold = values.get("counts") or [], values.get("edges") or [], values.get("threshold")
    if any(counts) and len(edges) == len(counts) + 1:
        plot = histogram(
            counts,
            edges,
            x=Axis(title="distance to the nearest other texts", write=lambda v: number(v, 2)),
            y=Axis(title="texts", write=count),
            alternative=told,
            mark=threshold,
            height=150,
        )
        legend = [("mark", f"flagged from {number(threshold, 2)} on")] if threshold is not None else []
        body.append(figure(plot, "", legend))
    return [*body, _some(examples)]


def _boilerplate(values: Mapping[str, Any], examples: Sequence[Any]) -> list[Any]:
    kinds = {name: n for name, n in (values.get("kinds") or {}).items() if n}
    rows = values.get("rows", sum(kinds.values()))
    told = plural(rows, "row looks", "rows look") + " like boilerplate or markup: there is little in them to learn."
    body: list[Any] = [tag("h3", "Boilerplate and markup"), tag("p", told)]
    if len(kinds) > 1:
        drawn = [
            Bar(name=name.replace("_", " "), pieces=[(n, "wrong")], value=exact(n, count(n)))
            for name, n in sorted(kinds.items(), key=lambda item: -item[1])
        ]
        body.append(figure(bars(drawn, alternative="Rows by kind"), ""))
    body.append(_some(examples))
    for key, caption in (("lines", "Lines that many rows share"), ("starts", "Beginnings that many rows share")):
        if values.get(key):
            body.append(folded(caption, _repeated(values[key], caption)))
    return body


def _repeated(found: Sequence[Mapping[str, Any]], caption: str) -> Markup:
    rows = [[quote(str(one.get("text", ""))), exact(one.get("count", 0), count(one.get("count", 0)))] for one in found]
    return tag("div", table(["text", "rows"], rows, caption=caption, numeric=(1,)), class_="narrow-table")


def _many_answers(values: Mapping[str, Any], examples: Sequence[Any]) -> list[Any]:
    prompts, records = values.get("prompts") or 0, values.get("records")
    told = plural(prompts, "prompt is", "prompts are") + " answered in more than one way"
    told += f", in {plural(records, 'record')}" if records else ""
    told += ". Right where answers may vary, a contradiction where they may not."
    return [tag("h3", "Prompts with several answers"), tag("p", told), _some(examples)]


def _some(examples: Sequence[Any]) -> Markup:
    rest = examples[_ROWS_SHOWN:]
    more = folded(f"{plural(len(rest), 'more row')}", quotes(rest)) if rest else ""
    return joined([quotes(examples[:_ROWS_SHOWN]), more])
