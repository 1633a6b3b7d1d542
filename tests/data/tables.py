"""Short ways to make files, to read them whole, and to prepare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reglaj.core.console import SILENT
from reglaj.data.config import DataConfig
from reglaj.data.prepare import PreparedData, prepare
from reglaj.data.reading import open_reader
from reglaj.data.reading.batch import Fault
from reglaj.data.roles import ColumnRoles

ROLES = ColumnRoles(inputs=("text",), target="label")
PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data"


def public(name: str) -> Path:
    """A file or folder of the public data sets, or a skip."""
    path = PUBLIC / name
    if not path.exists():
        pytest.skip(f"the public data set {name} is not on this machine")
    return path


def read_all(
    path: Path, columns: list[str] | None = None, *, kind: str | None = None, max_rows: int = 7
) -> tuple[list[tuple[int, tuple[Any, ...]]], list[tuple[int, Fault]]]:
    """(line, cells) of good records, (line, fault) of others; batches are small, so that their seams are tested."""
    reader = open_reader(path, path.name, kind)
    good, bad = [], []
    for batch in reader.read(columns or reader.columns, max_rows):
        for place, line in enumerate(batch.lines):
            if place in batch.faults:
                bad.append((line, batch.faults[place]))
            else:
                good.append((line, tuple(column[place] for column in batch.cells)))
    return good, bad


def prepare_files(*paths: Path, store: Path | None = None, roles: ColumnRoles = ROLES, **section: Any) -> PreparedData:
    """`prepare` with the files as sources; their columns carry the names of the roles unless `sources` is given."""
    sources = section.pop("sources", None) or [{"path": str(path)} for path in paths]
    return prepare(
        DataConfig.model_validate({"sources": sources} | section),
        roles,
        folder=paths[0].parent,
        store=store or paths[0].parent / "runs" / ".data",
        task="classify",
        default_split="stratified",
        resolve_starter=lambda name: paths[0].parent / name.replace("starter:", "starter-"),
        console=SILENT,
    )


def many_rows(num_labels: int = 3, rows_per_label: int = 20) -> list[tuple[str, str]]:
    """Distinct texts with labels."""
    return [(f"text {i} about {label}", f"label {label}") for i in range(rows_per_label) for label in range(num_labels)]


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    """A table of texts and labels, every cell quoted."""
    lines = ["text,label"] + [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    path.write_bytes(("\n".join(lines) + "\n").encode())
    return path


def rejects(data: PreparedData) -> list[dict[str, Any]]:
    """The dropped records."""
    lines = (data.folder / "rejects.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def parts(data: PreparedData) -> dict[str, list[tuple[str, str]]]:
    """(text, label) of each part; the test part is read past the seal."""
    import pyarrow.parquet as pq

    found = {}
    for part in ("train", "validation", "test"):
        table = pq.read_table(data.folder / f"{part}.parquet")
        found[part] = list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    return found
