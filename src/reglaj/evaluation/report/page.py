"""The page around the sections: one file that fetches nothing and runs nothing."""

from __future__ import annotations

from reglaj.evaluation.report.markup import Markup, joined, tag
from reglaj.evaluation.report.plan import Block, Document, Figure
from reglaj.evaluation.report.style import STYLE
from reglaj.evaluation.report.words import level, shown

# The browser itself refuses whatever would load or run: a row of the data that slipped through could do nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render_page(document: Document) -> str:
    """The whole of report.html."""
    blocks = [block for make in document.plan.sections if (block := make(document)) is not None]
    contents = [tag("li", tag("a", block.title, href=f"#{block.anchor}")) for block in blocks]
    page = tag(
        "html",
        _head(document),
        tag(
            "body",
            tag("a", "Skip to the results", href=f"#{blocks[0].anchor}" if blocks else "#top", class_="skip"),
            tag(
                "div",
                _top(document),
                tag("nav", tag("ol", *contents), class_="contents", aria_label="Sections"),
                tag("main", *(_section(block) for block in blocks)),
                tag("footer", _closing(document)),
                class_="layout",
                id="top",
            ),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _head(document: Document) -> Markup:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{document.name}: evaluation report"),
        tag("style", Markup(STYLE)),
    )


def _top(document: Document) -> Markup:
    report = document.report
    facts = [report.get("task"), report.get("method"), report.get("model"), report.get("run")]
    kind, verdict = document.plan.verdict(document)
    tiles = [_tile(document, figure) for figure in document.plan.figures if figure.name in report["test"]]
    return tag(
        "header",
        tag(
            "p",
            tag("b", "reglaj"),
            tag("span", "evaluation report"),
            *(tag("span", f) for f in facts if f),
            class_="brand",
        ),
        tag("h1", document.name),
        tag("p", document.plan.headline(document), class_="headline"),
        tag("p", verdict, class_=f"verdict {kind}") if verdict else "",
        tag("dl", *tiles, class_="tiles"),
        class_="top",
    )


def _tile(document: Document, figure: Figure) -> Markup:
    value = shown(document.report["test"][figure.name], is_share=figure.is_share)
    return tag("div", tag("dt", figure.title), tag("dd", value), tag("dd", figure.meaning, class_="note"))


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
