"""Files that a finished run is given: read as its training read them, whatever their layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.errors import UserError, user_error
from reglaj.data.layouts import Chosen, choose_layout
from reglaj.data.reading import open_reader
from reglaj.data.reading.batch import BATCH_ROWS
from reglaj.data.reading.files import guarded

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
        columns = list(self.chosen.columns.values())
        settings = {"nested": self.chosen.nested, "optional": self.chosen.optional}
        yield from guarded(str(self.reader.file.name), self.reader.read(columns, BATCH_ROWS, **settings))


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
    rows = _Rows(kept={name: [] for name in ("id", "source", "line", *roles.names)})
    for batch in source.batches():
        shaped = shape_batch(batch, source.chosen, shaper, len(roles.names)).batch
        for place, line in enumerate(shaped.lines):
            rows.read += 1
            if place in shaped.faults:
                rows.dropped[shaped.faults[place].bucket] += 1
                rows.reasons.append(f"line {line}: {shaped.faults[place].reason}")
                continue
            values = (f"{path.name}:{line}", str(path), line, *(column[place] for column in shaped.cells))
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
