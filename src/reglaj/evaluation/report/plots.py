"""Plots as inline SVG, without a library and without a script.

Positions are percentages and text is HTML beside the drawing, so that a plot takes the width it is given and its
letters keep their size, on a telephone as on paper. Every plot has a text alternative; its numbers stand in a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reglaj.evaluation.report.markup import Markup, tag

_SVG = "http://www.w3.org/2000/svg"
Write = Callable[[float], str]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A range of values and round ticks in it."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where `value` lies, in percent of the range."""
        return round(100 * (value - self.low) / (self.high - self.low), 3)


def round_scale(
    low: float, high: float, *, most: int = 6, floor: float | None = None, ceiling: float | None = None
) -> Scale:
    """A scale with round ends around [low, high], at most `most` ticks, never beyond floor and ceiling."""
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    start, end = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    if floor is not None:
        start = max(start, floor)
    if ceiling is not None:
        end = min(end, ceiling)
    first = math.ceil(start / step - 1e-9)
    ticks = tuple(round(i * step, 10) for i in range(first, math.floor(end / step + 1e-9) + 1))
    return Scale(low=start, high=end, ticks=ticks)


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One row of a dot-and-interval plot."""

    label: str
    value: float
    low: float
    high: float
    is_ours: bool = False


def dots_and_intervals(dots: Sequence[Dot], write: Write, values: Sequence[Markup], *, alternative: str) -> Markup:
    """Rows of label, dot with interval, figure; the interval of our own row is a band behind all of them."""
    scale = round_scale(min(d.low for d in dots), max(d.high for d in dots), floor=0.0)
    ours = next((d for d in dots if d.is_ours), None)
    rows = []
    for dot, value in zip(dots, values, strict=True):
        kind = "ours" if dot.is_ours else ""
        rows.append(
            tag(
                "div",
                tag("div", dot.label, class_=f"label {kind}"),
                tag("div", _track(dot, ours, scale), class_="track", aria_hidden="true"),
                tag("div", value, class_=f"value {kind}"),
                class_="row",
            )
        )
    ticks = tag("div", *_ticks(scale, write, "left"), class_="ticks", aria_hidden="true")
    return tag("div", *rows, ticks, class_="dots", role="group", aria_label=alternative)


def _track(dot: Dot, ours: Dot | None, scale: Scale) -> Markup:
    kind = "ours" if dot.is_ours else ""
    parts = [_line(scale.at(t), 0, scale.at(t), 100, "grid") for t in scale.ticks]
    if ours is not None:
        left, right = scale.at(ours.low), scale.at(ours.high)
        parts.insert(
            0, tag("rect", x=f"{left}%", y=0, width=f"{round(right - left, 3)}%", height="100%", class_="band")
        )
    parts.append(_line(scale.at(dot.low), 50, scale.at(dot.high), 50, f"range {kind}"))
    parts.append(_circle(scale.at(dot.value), 50, 6.5 if dot.is_ours else 5.5, f"dot {kind}"))
    return tag("svg", *parts, xmlns=_SVG, width="100%", height=36)


def small_interval(low: float, value: float, high: float) -> Markup:
    """A dot with its interval on a line from 0 to 1, for the cell of a table."""
    parts = [_line(t, 0, t, 100, "grid") for t in (0, 25, 50, 75, 100)]
    parts.append(_line(round(low * 100, 2), 50, round(high * 100, 2), 50, "range ours"))
    parts.append(_circle(round(value * 100, 2), 50, 4.5, "dot ours"))
    return tag("svg", *parts, xmlns=_SVG, width="100%", height=18, aria_hidden="true")


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a chart. kind: `` (ours), `second` or `faint`; has_dots marks each of its points."""

    points: Sequence[tuple[float, float]]
    kind: str = ""
    has_dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Axis:
    """How an axis is called and written."""

    title: str
    write: Write


