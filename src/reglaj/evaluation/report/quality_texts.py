"""Sections on the texts themselves: how long they are, which languages they are in, how they were encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, figure, folded, joined, table, tag
from reglaj.evaluation.report.plan import Block
from reglaj.evaluation.report.plots import Axis, histogram
from reglaj.evaluation.report.quality_plots import Bar, bars, quotes
from reglaj.evaluation.report.words import count, number, percent, plural

_LANGUAGES_SHOWN = 12


def lengths(data: Mapping[str, Any], quality: Mapping[str, Any]) -> Block | None:
    """Tokens of each role as a histogram, with the context and what would be cut."""
    roles = {role: values for role, values in (quality.get("tokens") or {}).items() if _can_be_drawn(values)}
    if not roles:
        return None
    plots = [_histogram(role, values) for role, values in roles.items()]
    names = [name for name in ("p50", "p95", "p99", "max") if any(name in values for values in roles.values())]
    titles = {"p50": "median", "p95": "95% have at most", "p99": "99% have at most", "max": "longest"}
    rows = [
        [role, *(_figure(v.get(n)) for n in names), _figure(v.get("context")), _figure(v.get("cut")), _share(v)]
        for role, v in roles.items()
    ]
    headings = ["", *(titles[name] for name in names), "context", "longer", "share"]
    if any(values.get("lost_tokens") for values in roles.values()):
        headings.append("tokens lost")
        rows = [[*row, _figure(v.get("lost_tokens"))] for row, v in zip(rows, roles.values(), strict=True)]
    numbers = table(headings, rows, caption="Tokens", numeric=range(1, len(headings)))
    lead = "Tokens as the recipe's own tokenizer makes them, beside the longest example that the model will read."
    body = joined([tag("div", *plots, class_="pair" if len(plots) > 1 else None), numbers])
    return Block(anchor="lengths", title="How long the texts are", lead=lead, body=body)


def _can_be_drawn(values: Mapping[str, Any]) -> bool:
    counts, edges = values.get("counts") or [], values.get("edges") or []
    return any(counts) and len(edges) == len(counts) + 1


def _histogram(role: str, values: Mapping[str, Any]) -> Markup:
    context, cut = values.get("context"), values.get("cut") or 0
    total = sum(values["counts"])
    share = values.get("cut_share", cut / total)
    if context is None:
        told = f"{role}: {plural(total, 'text')}."
    elif cut:
        told = f"{role}: {count(cut)} of {count(total)} ({percent(share, 2)}) are longer than {count(context)} tokens."
    else:
        told = f"{role}: all {count(total)} fit into {count(context)} tokens."
    if values.get("dropped"):
        told += f" {plural(values['dropped'], 'more was', 'more were')} dropped as too long."
    edges = values["edges"]
    if len(edges) > 2 and edges[-1] - edges[-2] > 1.5 * (edges[-2] - edges[-3]):
        told += f" The last bar holds all from {_edge(edges[-2])} tokens on."
    plot = histogram(
        values["counts"],
        edges,
        x=Axis(title="tokens", write=_edge),
        y=Axis(title="texts", write=count),
        alternative=told,
        mark=context,
    )
    legend = [("box", "read whole"), ("box wrong", "too long")] if cut else []
    if context is not None and values["edges"][0] <= context <= values["edges"][-1]:
        legend.append(("mark", f"context: {count(context)}"))
    return figure(plot, told, legend)


def _edge(value: float) -> str:
    return count(value) if float(value).is_integer() or value >= 100 else number(value, 1)


def _figure(value: float | None) -> Any:
    return "" if value is None else exact(value, _edge(value))


def _share(values: Mapping[str, Any]) -> Any:
    share = values.get("cut_share")
    return "" if share is None else exact(share, percent(share, 2))


def languages(data: Mapping[str, Any], quality: Mapping[str, Any]) -> Block | None:
    """Languages by share of the records."""
    found = quality.get("languages") or []
    if not found:
        return None
    rows = [
        Bar(
            name=one.get("name") or one.get("language"),
            pieces=[(one["count"], "rest" if one.get("language") in (None, "unsure") else "")],
            value=joined([exact(one["count"], count(one["count"])), " ", _quiet_share(one.get("share"))]),
        )
        for one in found
    ]
    total = float(sum(one["count"] for one in found))
    shown = bars(rows[:_LANGUAGES_SHOWN], alternative="Records by language", most=total)
    rest = rows[_LANGUAGES_SHOWN:]
    more = folded(f"{plural(len(rest), 'more language')}", bars(rest, alternative="Rarer languages", most=total))
    first = found[0]
    lead = f"{first.get('name') or first.get('language')} in {percent(first['count'] / total)} of the texts looked at. "
    lead += "The language of a very short text is a guess."
    body = joined([figure(shown, ""), more if rest else ""])
    return Block(anchor="languages", title="Languages", lead=lead, body=body)


def _quiet_share(share: float | None) -> Any:
    return "" if share is None else tag("span", "(", exact(share, percent(share)), ")", class_="bounds")


def encodings(data: Mapping[str, Any], quality: Mapping[str, Any]) -> Block | None:
    """How each source was decoded, and texts that were decoded wrongly before they came here."""
    values = quality.get("encodings") or {}
    sources: Mapping[str, Any] = values.get("sources") or {}
    examples = values.get("examples") or []
    if not sources and not examples:
        return None
    body: list[Any] = []
    if sources:
        rows = [[tag("span", name, dir="auto"), tag("code", code or "its own")] for name, code in sources.items()]
        body.append(tag("div", table(["file", "read as"], rows, caption="Sources"), class_="narrow-table"))
    if examples:
        body += [tag("h3", "Texts that were decoded wrongly"), quotes([_mended(one) for one in examples])]
    return Block(anchor="encodings", title="Encodings", lead=_encodings_told(values), body=joined(body))


def _mended(one: Any) -> Any:
    """An example with the text as it was and as it would be, one below the other."""
    if not isinstance(one, Mapping) or not one.get("note"):
        return one
    rest = {key: value for key, value in one.items() if key not in ("text", "note")}
    return {"as it stands": one.get("text"), "as it was meant": one["note"], **rest}


def _encodings_told(values: Mapping[str, Any]) -> str:
    repairable, lost = values.get("repairable") or 0, values.get("lost") or 0
    told = []
    if repairable:
        told.append(f"{plural(repairable, 'text')} had been decoded wrongly before")
        told[-1] += ", and were put right." if values.get("repaired") else ", and can be put right."
    if lost:
        told.append(f"{plural(lost, 'text has', 'texts have')} lost letters (\ufffd) that nothing brings back.")
    return " ".join(told) or "No text looks as if it had been decoded wrongly."
