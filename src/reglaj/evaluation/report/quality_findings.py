"""The findings on the quality of data: what matters most first, each with its reason, rows that show it, and what to
do."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, folded, joined, tag, with_code
from reglaj.evaluation.report.plan import Block
from reglaj.evaluation.report.quality_plots import quotes
from reglaj.evaluation.report.words import count, duration, listed, percent, plural

LEVELS = {"act": "act", "look": "look", "fine": "fine"}
_EXAMPLES_SHOWN = 3
_SECONDS = 0.1
"""Checks that took less are not named in the account of the time."""
_KEY = re.compile(r"\b(data|train|evaluate|model|method)\.[a-z_]+(\.[a-z_]+)*(=\w+(\.\w+)*)?")
_WHERE = {
    "leakage": "split",
    "contradictory": "rows",
    "label_errors": "label-errors",
    "near_duplicates": "near-duplicates",
    "contained": "near-duplicates",
    "semantic": "near-duplicates",
    "duplicates": "rows",
    "truncation": "lengths",
    "imbalance": "labels",
    "few_rows": "labels",
    "languages": "languages",
    "encodings": "encodings",
    "boilerplate": "odd-rows",
    "outliers": "odd-rows",
    "many_answers": "odd-rows",
    "difficulty": "difficulty",
}
"""The section that shows more of a finding."""


def findings_of(quality: Mapping[str, Any], level: str) -> list[Mapping[str, Any]]:
    """The findings of one level, in their order."""
    return [one for one in quality.get("findings") or [] if one.get("level", "look") == level]


def examples_of(quality: Mapping[str, Any], name: str) -> list[Any]:
    """The examples of the finding with that id."""
    found = (one for one in quality.get("findings") or [] if one.get("id") == name)
    return next((list(one.get("examples") or []) for one in found), [])


def headline(data: Mapping[str, Any], quality: Mapping[str, Any]) -> str:
    """What was read, and the finding that matters most."""
    read, kept = data.get("read", 0), sum(data.get(part) or 0 for part in ("train", "validation", "test"))
    told = f"{plural(read, 'record')} read, {'all' if kept == read else count(kept)} kept."
    urgent = findings_of(quality, "act") or findings_of(quality, "look")
    return f"{told} {sentence(urgent[0]['title'])}" if urgent else told


def verdict(quality: Mapping[str, Any]) -> tuple[str, str]:
    """(bad | open | good, how many findings ask for something)."""
    act, look = findings_of(quality, "act"), findings_of(quality, "look")
    if act:
        more = f", {count(len(look))} to look at" if look else ""
        return "bad", f"{plural(len(act), 'finding')} to act on{more}"
    if look:
        return "open", f"{plural(len(look), 'finding')} to look at"
    return ("good", "Nothing found that asks for something") if quality.get("findings") else ("open", "")


def findings(quality: Mapping[str, Any], anchors: Container[str]) -> Block | None:
    """Every finding as a card, those that are fine in a list at the end. anchors: of the sections below."""
    every = quality.get("findings") or []
    if not every:
        return None
    urgent = [one for level in ("act", "look") for one in findings_of(quality, level)]
    cards = [_card(one, anchors) for one in urgent]
    fine = [tag("li", tag("b", sentence(one["title"])), " ", _why(one)) for one in findings_of(quality, "fine")]
    ending = (
        folded(f"{plural(len(fine), 'check')} with nothing to do", tag("ul", *fine, class_="plain")) if fine else ""
    )
    lead = (
        "What matters most comes first, with what to do about it. Records that a key of `data.clean` leaves out are "
        "counted among the dropped ones. No row of the test part is judged or quoted on this page."
    )
    if not cards:
        lead = "Nothing here asks for something."
    return Block(anchor="findings", title="Findings", lead=with_code(lead), body=joined([*cards, ending]))


def _card(one: Mapping[str, Any], anchors: Container[str]) -> Markup:
    level = LEVELS.get(str(one.get("level")), "look")
    title = tag("h3", sentence(one["title"]), " ", _share(one))
    do = tag("p", tag("b", "Do "), _told(one["do"]), class_="do") if one.get("do") else ""
    shown: Sequence[Any] = list(one.get("examples") or [])[:_EXAMPLES_SHOWN]
    rows = (
        tag("details", tag("summary", _examples_title(one, len(shown))), quotes(shown), open=level == "act")
        if shown
        else ""
    )
    anchor = _WHERE.get(str(one.get("id")), "")
    more = tag("p", tag("a", "More below", href=f"#{anchor}"), class_="quiet") if anchor in anchors else ""
    inside = tag("div", title, tag("p", _why(one)) if one.get("why") else "", do, rows, more)
    return tag("article", tag("span", level, class_="mark"), inside, class_=f"finding {level}")


def _examples_title(one: Mapping[str, Any], shown: int) -> str:
    total = one.get("count")
    if shown == total or not isinstance(total, int):
        return plural(shown, "example")
    return f"{plural(shown, 'example')} of {count(total)}"


def _share(one: Mapping[str, Any]) -> Markup:
    share = one.get("share")
    if not isinstance(share, int | float) or not share:
        return joined([])
    return tag("span", exact(share, percent(share)), class_="count")


def _why(one: Mapping[str, Any]) -> Markup:
    return _told(one.get("why") or "")


def _told(text: Any) -> Markup:
    """A sentence in which keys of the recipe are code, whether it says so with backticks or not."""
    told = sentence(text) if str(text).strip() else ""
    return with_code(told if "`" in told else _KEY.sub(r"`\g<0>`", told))


def sentence(title: Any) -> str:
    """With a capital at its start and a full stop at its end."""
    text = str(title).strip().rstrip(" ;,")
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def checks_told(quality: Mapping[str, Any]) -> list[str]:
    """What looked at the data, at how many rows, and how long it took, in a few sentences."""
    told = []
    looked: Mapping[str, Any] = quality.get("looked_at") or {}
    if looked.get("rows"):
        told.append(f"{plural(looked['rows'], 'record')} of train and validation were looked at.")
    if quality.get("embedder"):
        told.append(f"What takes a model was judged on embeddings of {quality['embedder']}.")
        if looked.get("sampled"):
            told[-1] = f"{told[-1][:-1]}, on a sample of {count(looked['sampled'])} records."
    elif quality.get("embedder_note"):
        told.append(sentence(quality["embedder_note"]))
    seconds = {name: value for name, value in (quality.get("seconds") or {}).items() if value and value >= _SECONDS}
    whole = seconds.pop("all", None)
    if seconds:
        parts = [f"{name.replace('_', ' ')} {value:.1f} s" for name, value in seconds.items()]
        told.append(f"Time taken: {listed(parts)}{f', {duration(whole)} in all' if whole else ''}.")
    return told
