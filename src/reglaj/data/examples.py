"""Prepared data: two parts that may be read freely, and a third that is opened and counted."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reglaj.core.errors import environment_fault
from reglaj.core.files import disk_faults

if TYPE_CHECKING:
    import pyarrow as pa

OPENINGS = "openings.jsonl"


class Examples:
    """The rows of one part: texts by role, and where each came from."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @cached_property
    def ids(self) -> list[str]:
        """Record ids."""
        return self.column("id")

    @property
    def source(self) -> list[str]:
        """The source of each row, as the user wrote it when the data was first prepared."""
        return self.column("source")

    @property
    def line(self) -> list[int]:
        """The physical line (for Parquet the row) where each record began, from 1."""
        return cast("list[int]", self._table.column("line").to_pylist())

    def column(self, role: str) -> list[str]:
        """The cells of a role (`text`, `label`, ...), unchanged."""
        return cast("list[str]", self._table.column(role).to_pylist())


@dataclass(frozen=True)
class PreparedData:
    """A data folder. report: see docs/data.md."""

    key: str
    folder: Path
    report: dict[str, Any]

    def train(self) -> Examples:
        """What is learnt from."""
        return self._read("train")

    def validation(self) -> Examples:
        """What choices are made by."""
        return self._read("validation")

    @property
    def test_hash(self) -> str:
        """SHA-256 over the texts and labels of the test rows, in whatever order and from whatever files."""
        return cast("str", self.report["test_hash"])

    def test_openings(self) -> int:
        """How often these test rows were opened so far, in any run of this store."""
        return _count_openings(self.folder.parent / OPENINGS, self.test_hash)

    def open_test(self, *, opened_by: str | None) -> tuple[Examples, int]:
        """The test rows, and how often they have been opened, this time included. The opening is recorded first.

        opened_by: None where another process of the same evaluation records it.
        """
        if opened_by is None:
            return self._read("test"), self.test_openings()
        record = {
            "test": self.test_hash,
            "opened_by": opened_by,
            "data": self.key,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        count = _record_opening(self.folder.parent / OPENINGS, record)
        return self._read("test"), count

    def _read(self, part: str) -> Examples:
        import pyarrow.parquet as pq

        try:
            return Examples(pq.read_table(self.folder / f"{part}.parquet"))
        except OSError as error:
            raise environment_fault(
                f"cannot read {self.folder / part}.parquet",
                allowed="prepared data that stay while a run needs them",
                why=error.strerror or str(error),
                remedy="give the same command: data that are gone are read from their sources again",
            ) from error


def load_prepared(folder: Path) -> PreparedData | None:
    """The data in a folder, or None where there is none that is whole."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return PreparedData(key=folder.name, folder=folder, report=report)


def _record_opening(path: Path, record: dict[str, Any]) -> int:
    """Append durably, one process at a time, and count."""
    with disk_faults(path), path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0, os.SEEK_END)
        # A line that was cut off by a crash must not swallow the next one.
        if file.tell() and _last_byte(file) != b"\n":
            file.write(b"\n")
        file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
        return _count_openings(path, record["test"])


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return cast("bytes", file.read(1))


def _count_openings(path: Path, test_hash: str) -> int:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return 0
    count = 0
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        count += isinstance(record, dict) and record.get("test") == test_hash
    return count
