"""Promise 6: nothing non-finite is ever applied or saved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reglaj.pipelines.verify.subject import Subject, unreadable
from reglaj.pipelines.verify.verdicts import Finding, concluded, counted


def nothing_non_finite(subject: Subject) -> Finding:
    """Every value of the model and of its newest checkpoint, every number of the metrics and of the report."""
    from reglaj.training.checkpoints import list_checkpoints

    newest = list_checkpoints(subject.path / "checkpoints")[-1:]
    files = [file for folder in (subject.model, *newest) for file in sorted(folder.glob("*.safetensors"))]
    problems: list[str] = []
    tensors = values = numbers = 0
    for file in files:
        for name, count, is_finite in _tensors(file):
            tensors, values = tensors + 1, values + count
            if not is_finite:
                problems.append(f"{file.relative_to(subject.path)}: {name} is not finite")
    for told, document in (("metrics.jsonl", subject.metrics), ("report.json", subject.report)):
        for path, number in _numbers(document):
            numbers += 1
            if not math.isfinite(number):
                problems.append(f"{told}: {path} is {number}")
    return concluded(
        problems,
        f"{values:,} values in {counted(tensors, 'tensor')} of {counted(len(files), 'file')}, and {numbers:,} numbers "
        "of metrics.jsonl and report.json are finite",
    )


def _tensors(file: Path) -> Iterator[tuple[str, int, bool]]:
    """Name, size and whether all of it is finite; one tensor in memory at a time."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (the file is no mapping)
                tensor = opened.get_tensor(name)
                yield name, tensor.numel(), bool(tensor.isfinite().all())
    except (OSError, SafetensorError) as error:
        raise unreadable(file, error) from error


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a JSON document, with where it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _numbers(inner, f"{path}[{place}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
