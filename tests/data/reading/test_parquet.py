"""Parquet: wanted columns only, values as texts."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.tables import read_all

from reglaj.core.errors import UserError
from reglaj.data.reading import look


def test_values_as_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table(
        {
            "text": ["ș", "", None],
            "coded": pa.array(["x", "y", "x"]).dictionary_encode(),
            "whole": [7, None, -1],
            "real": [1.0, 2.5, None],
            "flag": [True, False, None],
            "day": [datetime.date(2024, 1, 2), None, None],
            "bytes": pa.array([b"ok", b"\xff", b"ok"], pa.binary()),
        }
    )
    pq.write_table(table, path)
    good, bad = read_all(path)
    assert good == [
        (1, ("ș", "x", "7", "1.0", "true", "2024-01-02", "ok")),
        (3, (None, "x", "-1", None, None, None, "ok")),
    ]
    assert [(line, fault.bucket) for line, fault in bad] == [(2, "unreadable")]


@pytest.mark.parametrize("packed", [False, True])
def test_batches_and_row_groups(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"n": list(range(100)), "text": [f"t{i}" for i in range(100)], "a.b": ["x"] * 100})
    pq.write_table(table, path, row_group_size=13)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert read_all(path, ["text", "a.b"])[0] == [(i + 1, (f"t{i}", "x")) for i in range(100)]
    preview = look(path, rows=10)
    assert (preview.kind, len(preview.sample), preview.rows_seen, preview.is_complete) == ("parquet", 10, 10, False)


def test_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["1"]), pa.array(["2"])], names=["x", "x"]), path)
    assert read_all(path, ["x (2)", "x (1)"])[0] == [(1, ("2", "1"))]


def test_nested_columns_are_refused_when_wanted(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a"], "tags": [["x", "y"]]}), path)
    assert look(path).sample == [{"text": "a", "tags": '["x","y"]'}]
    assert read_all(path, ["text"])[0] == [(1, ("a",))]
    with pytest.raises(UserError, match="'tags'"):
        read_all(path, ["tags"])


def test_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a"]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="broken Parquet"):
        look(path)
