"""What came of tuning, as tables: for each method its best rate with the neighbours."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

RATE = "train.learning_rate"
HEAD_RATE = "train.head_learning_rate"
Line = dict[str, Any]


def key_of(work: str, method: str, settings: Mapping[str, Any]) -> str:
    """What tells a cell from all others."""
    return f"{work} {method} " + " ".join(f"{name}={settings[name]}" for name in sorted(settings))


def rate_key(line: Line) -> str:
    """The rate that was tuned in a cell."""
    return RATE if RATE in line["settings"] else HEAD_RATE


def variant_of(line: Line) -> str:
    """What the cell has beside the rate, in words."""
    beside = {key: value for key, value in line["settings"].items() if key != rate_key(line)}
    named = {key.removeprefix("method.").removeprefix("train."): value for key, value in sorted(beside.items())}
    return ", ".join(f"{key} {value}" for key, value in named.items()) or "defaults"


def by_work(lines: Iterable[Line]) -> dict[str, dict[str, dict[str, list[Line]]]]:
    """Cells by work, method and variant, from the lowest rate to the highest."""
    found: dict[str, dict[str, dict[str, list[Line]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for line in sorted(lines, key=lambda line: line["settings"][rate_key(line)]):
        found[line["work"]][line["method"]][variant_of(line)].append(line)
    return found


def best_of(cells: Iterable[Line]) -> Line | None:
    """The cell with the best score; among equals the lower loss."""
    scored = [line for line in cells if line.get("score") is not None]
    return max(scored, key=lambda line: (line["score"], -line["validation_loss"]), default=None)


def markdown(works: Mapping[str, Mapping[str, Mapping[str, list[Line]]]]) -> str:
    """One table a work: a line for each variant, the best of a method in bold."""
    lines = ["# Tuning of the methods' defaults", ""]
    lines += [
        "Made by `python benchmarks/tune_methods.py --tables`; judged on validation, the test part was not opened."
    ]
    for work, methods in sorted(works.items()):
        some = next(line for variants in methods.values() for cells in variants.values() for line in cells)
        facts = next((line for v in methods.values() for c in v.values() for line in c if line.get("rows")), some)
        rows, engine = facts.get("rows", {}), facts.get("engine", {})
        lines += ["", f"## {work}", ""]
        lines += [
            f"{rows.get('train')} rows learnt, {rows.get('validation')} that judge, by "
            f"{facts.get('metric', '')}. {engine.get('hardware', '')}, {engine.get('precision', '')}.",
            "",
        ]
        lines += [
            "| method | variant | rates: score (loss) | best | epochs, kept | seconds |",
            "|---|---|---|---|---|---|",
        ]
        for method, variants in sorted(methods.items()):
            best = best_of(line for cells in variants.values() for line in cells)
            lines += [_row(method, name, cells, best) for name, cells in variants.items()]
    return "\n".join(lines) + "\n"


def _row(method: str, variant: str, cells: list[Line], best: Line | None) -> str:
    tried = ", ".join(f"{line['settings'][rate_key(line)]:.1e}: {_score(line)}" for line in cells)
    own = best_of(cells)
    if own is None:
        return f"| {method} | {variant} | {tried} | none | | |"
    rate = f"{own['settings'][rate_key(own)]:.1e}"
    mark = f"**{rate}**" if own is best else rate
    epochs = f"{own['epochs']}, {own['best_epoch']:.1f}"
    return f"| {method} | {variant} | {tried} | {mark} | {epochs} | {own['train_seconds']} |"


def _score(line: Line) -> str:
    if line.get("score") is None:
        return "broke off"
    return f"{abs(line['score']):.3f}" + (
        "" if line["metric"].endswith("loss") else f" ({line['validation_loss']:.2f})"
    )


def document(lines: Iterable[Line]) -> str:
    """Every cell as JSON, in the order of its key."""
    return json.dumps(sorted(lines, key=lambda line: str(line["key"])), indent=1, ensure_ascii=False) + "\n"
