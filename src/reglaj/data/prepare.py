"""Files in, three parts out, every record accounted for.

Two passes: the first streams every source once, enters each record in the ledger and stages its cells on disk; the
second writes them into the files they belong to. Memory holds one batch and some 60 bytes a record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import Console
from reglaj.core.errors import Problem, UserError, listing, nearest
from reglaj.core.files import canonical_hash, new_folder, write_json
from reglaj.data.config import DataConfig
from reglaj.data.examples import Examples, PreparedData, load_prepared
from reglaj.data.reading import Source, no_records, open_reader
from reglaj.data.roles import ColumnRoles
from reglaj.data.splits import SPLITS

if TYPE_CHECKING:
    from reglaj.data.ledger import Ledger
    from reglaj.data.reading.base import Reader
    from reglaj.data.splits.base import Split
    from reglaj.data.writing import Staging

__all__ = ["Examples", "PreparedData", "prepare"]

# Raised whenever the same source and recipe would give other files than before.
_LAYOUT = 1
_STARTER = "starter:"


@dataclass(frozen=True)
class _Opened:
    """A source with its reader and the columns to take, in the order of the roles."""

    source: Source
    digest: str
    reader: Reader
    columns: list[str]


def prepare(  # noqa: PLR0913  (what the floors above know and this one may not ask for is handed in)
    config: DataConfig,
    roles: ColumnRoles,
    *,
    folder: Path,
    store: Path,
    task: str,
    default_split: str,
    resolve_starter: Callable[[str], Path],
    console: Console,
) -> PreparedData:
    """The data folder for a recipe's `data` section; made once, and found again by its key.

    folder: what relative paths start from. store: where data folders live. resolve_starter: the local file
    of a `starter:NAME`. Raises `UserError` with every problem of every source; then nothing is written.
    """
    if config.split.kind == "auto":
        config = config.model_copy(update={"split": config.split.model_copy(update={"kind": default_split})})
    split = SPLITS.get(config.split.kind, where="data.split.kind")()
    sources = _locate(config, folder, resolve_starter)
    digests = _digest(sources, console)
    key = _key(config, roles, task, digests)
    stored = load_prepared(store / key)
    if stored:
        return stored
    opened = _open(sources, digests, roles)
    with _leaving_nothing(store), new_folder(store / key) as target:
        _fill(target, opened, config, roles, split, console)
    prepared = load_prepared(store / key)
    assert prepared, "a finished data folder has a report"
    for note in prepared.report["notes"]:
        console.warn(note)
    return prepared


def _locate(config: DataConfig, folder: Path, resolve_starter: Callable[[str], Path]) -> list[Source]:
    def place(path: str) -> Path:
        return resolve_starter(path) if path.startswith(_STARTER) else folder / Path(path).expanduser()

    return [
        Source(path=place(source.path), name=source.path, kind=source.kind, columns=dict(source.columns))
        for source in config.sources
    ]


def _digest(sources: list[Source], console: Console) -> list[str]:
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


def _key(config: DataConfig, roles: ColumnRoles, task: str, digests: list[str]) -> str:
    """What decides the files: contents and settings, and neither names nor places of the sources."""
    section = config.model_dump(mode="json")
    for source, values in zip(config.sources, section["sources"], strict=True):
        del values["path"]
        values["columns"] = {role: source.columns.get(role, role) for role in roles.names}
    facts = {"layout": _LAYOUT, "data": section, "task": task, "inputs": roles.inputs, "target": roles.target}
    return canonical_hash(facts | {"sources": digests})[:32]


def _open(sources: list[Source], digests: list[str], roles: ColumnRoles) -> list[_Opened]:
    opened: list[_Opened] = []
    problems: list[Problem] = []
    for place, (source, digest) in enumerate(zip(sources, digests, strict=True)):
        try:
            reader = open_reader(source.path, source.name, source.kind)
        except UserError as error:
            problems += error.problems
            continue
        found = column_problems(reader, source, roles, where=f"data.sources.{place}.columns")
        problems += found
        if not found:
            columns = [source.columns.get(role, role) for role in roles.names]
            opened.append(_Opened(source, digest, reader, columns))
    if problems:
        raise UserError(*problems)
    return opened


def column_problems(reader: Reader, source: Source, roles: ColumnRoles, *, where: str) -> list[Problem]:
    """What is wrong with a source's `columns`: roles that the task lacks, and columns that the file lacks."""
    problems = []
    for role in sorted(source.columns.keys() - set(roles.names)):
        guess = nearest(role, roles.names)
        problems.append(
            Problem(
                where=f"{where}.{role}",
                given=f"unknown role {role!r}",
                allowed=listing(roles.names),
                why="the task reads these columns and no others",
                remedy=f"did you mean {guess!r}?" if guess else "remove it",
            )
        )
    if not reader.columns and not problems:
        return list(no_records(source.name).problems)
    for role in roles.names:
        column = source.columns.get(role, role)
        if column not in reader.columns:
            problems.append(_unknown_column(column, role, reader, source.name, where))
    return problems


