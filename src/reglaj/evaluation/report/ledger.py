"""Where the rows went: every record read, in the one place it ended in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, figure, joined, table, tag
from reglaj.evaluation.report.plan import Block, Document
from reglaj.evaluation.report.words import count, percent, plural

_PARTS = {
    "train": "the model learns from these",
    "validation": "every choice, such as when to stop, looks at these",
    "test": "sealed until the end; the figures of this page are about these",
}
_REASONS = {
    "unreadable": "bytes or syntax that cannot be read",
    "ragged": "another number of cells than the header, or a key missing",
    "empty_text": "nothing but white space to learn from",
    "empty_label": "no label",
    "exact_duplicate": "equal text and equal label; the first one was kept",
    "contradictory_label": "equal text under different labels",
    "rare_label": "a label with too few rows to be in all three parts",
    "near_duplicate_across_parts": "nearly the same text in a later part, or in what an earlier run learnt from",
    "group_across_parts": "of a group that has a row in a later part",
    "time_across_parts": "later than the first row of a later part",
    "contaminated": "nearly the same text in an evaluation set that the recipe names",
    "no_time": "no date that can be read, where the split goes by time",
    "no_supervised_token": "nothing left to learn from after tokenising",
    "too_long": "longer than the model can read",
    "broken_turns": "turns of a conversation in an impossible order",
    "filtered": "left out because the recipe says so",
    "label_error": "a label that is likely wrong, taken out because the recipe says so",
    "outlier": "far from every other text, taken out because the recipe says so",
    "boilerplate": "boilerplate or markup, taken out because the recipe says so",
    "other_language": "in a language that the recipe does not keep",
    "forgotten": "removed on request",
}


def where_rows_went(document: Document) -> Block | None:
    """Parts and drop reasons as a plot that splits up, and as a table whose sum is checked on the page."""
    data = document.report.get("data")
    return rows_account(data, _notes(document), _PARTS["test"]) if data else None


def rows_account(data: Mapping[str, Any], notes: Sequence[str], about_test: str) -> Block:
    """The account of a data report. notes: what is to be known beside the numbers. about_test: what the page does
    with the test rows."""
    dropped = {reason: n for reason, n in sorted(data.get("dropped", {}).items(), key=lambda item: -item[1]) if n}
    parts = {part: data.get(part, 0) for part in _PARTS}
    kept, gone, read = sum(parts.values()), sum(dropped.values()), data["read"]
    balances = read == kept + gone
    lead = f"{plural(read, 'record')} read; {count(kept)} kept and {count(gone)} dropped. "
    lead += "Each ended in exactly one place." if balances else "These numbers do not add up: do not trust this run."
    body = joined(
        [
            figure(
                _flow(read, parts, dropped),
                "Widths are shares; the smallest boxes are drawn a little wider.",
            ),
            tag("div", _table(read, parts, dropped, balances, about_test), class_="narrow-table"),
            tag("ul", *(tag("li", note) for note in notes), class_="plain") if notes else "",
        ]
    )
    return Block(anchor="rows", title="Where the rows went", lead=lead, body=body)


def _flow(read: int, parts: dict[str, int], dropped: dict[str, int]) -> Markup:
    kept = [(part, n, f"p{i}") for i, (part, n) in enumerate(parts.items(), start=1)]
    gone = [(_plain(reason), n, f"d{min(i, 3)}") for i, (reason, n) in enumerate(dropped.items(), start=1)]
    groups = [_group(read, "kept", kept), *([_group(read, "dropped", gone)] if gone else [])]
    told = "; ".join(f"{name} {count(n)}" for name, n, _ in kept + gone)
    drawn = [tag("div", _box(read, "read", read, ""), class_="level"), tag("div", *groups, class_="groups")]
    return tag("div", *drawn, class_="flow", role="img", aria_label=f"Of {count(read)}: {told}")


def _group(read: int, name: str, leaves: Sequence[tuple[str, int, str]]) -> Markup:
    """A box with the boxes it splits into below it, so that edges stay in line whatever the gaps."""
    total = sum(n for _, n, _ in leaves)
    whole = tag("div", _box(read, name, total, ""), class_="level")
    split = tag("div", *(_box(read, leaf, n, kind) for leaf, n, kind in leaves), class_="level")
    return tag("div", whole, split, class_="group", style=f"flex-grow:{max(total, read * 0.01):g}")


def _box(read: int, name: str, n: int, kind: str) -> Markup:
    # A narrow box keeps its colour and loses its letters; the table has them.
    is_slim = n / max(1, read) < 0.085
    classes = " ".join(filter(None, ["box", kind, "slim" if is_slim else ""]))
    inside = (tag("b", count(n)), tag("span", name))
    return tag("div", *inside, class_=classes, style=f"flex-grow:{n or 0.001:g}", title=f"{name}: {count(n)}")


def _table(read: int, parts: dict[str, int], dropped: dict[str, int], balances: bool, about_test: str) -> Markup:
    meanings = {**_PARTS, "test": about_test}

    def row(name: str, n: int, meaning: str, kind: str) -> list[Markup]:
        title = joined([tag("span", class_=f"swatch {kind}"), name])
        return [title, exact(n, count(n)), joined([percent(n / read if read else 0.0)]), joined([meaning])]

    rows = [row(part, n, meanings[part], f"p{i}") for i, (part, n) in enumerate(parts.items(), start=1)]
    rows += [
        row(f"dropped: {_plain(reason)}", n, _REASONS.get(reason, ""), f"d{min(i, 3)}")
        for i, (reason, n) in enumerate(dropped.items(), start=1)
    ]
    verdict = "equals the records read" if balances else f"differs from the {count(read)} records read"
    total = sum(parts.values()) + sum(dropped.values())
    rows.append([tag("b", "sum"), tag("b", count(total)), joined([""]), tag("b", verdict)])
    caption = "Every bucket of the ledger; rejects.jsonl lists each dropped record with file, line and reason"
    return table(["bucket", "records", "share", "meaning"], rows, caption=caption, numeric=(1, 2))


def _notes(document: Document) -> list[str]:
    notes = [str(note) for note in document.report["data"].get("notes", [])]
    cut = {part: n for part, n in (document.report.get("cut_texts") or {}).items() if n}
    if cut:
        told = ", ".join(f"{count(n)} in {part}" for part, n in cut.items())
        notes.append(
            f"Longer than {document.report.get('max_tokens', 'the maximum of')} tokens and "
            f"{document.plan.too_long}: {told}."
        )
    return notes


def _plain(reason: str) -> str:
    return reason.replace("_", " ")
