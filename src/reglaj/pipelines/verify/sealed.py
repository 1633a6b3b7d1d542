"""Promise 2: the test split is sealed: no text in two parts, the parts as in the ledger, every opening counted."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.errors import listing
from reglaj.data.conversation import Conversation
from reglaj.data.examples import OPENINGS
from reglaj.data.folding import digest, fold
from reglaj.data.splits.base import PARTS
from reglaj.pipelines.verify.leakage import is_left_to_report, leaking
from reglaj.pipelines.verify.stored import Stored
from reglaj.pipelines.verify.subject import Subject, short
from reglaj.pipelines.verify.verdicts import Finding, concluded, counted, not_applicable

if TYPE_CHECKING:
    import pyarrow as pa

    from reglaj.data.examples import PreparedData
    from reglaj.data.roles import ColumnRoles


def sealed_test(subject: Subject) -> Finding:
    """No folded text crosses a split, every row of a part is in the ledger's bucket, and the openings are there."""
    if subject.data is None:
        return not_applicable(subject.no_data)
    stored, roles = subject.stored, subject.task_type.roles
    is_reported = is_left_to_report(stored)
    problems = [*_misplaced(stored), *_other_test(subject, stored, roles)]
    problems += [] if is_reported and stored.report.get("leakage") else _crossing(stored, roles)
    problems += leaking(subject, stored)
    _, openings = subject.test
    problems += _uncounted(subject)
    rows = ", ".join(f"{stored.parts[part].num_rows:,} {part}" for part in PARTS)
    return concluded(
        problems,
        f"{rows} rows {_told(subject, stored)} and lie in the ledger's buckets; the test rows "
        f"({short(test_hash(subject))})"
        f" have been opened {counted(openings, 'time')}, by this run and by this check too",
    )


def _told(subject: Subject, stored: Stored) -> str:
    """What was looked for between parts, in words."""
    if is_left_to_report(stored):
        return "share no folded text" if not stored.report.get("leakage") else "may leak (data.leakage is report)"
    split = subject.recipe.data.split
    looked = ["folded text", *(["near-duplicate"] if subject.recipe.data.near_duplicates else [])]
    looked += [f"group by {split.group!r}"] if split.group else []
    ahead = f", run forward in {split.time!r}" if split.time else ""
    return f"share no {listing(looked)}{ahead}"


def test_hash(subject: Subject) -> str:
    """SHA-256 of the test rows as they lie there now, made as the data's own report makes it."""
    table, roles = subject.stored.parts["test"], subject.task_type.roles
    inputs = zip(*(table[role].to_pylist() for role in roles.inputs), strict=True)
    labels = table[roles.target].to_pylist() if roles.target else [None] * table.num_rows
    rows = [
        digest(texts) + (hashlib.sha256(label.encode()).digest() if label is not None else b"")
        for texts, label in zip(inputs, labels, strict=True)
    ]
    return hashlib.sha256(b"".join(sorted(rows))).hexdigest()


def _crossing(stored: Stored, roles: ColumnRoles) -> Iterator[str]:
    """Texts of two parts that are equal after folding."""
    homes: dict[bytes, tuple[str, str]] = {}
    for part in PARTS:
        table = stored.parts[part]
        places = zip(table["source"].to_pylist(), table["line"].to_pylist(), strict=True)
        for texts, (source, line) in zip(_groups(table, roles), places, strict=True):
            key = digest([fold(text) for text in texts])
            home, place = homes.setdefault(key, (part, f"line {line} of {source}"))
            if home != part:
                yield f"line {line} of {source} ({part}) and {place} ({home}) are the same text after folding"


def _groups(table: pa.Table, roles: ColumnRoles) -> Iterator[tuple[str, ...]]:
    """The texts of each row that decide which part it is in: of conversations what the user asks."""
    if roles.inputs == ("conversation",):
        return (Conversation.from_json(text).questions for text in table["conversation"].to_pylist())
    return iter(zip(*(table[role].to_pylist() for role in roles.inputs), strict=True))


def _misplaced(stored: Stored) -> Iterator[str]:
    """Rows of a part that the ledger has elsewhere, and records of a bucket that its part does not hold."""
    for part in PARTS:
        ids = stored.parts[part]["id"].to_pylist()
        for number in ids:
            record = stored.by_id.get(number)
            if record is None:
                yield f"a row of {part}.parquet is not in the ledger ({number})"
            elif record.bucket != part:
                yield f"{record.place} is in {part}.parquet, and the ledger has it in {record.bucket}"
        held = set(ids)
        if len(held) < len(ids):
            yield f"{len(ids) - len(held):,} records are in {part}.parquet twice"
        for record in stored.records:
            if record.bucket == part and record.id not in held:
                yield f"{record.place} is in {part} by the ledger, and not in {part}.parquet"


def _other_test(subject: Subject, stored: Stored, roles: ColumnRoles) -> Iterator[str]:
    found = test_hash(subject)
    told = {"the report of the data": stored.report, "report.json": subject.report.get("data") or {}}
    for name, report in told.items():
        if report.get("test_hash") != found:
            yield f"the test rows have the hash {short(found)}, and {name} says {short(report.get('test_hash'))}"


def _uncounted(subject: Subject) -> Iterator[str]:
    """What is missing in the list of openings: this run's own, or some of those that its report counts."""
    assert subject.data is not None
    names = {subject.path.name, Path(str(subject.report.get("run"))).name}
    opened_by = [str(line.get("opened_by")) for line in _openings(subject.data)]
    own = [number for number, name in enumerate(opened_by, start=1) if name in names]
    then = subject.report.get("test_openings")
    if not own:
        yield f"{OPENINGS} does not have the opening by {subject.path.name}"
    elif not isinstance(then, int):
        yield "report.json does not say how often the test rows had been opened"
    elif own[-1] < then:
        yield f"{OPENINGS} has {own[-1]:,} openings up to that of the run, and report.json counted {then:,}"


def _openings(data: PreparedData) -> Iterator[dict[str, Any]]:
    """The openings of these test rows, oldest first; a line that a crash cut off is none."""
    for text in (data.folder.parent / OPENINGS).read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and line.get("test") == data.test_hash:
                yield line
