"""HTML that escapes by itself: text becomes markup only through `tag`, so no label or row can break out of the page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

_VOID = frozenset({"br", "col", "hr", "meta", "line", "rect", "circle", "polyline", "polygon", "path"})


class Markup(str):
    """HTML that is safe as it stands."""

    __slots__ = ()


def escaped(value: Any) -> Markup:
    """`value` as HTML text; what is `Markup` already stays as it is. Control characters become visible."""
    if isinstance(value, Markup):
        return value
    text = "".join(char if char >= " " or char in "\t\n" else "\ufffd" for char in str(value))
    return Markup(html.escape(text, quote=True))


def joined(parts: Iterable[Any]) -> Markup:
    """Parts one after the other, each escaped where it has to be."""
    return Markup("".join(escaped(part) for part in parts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element. `class_` and `for_` lose their underscore, others become dashes; None and False leave out."""
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{escaped(value)}"')
    opening = f"<{name}{''.join(written)}>"
    if name in _VOID and not children:
        return Markup(opening if name in {"br", "col", "hr", "meta"} else f"{opening[:-1]}/>")
    return Markup(f"{opening}{joined(children)}</{name}>")


def exact(value: float, text: str) -> Markup:
    """A rounded figure that carries the number of report.json, for machines and for tests."""
    return tag("data", text, value=repr(value))


def with_code(sentence: str) -> Markup:
    """A sentence in which what stands between backticks is code."""
    pieces = sentence.split("`")
    return joined(tag("code", piece) if i % 2 else piece for i, piece in enumerate(pieces))


def table(
    headings: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    *,
    caption: str,
    numeric: Sequence[int] = (),
    style: str = "",
) -> Markup:
    """A data table in a region that scrolls sideways by itself; the first cell of a row is its heading.

    headings: none are drawn where all are empty. caption: read out and shown. numeric: columns that are aligned right.
    """

    def kind(column: int) -> str | None:
        return "number" if column in numeric else None

    head = tag("tr", *(tag("th", text, scope="col", class_=kind(i)) for i, text in enumerate(headings)))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row", class_=kind(0)),
            *(tag("td", cell, class_=kind(i)) for i, cell in enumerate(row[1:], start=1)),
        )
        for row in rows
    ]
    titled = tag("thead", head) if any(headings) else ""
    inner = tag("table", titled, tag("tbody", *body), aria_label=caption, class_=style or None)
    # The title stands outside of what scrolls, so that a narrow screen shows all of it.
    title = tag("p", caption, class_="caption", aria_hidden="true")
    return tag("div", title, tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption))


def folded(summary: str, *children: Any) -> Markup:
    """Content behind a line that opens on a click, and is open in print."""
    return tag("details", tag("summary", summary), *children)


def figure(plot: Markup, caption: Any, legend: Sequence[tuple[str, str]] = ()) -> Markup:
    """A plot with its caption; legend: (css class of the key, text)."""
    keys = [tag("li", tag("span", class_=f"key {kind}"), text) for kind, text in legend]
    return tag(
        "figure", tag("ul", *keys, class_="legend") if keys else "", plot, tag("figcaption", caption) if caption else ""
    )
