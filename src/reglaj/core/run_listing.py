"""Which runs lie in a folder, and how far each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reglaj.core.errors import user_error
from reglaj.core.runs import read_manifest


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One line of `reglaj runs`."""

    path: Path
    status: str
    task: str
    method: str
    created: str
    headline: dict[str, Any]


def list_runs(runs: Path) -> list[RunSummary]:
    """Every run below `runs`, oldest first. Raises `UserError` when that is a file."""
    if runs.exists() and not runs.is_dir():
        raise user_error(
            f"{str(runs)!r} is a file",
            allowed="the folder in which runs lie",
            why="a file holds no runs",
            remedy="name the folder with --runs DIR",
        )
    summaries = []
    for folder in sorted(path.parent for path in runs.glob("*/manifest.json")):
        manifest = read_manifest(folder)
        summaries.append(
            RunSummary(
                path=folder,
                status=manifest.get("status", "damaged"),
                task=manifest.get("task", ""),
                method=manifest.get("method", ""),
                created=manifest.get("created", ""),
                headline=manifest.get("headline", {}),
            )
        )
    return sorted(summaries, key=lambda summary: (summary.created, summary.path.name))
