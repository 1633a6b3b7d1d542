"""Prepared data: two parts that may be read freely, and a third that is opened and counted.

Whatever chooses (early stopping, search, comparison, baselines) is handed `VisibleData`, from which nothing leads to
the test rows; who holds `PreparedData` is written down in scripts/lint.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from reglaj.core.errors import environment_fault
from reglaj.core.files import disk_faults

if TYPE_CHECKING:
    import pyarrow as pa

OPENINGS = "openings.jsonl"
EXTRA = "extra:"
"""What the names of stored columns begin with that no model reads: those of slices, groups and times."""


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

    @property
    def extras(self) -> list[str]:
        """Names of the columns of the source that are kept beside those that the model reads."""
        return [name.removeprefix(EXTRA) for name in self._table.column_names if name.startswith(EXTRA)]

    def extra(self, name: str) -> list[str | None]:
        """The cells of such a column, unchanged; None where the record has none."""
        assert name in self.extras, f"the column {name!r} was not kept: {self.extras}"
        return cast("list[str | None]", self._table.column(f"{EXTRA}{name}").to_pylist())


@dataclass(frozen=True)
class VisibleData:
    """What choices may be made by: train and validation. Nothing leads from here to the test rows.

    report: that of the data, which has counts of the test part and none of its rows.
    """

    key: str
    report: dict[str, Any]
    _read: Callable[[Literal["train", "validation"]], Examples]

    def train(self) -> Examples:
        """What is learnt from."""
        return self._read("train")

    def validation(self) -> Examples:
        """What choices are made by."""
        return self._read("validation")


@dataclass(frozen=True)
class PreparedData:
    """A data folder. report: see docs/data.md."""

    key: str
    folder: Path
    report: dict[str, Any]

    @property
    def visible(self) -> VisibleData:
        """What is handed to whatever chooses."""
        return VisibleData(self.key, self.report, partial(_read_visible, self.folder))

    def train(self) -> Examples:
        """What is learnt from."""
        return _read_part(self.folder, "train")

    def validation(self) -> Examples:
        """What choices are made by."""
        return _read_part(self.folder, "validation")

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
            return _read_part(self.folder, "test"), self.test_openings()
        record = {
            "test": self.test_hash,
            "opened_by": opened_by,
            "data": self.key,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        count = _record_opening(self.folder.parent / OPENINGS, record)
        return _read_part(self.folder, "test"), count


def load_prepared(folder: Path) -> PreparedData | None:
    """The data in a folder, or None where there is none that is whole."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return PreparedData(key=folder.name, folder=folder, report=report)


def _read_visible(folder: Path, part: Literal["train", "validation"]) -> Examples:
    if part not in ("train", "validation"):
        raise ValueError(f"the part {part!r} is sealed")
    return _read_part(folder, part)


def _read_part(folder: Path, part: str) -> Examples:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{part}.parquet"
    try:
        return Examples(pq.read_table(path))
    except (OSError, pa.ArrowException) as error:
        raise environment_fault(
            f"{path} cannot be read",
            allowed="prepared data that stay while a run needs them",
            why=getattr(error, "strerror", None) or str(error).splitlines()[0],
            remedy="give the same command: data that are gone are read from their sources again",
        ) from error


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
