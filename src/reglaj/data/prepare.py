"""Files in, three parts out, every record accounted for.

Two passes: the first streams every source once, enters each record in the ledger and stages its cells on disk; the
second writes them into the files they belong to. Memory holds one batch and some 60 bytes a record; looking for
near-duplicates takes more (see `reglaj.curation.near_duplicates`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import Console
from reglaj.core.errors import UserError
from reglaj.core.files import canonical_hash, new_folder, write_json
from reglaj.data.asked import check_split, kind_asked_for
from reglaj.data.belonging import SameWhenFolded
from reglaj.data.config import DataConfig
from reglaj.data.evidence import SPLIT_BUILTINS, Evidence
from reglaj.data.examples import Examples, PreparedData, load_prepared
from reglaj.data.extras import missing_columns
from reglaj.data.others import EarlierRun, others_of
from reglaj.data.reading import Source, no_records
from reglaj.data.roles import ColumnRoles
from reglaj.data.shaping import Shaper, shape_batch
from reglaj.data.sources import Opened, digests_of, locate, open_sources, place_of, preview
from reglaj.data.splits import SPLITS

if TYPE_CHECKING:
    from reglaj.data.cleaning import Cleaner
    from reglaj.data.ledger import Ledger
    from reglaj.data.relations import TextMatcher
    from reglaj.data.staging import Staging

__all__ = ["EarlierRun", "Examples", "Looks", "PreparedData", "prepare"]

# Raised whenever the same source and recipe would give other files than before.
_LAYOUT = 2


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Who looks at the texts, handed in from the floors above, and what they are compared with.

    keep: columns of the sources, beside those of the task, that the parts keep: to where each is named in the recipe.
    """

    matcher: TextMatcher = field(default_factory=SameWhenFolded)
    cleaner: Cleaner | None = None
    earlier: tuple[EarlierRun, ...] = ()
    keep: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Everything that is known before the first record is read."""

    config: DataConfig
    roles: ColumnRoles
    opened: list[Opened]
    shaper: Shaper | None
    looks: Looks
    compared: tuple[Sequence[Source], Sequence[str]]

    @property
    def extras(self) -> list[str]:
        """Columns beside those of the task that are read: for the split, and to be kept."""
        split = self.config.split
        named = [split.group, split.time, split.column if split.kind == "given" else None, *self.looks.keep]
        found = dict.fromkeys(name for name in named if name)
        columns = {name for one in self.opened for name in one.reader.columns}
        return [name for name in found if name in columns]  # `source` and `conversation` need not be columns


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
    looks: Looks | None = None,
) -> PreparedData:
    """The data folder for a recipe's `data` section; made once, and found again by its key.

    folder: what relative paths start from. store: where data folders live. resolve_starter: the local file
    of a `starter:NAME`. shaper: what makes stored columns of a record in one of the layouts of `roles`.
    Raises `UserError` with every problem of every source, and `GateRefused` where there is leakage that the recipe
    does not allow; then nothing is written.
    """
    assert shaper or not roles.layouts, "layouts hold other columns than those that are stored"
    looks = looks or Looks()
    check_split(config)
    sources = locate(config, folder, resolve_starter)
    compared = [
        Source(path=place_of(path, folder, resolve_starter), name=path, kind=None, columns={})
        for path in config.decontaminate
    ]
    digests = digests_of([*sources, *compared], console)
    digests, others = digests[: len(sources)], digests[len(sources) :]
    opened = open_sources(sources, digests, roles)
    config, why = _decided(config, opened, default_split, console)
    _refuse_missing(config, opened, looks)
    plan = _Plan(config=config, roles=roles, opened=opened, shaper=shaper, looks=looks, compared=(compared, others))
    key = _key(plan, task)
    stored = load_prepared(store / key)
    if stored:
        return _because(stored, why)
    with _leaving_nothing(store), new_folder(store / key) as target:
        _fill(target, plan, console)
    prepared = _found(store / key)
    for note in prepared.report["notes"]:
        console.warn(note)
    return _because(prepared, why)


def _because(data: PreparedData, why: str) -> PreparedData:
    """The data with the sentence of this recipe's split: another recipe may have led to the same data."""
    split = data.report["split"]
    told = "; ".join(filter(None, [why, split["kept"]])) if why else ""
    return replace(data, report={**data.report, "split": {**split, "why": told}})


def _found(folder: Path) -> PreparedData:
    """The finished folder; another process that made the same one may be putting its own in this place."""
    for _ in range(100):
        if prepared := load_prepared(folder):
            return prepared
        time.sleep(0.02)
    raise AssertionError("a finished data folder has a report")


def _decided(config: DataConfig, opened: Sequence[Opened], default: str, console: Console) -> tuple[DataConfig, str]:
    """The section with `auto` and what was left out filled in, and the sentence that says why."""
    split, why = config.split, ""
    if split.kind == "auto" and (asked := kind_asked_for(config)):
        kind, why = asked
        split = split.model_copy(update={"kind": kind})
    elif split.kind == "auto" and not (beside := preview(opened, console)):
        split = split.model_copy(update={"kind": default})
        why = f"{default} split: the sources have no column beside those of the task"
    elif split.kind == "auto":
        from reglaj.data.splits.automatic import choose

        choice = choose(beside, default=default)
        why = choice.sentence
        split = split.model_copy(update={"kind": choice.kind, "group": choice.group, "time": choice.time})
    SPLITS.get(split.kind, where="data.split.kind")
    leakage = config.leakage or ("stop" if split.kind == "given" else "repair")
    return config.model_copy(update={"split": split, "leakage": leakage}), why


