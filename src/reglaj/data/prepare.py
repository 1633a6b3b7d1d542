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
from reglaj.core.errors import Problem, UserError
from reglaj.core.files import canonical_hash, new_folder, write_json
from reglaj.data.config import DataConfig
from reglaj.data.examples import Examples, PreparedData, load_prepared
from reglaj.data.layouts import Chosen, choose_layout
from reglaj.data.reading import Source, no_records, open_reader
from reglaj.data.roles import ColumnRoles
from reglaj.data.shaping import Shaper, shape_batch
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
    """A source with its reader, and the layout that its columns are in."""

    source: Source
    digest: str
    reader: Reader
    chosen: Chosen


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
    shaper: Shaper | None = None,
) -> PreparedData:
    """The data folder for a recipe's `data` section; made once, and found again by its key.

    folder: what relative paths start from. store: where data folders live. resolve_starter: the local file
    of a `starter:NAME`. shaper: what makes stored columns of a record in one of the layouts of `roles`.
    Raises `UserError` with every problem of every source; then nothing is written.
    """
    assert shaper or not roles.layouts, "layouts hold other columns than those that are stored"
    if config.split.kind == "auto":
        config = config.model_copy(update={"split": config.split.model_copy(update={"kind": default_split})})
    split = SPLITS.get(config.split.kind, where="data.split.kind")()
    sources = _locate(config, folder, resolve_starter)
    digests = _digest(sources, console)
    key = _key(config, roles, task, digests, shaper)
    stored = load_prepared(store / key)
    if stored:
        return stored
    opened = _open(sources, digests, roles)
    with _leaving_nothing(store), new_folder(store / key) as target:
        _fill(target, opened, config, roles, split, shaper, console)
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


def _key(config: DataConfig, roles: ColumnRoles, task: str, digests: list[str], shaper: Shaper | None) -> str:
    """What decides the files: contents and settings, and neither names nor places of the sources."""
    section = config.model_dump(mode="json")
    for source, values in zip(config.sources, section["sources"], strict=True):
        del values["path"]
        values["columns"] = {role: source.columns.get(role, role) for role in roles.source_names}
    if shaper is None:
        del section["too_long"]
    facts: dict[str, Any] = {
        "layout": _LAYOUT,
        "data": section,
        "task": task,
        "inputs": roles.inputs,
        "target": roles.target,
    }
    if shaper:
        facts["shaper"] = dict(shaper.identity())
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
        if not reader.columns:
            problems += no_records(source.name).problems
            continue
        where = f"data.sources.{place}.columns"
        chosen = choose_layout(
            reader, source.name, source.columns, roles, where=where, may_have_more=reader.may_have_more
        )
        if isinstance(chosen, Chosen):
            opened.append(_Opened(source, digest, reader, chosen))
        else:
            problems += chosen
    if problems:
        raise UserError(*problems)
    return opened


def _fill(
    target: Path,
    opened: list[_Opened],
    config: DataConfig,
    roles: ColumnRoles,
    split: Split,
    shaper: Shaper | None,
    console: Console,
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
            _read(place, one, ledger, staging, shaper, console)
    finally:
        staging.close()
    columns = ledger.columns()
    accounts = account(columns, config, split, has_labels=roles.target is not None)
    ids = RecordIds([one.digest for one in opened], first)
    FolderWriter(target, roles, [one.source.name for one in opened], ids).write(staging, columns, accounts, console)
    staging.path.unlink()
    report = summarise(columns, accounts, [_describe(one, roles) for one in opened], roles, config)
    if shaper:
        report["rendering"], sentences = shaper.remarks()
        report["notes"] += sentences
    write_json(target / "report.json", report)


def _read(place: int, one: _Opened, ledger: Ledger, staging: Staging, shaper: Shaper | None, console: Console) -> None:
    """First pass over one source."""
    from reglaj.data.reading.batch import BATCH_ROWS
    from reglaj.data.reading.files import guarded

    before, shown = ledger.num_records, 0
    columns, chosen = list(one.chosen.columns.values()), one.chosen
    batches = one.reader.read(columns, BATCH_ROWS, nested=chosen.nested, optional=chosen.optional)
    with console.progress(f"reading {one.source.name}", one.reader.file.size >> 10, "kB") as advance:
        for batch in guarded(one.source.name, batches):
            if len(batch) and shaper:
                shaped = shape_batch(batch, chosen, shaper, ledger.num_stored)
                staging.add(shaped.batch, ledger.add(place, shaped.batch, shaped.records))
            elif len(batch):
                staging.add(batch, ledger.add(place, batch))
            position = one.reader.file.position >> 10
            advance(max(0, position - shown))
            shown = max(shown, position)
        advance(max(0, (one.reader.file.size >> 10) - shown))
    if ledger.num_records == before:
        raise no_records(one.source.name)


def _describe(one: _Opened, roles: ColumnRoles) -> dict[str, Any]:
    reader, dialect = one.reader, one.reader.dialect
    facts: dict[str, Any] = {"layout": one.chosen.layout.name} if roles.layouts else {}
    return facts | {
        "name": one.source.name,
        "kind": reader.kind,
        "compression": reader.file.compression,
        "encoding": reader.encoding.label if reader.encoding else None,
        "delimiter": dialect.delimiter if dialect else None,
        "quotechar": dialect.quotechar if dialect else None,
        "columns": [column for column in one.chosen.columns.values() if column in reader.columns],
        "bytes": reader.file.size,
        "sha256": one.digest,
        "notes": reader.notes + _json_in_texts(one),
    }


def _json_in_texts(one: _Opened) -> list[str]:
    """What is said where the turns of a conversation came as a text with JSON inside."""
    chosen, counts = one.chosen, one.reader.json_texts
    required = [chosen.columns[role] for role in chosen.layout.required if role in chosen.layout.nested]
    return [f"{name!r} is a text in {counts[name]:,} records: read as JSON" for name in required if counts[name]]


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
