"""Figures as a person reads them: intervals, shares, durations, and the table of a report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.cli.page import Page
from reglaj.core.errors import GateRefused

if TYPE_CHECKING:
    from reglaj.evaluation.report import Figure, ReportPlan

_SHOWN_METRICS = 3
"""Metrics a terminal has room for; the report has them all."""


def bytes_text(count: float) -> str:
    """`1.2 GB`."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def share(value: float) -> str:
    """`0.5%` for 0.005."""
    return f"{value * 100:.2g}%" if value < 0.1 else f"{value * 100:.0f}%"


def interval(figure: Mapping[str, float]) -> str:
    """`0.913 [0.894, 0.930]`."""
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def difference(figure: Mapping[str, float]) -> str:
    """`+0.036 [+0.007, +0.066]`."""
    return f"{figure['value']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}]"


def read_report(page: Page, report: Mapping[str, Any]) -> None:
    """The result of a run: the model against its baselines, where the rows went, and what to do next."""
    page.line(f"{report['run']}: {report['task']} with {report['method']}")
    page.line()
    read_scores(page, report)
    _read_judgement(page, report)
    page.line()
    page.pairs([*_rows(report), *_test(report), *_training(report), *_next_steps(report)])
    for note in report.get("notes", []):
        page.line(f"note: {note}")


def read_scores(page: Page, report: Mapping[str, Any]) -> None:
    """Model and baselines below each other; the paired difference on the first metric that was compared.

    Metrics beyond those that a table has room for stand below it, for the model alone.
    """
    figures = {one.name: one for one in _plan(report).figures}
    every = [name for name, figure in report["test"].items() if _is_figure(figure)]
    metrics, more = every[:_SHOWN_METRICS], every[_SHOWN_METRICS:]
    baselines = report.get("baselines") or {}
    paired = [m for m in metrics if any("difference" in scores.get(m, {}) for scores in baselines.values())]
    compared = paired[0] if paired else None
    columns = ["", *(_heading(metric, figures) for metric in metrics)]
    if compared:
        columns += [f"model minus it ({_title(compared)})", "p"]
    rows = [["model", *(interval(report["test"][metric]) for metric in metrics), *([""] * (2 if compared else 0))]]
    for name, scores in baselines.items():
        row = [name, *(interval(scores[metric]) if metric in scores else "" for metric in metrics)]
        if compared:
            delta = scores.get(compared, {}).get("difference")
            row += [difference(delta), f"{delta['p']:.3f}"] if delta else ["", ""]
        rows.append(row)
    page.table(columns, rows)
    page.pairs((_heading(metric, figures), interval(report["test"][metric])) for metric in more)
    if "confidence" in report:
        pairs = "; differences are paired, on the same test rows" if compared else ""
        page.line(f"in brackets: {share(report['confidence'])} intervals{pairs}")


def gate_exit_code(report: Mapping[str, Any]) -> int:
    """3 where the gate of a report says no, else 0: its figures are told either way."""
    return 0 if (report.get("gate") or {}).get("passed", True) else GateRefused.exit_code


def _read_judgement(page: Page, report: Mapping[str, Any]) -> None:
    """The worst group of test rows, and each rule of the gate."""
    if not ("slices" in report or "gate" in report):
        return
    from reglaj.evaluation.report import Document
    from reglaj.evaluation.report.slices import slices_told

    page.line()
    for sentence in slices_told(Document(report=report, extras={}, plan=_plan(report))):
        page.line(sentence)
    gate = report.get("gate")
    if gate:
        page.line(f"gate {'passed' if gate['passed'] else 'FAILED'}:")
        for rule in gate["rules"]:
            page.line(f"  {rule['told']}")


def _test(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "test_openings" not in report:
        return []
    from reglaj.evaluation.report.words import openings_told

    return [("test rows", openings_told(report["test_openings"]))]


def read_rows(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the rows of a prepared data set, or of a file that was scored, went."""
    dropped = data.get("dropped", {})
    gone = sum(dropped.values())
    parts = ", ".join(f"{data[part]:,} {part}" for part in ("train", "validation", "test") if part in data)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items(), key=lambda item: -item[1]))
    return [
        ("rows read", f"{data['read']:,}"),
        ("in parts", parts),
        ("dropped", f"{gone:,}" + (f": {reasons}" if gone else "")),
    ]


def _rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    data = report.get("data")
    return read_rows(data) if data else []


def _training(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    training, cost = report.get("training"), report.get("cost")
    if not training or not cost:
        return []
    steps = f"{training['steps']:,} steps in {duration(cost['train_seconds'])}, best at step {training['best_step']:,}"
    size = f"{cost['trainable_parameters']:,} trainable parameters, {bytes_text(cost['peak_memory_bytes'])} of memory"
    return [("training", f"{steps}; {size}")]


def _next_steps(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    run, plan = Path(str(report["run"])), _plan(report)
    # A later evaluation has figures of its own; the page beside the run shows those of its training.
    pairs = [("report", str(run / "report.html"))] if "training" in report else []
    for command in plan.commands:
        filled = command.format(run=shlex.quote(str(run)), example=shlex.quote(plan.example))
        pairs.append((command.split()[0], f"reglaj {filled}"))
    return pairs


def _plan(report: Mapping[str, Any]) -> ReportPlan:
    from reglaj.tasks import TASKS

    return TASKS.get(report["task"]).report_plan()


def _is_figure(value: Any) -> bool:
    return isinstance(value, Mapping) and {"value", "low", "high"} <= set(value)


def _heading(metric: str, figures: Mapping[str, Figure]) -> str:
    """The metric, and which way is good where more is not."""
    is_lower = metric in figures and figures[metric].lower_is_better
    return f"{_title(metric)} (lower is better)" if is_lower else _title(metric)


def _title(metric: str) -> str:
    written = metric.replace("_", " ").replace("macro f1", "macro-F1")
    return written.replace("rouge l", "ROUGE-L").replace("chrf", "chrF").replace("token f1", "token F1")