def _unknown_column(column: str, role: str, reader: Reader, name: str, where: str) -> Problem:
    guess = nearest(column, reader.columns)
    numbered = [found for found in reader.columns if found.startswith(f"{column} (")]
    if numbered:
        why, remedy = f"{column!r} occurs several times in the header", f"choose one of {listing(numbered)}"
    else:
        why = next((note for note in reader.notes if "no header" in note), f"the task reads its `{role}` from it")
        remedy = f"did you mean {guess!r}? " if guess else ""
        remedy += f"say which column it is: `columns: {{{role}: ...}}`"
    return Problem(
        where=f"{where}.{role}",
        given=f"{name!r} has no column {column!r}",
        allowed=listing(reader.columns),
        why=why,
        remedy=remedy,
    )


def _fill(
    target: Path, opened: list[_Opened], config: DataConfig, roles: ColumnRoles, split: Split, console: Console
) -> None:
    """Both passes, into the folder `target`."""
    from reglaj.data.accounting import account
    from reglaj.data.ledger import Ledger
    from reglaj.data.summary import summarise
    from reglaj.data.writing import FolderWriter, RecordIds, Staging

    ledger, staging = Ledger(roles), Staging(target, roles)
    first = []
    try:
        for place, one in enumerate(opened):
            first.append(ledger.num_records)
            _read(place, one, ledger, staging, console)
    finally:
        staging.close()
    columns = ledger.columns()
    accounts = account(columns, config, split, has_labels=roles.target is not None)
    ids = RecordIds([one.digest for one in opened], first)
    FolderWriter(target, roles, [one.source.name for one in opened], ids).write(staging, columns, accounts, console)
    staging.path.unlink()
    write_json(target / "report.json", summarise(columns, accounts, list(map(_describe, opened)), roles, config))


def _read(place: int, one: _Opened, ledger: Ledger, staging: Staging, console: Console) -> None:
    """First pass over one source."""
    from reglaj.data.reading.batch import BATCH_ROWS
    from reglaj.data.reading.files import guarded

    before, shown = ledger.num_records, 0
    with console.progress(f"reading {one.source.name}", one.reader.file.size >> 10, "kB") as advance:
        for batch in guarded(one.source.name, one.reader.read(one.columns, BATCH_ROWS)):
            if len(batch):
                staging.add(batch, ledger.add(place, batch))
            position = one.reader.file.position >> 10
            advance(max(0, position - shown))
            shown = max(shown, position)
        advance(max(0, (one.reader.file.size >> 10) - shown))
    if ledger.num_records == before:
        raise no_records(one.source.name)


def _describe(one: _Opened) -> dict[str, Any]:
    reader, dialect = one.reader, one.reader.dialect
    return {
        "name": one.source.name,
        "kind": reader.kind,
        "compression": reader.file.compression,
        "encoding": reader.encoding.label if reader.encoding else None,
        "delimiter": dialect.delimiter if dialect else None,
        "quotechar": dialect.quotechar if dialect else None,
        "columns": one.columns,
        "bytes": reader.file.size,
        "sha256": one.digest,
        "notes": reader.notes,
    }


@contextlib.contextmanager
def _leaving_nothing(store: Path) -> Iterator[None]:
    """When the block fails, folders that it had to make on the way to `store` go again."""
    made = [folder for folder in (store, *store.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else put something there: then it stays
                folder.rmdir()
        raise
