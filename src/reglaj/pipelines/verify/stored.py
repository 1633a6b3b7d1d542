"""A data folder as it lies on disk, whether it agrees with itself, and where two of them differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.data.splits.base import PARTS
from reglaj.pipelines.verify.subject import read_json, read_json_lines, reading

if TYPE_CHECKING:
    import pyarrow as pa

_COUNTS = ("read", *PARTS, "dropped", "test_hash")


@dataclass(frozen=True, slots=True)
class Record:
    """A line of the ledger."""

    id: str
    source: str
    line: int
    bucket: str
    reason: str | None

    @property
    def place(self) -> str:
        return f"line {self.line} of {self.source}"


@dataclass
class Stored:
    """Every file of a data folder. parts: by name. rejects: the lines of rejects.jsonl."""

    records: list[Record]
    examples: pa.Table
    parts: dict[str, pa.Table]
    rejects: list[dict[str, Any]]
    report: dict[str, Any]

    @cached_property
    def by_id(self) -> dict[str, Record]:
        return {record.id: record for record in self.records}


def read_stored(folder: Path) -> Stored:
    """The files of a data folder. Raises `UserError` for one that cannot be read."""
    return Stored(
        records=[Record(**row) for row in _table(folder, "records").to_pylist()],
        examples=_table(folder, "examples"),
        parts={part: _table(folder, part) for part in PARTS},
        rejects=read_json_lines(folder / "rejects.jsonl"),
        report=read_json(folder / "report.json"),
    )


def _table(folder: Path, name: str) -> pa.Table:
    import pyarrow.parquet as pq

    path = folder / f"{name}.parquet"
    with reading(path):
        return pq.read_table(path)


def contradictions(stored: Stored, reported: Mapping[str, Any]) -> list[str]:
    """Where a data folder disagrees with itself, or with what the run's report.json says of it."""
    problems = [*_wrong_counts(stored), *_wrong_rejects(stored), *_wrong_examples(stored)]
    different = [name for name in _COUNTS if stored.report.get(name) != reported.get(name)]
    return problems + [f"report.json says another {name} than the report of the data" for name in different]


def _wrong_counts(stored: Stored) -> Iterator[str]:
    report, buckets = stored.report, Counter(record.bucket for record in stored.records)
    if len(stored.records) != report["read"]:
        yield f"the ledger has {len(stored.records):,} lines, and {report['read']:,} records were read"
    if len(stored.by_id) != len(stored.records):
        yield f"{len(stored.records) - len(stored.by_id):,} records are in the ledger twice"
    said = {part: report[part] for part in PARTS} | report["dropped"]
    for bucket in sorted(buckets.keys() | said.keys()):
        if buckets[bucket] != said.get(bucket, 0):
            yield f"the ledger has {buckets[bucket]:,} records in {bucket}, the report {said.get(bucket, 0):,}"
    if report["read"] != sum(said.values()):
        yield f"{report['read']:,} records were read, and {sum(said.values()):,} are kept or dropped"
    for part in PARTS:
        if stored.parts[part].num_rows != report[part]:
            yield f"{part}.parquet has {stored.parts[part].num_rows:,} rows, the report says {report[part]:,}"


def _wrong_rejects(stored: Stored) -> Iterator[str]:
    """Each dropped record is in rejects.jsonl, with the line and the reason that the ledger has."""
    dropped = [record for record in stored.records if record.bucket not in PARTS]
    rejects = {str(reject.get("id")): reject for reject in stored.rejects}
    for record in dropped:
        reject = rejects.pop(record.id, None)
        if not record.reason:
            yield f"{record.place} was dropped ({record.bucket}) without a reason"
        if reject is None:
            yield f"{record.place} was dropped ({record.bucket}) and is not in rejects.jsonl"
        elif (reject["line"], reject["bucket"], reject["reason"]) != (record.line, record.bucket, record.reason):
            yield f"rejects.jsonl tells of {record.place} otherwise than the ledger"
    if rejects:
        yield f"{len(rejects):,} lines of rejects.jsonl are of no dropped record"


def _wrong_examples(stored: Stored) -> Iterator[str]:
    kept = {record.id: record.bucket for record in stored.records if record.bucket in PARTS}
    owners = {row["record"]: row["part"] for row in stored.examples.to_pylist()}
    if owners != kept:
        different = len(owners.items() ^ kept.items())
        yield f"examples.parquet and the ledger differ about the parts of {different:,} records"


def differences(stored: Stored, again: Stored, names: Mapping[str, str]) -> list[str]:
    """What a second reading of the sources finds otherwise. names: of its sources, to what the first called them."""
    called = _Renamer(names)
    found = list(_other_records(stored, again, called))
    for part in PARTS:
        if not _same_rows(stored.parts[part], again.parts[part]):
            found.append(f"{part}.parquet does not hold the rows that the sources give")
    if not stored.examples.equals(again.examples):
        found.append("examples.parquet is not what the sources give")
    theirs = [called.reject(reject) for reject in again.rejects]
    if stored.rejects != theirs:
        found.append("rejects.jsonl is not what the sources give")
    different = [name for name in _COUNTS if stored.report.get(name) != again.report.get(name)]
    return found + [f"the report of the data has another {name} than the sources give" for name in different]


def _other_records(stored: Stored, again: Stored, called: _Renamer) -> Iterator[str]:
    for record in again.records:
        place = f"line {record.line} of {called.name(record.source)}"
        known = stored.by_id.get(record.id)
        if known is None:
            yield f"{place} is not in the ledger; read again it is {record.bucket}"
        elif (known.line, known.bucket) != (record.line, record.bucket):
            yield f"{place} is {record.bucket}; the ledger has line {known.line} as {known.bucket}"
        elif known.reason != called.reason(record.reason):
            yield f"{place} has another reason in the ledger than when it is read again"
    for record in stored.records:
        if record.id not in again.by_id:
            yield f"{record.place} is in the ledger and not in the sources"


def _same_rows(one: pa.Table, other: pa.Table) -> bool:
    """Whether two parts hold the same rows in the same order; how their sources are called is nothing of theirs."""
    if one.schema.names != other.schema.names:
        return False
    columns = [name for name in one.schema.names if name != "source"]
    same: bool = one.select(columns).equals(other.select(columns))
    return same


class _Renamer:
    """A resolved recipe has absolute paths where the first one may have had relative ones."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(names)
        ordered = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("(?<= of )(" + "|".join(map(re.escape, ordered)) + ")") if ordered else None

    def name(self, source: str) -> str:
        return self._names.get(source, source)

    def reason(self, text: str | None) -> str | None:
        if text is None or self._pattern is None:
            return text
        return self._pattern.sub(lambda found: self._names[found.group()], text)

    def reject(self, line: dict[str, Any]) -> dict[str, Any]:
        return line | {"source": self.name(line["source"]), "reason": self.reason(line["reason"])}
