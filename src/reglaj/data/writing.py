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
from reglaj.data.ledger import BUCKETS, CODE, Columns, Entries
from reglaj.data.reading.batch import Batch, excerpt
from reglaj.data.roles import ColumnRoles
from reglaj.data.splits.base import PARTS

if TYPE_CHECKING:
    import pyarrow as pa

_REASON, _EXCERPT = "__reason", "__excerpt"
STAGING = "staging.parquet"


class Staging:
    """The cells of all records, on disk between the two passes."""

    def __init__(self, folder: Path, roles: ColumnRoles) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = folder / STAGING
        self._schema = pa.schema([(name, pa.string()) for name in (*roles.names, _REASON, _EXCERPT)])
        self._writer = pq.ParquetWriter(self.path, self._schema, compression="lz4")

    def add(self, batch: Batch, entries: Entries) -> None:
        """Keep a batch and what the ledger already says of it."""
        import pyarrow as pa

        columns = [*batch.cells, entries.reasons, entries.excerpts]
        arrays = [pa.array(column, pa.string()) for column in columns]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        """Nothing more comes."""
        self._writer.close()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """What was added, in order."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group).combine_chunks().to_batches()


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


class FolderWriter:
    """Writes records.parquet, examples.parquet, rejects.jsonl and the three parts."""

    def __init__(self, folder: Path, roles: ColumnRoles, sources: list[str], ids: RecordIds) -> None:
        self._folder = folder
        self._roles = roles
        self._sources = sources
        self._ids = ids

    def write(self, staging: Staging, columns: Columns, accounts: Accounts, console: Console) -> None:
        """Second pass over the staged records; one batch is in memory at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        text = pa.string()
        named = pa.dictionary(pa.int32(), text)
        place = [("id", text), ("source", named), ("line", pa.int64())]
        records = pa.schema([*place, ("bucket", named), ("reason", text)])
        examples = pa.schema([("id", text), ("record", text), ("part", named)])
        part = pa.schema([*place, *((name, text) for name in self._roles.names)])
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
        table = pa.table({name: batch.column(name) for name in self._roles.names})
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
        staged = batch.column(_REASON).to_pylist()
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
        texts = int(self._accounts.label_texts[self._columns.label[record]])
        return f"the label {label!r} has {texts:,} distinct texts of its own, too few to be in all three parts"

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
    rows = rows.append_column(_EXCERPT, batch.column(_EXCERPT)).filter(rows["reason"].is_valid())
    first = rows[roles.inputs[0]].to_pylist()
    names = ("id", "source", "line", "bucket", "reason")
    for values, shown, cell in zip(
        zip(*(rows[name].to_pylist() for name in names), strict=True), rows[_EXCERPT].to_pylist(), first, strict=True
    ):
        text = shown if shown is not None else excerpt(cell or "")
        yield json.dumps(dict(zip(names, values, strict=True)) | {"text": text}, ensure_ascii=False) + "\n"
