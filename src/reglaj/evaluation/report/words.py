"""Figures as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reglaj.evaluation.report.markup import Markup, exact, joined


def percent(value: float, digits: int = 1) -> str:
    """`65.5%`."""
    return f"{value * 100:.{digits}f}%"


def number(value: float, digits: int = 3) -> str:
    """`1.234`, with a true minus sign; from a million on `1.23e+06`."""
    if abs(value) >= 1e6:
        return f"{value:.2e}".replace("-", "−")
    return signless_zero(f"{value:.{digits}f}").replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """`+1.234` or `−1.234`; from a million on `+1.23e+06`."""
    if abs(value) >= 1e6:
        return f"{value:+.2e}".replace("-", "−")
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def signless_zero(text: str) -> str:
    """`-0.0` is `0.0`."""
    return text.removeprefix("-") if float(text) == 0 else text


def points(value: float) -> str:
    """A difference of shares in percentage points: `+3.6`."""
    return signed(value * 100, 1)


def count(value: float) -> str:
    """`10,003`."""
    return f"{int(value):,}"


def duration(seconds: float) -> str:
    """`0.4 s`, `45 s`, `12 min 5 s`, `3 h 20 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"


def size(num_bytes: float) -> str:
    """`90.9 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000 or unit == "GB":
            return f"{num_bytes:.0f} bytes" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError("the last unit takes everything")


def level(confidence: float) -> str:
    """`95%` for 0.95."""
    return f"{confidence * 100:g}%"


def p_value(p: float) -> str:
    """`0.012`, or `< 0.002` in words that do not claim more than the samples can know."""
    return f"{p:.3f}" if p >= 0.0095 else f"{p:.4f}"


def plural(number_of: int, one: str, many: str | None = None) -> str:
    """`1 row`, `2 rows`."""
    return f"{count(number_of)} {one if number_of == 1 else many or one + 's'}"


FRESH_TEST_DUE = 4
"""Openings from which on a fresh test set is called for: the training, a check of it and a second look pass."""


def openings_told(openings: int) -> str:
    """How often a test set was opened, the evaluation that is told of included, and what that means."""
    if openings == 1:
        return "This test set has been opened once: nothing can have been chosen on it."
    told = f"This test set has been opened {plural(openings, 'time')}"
    if openings < FRESH_TEST_DUE:
        return f"{told}: a choice made after the first look at it makes the figures a little too good."
    return f"{told}; a fresh one is due, for each choice made after looking at it makes the figures a little too good."


def listed(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def span(figure: Mapping[str, float], *, is_share: bool) -> str:
    """The interval of a figure: `62.4–68.4%` or `1.21–1.40`."""
    if is_share:
        return f"{figure['low'] * 100:.1f}–{percent(figure['high'])}"
    return f"{number(figure['low'])}–{number(figure['high'])}"


def difference_span(figure: Mapping[str, float], *, is_share: bool) -> str:
    """The interval of a difference: `+0.7 to +6.6`."""
    write = points if is_share else signed
    return f"{write(figure['low'])} to {write(figure['high'])}"


def shown(figure: Mapping[str, float], *, is_share: bool) -> Markup:
    """A figure with its interval, carrying the exact numbers."""
    low, high = (percent(figure[k])[:-1] if is_share else number(figure[k]) for k in ("low", "high"))
    value = percent(figure["value"]) if is_share else number(figure["value"])
    bounds = [exact(figure["low"], low), "–", exact(figure["high"], high)]
    return joined([exact(figure["value"], value), Markup(' <span class="bounds">('), *bounds, Markup(")</span>")])


def shown_difference(figure: Mapping[str, float], *, is_share: bool) -> Markup:
    """A difference with its interval, carrying the exact numbers; shares in percentage points."""
    write = points if is_share else signed
    bounds = [exact(figure["low"], write(figure["low"])), " to ", exact(figure["high"], write(figure["high"]))]
    value = exact(figure["value"], write(figure["value"]))
    return joined([value, Markup(' <span class="bounds">('), *bounds, Markup(")</span>")])
