"""Score a finished run again: on its sealed test part, or on a new file."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import listing, user_error
from reglaj.core.runs import find_run, read_manifest

if TYPE_CHECKING:
    from reglaj.data.examples import Examples
    from reglaj.pipelines.assemble import Assembled
    from reglaj.pipelines.recipe import Recipe
    from reglaj.tasks.base import Task


def evaluate(
    run: str | Path, *, data: str | Path | None = None, runs: str | Path = "runs", console: Console = SILENT
) -> dict[str, Any]:
    """The figures of report.json's `test`, measured again.

    data: a file with texts and true labels, in the columns that the run was trained with; None opens the sealed
    test part once more, which is counted. `slices` and `gate` are those of the rows that are scored, by the run's own
    ranges and rules. Raises `UserError` where nothing can be scored.
    """
    from reglaj.pipelines.assemble import load_run
    from reglaj.pipelines.judging import judged
    from reglaj.tasks.base import Evaluation

    path = find_run(str(run), Path(runs))
    assembled = load_run(path, console)
    if data is None:
        test, account, extra = _sealed_test(path, assembled.recipe, console)
    else:
        test, account = _read_file(Path(data), path, assembled, console)
        extra = {}
    evaluation = Evaluation(
        learner=assembled.learner,
        tokenizer=assembled.tokenizer,
        test=test,
        config=assembled.recipe.evaluate,
        max_tokens=assembled.max_tokens,
        seed=assembled.recipe.train.seed,
    )
    result = assembled.task.evaluate(evaluation, console)
    report = _report(path)
    return {
        **_stored(report, is_same_test=data is None),
        "run": os.path.relpath(path),
        "task": assembled.recipe.task,
        "method": assembled.recipe.method.name,
        "confidence": assembled.recipe.evaluate.confidence,
        "data": account,
        "test": result.test,
        **judged(assembled.task, evaluation, result, console, stored=report.get("slices")),
        "notes": result.notes,
        "mistakes": result.mistakes,
        "cut_texts": {"test": result.cut},
        **extra,
    }


def _report(path: Path) -> dict[str, Any]:
    """The run's own report, or nothing where it cannot be read."""
    try:
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _stored(report: Mapping[str, Any], *, is_same_test: bool) -> dict[str, Any]:
    """What report.json says of the model itself; of its run and baselines only where the same rows are scored."""
    keys = ("name", "model", "weights_sha256") + (("cost", "training", "baselines") if is_same_test else ())
    return {"baselines": {}, **{key: report[key] for key in keys if key in report}}


def _sealed_test(path: Path, recipe: Recipe, console: Console) -> tuple[Examples, dict[str, Any], dict[str, Any]]:
    """The test part of the run's own data; says that it opens it."""
    from reglaj.data.examples import load_prepared
    from reglaj.evaluation.report.words import openings_told

    key = read_manifest(path).get("data_key", "")
    data = load_prepared(path.parent / ".data" / key) if key else None
    if data is None:
        sources = listing(source.path for source in recipe.data.sources)
        raise user_error(
            f"the data of {path.name} is not here: key {key or 'unknown'}, made of {sources}",
            allowed=f"the folder {path.parent / '.data' / (key or 'KEY')}",
            why="runs point to their data, which lies once beside them, and it was moved or removed",
            remedy=f"`reglaj data {path / 'recipe.yaml'} --runs {path.parent}` makes it again from the same sources;"
            " score on a file with --data FILE; predict needs none of it",
        )
    test, openings = data.open_test(opened_by=f"evaluate {path.name}")
    console.say(f"opening the sealed test part ({len(test):,} rows). {openings_told(openings)}")
    return test, data.report, {"test_openings": openings}


def _read_file(path: Path, run: Path, assembled: Assembled, console: Console) -> tuple[Examples, dict[str, Any]]:
    """The rows of a file that can be scored, and the account of all of them."""
    from reglaj.pipelines.data import shaper_of
    from reglaj.pipelines.inputs import read_shaped

    shaper = shaper_of(assembled.recipe, assembled.facts, run / "model")
    if shaper is None:
        return _read_columns(path, assembled.recipe, assembled.task, console)
    test, account, remarks = read_shaped(path, assembled.task.roles, assembled.recipe, shaper)
    for remark in remarks:
        console.warn(remark)
    return test, account


def _read_columns(path: Path, recipe: Recipe, task: Task, console: Console) -> tuple[Examples, dict[str, Any]]:
    import pyarrow as pa

    from reglaj.data.examples import Examples
    from reglaj.data.layouts import Chosen
    from reglaj.data.reading import open_reader
    from reglaj.data.roles import Layout
    from reglaj.pipelines.inputs import Input, extras_of, kept_columns
    from reglaj.pipelines.predict import column_of

    roles = task.roles
    reader = open_reader(path, str(path))
    columns = {role: column_of(role, reader.columns, recipe, str(path)) for role in roles.names}
    if len(set(columns.values())) < len(columns):
        raise user_error(
            f"{str(path)!r} has one column for {' and '.join(roles.names)}",
            allowed="a column for each",
            why="without the truth nothing can be scored",
            remedy="add the missing column, or use `reglaj predict` for texts without labels",
        )
    extras = extras_of(reader.columns, recipe, str(path))
    kept = kept_columns(roles, extras)
    dropped: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    read = 0
    source = Input(reader=reader, chosen=Chosen(Layout("columns", roles.names), columns))
    for batch, beside in source.batches_beside(extras):
        for place, line in enumerate(batch.lines):
            read += 1
            cells = [column[place] or "" for column in batch.cells]
            empty = next((role for role, cell in zip(roles.names, cells, strict=True) if not cell.strip()), None)
            if place in batch.faults:
                dropped[batch.faults[place].bucket] += 1
            elif empty is not None:
                dropped[f"empty_{empty}"] += 1
            elif roles.target and not task.accepts(cells[-1]):
                dropped["unknown_label"] += 1
                unknown[cells[-1]] += 1
            else:
                more = [column[place] for column in beside]
                for name, value in zip(kept, (f"{path.name}:{line}", str(path), line, *cells, *more), strict=True):
                    kept[name].append(value)
    if not kept["id"]:
        raise user_error(
            f"{str(path)!r} has no row that can be scored",
            allowed="rows with a text and its label",
            why=f"of {read:,} records: {dict(dropped) or 'none was there'}",
            remedy=f"the model does not know {listing(sorted(unknown), 5)}; check the labels"
            if unknown
            else "check the file",
        )
    if unknown:
        console.warn(
            f"{sum(unknown.values()):,} rows have labels that the model does not know: {listing(sorted(unknown), 5)}"
        )
    account = {"read": read, "test": len(kept["id"]), "dropped": dict(sorted(dropped.items()))}
    return Examples(pa.table(kept)), account
