"""report.json, report.html and README.md of a run: the same figures for programs, for people, and for a model hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reglaj.core.files import write_json, write_text
from reglaj.evaluation.report.plan import Block, Document, Figure, ReportPlan, SectionMaker

__all__ = ["Block", "Document", "Figure", "ReportPlan", "SectionMaker", "write_report"]


def write_report(folder: Path, report: Mapping[str, Any], extras: Mapping[str, Any], plan: ReportPlan) -> None:
    """Write report.json, report.html and README.md into an existing folder, each whole or not at all.

    report: the document of report.json. plan: how the task tells its result. extras, each optional: `metrics` (the
    lines of metrics.jsonl), `mistakes`, `recipe_yaml`, `derived`, `software`, `licences` (that of the model first),
    `base_model` (a hub id, where the model has one). Raises `EnvironmentFault` when the disk
    refuses, and `ValueError` where the report holds what JSON has no word for, such as NaN.
    """
    from reglaj.evaluation.report.card import render_card
    from reglaj.evaluation.report.page import render_page

    json.dumps(report, allow_nan=False)  # refuses NaN and infinity before anything is written
    document = Document(report=report, extras=extras, plan=plan)
    page, card = render_page(document), render_card(document)
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", page)
    write_text(folder / "README.md", card)
