"""The findings on the quality of data: what matters most first, each with its reason, rows that show it, and what to
do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, folded, joined, tag, with_code
from reglaj.evaluation.report.plan import Block
from reglaj.evaluation.report.quality_plots import quotes
from reglaj.evaluation.report.words import count, listed, percent, plural

LEVELS = {"act": "act", "look": "look", "fine": "fine"}
_EXAMPLES_SHOWN = 3


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
    told = f"{plural(read, 'record')} read, {count(kept)} kept."
    urgent = findings_of(quality, "act") or findings_of(quality, "look")
    return f"{told} {_sentence(urgent[0]['title'])}" if urgent else told


def verdict(quality: Mapping[str, Any]) -> tuple[str, str]:
    """(bad | open | good, how many findings ask for something)."""
    act, look = findings_of(quality, "act"), findings_of(quality, "look")
    if act:
        more = f", {count(len(look))} to look at" if look else ""
        return "bad", f"{plural(len(act), 'finding')} to act on{more}"
    if look:
        return "open", f"{plural(len(look), 'finding')} to look at"
    return ("good", "Nothing found that asks for something") if quality.get("findings") else ("open", "")


def findings(data: Mapping[str, Any], quality: Mapping[str, Any]) -> Block | None:
    """Every finding as a card; those that are fine in a list at the end."""
    every = quality.get("findings") or []
    if not every:
        return None
    cards = [_card(one, is_open=level == "act") for level in ("act", "look") for one in findings_of(quality, level)]
    fine = [tag("li", tag("b", _sentence(one["title"])), " ", _why(one)) for one in findings_of(quality, "fine")]
    ending = (
        folded(f"{plural(len(fine), 'check')} with nothing to do", tag("ul", *fine, class_="plain")) if fine else ""
    )
    lead = (
        "What matters most comes first. `Do` names the key of the recipe that mends it; what is left out that way is "
        "counted among the dropped records. No row of the test part was judged or is quoted."
    )
    if not cards:
        lead = "Nothing here asks for something."
    return Block(anchor="findings", title="Findings", lead=with_code(lead), body=joined([*cards, ending]))


def _card(one: Mapping[str, Any], *, is_open: bool) -> Markup:
    level = LEVELS.get(str(one.get("level")), "look")
    title = tag("h3", _sentence(one["title"]), " ", _share(one))
    do = tag("p", tag("b", "Do "), with_code(str(one["do"])), class_="do") if one.get("do") else ""
    shown: Sequence[Any] = list(one.get("examples") or [])[:_EXAMPLES_SHOWN]
    rows = (
        tag("details", tag("summary", _examples_title(one, len(shown))), quotes(shown), open=is_open) if shown else ""
    )
    inside = tag("div", title, tag("p", _why(one)) if one.get("why") else "", do, rows)
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
    return with_code(str(one.get("why") or ""))


def _sentence(title: Any) -> str:
    text = str(title).strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def checks_told(quality: Mapping[str, Any]) -> list[str]:
    """What looked at the data and how long it took, one sentence or two."""
    told = []
    if quality.get("embedder"):
        told.append(f"Labels, outliers and difficulty were judged on embeddings of {quality['embedder']}.")
    seconds = {name: value for name, value in (quality.get("seconds") or {}).items() if value is not None}
    if seconds:
        parts = [f"{name.replace('_', ' ')} {value:.1f} s" for name, value in seconds.items()]
        told.append(f"Time taken: {listed(parts)}.")
    return told
