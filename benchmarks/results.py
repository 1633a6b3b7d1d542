"""One JSON and one Markdown table: parts are replaced one by one, so that a run of some works updates only those.

What an interrupted run had measured stays: under `parts` where there was nothing before, else under `unfinished`, so
that an older whole result is not given up for half a new one.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.floors import FLOORS, Verdict, judge
from reglaj.core.files import write_text

FOLDER = Path(__file__).parent
JSON, MARKDOWN = FOLDER / "results.json", FOLDER / "RESULTS.md"
MARKERS = ("<!-- speed-table -->", "<!-- /speed-table -->")

Results = dict[str, Any]


def read(file: Path = JSON) -> Results:
    """What was measured before, or the empty form."""
    try:
        found: Results = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = {}
    return {"parts": {}, "unfinished": {}} | found


def put(name: str, part: dict[str, Any], *, is_finished: bool, file: Path = JSON) -> None:
    """Write one contest's part into the file, whole or not at all, and the table beside it."""
    results = read(file)
    before = results["parts"].get(name)
    part = part | {"is_finished": is_finished}
    if is_finished or before is None or not before.get("is_finished"):
        results["parts"][name] = part
        results["unfinished"].pop(name, None)
    else:
        results["unfinished"][name] = part
    write_text(file, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write_text(file.with_name(MARKDOWN.name), markdown(results))


def markdown(results: Results) -> str:
    """The whole of RESULTS.md."""
    parts = results["parts"]
    lines = ["# What was measured", "", "Made by `python -m benchmarks`; the figures are those of results.json.", ""]
    lines += [floors_table(parts), "", "## Times", "", *_times(parts), "", "## Where and when", "", *_where(parts)]
    return "\n".join(lines) + "\n"


def floors_table(parts: dict[str, Any]) -> str:
    """One line for each promise."""
    lines = [
        "| work | floor | aim | measured (range) | losses agree | verdict |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_line(judge(floor, parts)) for floor in FLOORS]
    return "\n".join(lines)


def _line(verdict: Verdict) -> str:
    floor, values = verdict.floor, verdict.values
    measured = ""
    if values:
        show = (lambda value: f"{value:.0%}") if floor.what == "limit" else (lambda value: f"{value:.2f}")
        spread = f" ({show(min(values))}-{show(max(values))})" if len(values) > 1 else ""
        measured = f"**{show(statistics.median(values))}**{spread}"
    bounds = [_bound(bound, floor.what == "limit") for bound in (floor.floor, floor.aim)]
    return f"| {floor.text} | {bounds[0]} | {bounds[1]} | {measured} | {verdict.agreement} | {verdict.text} |"


def _bound(bound: float | None, is_share: bool) -> str:
    return "" if bound is None else f"{bound:.0%}" if is_share else f"{bound:g}"


def _times(parts: dict[str, Any]) -> list[str]:
    """Seconds, rate, memory and cold start of every side; growth has its own columns."""
    lines = [
        "| work | side | seconds of a turn, median (range) | tokens a second | processor seconds | others' share "
        "| peak memory | cold start |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, part in parts.items():
        if name == "growth":
            continue
        for side, figures in part.get("sides", {}).items():
            lines.append(_time_line(name, side, figures, part["facts"].get("tokens")))
    growth = parts.get("growth", {}).get("sides", {})
    if growth:
        lines += ["", "| growth | microseconds a token | of them attention |", "|---|---|---|"]
    for side, figures in growth.items():
        attention = figures.get("attention_microseconds_a_token")
        lines.append(f"| {side} | {_spread(figures['microseconds_a_token'], 1)} | {_spread(attention, 1)} |")
    return lines


def _time_line(name: str, side: str, figures: dict[str, Any], tokens: int | None) -> str:
    seconds = [value for value in figures["seconds"] if value]
    rate = f"{tokens / statistics.median(seconds):,.0f}" if tokens and seconds else ""
    others = [value for value in figures["others_share"] if value is not None]
    share = f"{statistics.fmean(others):.0%}" if others else ""
    peak = f"{figures['peak_bytes'] / 1e9:.2f} GB" if figures.get("peak_bytes") else ""
    cold = f"{figures['cold_start_s']:.1f} s" if figures.get("cold_start_s") else ""
    return (
        f"| {name} | {side} | {_spread(figures['seconds'])} | {rate} | {_spread(figures['processor_seconds'])} "
        f"| {share} | {peak} | {cold} |"
    )


def _spread(values: list[float | None] | None, digits: int = 2) -> str:
    known = [value for value in values or () if value is not None]
    if not known:
        return ""
    shown = f"{statistics.median(known):.{digits}f}"
    return shown if len(known) == 1 else f"{shown} ({min(known):.{digits}f}-{max(known):.{digits}f})"


def _where(parts: dict[str, Any]) -> list[str]:
    lines = []
    for name, part in parts.items():
        loads = " to ".join(str(load) for load in part["load_average"])
        ended = "" if part.get("is_finished") else "; **interrupted**"
        lines.append(
            f"- `{name}` ({part['title']}): {part['date']}, turns: {part['turns']}, load average {loads}{ended}. "
            f"{machine.sentence(part['machine'])}."
        )
        if part.get("limits"):
            rate = statistics.median(limit["operations_per_second"] for limit in part["limits"])
            seconds = statistics.median(limit["seconds"] for limit in part["limits"])
            lines[-1] += f" Its useful products take {seconds:.2f} s at {rate / 1e9:.0f} billion operations a second."
    return lines


def into_readme(readme: Path, file: Path = JSON) -> None:
    """Put the table of floors between the markers. Raises `ValueError` where the README has none."""
    parts = read(file)["parts"]
    if not parts:
        raise ValueError(f"nothing is measured in {file}: run `python -m benchmarks` first")
    text = readme.read_text(encoding="utf-8")
    before, opening, rest = text.partition(MARKERS[0])
    _, closing, after = rest.partition(MARKERS[1])
    if not (opening and closing):
        raise ValueError(f"{readme} has no {MARKERS[0]} ... {MARKERS[1]}")
    machines = sorted({machine.sentence(part["machine"]) for part in parts.values()})
    told = (
        "Medians (range) of ratios taken within each turn, sides taking turns in one run, all of them warm, with the "
        "same losses. Measured on: " + "; ".join(machines) + ". Times, memory, cold starts and loads are in "
        "[benchmarks/RESULTS.md](benchmarks/RESULTS.md)."
    )
    body = f"{opening}\n{floors_table(parts)}\n\n{told}\n{closing}"
    write_text(readme, before + body + after)
