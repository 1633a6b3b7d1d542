"""What the beginnings of a recipe's sources tell: columns, texts and labels, and how much there is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import Problem, listing, nearest
from reglaj.data.config import DataConfig, SourceConfig
from reglaj.data.conversation import BrokenRecord
from reglaj.data.evidence import SPLIT_BUILTINS
from reglaj.data.extras import missing_columns
from reglaj.data.formats import opening
from reglaj.data.layouts import Chosen, choose_layout
from reglaj.pipelines.findings import Findings
from reglaj.pipelines.forecast import Amount
from reglaj.pipelines.lineage import changed_labels

if TYPE_CHECKING:
    from reglaj.data.reading import Preview
    from reglaj.evaluation.config import EvaluateConfig
    from reglaj.models.inspect import ModelFacts
    from reglaj.tasks.base import Task

_STARTER = "starter:"


@dataclass(frozen=True, kw_only=True)
class Records:
    """What the first records of a source are in the layout that it is in.

    lengths: characters of those that can be used. dropped: bucket to count of the others. first: one of them.
    """

    chosen: Chosen
    lengths: list[int]
    dropped: Mapping[str, int]
    first: str = ""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The beginning of one source."""

    config: SourceConfig
    file: Path
    preview: Preview
    records: Records | None = None
    """For tasks that read several layouts; None also where the columns suit none of them."""

    def cells(self, role: str) -> list[str] | None:
        """The cells of a role in the sample, or None where the source has no such column."""
        column = self.config.columns.get(role, role)
        if column not in self.preview.columns:
            return None
        return [row.get(column) or "" for row in self.preview.sample]


def look_at_sources(
    data: DataConfig, task: type[Task] | None, folder: Path, findings: Findings, console: Console = SILENT
) -> list[Seen]:
    """The beginnings of all sources that can be read, with their columns checked."""
    seen = []
    for number, source in enumerate(data.sources):
        beginning = findings.attempt(lambda source=source: _look(source, folder, console))  # type: ignore[misc]
        if beginning:
            findings.notes += [f"{source.path}: {note}" for note in beginning.preview.notes]
            if task and task.roles.layouts:
                beginning = _with_records(beginning, number, task, findings)
            elif task:
                findings.add(_column_problems(beginning, number, task, findings.notes))
            seen.append(beginning)
    return seen


def _with_records(seen: Seen, number: int, task: type[Task], findings: Findings) -> Seen:
    """The layout of the source, and what its first records are in it."""
    roles, source = task.roles, seen.config
    assert roles.measure is not None, "a task with layouts knows what a record in them is"
    given = {role: column for role, column in source.columns.items() if role in roles.source_names}
    chosen = choose_layout(seen.preview, source.path, given, roles, where=f"data.sources.{number}.columns")
    if not isinstance(chosen, Chosen):
        findings.add(chosen)
        return seen
    columns = ", ".join(f"{role} from {column!r}" for role, column in chosen.columns.items())
    findings.notes.append(f"{source.path}: read as {chosen.layout.name} ({columns})")
    lengths: list[int] = []
    dropped: Counter[str] = Counter()
    first = ""
    for row in seen.preview.sample:
        cells = {role: row.get(column) for role, column in chosen.columns.items()}
        try:
            lengths.append(roles.measure(chosen.layout, cells))
        except BrokenRecord as problem:
            dropped[problem.bucket] += 1
            first = first or f"{_beginning(opening(chosen.layout, cells))}: {problem.reason}"
    if dropped:
        seen_rows = f"the first {seen.preview.rows_seen:,} records"
        findings.notes.append(f"{source.path}: {_counted(dropped)} among {seen_rows} (the first: {first})")
    return replace(seen, records=Records(chosen=chosen, lengths=lengths, dropped=dropped, first=first))


def _counted(dropped: Mapping[str, int]) -> str:
    return listing(f"{count:,} {bucket}" for bucket, count in sorted(dropped.items()))


def _beginning(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 60 else flat[:57] + "...")


def _look(source: SourceConfig, folder: Path, console: Console) -> Seen:
    from reglaj.data.reading import look

    if source.path.startswith(_STARTER):
        from reglaj.models.starters import fetch

        file = fetch(source.path, console)
    else:
        file = folder / Path(source.path).expanduser()
    return Seen(config=source, file=file, preview=look(file, source.kind))


def _column_problems(seen: Seen, number: int, task: type[Task], notes: list[str]) -> list[Problem]:
    problems = []
    columns = seen.preview.columns
    for role in task.roles.names:
        column = seen.config.columns.get(role, role)
        if column in columns:
            continue
        if seen.preview.kind in ("json", "jsonl") and not seen.preview.is_complete:
            notes.append(f"{seen.config.path}: no {column!r} in the first {seen.preview.rows_seen:,} records")
            continue
        guess = nearest(column, columns)
        problems.append(
            Problem(
                where=f"data.sources.{number}.columns.{role}",
                given=f"no column {column!r} in {seen.config.path}",
                allowed=listing(columns),
                why=f"the task {task.name} reads its {role} from it",
                remedy=f"did you mean {guess!r}?" if guess else f"name the column: columns: {{{role}: COLUMN}}",
            )
        )
    return problems


