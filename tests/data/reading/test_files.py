"""Files that cannot be read, and files that are not what they are said to be: four parts, and nothing guessed."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reglaj.core.errors import UserError
from reglaj.data.reading import look

LINES = b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'


def refusal(path: Path, kind: str | None = None) -> str:
    with pytest.raises(UserError) as error:
        look(path, kind)
    (problem,) = error.value.problems
    assert problem.given and problem.allowed and problem.why and problem.remedy
    return str(problem)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text("text,label\na,b\n")
    assert "did you mean 'tickets.csv'?" in refusal(tmp_path / "tickts.csv")
    assert "check the path" in refusal(tmp_path / "no" / "folder.csv")


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\n \r\n", gzip.compress(b"", mtime=0)])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    assert "is empty" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", b"text,label\n"), ("a.csv", b"text,label\n\n\n"), ("a.json", b"[]")]
)
def test_no_records(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert "has no records" in refusal(path)


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 40, b"\x00\x01\x02\x03" * 100, b"%PDF-1.7 ...", b"\x89PNG\r\n\x1a\n"]
)
def test_a_binary_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    assert "allowed: CSV, TSV" in refusal(path)


def test_a_workbook(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/styles.xml", "<x/>")
    assert "save the sheet as CSV" in refusal(path)


@pytest.mark.parametrize("cut", [slice(None, -9), slice(None, 40)])
def test_cut_gzip(tmp_path: Path, cut: slice) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(LINES * 100)[cut])
    assert "broken or cut off" in refusal(path)


def test_wrong_kinds(tmp_path: Path) -> None:
    lines, table, document, parquet = (tmp_path / name for name in ("l.jsonl", "t.csv", "d.json", "p.parquet"))
    lines.write_bytes(LINES)
    table.write_bytes(b"text,label\na,b\n")
    document.write_bytes(b'[{"text": "a"},\n {"text": "b"}]')
    pq.write_table(pa.table({"text": ["a"]}), parquet)
    assert "kind: jsonl" in refusal(lines, "json")
    assert "kind: csv" in refusal(table, "jsonl")
    assert "kind: json," in refusal(document, "jsonl")
    assert "kind: parquet" in refusal(parquet, "csv")
    assert "kind: csv" in refusal(table, "parquet")


@pytest.mark.parametrize("name", ["rows", "rows.csv", "rows.json", "rows.dat", "rows.parquet"])
def test_content_decides_before_the_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(LINES)
    assert look(path).kind == "jsonl"
    path.write_bytes(gzip.compress(LINES))
    assert look(path).kind == "jsonl"


def test_a_table_that_begins_like_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"[text],{label}\na,b\n")
    preview = look(path)
    assert (preview.kind, preview.columns) == ("csv", ["[text]", "{label}"])


def test_nothing_but_ragged_records(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\na\nb\n")
    assert "line 2: 1 cell" in refusal(path)


def test_a_preview_is_bounded_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "a,b\n" * 30 + "ragged\n", encoding="utf-8")
    assert look(path, rows=30).is_complete is False
    whole = look(path, rows=31)
    assert (whole.is_complete, whole.rows_seen, len(whole.sample)) == (True, 31, 30)
    assert "1 of the first 31 records" in whole.notes[0]
