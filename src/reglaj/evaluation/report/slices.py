"""What the page says of groups of test rows, and of the gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, figure, joined, table, tag
from reglaj.evaluation.report.plan import Block, Document, Figure
from reglaj.evaluation.report.plots import Dot, dots_and_intervals
from reglaj.evaluation.report.words import (
    count,
    level,
    number,
    percent,
    plural,
    shown,
    shown_difference,
    span,
)


def verdict(document: Document) -> tuple[str, str]:
    """(good | open | bad, a few words) for the mark on top of the page: a gate that failed, or what the task says."""
    kind, words = document.plan.verdict(document)
    judged = document.report.get("gate")
    if not judged:
        return kind, words
    failed = sum(not rule["passed"] for rule in judged["rules"])
    if failed:
        return "bad", f"The gate failed: {failed} of {plural(len(judged['rules']), 'rule')}"
    return kind, f"{words}; the gate passed" if words else "The gate passed"


def gate(document: Document) -> Block | None:
    """Each rule with the end of the interval that counts."""
    judged = document.report.get("gate")
    if not judged:
        return None
    rows: list[list[Any]] = []
    for rule in judged["rules"]:
        measured = rule["figure"]
        is_share = _is_share(document, rule["of"])
        where = _group_title(rule["slice"], rule["group"]) if rule.get("group") is not None else "all test rows"
        rows.append(
            [
                tag("code", rule["rule"]),
                tag("b", "holds" if rule["passed"] else "fails", class_="passed" if rule["passed"] else "failed"),
                f"{'lower' if rule['end'] == 'low' else 'upper'} end",
                where if measured else rule["told"],
                shown(measured, is_share=is_share) if measured else "not measured",
            ]
        )
    lead = (
        "What the recipe asks of the figures. The end of the interval that is nearer to failing counts: a rule holds "
        "where the figure is shown to be there. A rule about the worst slice must hold in every group with enough rows."
    )
    headings = ["rule", "", "what counts", "measured on", "figure"]
    body = table(headings, rows, caption="The gate, rule by rule", numeric=(4,), style="gate")
    return Block(anchor="gate", title="The gate", lead=lead, body=body)


def slices(document: Document) -> Block | None:
    """The figures of each group of each slice, and the worst groups."""
    found = document.report.get("slices")
    if not found:
        return None
    figures = document.plan.slice_figures
    parts: list[Any] = [_worst_table(document, found, figures)]
    for name, one in found["by"].items():
        parts.append(tag("h3", f"By {slice_title(name)}"))
        parts.append(_plot(document, name, one, figures[0]))
        parts.append(_figures_of(name, one, figures, found["minimum_rows"]))
    lead = joined([" ".join(slices_told(document)), " Small groups are shown and never judged."])
    return Block(anchor="slices", title="Group by group", lead=lead, body=joined(parts))


def slices_told(document: Document) -> Iterator[str]:
    """The worst group by the leading figure, and whether it is shown to be worse than the rest, in sentences."""
    found = document.report.get("slices") or {}
    figure = document.plan.slice_figures[0] if document.plan.slice_figures else None
    worst = found.get("worst", {}).get(figure.name) if figure else None
    if not figure or not worst:
        if found:
            yield f"No slice has two groups of which one has {found['minimum_rows']} test rows, so none is judged."
        return
    write, title = percent if figure.is_share else number, figure.title.lower()
    yield (
        f"Worst by {title}: {_group_title(worst['slice'], worst['group'])}, {write(worst['value'])} "
        f"({span(worst, is_share=figure.is_share)}) on {plural(worst['rows'], 'row')}"
    ) + (f"; outside of it {write(worst['rest']['value'])}." if "rest" in worst else ".")
    if "difference" not in worst:
        return
    # How much worse it is, as a number above zero where it is.
    sign, difference = (1 if figure.lower_is_better else -1), worst["difference"]
    low, high = sorted(sign * difference[end] for end in ("low", "high"))
    amount, low, high = (
        number(100 * one, 1) if figure.is_share else number(one) for one in (sign * difference["value"], low, high)
    )
    groups, unit = plural(worst["of_groups"], "group"), " points" if figure.is_share else ""
    if worst["is_shown"]:
        yield f"It is worse by {amount}{unit} ({low} to {high}, for having been chosen among {groups})."
    else:
        yield f"Of {groups} one is always the worst: the difference of {amount}{unit} ({low} to {high}) may be chance."


def slice_title(name: str) -> str:
    """How a sentence calls a slice."""
    from reglaj.evaluation.config import COLUMN

    return {"length": "length of the text", "language": "language of the text"}.get(name, name.removeprefix(COLUMN))


def group_title(name: str, group: str) -> str:
    """How a table calls a group: languages by their name."""
    if name != "language":
        return group
    from reglaj.data.languages import LANGUAGES

    return f"{LANGUAGES[group]} ({group})" if group in LANGUAGES else group


def _group_title(name: str, group: str) -> str:
    return f"{slice_title(name)} = {group_title(name, group)}"


def _is_share(document: Document, name: str) -> bool:
    every = (*document.plan.figures, *document.plan.slice_figures)
    return next((one.is_share for one in every if one.name == name), False)


def _worst_table(document: Document, found: Mapping[str, Any], figures: Sequence[Figure]) -> Markup | str:
    rows: list[list[Any]] = []
    for one in figures:
        worst = found["worst"].get(one.name)
        if not worst:
            continue
        rest, difference = worst.get("rest"), worst.get("difference")
        verdict = "shown to be worse" if worst.get("is_shown") else "may be chance"
        rows.append(
            [
                one.title,
                _group_title(worst["slice"], worst["group"]),
                exact(worst["rows"], count(worst["rows"])),
                shown(worst, is_share=one.is_share),
                shown(rest, is_share=one.is_share) if rest else "",
                shown_difference(difference, is_share=one.is_share) if difference else "",
                verdict if difference else "",
            ]
        )
    if not rows:
        return ""
    told = f"The worst group by each figure, of up to {plural(found['judged_groups'], 'group')} that are judged"
    headings = ["figure", "worst group", "rows", "in it", "outside of it", "difference, for having been chosen", ""]
    return table(headings, rows, caption=told, numeric=(2, 3, 4, 5), style="wide")


def _plot(document: Document, name: str, one: Mapping[str, Any], leading: Figure) -> Markup | str:
    whole = document.report["test"].get(leading.name)
    groups = [group for group in one["groups"] if leading.name in group["figures"]]
    if not whole or not groups:
        return ""
    drawn = [
        ("all test rows", whole, True),
        *((group_title(name, group["group"]), group["figures"][leading.name], False) for group in groups),
    ]
    dots = [
        Dot(label=_short(label), is_ours=ours, **{key: values[key] for key in ("value", "low", "high")})
        for label, values, ours in drawn
    ]
    write = (lambda v: percent(v, 0)) if leading.is_share else (lambda v: number(v, 2))
    cells = [shown(values, is_share=leading.is_share) for _, values, _ in drawn]
    plot = dots_and_intervals(dots, write, cells, alternative=f"{leading.title} of each group")
    told = f"{leading.title} with {level(document.confidence)} intervals. The band is that of all test rows."
    minimum = document.report["slices"]["minimum_rows"]
    few = sum(group["rows"] < minimum for group in groups)
    if few:
        told += f" {plural(few, 'group has', 'groups have')} fewer than {minimum} rows: read the interval."
    return figure(plot, told + (" Lower is better." if leading.lower_is_better else ""))


def _figures_of(name: str, one: Mapping[str, Any], figures: Sequence[Figure], minimum: int) -> Markup:
    present = [figure for figure in figures if any(figure.name in group["figures"] for group in one["groups"])]
    rows = [
        [
            group_title(name, group["group"]),
            exact(group["rows"], count(group["rows"]) + (" (few)" if group["rows"] < minimum else "")),
            *(
                shown(group["figures"][figure.name], is_share=figure.is_share)
                if figure.name in group["figures"]
                else ""
                for figure in present
            ),
        ]
        for group in one["groups"]
    ]
    headings = ["group", "test rows", *(figure.title for figure in present)]
    style = "wide" if len(present) > 4 else ""
    caption = f"By {slice_title(name)}"
    return table(headings, rows, caption=caption, numeric=range(1, len(headings)), style=style)


def _short(text: str, most: int = 36) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def sentences_for_card(document: Document) -> list[str]:
    """What the model card says: the gate rule by rule, and the worst group. It names groups and quotes no row."""
    told = []
    judged = document.report.get("gate")
    if judged:
        told.append(f"Gate: {'passed' if judged['passed'] else '**failed**'}.")
        told += [str(rule["told"]) + "." for rule in judged["rules"]]
    return [*told, *slices_told(document)]
