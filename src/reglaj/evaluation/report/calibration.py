"""Whether a classifier's probabilities mean what they say, and what answering only where it is sure gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reglaj.evaluation.report.markup import Markup, exact, figure, folded, joined, table, tag, with_code
from reglaj.evaluation.report.plan import Block, Document
from reglaj.evaluation.report.plots import Axis, Series, line_chart, reliability_chart
from reglaj.evaluation.report.words import count, level, number, p_value, percent, plural, shown, shown_difference

_TITLES = {
    "log_loss": "Log loss",
    "expected_calibration_error": "Calibration error",
    "macro_f1": "Macro-F1",
    "accuracy": "Accuracy",
}
_SHOWN_COVERAGES = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0)


def calibration(document: Document) -> Block | None:
    """The reliability diagram, and what the temperature did."""
    test = document.report["test"]
    curve, error = test.get("calibration_curve"), test.get("expected_calibration_error")
    if not curve or not error:
        return None
    gap = sum(p["rows"] * (p["confidence"] - p["accuracy"]) for p in curve) / sum(p["rows"] for p in curve)
    leaning = "neither too sure nor too unsure on the whole"
    if abs(gap) >= 0.01:
        leaning = f"too {'sure' if gap > 0 else 'unsure'} by {number(abs(gap) * 100, 1)} points on the whole"
    told = f"Where it says 80%, is it right 80% of the time? It is {leaning}."
    plot = reliability_chart(curve, lambda v: percent(v, 0), alternative=f"Reliability diagram. {told}")
    legend = [("mark", "perfectly calibrated"), ("", "this model"), ("box bars", "rows")]
    caption = tag("span", "Expected calibration error: ", shown(error, is_share=True), f", {len(curve)} bins with rows")
    body = tag("div", figure(tag("div", plot, class_="square"), caption, legend), _bins(curve), class_="pair")
    found = test.get("calibration")
    if found:
        told += f" {temperature_told(found)}"
        body = joined([body, _before_and_after(found["test"], "as it came", "as it is served")])
    return Block(anchor="calibration", title="Do its probabilities mean what they say?", lead=told, body=body)


def temperature_told(found: Mapping[str, Any]) -> str:
    """What validation said about a temperature, in a sentence. found: `test.calibration` of a report."""
    rows = plural(found["validation"]["rows"], "validation row")
    if not found["applied"]:
        return (
            f"It is already calibrated, as far as {rows} can tell: the best temperature would be "
            f"{number(found['fitted'], 2)}, and no gain of it is shown, so scores are served as they come."
        )
    way = "less" if found["temperature"] > 1 else "more"
    return (
        f"As it came it was {way} often right than it said, so its scores are divided by "
        f"{number(found['temperature'], 2)}, chosen on {rows}. That changes no order of classes."
    )


def thresholds(document: Document) -> Block | None:
    """Whether answers were chosen for macro-F1, and what that gave."""
    found = document.report["test"].get("thresholds")
    if not found:
        return None
    rows = plural(found["validation"]["rows"], "validation row")
    title = "Answers chosen for macro-F1"
    if not found["applied"]:
        gain = found["validation"]["macro_f1"]["difference"]
        lead = (
            f"The likeliest class is answered: on {rows} no other choice is shown to gain. The best one would change "
            "macro-F1 by "
        )
        body = tag("p", lead, shown_difference(gain, is_share=True), " points, which may be chance.")
        return Block(anchor="thresholds", title=title, body=body)
    how = "the rarer, the more" if found["family"] == "frequency" else "each by what it gains"
    lead = (
        f"Some classes are answered before they are the likeliest ({how}): offsets of their log-probabilities were "
        f"chosen on {rows}. The probabilities that are shown stay as they are."
    )
    ordered = sorted(found["offsets"], key=lambda one: -one["offset"])
    offsets = [[one["label"], exact(one["offset"], number(one["offset"], 2))] for one in ordered]
    told = table(["class", "offset in nats"], offsets, caption="The higher, the earlier it is said", numeric=(1,))
    body = joined([_before_and_after(found["test"], "likeliest class", "as it is served"), folded("The offsets", told)])
    return Block(anchor="thresholds", title=title, lead=lead, body=body)


def abstention(document: Document) -> Block | None:
    """The curve of error over coverage, and what validation promises for some target errors."""
    found = document.report["test"].get("abstention")
    if not found or not found["curve"]:
        return None
    curve: Sequence[Mapping[str, Any]] = found["curve"]
    half = min(curve, key=lambda point: abs(point["coverage"] - 0.5))
    told = (
        f"Of the {percent(half['coverage'], 0)} it is surest of, {percent(half['error']['value'])} are wrong; "
        f"of all, {percent(curve[-1]['error']['value'])}."
    )
    ends = [[(p["coverage"], p["error"][end]) for p in curve] for end in ("value", "low", "high")]
    series = [
        Series(points=ends[1], kind="faint"),
        Series(points=ends[2], kind="faint"),
        Series(points=ends[0], has_dots=True),
    ]
    x = Axis(title="share of the rows that is answered, the surest first", write=lambda v: percent(v, 0))
    y = Axis(title="wrong among the answered", write=lambda v: percent(v, 0))
    plot = figure(
        line_chart(series, x=x, y=y, alternative=f"Error over coverage. {told}"),
        f"Coverage and risk on test, with {level(document.confidence)} intervals",
        [("", "wrong among the answered"), ("faint", "its interval")],
    )
    lead = (
        f"Someone else may answer where the model is unsure. {told} `predict --abstain-below P` withholds what is less "
        "sure than P."
    )
    body = joined([tag("div", plot, _coverages(curve), class_="pair"), _targets(found["targets"], document)])
    return Block(
        anchor="abstention", title="What if it answers only where it is sure?", lead=with_code(lead), body=body
    )


def _coverages(curve: Sequence[Mapping[str, Any]]) -> Markup:
    rows = []
    for wanted in _SHOWN_COVERAGES:
        point = min(curve, key=lambda p: abs(p["coverage"] - wanted))
        row = [
            exact(point["coverage"], percent(point["coverage"], 0)),
            count(point["rows"]),
            exact(point["threshold"], number(point["threshold"])),
            shown(point["error"], is_share=True),
        ]
        if row not in rows:
            rows.append(row)
    headings = ["answered", "rows", "at least so sure", "wrong among them"]
    return table(headings, rows, caption="Numbers of the curve", numeric=(0, 1, 2, 3))


def _targets(targets: Sequence[Mapping[str, Any]], document: Document) -> Markup:
    rows: list[list[Any]] = []
    for one in targets:
        target = exact(one["target_error"], f"at most {percent(one['target_error'], 1).replace('.0%', '%')}")
        if one["threshold"] is None:
            rows.append([target, "validation does not show it", "", "", ""])
            continue
        error = one["error"]
        kept = "kept" if error["value"] <= one["target_error"] else "above, maybe by chance"
        if error["low"] > one["target_error"]:
            kept = "not kept"
        rows.append(
            [
                target,
                exact(one["threshold"], number(one["threshold"])),
                shown(one["coverage"], is_share=True),
                shown(error, is_share=True) if one["rows"] else "",
                kept if one["rows"] else "nothing to judge",
            ]
        )
    headings = ["wrong among the answered", "threshold by validation", "answered on test", "wrong on test", "promise"]
    caption = (
        f"`--target-error`: the threshold at which validation shows, with {level(document.confidence)} confidence, "
        "that no more than so many answers are wrong, and what it does on test"
    )
    return table(headings, rows, caption=caption.replace("`", ""), numeric=(1, 2, 3))


def _before_and_after(figures: Mapping[str, Any], before: str, after: str) -> Markup | str:
    rows = []
    for name, values in figures.items():
        is_share = name != "log_loss"
        paired = values["difference"]
        rows.append(
            [
                _TITLES.get(name, name),
                shown(values["before"], is_share=is_share),
                shown(values["after"], is_share=is_share),
                shown_difference(paired, is_share=is_share),
                exact(paired["p"], p_value(paired["p"])),
            ]
        )
    if not rows:
        return ""
    headings = ["on test", before, after, "difference", "p"]
    return table(headings, rows, caption="Paired: the same test rows each time", numeric=(1, 2, 3, 4))


def _bins(curve: Sequence[Mapping[str, Any]]) -> Markup:
    rows = [
        [
            tag("span", f"{p['low'] * 100:.0f}–{percent(p['high'], 0)}", class_="whole"),
            count(p["rows"]),
            exact(p["confidence"], percent(p["confidence"])),
            shown({"value": p["accuracy"], "low": p["accuracy_low"], "high": p["accuracy_high"]}, is_share=True),
        ]
        for p in curve
    ]
    headings = ["it said", "rows", "mean of what it said", "it was right"]
    return table(headings, rows, caption="Numbers of the diagram", numeric=(1, 2, 3))
