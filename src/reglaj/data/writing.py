"""From the staging file to the files of a data folder: the second pass, batch by batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import Console
from reglaj.data.accounting import Accounts
from reglaj.data.examples import EXTRA
from reglaj.data.ledger import BUCKETS, CODE, Columns
from reglaj.data.reading.batch import excerpt
from reglaj.data.roles import ColumnRoles
from reglaj.data.splits.base import PARTS
from reglaj.data.staging import EXCERPT, REASON, Staging

if TYPE_CHECKING:
    import pyarrow as pa


class RecordIds:
    """Ids of records: a hash of the source's content and the record's number in it."""

    def __init__(self, digests: Sequence[str], first: Sequence[int]) -> None:
        """digests: SHA-256 of each source. first: index of its first record among all."""
        self._first = first
        self._starts = []
        for place, digest in enumerate(digests):
            # The same content named twice (with other columns, say) gives other records.
            occurrence = list(digests[:place]).count(digest)
            self._starts.append(hashlib.blake2b(f"{digest}:{occurrence}:".encode(), digest_size=16))

    def of(self, source: int, record: int) -> str:
        """32 hex digits for the record with that index among all."""
        hasher = self._starts[source].copy()
        hasher.update(str(record - self._first[source]).encode())
        return hasher.hexdigest()


_ACROSS = {
    "near_duplicate_across_parts": "nearly the same as {place}, which {where}, or linked to it by others",
    "group_across_parts": "of the same group as {place}, which {where}",
    "time_across_parts": "later than {place}, which {where}",
}
_OTHERWISE = {
    "no_time": "the cell of data.split.time is not a time",
    "label_error": "the label is likely wrong (data.clean.label_errors)",
    "outlier": "far from every other text (data.clean.outliers)",
    "boilerplate": "boilerplate or markup (data.clean.boilerplate)",
    "other_language": "in a language that data.clean.languages does not keep",
}


class FolderWriter:
    """Writes records.parquet, examples.parquet, rejects.jsonl and the three parts.

    extras: the columns beside those of the task that the parts keep.
    """

    def __init__(
        self, folder: Path, roles: ColumnRoles, sources: list[str], ids: RecordIds, extras: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._roles = roles
        self._sources = sources
        self._ids = ids
        self._kept = [*roles.names, *(f"{EXTRA}{name}" for name in extras)]

    def write(self, staging: Staging, columns: Columns, accounts: Accounts, console: Console) -> None:
        """Second pass over the staged records; one batch is in memory at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        text = pa.string()
        named = pa.dictionary(pa.int32(), text)
        place = [("id", text), ("source", named), ("line", pa.int64())]
        records = pa.schema([*place, ("bucket", named), ("reason", text)])
        examples = pa.schema([("id", text), ("record", text), ("part", named)])
        part = pa.schema([*place, *((name, text) for name in self._kept)])
        explain = _Explainer(self._sources, columns, accounts)
        with ExitStack() as stack:

            def open_writer(name: str, schema: pa.Schema) -> pq.ParquetWriter:
                return stack.enter_context(pq.ParquetWriter(self._folder / f"{name}.parquet", schema))

            writers = {"records": open_writer("records", records), "examples": open_writer("examples", examples)}
            writers |= {name: open_writer(name, part) for name in PARTS}
            rejects = stack.enter_context((self._folder / "rejects.jsonl").open("w", encoding="utf-8"))
            advance = stack.enter_context(console.progress("writing", len(columns), "rows"))
            start = 0
            for batch in staging.batches():
                end = start + batch.num_rows
                table = self._table(batch, columns, accounts, start)
                reasons = explain.reasons(table, batch, start)
                rejects.writelines(_reject_lines(table, batch, reasons, self._roles))
                table = table.append_column("reason", pa.array(reasons, text))
                writers["records"].write_table(table.select(records.names).cast(records))
                self._write_parts(writers, table, accounts.bucket[start:end], columns.examples[start:end])
                advance(batch.num_rows)
                start = end

    def _table(self, batch: pa.RecordBatch, columns: Columns, accounts: Accounts, start: int) -> pa.Table:
        """The staged cells with id, source, line and bucket of each record."""
        import pyarrow as pa

        end = start + batch.num_rows
        sources = columns.source[start:end]
        ids = [self._ids.of(source, start + i) for i, source in enumerate(sources.tolist())]
        table = pa.table({name: batch.column(name) for name in self._kept})
        table = table.append_column("id", pa.array(ids, pa.string()))
        named = pa.DictionaryArray.from_arrays(pa.array(sources), pa.array(self._sources))
        table = table.append_column("source", named)
        table = table.append_column("line", pa.array(columns.line[start:end]))
        buckets = pa.DictionaryArray.from_arrays(pa.array(accounts.bucket[start:end], pa.int32()), pa.array(BUCKETS))
        return table.append_column("bucket", buckets)

    def _write_parts(self, writers: dict[str, Any], table: pa.Table, buckets: Any, examples: Any) -> None:
        import pyarrow as pa

        for name in PARTS:
            mask = buckets == CODE[name]
            if not mask.any():
                continue
            rows = table.filter(pa.array(mask))
            schema = writers[name].schema
            writers[name].write_table(rows.select(schema.names).cast(schema))
            linked = _link(rows["id"].to_pylist(), examples[mask].tolist())
            linked = pa.table({**linked, "part": [name] * len(linked["id"])}, schema=writers["examples"].schema)
            writers["examples"].write_table(linked)