def line_chart(
    series: Sequence[Series], *, x: Axis, y: Axis, alternative: str, mark: float | None = None, height: int = 240
) -> Markup:
    """Lines over a common x that starts at 0; `mark` is a dashed upright line."""
    every = [point for line in series for point in line.points]
    last = max(p[0] for p in every)
    across = round_scale(0.0, last)
    across = Scale(low=0.0, high=last, ticks=tuple(t for t in across.ticks if t <= last))
    up = round_scale(min(p[1] for p in every), max(p[1] for p in every), most=6, floor=0.0)
    parts = [_line(0, 100 - up.at(t), 100, 100 - up.at(t), "grid") for t in up.ticks]
    for line in series:
        trace = " ".join(f"{across.at(a)},{round(100 - up.at(b), 3)}" for a, b in line.points)
        inner = tag("polyline", points=trace, class_=f"line {line.kind}")
        parts.append(tag("svg", inner, viewBox="0 0 100 100", preserveAspectRatio="none", width="100%", height="100%"))
    if mark is not None:
        parts.append(_line(across.at(mark), 0, across.at(mark), 100, "mark"))
    for line in (line for line in series if line.has_dots):
        kind = line.kind or "ours"
        parts += [_circle(across.at(a), round(100 - up.at(b), 3), 4.2, f"dot {kind}") for a, b in line.points]
    return _framed(parts, across, up, x, y, alternative=alternative, height=height)


def reliability_chart(curve: Sequence[dict[str, float]], write: Write, *, alternative: str) -> Markup:
    """Accuracy over confidence with intervals, the diagonal of a calibrated model, and the rows of each bin as bars."""
    unit = Scale(low=0.0, high=1.0, ticks=(0.0, 0.25, 0.5, 0.75, 1.0))
    parts = [_line(0, 100 - unit.at(t), 100, 100 - unit.at(t), "grid") for t in unit.ticks]
    most = max(point["rows"] for point in curve)
    for point in curve:
        left, width = 100 * point["low"], 100 * (point["high"] - point["low"])
        tall = 22 * point["rows"] / most
        parts.append(
            tag(
                "rect",
                x=f"{left + 0.4:.2f}%",
                y=f"{100 - tall:.2f}%",
                width=f"{width - 0.8:.2f}%",
                height=f"{tall:.2f}%",
                class_="bar",
            )
        )
    parts.append(_line(0, 100, 100, 0, "mark"))
    for point in curve:
        at = unit.at(point["confidence"])
        parts.append(
            _line(at, 100 - unit.at(point["accuracy_low"]), at, 100 - unit.at(point["accuracy_high"]), "range ours")
        )
        parts.append(_circle(at, round(100 - unit.at(point["accuracy"]), 3), 4.8, "dot ours"))
    x, y = Axis(title="what the model said", write=write), Axis(title="how often it was right", write=write)
    return _framed(parts, unit, unit, x, y, alternative=alternative, height=330)


