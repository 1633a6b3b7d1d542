"""Files that a finished run is given: read as its training read them, whatever their layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.errors import UserError, user_error
from reglaj.data.examples import EXTRA
from reglaj.data.extras import missing_columns
from reglaj.data.layouts import Chosen, choose_layout
from reglaj.data.reading import Source, open_reader
from reglaj.data.reading.batch import BATCH_ROWS
from reglaj.data.reading.files import guarded
from reglaj.data.sources import Opened

if TYPE_CHECKING:
    from reglaj.data.examples import Examples
    from reglaj.data.reading.base import Reader
    from reglaj.data.reading.batch import Batch
    from reglaj.data.roles import ColumnRoles
    from reglaj.data.shaping import Shaper
    from reglaj.pipelines.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Input:
    """An open file and the columns that are read from it."""

    reader: Reader
    chosen: Chosen

    def batches(self) -> Iterator[Batch]:
        """Every record, with the cells of the chosen columns."""
        for batch, _ in self.batches_beside(()):
            yield batch

    def batches_beside(self, extras: Sequence[str]) -> Iterator[tuple[Batch, list[list[str | None]]]]:
        """The same, with the cells of extra columns; None where a record has none. Nested ones come as JSON."""
        name = str(self.reader.file.name)
        opened = Opened(Source(path=Path(name), name=name), "", self.reader, self.chosen)
        yield from guarded(name, opened.read(extras, BATCH_ROWS))


def open_input(path: Path, roles: ColumnRoles, recipe: Recipe) -> Input:
    """The file in one of the layouts of `roles`: with the columns of a source of the recipe, or under the roles' names.

    Raises `UserError` with what is wrong with the columns of the first source.
    """
    reader = open_reader(path, str(path))
    known = set(roles.source_names)
    mappings = [{r: c for r, c in source.columns.items() if r in known} for source in recipe.data.sources]
    answers = [
        choose_layout(reader, str(path), given, roles, where="columns", may_have_more=reader.may_have_more)
        for given in [*mappings, {}]
    ]
    for answer in answers:
        if isinstance(answer, Chosen):
            return Input(reader=reader, chosen=answer)
    assert not isinstance(answers[0], Chosen)
    raise UserError(*answers[0])


def extras_of(columns: Sequence[str], recipe: Recipe, name: str) -> tuple[str, ...]:
    """The columns that the slices of the recipe need. Raises `UserError` where the file `name` does not have them."""
    extras = recipe.evaluate.slice_columns
    problems = missing_columns(dict.fromkeys(extras, "evaluate.slices"), columns, repr(name))
    if problems:
        raise UserError(*problems)
    return extras


def kept_columns(roles: ColumnRoles, extras: Sequence[str]) -> dict[str, list[Any]]:
    """Empty columns of `Examples`, in the order in which rows are put into them."""
    return {name: [] for name in ("id", "source", "line", *roles.names, *(f"{EXTRA}{name}" for name in extras))}


@dataclass
class _Rows:
    kept: dict[str, list[Any]]
    dropped: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    read: int = 0


def read_shaped(
    path: Path, roles: ColumnRoles, recipe: Recipe, shaper: Shaper
) -> tuple[Examples, dict[str, Any], list[str]]:
    """The records of a file that a shaper can use; the account of all of them; its remarks in sentences."""
    import pyarrow as pa

    from reglaj.data.examples import Examples
    from reglaj.data.shaping import shape_batch

    source = open_input(path, roles, recipe)
    extras = extras_of(source.reader.columns, recipe, str(path))
    rows = _Rows(kept=kept_columns(roles, extras))
    for batch, beside in source.batches_beside(extras):
        shaped = shape_batch(batch, source.chosen, shaper, len(roles.names)).batch
        for place, line in enumerate(shaped.lines):
            rows.read += 1
            if place in shaped.faults:
                rows.dropped[shaped.faults[place].bucket] += 1
                rows.reasons.append(f"line {line}: {shaped.faults[place].reason}")
                continue
            cells = (column[place] for column in (*shaped.cells, *beside))
            values = (f"{path.name}:{line}", str(path), line, *cells)
            for name, value in zip(rows.kept, values, strict=True):
                rows.kept[name].append(value)
    if not rows.kept["id"]:
        raise user_error(
            f"{str(path)!r} has no row that can be scored",
            allowed="conversations with an answer, as the model was trained on",
            why=f"of {rows.read:,} records: {dict(rows.dropped) or 'none was there'}",
            remedy=f"check the file; {rows.reasons[0]}" if rows.reasons else "check the file",
        )
    account = {"read": rows.read, "test": len(rows.kept["id"]), "dropped": dict(sorted(rows.dropped.items()))}
    return Examples(pa.table(rows.kept)), account, shaper.remarks()[1]