def _link(records: list[str], counts: list[int]) -> dict[str, list[str]]:
    """The ids of examples and their records: an example of its own bears the name of its record."""
    ids, owners = [], []
    for record, count in zip(records, counts, strict=True):
        ids += [record] if count == 1 else [f"{record}#{number}" for number in range(count)]
        owners += [record] * count
    return {"id": ids, "record": owners}


class _Explainer:
    """The sentence behind each dropped record."""

    def __init__(self, sources: list[str], columns: Columns, accounts: Accounts) -> None:
        self._sources = sources
        self._columns = columns
        self._accounts = accounts

    def reasons(self, table: pa.Table, batch: pa.RecordBatch, start: int) -> list[str | None]:
        """One per record of the batch, None for those that were kept."""
        staged = batch.column(REASON).to_pylist()
        codes = self._accounts.bucket[start : start + batch.num_rows].tolist()
        return [
            None if code < len(PARTS) else reason or self._sentence(BUCKETS[code], start + place)
            for place, (code, reason) in enumerate(zip(codes, staged, strict=True))
        ]

    def _sentence(self, bucket: str, record: int) -> str:
        label = self._label(record)
        if bucket == "exact_duplicate":
            return f"same text{' and label' if label else ''} as {self._place(int(self._accounts.twin[record]))}"
        if bucket == "contradictory_label":
            twin = int(self._accounts.twin[record])
            return f"same text as {self._place(twin)}, which has the label {self._label(twin)!r} and not {label!r}"
        if bucket == "filtered":
            return f"the label {label!r} is in data.exclude_labels"
        if bucket == "contaminated":
            return f"nearly the same as {self._accounts.contaminated[record]}"
        if bucket in _ACROSS:
            return self._across(bucket, record)
        if bucket in _OTHERWISE:
            return _OTHERWISE[bucket]
        texts = int(self._accounts.label_texts[self._columns.label[record]])
        if not texts:
            return f"the label {label!r} is not in train, and cannot be learnt"
        return f"the label {label!r} has {texts:,} distinct texts of its own, too few to be in all three parts"

    def _across(self, bucket: str, record: int) -> str:
        twin = int(self._accounts.twin[record])
        if twin < 0:
            return "the run that this one starts from has learnt from nearly the same text"
        code = int(self._accounts.bucket[twin])
        # The twin may have been dropped itself since, for what it shares with another part or by cleaning.
        where = f"is in {BUCKETS[code]}" if code < len(PARTS) else "was in a later part"
        return _ACROSS[bucket].format(place=self._place(twin), where=where)

    def _label(self, record: int) -> str:
        code = int(self._columns.label[record])
        return self._columns.label_names[code] if code >= 0 else ""

    def _place(self, record: int) -> str:
        return f"line {self._columns.line[record]} of {self._sources[self._columns.source[record]]}"


def _reject_lines(
    table: pa.Table, batch: pa.RecordBatch, reasons: list[str | None], roles: ColumnRoles
) -> Iterator[str]:
    """JSON lines for the dropped records of a batch."""
    import pyarrow as pa

    rows = table.append_column("reason", pa.array(reasons, pa.string()))
    rows = rows.append_column(EXCERPT, batch.column(EXCERPT)).filter(rows["reason"].is_valid())
    first = rows[roles.inputs[0]].to_pylist()
    names = ("id", "source", "line", "bucket", "reason")
    for values, shown, cell in zip(
        zip(*(rows[name].to_pylist() for name in names), strict=True), rows[EXCERPT].to_pylist(), first, strict=True
    ):
        text = shown if shown is not None else excerpt(cell or "")
        yield json.dumps(dict(zip(names, values, strict=True)) | {"text": text}, ensure_ascii=False) + "\n"
