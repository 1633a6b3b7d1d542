"""Sections about conversations: generated answers in figures and side by side, and what was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, folded, joined, table, tag
from reglaj.evaluation.report.plan import Block, Document, Figure
from reglaj.evaluation.report.sections import baseline_title
from reglaj.evaluation.report.words import count, level, number, percent, plural, shown, shown_difference

_LONGEST_SHOWN = 700
"""Characters of a text that stand open; of a longer one as many as `_START`, and the rest behind a line."""
_START = 450
_EXCHANGES_SHOWN = 6


def generated_figures(document: Document, figures: Sequence[Figure]) -> Block | None:
    """Every figure of the generated answers, of the model and beside it of each baseline, with paired differences."""
    test = document.report["test"]
    present = [one for one in figures if one.name in test]
    if not present:
        return None
    headings = ["", "this model"]
    for name in document.compared:
        headings += [baseline_title(name), "model minus it"]
    rows = []
    for one in present:
        row: list[Any] = [tag("span", one.title, tag("span", one.meaning, class_="quiet block"))]
        row.append(tag("b", shown(test[one.name], is_share=one.is_share)))
        for scores in document.compared.values():
            row += _beside(one, scores.get(one.name))
        rows.append(row)
    drawn, scored = test.get("generated_rows", 0), test.get("rows", 0)
    lead = f"Answers were generated to {plural(drawn, 'question')}"
    lead += f", drawn by the seed from the {count(scored)} test rows" if drawn < scored else ", all test rows"
    lead += f", each of at most {plural(test.get('max_new_tokens', 0), 'token')}. "
    lead += "Differences are paired; where shares are compared they are percentage points."
    caption = f"Generated answers, with {level(document.confidence)} intervals"
    body = table(headings, rows, caption=caption, numeric=range(1, len(headings)), style="wide")
    return Block(anchor="generated", title="The generated answers in figures", lead=lead, body=body)


def _beside(one: Figure, theirs: Mapping[str, Any] | None) -> list[Any]:
    if theirs is None:
        return ["", ""]
    value = shown(theirs, is_share=one.is_share)
    if "difference" not in theirs:
        return [value, ""]
    return [value, shown_difference(theirs["difference"], is_share=one.is_share)]


def side_by_side(document: Document) -> Block | None:
    """Question, reference, answer before and answer after, row by row."""
    rows = document.extras.get("answers") or []
    if not rows:
        return None
    drawn = [_exchange(place, row) for place, row in enumerate(rows, start=1)]
    rest = drawn[_EXCHANGES_SHOWN:]
    lead = (
        "As they come: these rows were drawn by the seed, and none was picked for how it turned out. "
        "Read a few: no figure on this page knows whether an answer is true."
    )
    body = joined([*drawn[:_EXCHANGES_SHOWN], folded(f"{plural(len(rest), 'more row')}", *rest) if rest else ""])
    return Block(anchor="answers", title="Answers side by side", lead=lead, body=body)


def _exchange(place: int, row: Mapping[str, Any]) -> Markup:
    source = f"{row.get('source', '')}:{row.get('line', '')}".strip(":")
    after_remarks = [_loss_remark(row.get("nll_per_token")), _ending(row.get("ended"))]
    columns = [_said("Reference", row["reference"], [], kind="reference")]
    if row.get("before") is not None:
        remarks = [_loss_remark(row.get("nll_per_token_before")), _ending(row.get("ended_before"))]
        columns.append(_said("Before training", row["before"], remarks))
    columns.append(_said("After training", row["after"], after_remarks, kind="after"))
    title = tag("h3", f"Question {place}", tag("span", source, class_="quiet"))
    return tag(
        "article",
        tag("div", title, _text(row["prompt"]), class_="asked"),
        tag("div", *columns, class_="told"),
        class_="exchange",
    )


def _said(title: str, text: str, remarks: Sequence[Any], *, kind: str = "") -> Markup:
    told = [tag("span", remark) for remark in remarks if remark]
    below = tag("p", *told, class_="quiet remarks") if told else ""
    return tag("div", tag("h4", title), _text(text), below, class_=f"said {kind}".strip())


def _text(text: str) -> Markup:
    """A text as it is; of a long one the beginning, and all of it on a click."""
    if not text.strip():
        return tag("p", "(nothing)", class_="quiet")
    if len(text) <= _LONGEST_SHOWN:
        # The direction of the text itself decides how it runs: it may be Arabic or Hebrew.
        return tag("div", text, class_="words", dir="auto")
    start = tag("span", f"{text[:_START].rstrip()}…", class_="words start", dir="auto")
    whole = tag("span", f"All {count(len(text))} characters", class_="more")
    return tag("details", tag("summary", start, whole), tag("div", text, class_="words", dir="auto"), class_="long")


def _loss_remark(loss: float | None) -> Any:
    return None if loss is None else joined(["loss of the reference ", exact(loss, number(loss, 2))])


def _ending(ended: str | None) -> str | None:
    # The limit is `max_new_tokens`, or the end of the context where that comes first.
    return {"end": "ended by itself", "length": "cut at the limit", None: None}.get(ended, f"ended by: {ended}")


def trained_on(document: Document) -> Block | None:
    """Conversations as the model reads them, with what was trained on set apart, and what rendering counted."""
    examples: Sequence[Sequence[Any]] = document.extras.get("rendered") or []
    figures: Mapping[str, Any] = (document.report.get("data") or {}).get("rendering") or {}
    if not examples and not figures:
        return None
    body: list[Any] = []
    if examples:
        keys = [
            tag(
                "li", tag("span", "trained on", class_="trained"), " colour and underline: the loss counts these tokens"
            ),
            tag("li", tag("span", "read only", class_="masked"), " grey: the model sees them, the loss does not"),
        ]
        body.append(tag("ul", *keys, class_="legend tokens-legend"))
        body += [_rendered(place, pieces) for place, pieces in enumerate(examples, start=1)]
    if figures:
        rows = [[key.replace("_", " ").capitalize(), _cell(value)] for key, value in figures.items()]
        caption = "What rendering counted, over all records that can be read, duplicates included"
        body.append(tag("div", table(["", ""], rows, caption=caption, numeric=(1,)), class_="narrow-table"))
    return Block(anchor="trained", title="What it was trained on", lead=_share(figures), body=joined(body))


def _share(figures: Mapping[str, Any]) -> str:
    told = "Conversations as the model reads them, with the marks of the chat template. "
    told += "An end mark that is trained on is what makes answers end."
    tokens, supervised = figures.get("tokens"), figures.get("supervised_tokens")
    if tokens and supervised:
        told += f" Of {count(tokens)} tokens, {percent(supervised / tokens, 0)} were trained on."
    return told


def _cell(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return exact(value, count(value) if float(value).is_integer() else number(value))


def _rendered(place: int, pieces: Sequence[Sequence[Any]]) -> Markup:
    spans = [
        # A line end that is trained on would be invisible.
        tag("mark", str(text).replace("\n", "↵\n"), class_="trained")
        if is_trained
        else tag("span", text, class_="masked")
        for text, is_trained in pieces
    ]
    told = f"Training example {place}"
    inner = tag("pre", *spans, class_="tokens", tabindex="0", role="region", aria_label=told, dir="auto")
    return tag("div", tag("p", told, class_="caption"), inner)