def columns_beside(data: DataConfig, evaluate: EvaluateConfig | None, seen: list[Seen]) -> list[Problem]:
    """Columns that the split and the slices name, and that no source has."""
    columns = list(dict.fromkeys(name for one in seen for name in one.preview.columns))
    if len(seen) < len(data.sources) or not columns:
        return []
    wanted = {} if evaluate is None else dict.fromkeys(evaluate.slice_columns, "evaluate.slices")
    for key in ("group", "time", "column"):
        name = getattr(data.split, key)
        if name and (name in columns or name not in SPLIT_BUILTINS):
            wanted[name] = f"data.split.{key}"
    return missing_columns(wanted, columns, "the data" if len(seen) > 1 else seen[0].config.path)


def check_contents(
    data: DataConfig, task: type[Task], seen: list[Seen], findings: Findings, facts: ModelFacts | None = None
) -> None:
    """What the samples tell about the records, and about the labels of the run that `facts` may be the model of.

    Of texts and labels a file that was only begun proves nothing; conversations none of which can be used are enough.
    """
    if task.roles.layouts:
        records = [one.records for one in seen if one.records]
        if records and len(records) == len(data.sources) and not any(one.lengths for one in records):
            findings.add([_nothing_usable(records)])
        return
    if len(seen) < len(data.sources) or not all(one.preview.is_complete for one in seen):
        return
    roles = task.roles
    kept: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for one in seen:
        columns = [one.cells(role) for role in roles.names]
        if any(cells is None for cells in columns):
            return  # reported already
        for row in zip(*cast("list[list[str]]", columns), strict=True):
            if all(cell.strip() for cell in row):
                kept[row[-1] if roles.target else ""].add(row)
    rows = sum(one.preview.rows_seen for one in seen)
    if not kept:
        findings.add([_no_content(rows, listing(roles.names))])
    elif roles.target:
        findings.add(_class_problems(data, kept, roles.target, findings.notes))
        findings.add(changed_labels(task, _learnable(data, kept), facts))


def _no_content(rows: int, roles: str) -> Problem:
    return Problem(
        where="data.sources",
        given=f"none of the {rows:,} rows has a value in each of {roles}",
        allowed="rows with a text and what is to be learnt from it",
        why="there is nothing to learn from",
        remedy="check the mapping under data.sources[].columns",
    )


def _nothing_usable(records: list[Records]) -> Problem:
    dropped = sum((Counter(one.dropped) for one in records), Counter[str]())
    first = next((f"; the first: {one.first}" for one in records if one.first), "")
    return Problem(
        where="data.sources",
        given=f"none of the first {sum(dropped.values()):,} records can be used",
        allowed="records that end with an answer",
        why=f"{_counted(dropped)}{first}",
        remedy="check the mapping under data.sources[].columns, or mend the records",
    )


def _learnable(data: DataConfig, kept: Mapping[str, set[tuple[str, ...]]]) -> list[str]:
    """Labels that are wanted, with enough texts."""
    wanted = {label: len(rows) for label, rows in kept.items() if label not in data.exclude_labels}
    return [label for label, count in wanted.items() if count >= data.min_label_rows]


def _class_problems(
    data: DataConfig, kept: Mapping[str, set[tuple[str, ...]]], target: str, notes: list[str]
) -> list[Problem]:
    left = {label: len(rows) for label, rows in kept.items() if label not in data.exclude_labels}
    rare = sorted(label for label, count in left.items() if count < data.min_label_rows)
    enough = [label for label in left if label not in rare]
    for label in data.exclude_labels:
        if label not in kept:
            notes.append(f"data.exclude_labels: no row is labelled {label!r}")
    if rare and len(enough) >= 2:
        notes.append(
            f"fewer than {data.min_label_rows} texts, so left out as rare_label: {listing(map(repr, rare), 8)}"
        )
    if len(enough) >= 2:
        return []
    found = f"{len(enough)} {target}{'s' if len(enough) != 1 else ''} to learn: {listing(map(repr, enough), 8)}"
    few = f"; too rare with under {data.min_label_rows} texts: {listing(map(repr, rare), 8)}" if rare else ""
    return [
        Problem(
            where=f"data.sources ({target})",
            given=found + few,
            allowed=f"two or more, each with {data.min_label_rows} or more texts",
            why="with one there is nothing to tell apart, and each must occur in training, validation and test",
            remedy="check the column, or add rows of another one",
        )
    ]


def amount_of(task: type[Task], seen: list[Seen]) -> Amount:
    """Rows and length of texts, the rows told from the size of files that were only begun."""
    rows = 0
    characters: list[int] = []
    for one in seen:
        rows += one.preview.rows_seen if one.preview.is_complete else _rows_by_size(one)
        if one.records:
            characters += one.records.lengths
        for role in task.roles.inputs if not task.roles.layouts else ():
            characters += [len(cell) for cell in one.cells(role) or []]
    return Amount(
        rows=rows,
        is_exact=all(one.preview.is_complete for one in seen),
        characters=sum(characters) / len(characters) if characters else 0.0,
        lengths=tuple(characters),
    )


def _rows_by_size(seen: Seen) -> int:
    """Rows of a file that was only begun: its bytes by those of a row of the sample."""
    if seen.preview.kind == "parquet":
        import pyarrow.parquet

        return int(pyarrow.parquet.ParquetFile(seen.file).metadata.num_rows)
    packed = 4 if seen.file.suffix == ".gz" else 1  # what text usually gains
    sample = seen.preview.sample
    row = sum(len(cell.encode()) + 1 for cells in sample for cell in cells.values() if cell) / max(1, len(sample))
    return max(seen.preview.rows_seen, round(seen.file.stat().st_size * packed / max(1.0, row)))
