"""The page around the sections: one file that fetches nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reglaj.evaluation.report.markup import Markup, joined, tag
from reglaj.evaluation.report.plan import Block, Document, Figure
from reglaj.evaluation.report.slices import verdict
from reglaj.evaluation.report.style import STYLE
from reglaj.evaluation.report.words import level, shown

# The browser itself refuses whatever would load or run: a row of the data that slipped through could do nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What stands above and below the sections of a page.

    kind: what the page is, such as `evaluation report`. facts: what it is about, in a few words each. verdict: (good |
    open | bad, a few words). tiles: from `tile`. style: the style sheet, which must fetch nothing.
    """

    kind: str
    name: str
    facts: Sequence[Any]
    headline: str
    verdict: tuple[str, str]
    tiles: Sequence[Markup]
    closing: Markup
    style: str = STYLE


def render_page(document: Document) -> str:
    """The whole of report.html."""
    report = document.report
    sheet = Sheet(
        kind="evaluation report",
        name=document.name,
        facts=[report.get("task"), report.get("method"), report.get("model"), report.get("run")],
        headline=document.plan.headline(document),
        verdict=verdict(document),
        tiles=[_figure_tile(document, figure) for figure in document.plan.figures if figure.name in report["test"]],
        closing=_closing(document),
    )
    return render_sheet(sheet, [block for make in document.plan.sections if (block := make(document)) is not None])


def render_sheet(sheet: Sheet, blocks: Sequence[Block]) -> str:
    """A whole page: its top, a list of its sections, the sections."""
    contents = [tag("li", tag("a", block.title, href=f"#{block.anchor}")) for block in blocks]
    page = tag(
        "html",
        _head(sheet),
        tag(
            "body",
            tag("a", "Skip to the results", href=f"#{blocks[0].anchor}" if blocks else "#top", class_="skip"),
            tag(
                "div",
                _top(sheet),
                tag("nav", tag("ol", *contents), class_="contents", aria_label="Sections"),
                tag("main", *(_section(block) for block in blocks)),
                tag("footer", sheet.closing),
                class_="layout",
                id="top",
            ),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def tile(title: str, value: Any, meaning: str) -> Markup:
    """A figure of the top of a page."""
    return tag("div", tag("dt", title), tag("dd", value), tag("dd", meaning, class_="note"))


def _head(sheet: Sheet) -> Markup:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{sheet.name}: {sheet.kind}"),
        tag("style", Markup(sheet.style)),
    )


def _top(sheet: Sheet) -> Markup:
    kind, verdict = sheet.verdict
    return tag(
        "header",
        tag(
            "p",
            tag("b", "reglaj"),
            tag("span", sheet.kind),
            *(tag("span", fact) for fact in sheet.facts if fact),
            class_="brand",
        ),
        tag("h1", sheet.name),
        tag("p", sheet.headline, class_="headline"),
        tag("p", verdict, class_=f"verdict {kind}") if verdict else "",
        tag("dl", *sheet.tiles, class_="tiles"),
        class_="top",
    )


def _figure_tile(document: Document, figure: Figure) -> Markup:
    value = shown(document.report["test"][figure.name], is_share=figure.is_share)
    return tile(figure.title, value, figure.meaning)


def _section(block: Block) -> Markup:
    heading = f"{block.anchor}-title"
    lead = tag("p", block.lead, class_="lead") if block.lead else ""
    return tag(
        "section", tag("h2", block.title, id=heading), lead, block.body, id=block.anchor, aria_labelledby=heading
    )


def _closing(document: Document) -> Markup:
    return joined(
        [
            f"In brackets: {level(document.confidence)} intervals. Every figure on this page stands in report.json. ",
            "The page quotes rows of the data: handle it as you handle them. Nothing on it was fetched from a network.",
        ]
    )
