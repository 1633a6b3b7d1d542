"""Bars of named things, and quotes of rows, for the page on the quality of data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reglaj.evaluation.report.markup import Markup, escaped, exact, joined, tag
from reglaj.evaluation.report.words import count

_LONGEST_QUOTE = 400
"""Characters of a text that are shown at once; the rest opens on a click."""
_LONGEST_SHOWN = 6_000
_ABOUT = ("text", "label", "labels", "note", "source", "line", "part", "place", "id", "record")
"""Keys of an example that have a place of their own; every other one is named."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of a bar plot. pieces: (amount, css class), one after the other. value: what stands at its end."""

    name: Any
    pieces: Sequence[tuple[float, str]]
    value: Any


def bars(rows: Sequence[Bar], *, alternative: str, most: float | None = None) -> Markup:
    """Names, bars and figures below each other; `most` is what a whole width stands for (the longest bar if None)."""
    whole = most or max((sum(n for n, _ in row.pieces) for row in rows), default=0.0) or 1.0
    drawn = [
        tag(
            "div",
            tag("div", breakable(row.name), class_="name", dir="auto"),
            tag("div", *(_piece(n / whole, kind) for n, kind in row.pieces if n), class_="track", aria_hidden="true"),
            tag("div", row.value, class_="value"),
            class_="row",
        )
        for row in rows
    ]
    return tag("div", *drawn, class_="bars", role="group", aria_label=alternative)


def _piece(share: float, kind: str) -> Markup:
    return tag("span", class_=kind, style=f"width:{round(100 * share, 3):g}%")


def breakable(name: Any) -> Markup:
    """A name that may go on in the next line after an underscore and the like, where it has no spaces."""
    pieces = re.split(r"(?<=[_/.:\-])(?=\w)", str(name))
    return Markup("<wbr>".join(escaped(piece) for piece in pieces)) if not isinstance(name, Markup) else name


def quote(text: str, most: int = _LONGEST_QUOTE) -> Markup:
    """A text of the data, in the direction that it asks for; of more than `most` characters the beginning, and all of
    it on a click."""
    if not text.strip():
        return tag("span", "(nothing)", class_="quiet")
    if len(text) <= most:
        return tag("div", text, class_="words", dir="auto")
    start = tag("span", f"{text[:most].rstrip()}…", class_="words start", dir="auto")
    shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    told = f"All {count(len(text))} characters" if shown is text else f"The first {count(_LONGEST_SHOWN)} characters"
    summary = tag("summary", start, tag("span", told, class_="more"))
    return tag("details", summary, tag("div", shown, class_="words", dir="auto"), class_="long")


def quotes(examples: Sequence[Any]) -> Markup:
    """Rows of the data as a list: text, label, note, and where each stands."""
    return tag("ul", *(tag("li", _example(one)) for one in examples), class_="quotes") if examples else joined([])


def _example(one: Any) -> Markup:
    if isinstance(one, str):
        return quote(one)
    if not isinstance(one, Mapping):
        return joined([tag("div", _example(part), class_="twin") for part in one])
    if one.get("part") == "test":
        # Whoever made the list: what the sealed part says is not read before the end, not even here.
        return tag("p", "a row of the sealed test part, not quoted", tag("span", _place(one)), class_="quiet remarks")
    texts = [quote(str(one["text"]))] if one.get("text") is not None else []
    texts += [_named(key, value) for key, value in one.items() if key not in _ABOUT and value is not None]
    return joined([*texts, _remarks(one)])


def _named(key: str, value: Any) -> Markup:
    if isinstance(value, int | float):
        told: Any = exact(value, f"{value:,}" if isinstance(value, int) else f"{value:.3g}")
        return tag("div", tag("span", key.replace("_", " "), class_="which"), " ", told, class_="quiet")
    inner = quote(value) if isinstance(value, str) else quotes(value if isinstance(value, list) else [value])
    return tag("div", tag("span", key.replace("_", " "), class_="which"), inner, class_="twin")


def _remarks(one: Mapping[str, Any]) -> Markup:
    labels = one.get("labels") or ([one["label"]] if one.get("label") is not None else [])
    told = [tag("span", "label ", tag("b", label, dir="auto")) for label in labels]
    told += [tag("span", one["note"])] if one.get("note") else []
    told += [tag("span", place)] if (place := _place(one)) else []
    return tag("p", *told, class_="quiet remarks") if told else joined([])


def _place(one: Mapping[str, Any]) -> str:
    where = str(one.get("place") or "") or f"{one.get('source') or ''}:{one.get('line') or ''}".strip(":")
    part = one.get("part")
    return f"{where} ({part})" if where and part else where or str(part or "")