def _refuse_missing(config: DataConfig, opened: Sequence[Opened], looks: Looks) -> None:
    columns = list(dict.fromkeys(name for one in opened for name in one.reader.columns))
    named = {name: f"data.split.{key}" for key in ("group", "time", "column") if (name := getattr(config.split, key))}
    wanted = {name: where for name, where in named.items() if name in columns or name not in SPLIT_BUILTINS}
    problems = missing_columns(
        {**looks.keep, **wanted}, columns, "the data" if len(opened) > 1 else opened[0].source.name
    )
    if problems:
        raise UserError(*problems)


def _key(plan: _Plan, task: str) -> str:
    """What decides the files: contents and settings, and neither names nor places of the sources."""
    section = plan.config.model_dump(mode="json")
    roles, shaper, looks = plan.roles, plan.shaper, plan.looks
    for source, values in zip(plan.config.sources, section["sources"], strict=True):
        del values["path"]
        values["columns"] = {role: source.columns.get(role, role) for role in roles.source_names}
    if shaper is None:
        del section["too_long"]
    del section["clean"], section["near_duplicates"]  # who looks says by itself what it looks for
    section["decontaminate"] = list(plan.compared[1])
    facts: dict[str, Any] = {
        "layout": _LAYOUT,
        "data": section,
        "task": task,
        "inputs": roles.inputs,
        "target": roles.target,
        "keep": sorted(looks.keep),
        "matcher": dict(looks.matcher.identity()),
        "cleaner": dict(looks.cleaner.identity()) if looks.cleaner else None,
        "earlier": [[run.digest, run.is_comparable(roles)] for run in looks.earlier],
    }
    if shaper:
        facts["shaper"] = dict(shaper.identity())
    return canonical_hash(facts | {"sources": [one.digest for one in plan.opened]})[:32]


def _fill(target: Path, plan: _Plan, console: Console) -> None:
    """Both passes, into the folder `target`."""
    from reglaj.data.accounting import account
    from reglaj.data.clusters import kept_together
    from reglaj.data.ledger import Ledger
    from reglaj.data.staging import Staging
    from reglaj.data.summary import summarise
    from reglaj.data.writing import FolderWriter, RecordIds

    roles, looks = plan.roles, plan.looks
    ledger, staging = Ledger(roles), Staging(target, roles, plan.extras)
    first = []
    try:
        for place, one in enumerate(plan.opened):
            first.append(ledger.num_records)
            _read(place, one, ledger, staging, plan, console)
    finally:
        staging.close()
    repaired = looks.cleaner.repaired if looks.cleaner and looks.cleaner.repairs else None  # other texts are read below
    columns, names = ledger.columns(), [one.source.name for one in plan.opened]
    evidence = Evidence(
        config=plan.config,
        staging=staging,
        matcher=looks.matcher,
        cleaner=looks.cleaner,
        others=others_of(*plan.compared, looks.earlier, plan.config, roles, looks.cleaner),
        source_parts=[source.part for source in plan.config.sources],
        console=console,
    )
    split = SPLITS.get(plan.config.split.kind)()
    accounts = account(columns, plan.config, split, evidence, sources=names, has_labels=roles.target is not None)
    ids = RecordIds([one.digest for one in plan.opened], first)
    FolderWriter(target, roles, names, ids, staging.extras).write(staging, columns, accounts, console)
    described = [_describe(one, roles) for one in plan.opened]
    kept = kept_together(evidence) if split.is_ours else ""
    report = summarise(columns, accounts, described, roles, evidence, kept)
    staging.path.unlink()
    if plan.shaper:
        report["rendering"], sentences = plan.shaper.remarks()
        report["notes"] += sentences
    report["notes"] += [run.note for run in looks.earlier if not run.is_comparable(roles)]
    if repaired is not None:
        report["repaired_texts"] = repaired
        report["notes"].append(f"{repaired:,} texts with a broken encoding were mended")
    write_json(target / "report.json", report)


def _read(place: int, one: Opened, ledger: Ledger, staging: Staging, plan: _Plan, console: Console) -> None:
    """First pass over one source."""
    from reglaj.data.reading.batch import BATCH_ROWS
    from reglaj.data.reading.files import guarded

    before, shown, shaper, looks = ledger.num_records, 0, plan.shaper, plan.looks
    batches = one.read(staging.extras, BATCH_ROWS)
    with console.progress(f"reading {one.source.name}", one.reader.file.size >> 10, "kB") as advance:
        for batch, extras in guarded(one.source.name, batches):
            one.mend(batch, looks.cleaner, plan.roles.target)
            if len(batch) and shaper:
                shaped = shape_batch(batch, one.chosen, shaper, ledger.num_stored)
                staging.add(shaped.batch, ledger.add(place, shaped.batch, shaped.records), extras)
            elif len(batch):
                staging.add(batch, ledger.add(place, batch), extras)
            position = one.reader.file.position >> 10
            advance(max(0, position - shown))
            shown = max(shown, position)
        advance(max(0, (one.reader.file.size >> 10) - shown))
    if ledger.num_records == before:
        raise no_records(one.source.name)


def _describe(one: Opened, roles: ColumnRoles) -> dict[str, Any]:
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


def _json_in_texts(one: Opened) -> list[str]:
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