def histogram(
    counts: Sequence[int],
    edges: Sequence[float],
    *,
    x: Axis,
    y: Axis,
    alternative: str,
    mark: float | None = None,
    height: int = 200,
) -> Markup:
    """Counts of bins between the B + 1 edges, each bin as wide as the others; bins from `mark` on in another colour.

    The smallest bars are drawn a little taller, so that a few rows in a long tail can be seen at all.
    """
    num = len(counts)
    up = round_scale(0.0, max(counts), floor=0.0)
    step = -(-num // 7)
    across = Scale(low=0.0, high=float(num), ticks=tuple(float(i) for i in range(0, num + 1, step)))
    parts = [_line(0, 100 - up.at(t), 100, 100 - up.at(t), "grid") for t in up.ticks]
    for i, rows in enumerate(counts):
        if rows:
            tall = max(0.8, up.at(rows))
            kind = "miss" if mark is not None and edges[i] >= mark else "hit"
            told = f"{x.write(edges[i])} to {x.write(edges[i + 1])}: {rows:,}"
            place = {"x": f"{across.at(i + 0.06):g}%", "width": f"{across.at(0.88):g}%"}
            tops = {"y": f"{100 - tall:g}%", "height": f"{tall:g}%"}
            parts.append(tag("rect", tag("title", told), class_=kind, **place, **tops))
    if mark is not None and edges[0] <= mark <= edges[-1]:
        bin_ = next(i for i in range(num) if mark <= edges[i + 1])
        inside = (mark - edges[bin_]) / ((edges[bin_ + 1] - edges[bin_]) or 1)
        parts.append(_line(across.at(bin_ + inside), 0, across.at(bin_ + inside), 100, "mark"))
    by_edge = Axis(title=x.title, write=lambda i: x.write(edges[round(i)]))
    return _framed(parts, across, up, by_edge, y, alternative=alternative, height=height)


def heat_map(matrix: Sequence[Sequence[int]], labels: Sequence[str], *, alternative: str) -> Markup:
    """Rows are the truth, columns the prediction; colour is the share of the row, right ones in another hue than wrong.

    Up to 25 classes the cells hold their counts; above 110 the labels give way too, and cells shrink.
    """
    num = len(labels)
    has_counts, has_labels = num <= 25, num <= 110
    letter = 11.0 if has_counts else 8.0
    margin = min(max(len(label) for label in labels) * letter * 0.56, 170) + 10 if has_labels else 4.0
    cell = 27.0 if has_counts else round(min(13.0, max(2.0, (880 - margin) / num)), 2)
    parts = []
    for i, row in enumerate(matrix):
        total = sum(row)
        if has_labels:
            name, y = _short(labels[i], 28), margin + (i + 0.5) * cell + letter * 0.36
            parts.append(
                tag("text", name, x=margin - 6, y=round(y, 1), text_anchor="end", style=f"font-size:{letter}px")
            )
            x = margin + (i + 0.5) * cell + letter * 0.36
            turn = f"translate({x:.1f} {margin - 6:.1f}) rotate(-90)"
            parts.append(tag("text", name, transform=turn, style=f"font-size:{letter}px"))
        parts.append(
            tag(
                "rect",
                x=margin,
                y=margin + i * cell,
                width=num * cell,
                height=cell - 1,
                fill="var(--wash)",
                opacity=0.55,
            )
        )
        for j, rows in enumerate(row):
            if rows:
                parts += _cell(labels, (i, j), rows, rows / total, (margin, cell, has_counts))
    side = round(margin + num * cell + 2)
    drawing = tag(
        "svg",
        tag("title", alternative),
        *parts,
        xmlns=_SVG,
        width=side,
        height=side,
        viewBox=f"0 0 {side} {side}",
        role="img",
    )
    return tag(
        "div", drawing, class_="scroll", tabindex="0", role="region", aria_label="Confusion matrix, scrolls sideways"
    )


def _cell(
    labels: Sequence[str], place: tuple[int, int], rows: int, share: float, geometry: tuple[float, float, bool]
) -> list[Markup]:
    i, j = place
    margin, cell, has_count = geometry
    kind = "hit" if i == j else "miss"
    told = f"{labels[i]} called {labels[j]}: {rows} of its rows ({share:.0%})"
    strength = round(0.14 + 0.86 * share, 3)
    x, y = round(margin + j * cell, 2), round(margin + i * cell, 2)
    size = round(cell - min(1.0, cell / 5), 2)
    drawn = [
        tag("rect", tag("title", told), x=x, y=y, width=size, height=size, class_=kind, fill_opacity=strength),
    ]
    if has_count:
        # Letters change sides where the cell grows darker (light theme) or lighter (dark theme) than they are.
        kind = "strong" if strength > 0.8 else "middle" if strength > 0.62 else ""
        centre = {"x": round(x + size / 2, 1), "y": round(y + size / 2 + 4, 1)}
        drawn.append(tag("text", rows, text_anchor="middle", class_=kind, pointer_events="none", **centre))
    return drawn


def _framed(
    parts: Sequence[Markup], across: Scale, up: Scale, x: Axis, y: Axis, *, alternative: str, height: int
) -> Markup:
    drawing = tag("svg", tag("title", alternative), *parts, xmlns=_SVG, width="100%", height=height, role="img")
    return tag(
        "div",
        tag("div", y.title, class_="name", style="text-align:left"),
        tag("div", *_ticks(up, y.write, "top"), class_="y", aria_hidden="true"),
        drawing,
        tag("div", *_ticks(across, x.write, "left"), class_="x", aria_hidden="true"),
        tag("div", x.title, class_="name"),
        class_="plot",
    )


def _ticks(scale: Scale, write: Write, side: str) -> list[Markup]:
    places = [scale.at(t) if side == "left" else 100 - scale.at(t) for t in scale.ticks]
    return [tag("span", write(t), style=f"{side}:{p:g}%") for t, p in zip(scale.ticks, places, strict=True)]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=f"{x1:g}%", y1=f"{y1:g}%", x2=f"{x2:g}%", y2=f"{y2:g}%", class_=kind.strip())


def _circle(x: float, y: float, radius: float, kind: str) -> Markup:
    return tag("circle", cx=f"{x:g}%", cy=f"{y:g}%", r=radius, class_=kind.strip())


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
