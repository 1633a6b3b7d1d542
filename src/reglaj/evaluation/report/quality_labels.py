"""Sections on labels: their balance, which ones are likely wrong, and how hard they are to tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, figure, folded, joined, table, tag
from reglaj.evaluation.report.plan import Block
from reglaj.evaluation.report.plots import Axis, Dot, dots_and_intervals, histogram
from reglaj.evaluation.report.quality_findings import examples_of, sentence
from reglaj.evaluation.report.quality_plots import Bar, bars, breakable, quote
from reglaj.evaluation.report.words import count, number, percent, plural

_PARTS = ("train", "validation", "test")
_BARS_SHOWN = 24
"""Labels that are drawn by name; of more, the most frequent and the rarest, and the rest in a table."""
_ENDS_SHOWN = 10
_MOST_COLUMNS = 240
_MOST_NUMBERED = 500
_ERRORS_SHOWN = 12
_TRUSTED = 0.75
"""Share of labels that the judge must agree with before what it flags is taken for errors of the labels."""
_TOO_MANY = 0.3
"""Share of one label that may be flagged before that says more about the judge than about the labels."""
_QUOTE = 240
"""Characters of a text that the table of errors shows at once."""


def balance(data: Mapping[str, Any], quality: Mapping[str, Any]) -> Block | None:
    """How many records each label has, in each part."""
    labels: Mapping[str, Any] = quality.get("labels") or {}
    parts = {part: labels.get(part) or (data.get("labels") or {}).get(part) or {} for part in _PARTS}
    totals: dict[str, int] = {}
    for counts in parts.values():
        for label, rows in counts.items():
            totals[label] = totals.get(label, 0) + rows
    if not totals:
        return None
    ordered = sorted(totals, key=lambda label: (-totals[label], label))
    legend = [(f"box p{i}", part) for i, part in enumerate(_PARTS, start=1) if parts[part]]
    told = "Numbers of every label"
    if len(ordered) > _MOST_NUMBERED:
        told = f"Numbers of the {count(_MOST_NUMBERED)} most frequent labels; report.json has all"
    numbers = folded(told, _numbers(ordered[:_MOST_NUMBERED], parts, totals))
    body = joined([_balance_plot(ordered, parts, totals, legend), numbers])
    return Block(anchor="labels", title="Balance of labels", lead=_balance_told(labels, ordered, totals), body=body)


def _balance_told(labels: Mapping[str, Any], ordered: Sequence[str], totals: Mapping[str, int]) -> str:
    told = f"{plural(len(ordered), 'label')}. The most frequent, {ordered[0]}, has {count(totals[ordered[0]])} records"
    share = labels.get("majority_share")
    told += f" ({percent(share)} of the training records)" if share is not None else ""
    told += f"; the rarest, {ordered[-1]}, has {count(totals[ordered[-1]])}."
    ratio = labels.get("imbalance_ratio")
    return (
        f"{told} In training the most frequent has {number(ratio, 1)} times the records of the rarest."
        if ratio
        else told
    )


def _balance_plot(
    ordered: Sequence[str],
    parts: Mapping[str, Mapping[str, int]],
    totals: Mapping[str, int],
    legend: Sequence[tuple[str, str]],
) -> Markup:
    def drawn(labels: Sequence[str], told: str) -> Markup:
        rows = [
            Bar(
                name=label,
                pieces=[(parts[part].get(label, 0), f"p{i}") for i, part in enumerate(_PARTS, start=1)],
                value=exact(totals[label], count(totals[label])),
            )
            for label in labels
        ]
        return bars(rows, alternative=told, most=float(totals[ordered[0]]))

    if len(ordered) <= _BARS_SHOWN:
        return figure(drawn(ordered, "Records of each label"), "", legend)
    most, fewest = ordered[:_ENDS_SHOWN], ordered[-_ENDS_SHOWN:]
    width = -(-len(ordered) // _MOST_COLUMNS)
    groups = [ordered[i : i + width] for i in range(0, len(ordered), width)]
    means = [round(sum(totals[label] for label in group) / len(group)) for group in groups]
    edges = [1 + i * width for i in range(len(groups) + 1)]
    profile = histogram(
        means,
        edges,
        x=Axis(
            title="labels, from the most frequent to the rarest", write=lambda place: count(min(place, len(ordered)))
        ),
        y=Axis(title="records", write=count),
        alternative=f"Records of {count(len(ordered))} labels in falling order",
        height=150,
    )
    first = figure(drawn(most, "The most frequent labels"), f"the {len(most)} most frequent", legend)
    last = figure(drawn(fewest, "The rarest labels"), f"the {len(fewest)} rarest", legend)
    return joined([figure(profile, ""), tag("div", first, last, class_="pair")])


def _numbers(ordered: Sequence[str], parts: Mapping[str, Mapping[str, int]], totals: Mapping[str, int]) -> Markup:
    whole = sum(totals.values())
    rows = [
        [
            tag("span", label, dir="auto"),
            *(exact(parts[part].get(label, 0), count(parts[part].get(label, 0))) for part in _PARTS),
            exact(totals[label], count(totals[label])),
            percent(totals[label] / whole),
        ]
        for label in ordered
    ]
    return table(["label", *_PARTS, "all", "share"], rows, caption="Records by label and part", numeric=range(1, 6))


def label_errors(data: Mapping[str, Any], quality: Mapping[str, Any]) -> Block | None:
    """Labels that the texts speak against: which, where, and how many of each label."""
    values = quality.get("label_errors")
    if not values:
        return None
    lead = _errors_told(values)
    examples = values.get("examples") or examples_of(quality, "label_errors")
    rows = [_error(one) for one in examples if one.get("part") != "test"]
    head = ["text", "label", "what speaks against it"]
    first = table(head, rows[:_ERRORS_SHOWN], caption="The likeliest errors", style="errors") if rows else ""
    rest = rows[_ERRORS_SHOWN:]
    more = (
        folded(f"{plural(len(rest), 'more row')}", table(head, rest, caption="More likely errors", style="errors"))
        if rest
        else ""
    )
    body = joined([_per_label(values.get("per_label") or {}), _pairs(values.get("pairs") or []), first, more])
    return Block(anchor="label-errors", title="Labels that look wrong", lead=lead, body=body)


def _errors_told(values: Mapping[str, Any]) -> str:
    """How many look wrong, who says so, and how far that judge is to be believed."""
    checked, flagged = values.get("checked") or 0, values.get("flagged") or 0
    told = f"{count(flagged)} of {plural(checked, 'label')} checked look wrong"
    told += f" ({percent(flagged / checked)})." if checked else "."
    told += " A judgement of a model, not the truth: read some before you drop them."
    judge = values.get("probe_accuracy")
    if judge is not None:
        told += f" The judge agrees with {percent(judge)} of all labels"
        told += "." if judge >= _TRUSTED else ", so many of these are its own mistakes."
    if unknown := _unknown_to_the_judge(values.get("per_label") or {}):
        told += f" Of {unknown[0]} it takes {percent(unknown[1], 0)} for another label: "
        told += "more likely it cannot tell that one."
    return f"{told} How: {str(values['method']).rstrip('.')}." if values.get("method") else told


def _unknown_to_the_judge(per_label: Mapping[str, Any]) -> tuple[str, float] | None:
    """The label of which the largest share is flagged, where that is too much to be errors."""
    shares = {
        name: one["flagged"] / one["rows"]
        for name, one in per_label.items()
        if isinstance(one, Mapping) and one.get("rows", 0) >= _ENDS_SHOWN and one.get("flagged")
    }
    worst = max(shares, key=lambda name: (shares[name], name), default=None)
    return (worst, shares[worst]) if worst is not None and shares[worst] > _TOO_MANY else None


def _error(one: Mapping[str, Any]) -> list[Any]:
    place = f"{one.get('source') or ''}:{one.get('line') or ''}".strip(":")
    return [
        tag("div", quote(str(one.get("text", "")), most=_QUOTE), tag("div", place, class_="quiet"), class_="quoted"),
        tag("span", breakable(one.get("label", "")), dir="auto"),
        tag("span", breakable(one.get("note", "")), dir="auto"),
    ]


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> Markup:
    """Which label is taken for which."""
    rows = [
        [
            tag("span", breakable(one.get("label", "")), dir="auto"),
            tag("span", breakable(one.get("looks_like", "")), dir="auto"),
            exact(one.get("count", 0), count(one.get("count", 0))),
        ]
        for one in pairs
        if one.get("count", 0) > 1
    ]
    if not rows:
        return joined([])
    caption = "Which label is taken for which; where that is often, say what sets the two apart, or make them one"
    shown = table(["labelled", "looks like", "records"], rows, caption=caption, numeric=(2,))
    return tag("div", shown, class_="narrow-table")


def _per_label(per_label: Mapping[str, Any]) -> Markup:
    """Bars of flagged labels, the most first; a value is a count or a mapping with `flagged` and `rows`."""
    counts = {name: (v.get("flagged", 0) if isinstance(v, Mapping) else v) for name, v in per_label.items()}
    wholes = {name: v.get("rows") or v.get("checked") for name, v in per_label.items() if isinstance(v, Mapping)}
    ordered = sorted((name for name in counts if counts[name]), key=lambda name: (-counts[name], name))
    if not ordered:
        return joined([])

    def row(name: str) -> Bar:
        whole = wholes.get(name)
        share = f" of {count(whole)}" if whole else ""
        return Bar(
            name=name, pieces=[(counts[name], "wrong")], value=joined([exact(counts[name], count(counts[name])), share])
        )

    most = float(counts[ordered[0]])
    shown = bars(
        [row(name) for name in ordered[:_ENDS_SHOWN]], alternative="Labels that look wrong, by label", most=most
    )
    rest = ordered[_ENDS_SHOWN:_MOST_NUMBERED]
    more = ""
    if rest:
        more = folded(f"{plural(len(rest), 'more label')}", bars([row(n) for n in rest], alternative="More", most=most))
    return joined([figure(shown, "look wrong, by the label that is given"), more])


def difficulty(data: Mapping[str, Any], quality: Mapping[str, Any]) -> Block | None:
    """What a linear probe on frozen embeddings reaches, beside always saying the most frequent label."""
    values = quality.get("difficulty")
    if not values or values.get("value") is None:
        return None
    value = float(values["value"])
    metric = str(values.get("metric", "accuracy")).replace("_", " ").replace("macro f1", "macro-F1")
    low, high = values.get("low"), values.get("high")
    dots = [
        Dot(
            label="linear probe on frozen embeddings",
            value=value,
            low=value if low is None else low,
            high=value if high is None else high,
            is_ours=True,
        )
    ]
    if (majority := values.get("majority")) is not None:
        dots.append(Dot(label="always the most frequent label", value=majority, low=majority, high=majority))
    cells = [joined([exact(d.value, percent(d.value)), _bounds(d)]) for d in dots]
    plot = dots_and_intervals(dots, lambda v: percent(v, 0), cells, alternative=f"{metric} of a first guess")
    folds, rows = values.get("folds"), values.get("rows")
    told = f"{metric} of {count(rows)} records of train and validation" if rows else metric
    told += f", each guessed by a probe that has not seen it ({count(folds)} folds)." if folds else "."
    return Block(
        anchor="difficulty",
        title="How hard it is",
        lead=sentence(values.get("note") or "a first guess, before anything was trained"),
        body=figure(plot, told),
    )


def _bounds(dot: Dot) -> Any:
    if dot.low == dot.high:
        return ""
    inside = [exact(dot.low, percent(dot.low)[:-1]), "–", exact(dot.high, percent(dot.high)[:-1])]
    return tag("span", " (", *inside, ")", class_="bounds")
