"""What a terminal shows of rows that were looked for: file, line, part, and why a row was dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reglaj.cli.page import Page, one_line

_MATCHES = {
    "id": "by its id",
    "place": "at that line",
    "exact": "with exactly this text",
    "inside": "with it inside their text",
}
_PARTS = ("train", "validation", "test")


def read_found(page: Page, answer: Mapping[str, Any]) -> None:
    """The rows that were found, the surest first, and how many there are in all."""
    records, counts = answer["records"], answer["found"]
    told = ", ".join(
        f"{n:,} {_MATCHES[kind]}" for kind, n in sorted(counts.items(), key=lambda item: list(_MATCHES).index(item[0]))
    )
    page.line(f"records found: {told}")
    page.line()
    for one in records:
        place = f"{one_line(str(one['source']))}:{one['line']}"
        page.line(f"{place}  {_bucket(one)}" + (f", label {one_line(str(one['label']), 60)}" if one["label"] else ""))
        if one["reason"]:
            page.line(f"    why: {one_line(str(one['reason']), 300)}")
        page.line(f"    {_text(one)}")
    left = sum(counts.values()) - len(records)
    if left:
        page.line(f"... and {left:,} more; more words of the row make them fewer")
    page.line()
    page.pairs([("data", str(answer["folder"]))])


def _bucket(one: Mapping[str, Any]) -> str:
    return str(one["bucket"]) if one["bucket"] in _PARTS else f"dropped: {one['bucket']}"


def _text(one: Mapping[str, Any]) -> str:
    if one["bucket"] == "test":
        return "(sealed: what it says is not shown)"
    return one_line(str(one["text"] or "(nothing)"), 160)
