"""The sources of a recipe: found, hashed, opened, and looked at for columns beside those of the task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reglaj.core.console import Console
from reglaj.core.errors import Problem, UserError
from reglaj.data.cleaning import Cleaner
from reglaj.data.config import DataConfig
from reglaj.data.folding import digest as digest_of
from reglaj.data.layouts import Chosen, choose_layout
from reglaj.data.reading import Source, no_records, open_reader
from reglaj.data.reading.base import Reader
from reglaj.data.reading.batch import Batch
from reglaj.data.roles import ColumnRoles

_STARTER = "starter:"
PREVIEW_ROWS = 20_000
"""Records of each source that `auto` looks at."""
_PREVIEW_CHARACTERS = 100


@dataclass(frozen=True)
class Opened:
    """A source with its reader, and the layout that its columns are in."""

    source: Source
    digest: str
    reader: Reader
    chosen: Chosen

    def read(self, extras: Sequence[str], max_rows: int) -> Iterator[tuple[Batch, list[list[str | None]]]]:
        """Batches of the columns of the layout, and the cells of extra columns, None where there are none."""
        wanted = list(self.chosen.columns.values())
        more = [name for name in extras if name not in wanted and (self.may_have(name))]
        batches = self.reader.read(
            [*wanted, *more],
            max_rows,
            nested=self.chosen.nested | frozenset(more),
            optional=self.chosen.optional | frozenset(more),
        )
        for batch in batches:
            cells = dict(zip([*wanted, *more], batch.cells, strict=True))
            beside = [list(cells.get(name) or [None] * len(batch)) for name in extras]
            yield Batch(lines=batch.lines, cells=batch.cells[: len(wanted)], faults=batch.faults), beside

    def mend(self, batch: Batch, cleaner: Cleaner | None, target: str | None) -> None:
        """Mend the texts of a batch where the recipe asks for it; targets stay as they are."""
        if cleaner is None or not cleaner.repairs:
            return
        for number, role in enumerate(self.chosen.columns):
            if role != target:
                batch.cells[number] = [cell and cleaner.repair(cell) for cell in batch.cells[number]]

    def may_have(self, column: str) -> bool:
        """Whether the source has the column, as far as its beginning tells."""
        return column in self.reader.columns or self.reader.may_have_more


def locate(config: DataConfig, folder: Path, resolve_starter: Callable[[str], Path]) -> list[Source]:
    """The sources as files."""
    return [
        Source(
            path=place_of(source.path, folder, resolve_starter),
            name=source.path,
            kind=source.kind,
            columns=dict(source.columns),
        )
        for source in config.sources
    ]


def place_of(path: str, folder: Path, resolve_starter: Callable[[str], Path]) -> Path:
    """Where a file of a recipe lies: a starter, or relative to the recipe."""
    return resolve_starter(path) if path.startswith(_STARTER) else folder / Path(path).expanduser()


def digests_of(sources: Sequence[Source], console: Console) -> list[str]:
    """SHA-256 of each source. Raises `UserError` for all that cannot be read at once."""
    import hashlib

    from reglaj.data.reading.files import open_file, unreadable

    problems: list[Problem] = []
    digests = []
    for source in sources:
        try:
            size_kb = open_file(source.path, source.name).size >> 10
            digest = hashlib.sha256()
            with source.path.open("rb") as file, console.progress(f"checking {source.name}", size_kb, "kB") as advance:
                while piece := file.read(1 << 20):
                    digest.update(piece)
                    advance(len(piece) >> 10)
            digests.append(digest.hexdigest())
        except UserError as error:
            problems += error.problems
        except OSError as error:
            problems += unreadable(source.name, error).problems
    if problems:
        raise UserError(*problems)
    return digests


def open_sources(sources: Sequence[Source], digests: Sequence[str], roles: ColumnRoles) -> list[Opened]:
    """Every source with its reader. Raises `UserError` with the problems of all of them."""
    opened: list[Opened] = []
    problems: list[Problem] = []
    for place, (source, digest) in enumerate(zip(sources, digests, strict=True)):
        try:
            reader = open_reader(source.path, source.name, source.kind)
        except UserError as error:
            problems += error.problems
            continue
        if not reader.columns:
            problems += no_records(source.name).problems
            continue
        where = f"data.sources.{place}.columns"
        chosen = choose_layout(
            reader, source.name, source.columns, roles, where=where, may_have_more=reader.may_have_more
        )
        if isinstance(chosen, Chosen):
            opened.append(Opened(source, digest, reader, chosen))
        else:
            problems += chosen
    if problems:
        raise UserError(*problems)
    return opened


def preview(opened: Sequence[Opened], console: Console) -> dict[str, list[str | None]]:
    """The cells of the columns beside those of the task, of the first `PREVIEW_ROWS` records of each source."""
    from reglaj.data.reading.files import guarded

    names: list[str] = []
    for one in opened:
        taken = set(one.chosen.columns.values())
        names += [name for name in one.reader.columns if name not in taken and name not in names]
    cells: dict[str, list[str | None]] = {name: [] for name in names}
    if not names:
        return cells
    for one in opened:
        reader = open_reader(one.source.path, one.source.name, one.source.kind)
        again, rows = Opened(one.source, one.digest, reader, one.chosen), 0
        for batch, beside in guarded(one.source.name, again.read(names, 4096)):
            for name, column in zip(names, beside, strict=True):
                cells[name] += map(_shortened, column)
            rows += len(batch)
            if rows >= PREVIEW_ROWS:
                break
    return cells


def _shortened(cell: str | None) -> str | None:
    """Long cells are told apart by their beginning and a hash: they are neither dates nor names, only counted."""
    if cell is None or len(cell) <= _PREVIEW_CHARACTERS:
        return cell
    return f"{cell[:_PREVIEW_CHARACTERS]}{digest_of([cell]).hex()}"
