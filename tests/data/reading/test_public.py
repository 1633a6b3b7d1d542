"""Files that others made: collections of odd CSV and JSON, and data sets with known counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.tables import PUBLIC, prepare_files, public, read_all

from reglaj.core.errors import UserError
from reglaj.data.reading import look

SPECTRUM = sorted((PUBLIC / "csv_spectrum" / "csvs").glob("*.csv"))
COUNTS = {
    "banking77/train.csv": ("csv", 10_003),
    "hate_davidson/labeled_data.csv": ("csv", 24_783),
    "rustsec/advisories.jsonl": ("jsonl", 1_205),
    "pubmedqa/ori_pqal.json": ("json", 1_000),
    "ronec/test.json": ("json", 2_000),
    "hh_rlhf/test.jsonl.gz": ("jsonl", 2_312),
    "ro_sts/RO-STS.train.tsv": ("tsv", 5_748),
}


def test_csv_spectrum() -> None:
    public("csv_spectrum")
    assert len(SPECTRUM) >= 10, "the collection has moved"
    for path in SPECTRUM:
        expected = json.loads((path.parents[1] / "json" / f"{path.stem}.json").read_text(encoding="utf-8"))
        expected = expected if isinstance(expected, list) else [expected]
        for row in expected:
            if path.stem == "location_coordinates":  # its two forms differ upstream in this cell
                row["Contact Phone Number"] = "2095257564"
        preview = look(path)
        same_line_ends = [{key: value.replace("\r\n", "\n") for key, value in row.items()} for row in preview.sample]
        wanted = [{key: value.replace("\r\n", "\n") for key, value in row.items()} for row in expected]
        assert same_line_ends == wanted, path.name


def test_odd_tables_are_read_or_refused() -> None:
    """Whatever the file, the answer is records and faults or four parts, never a crash; and the same answer twice."""
    folder = public("csv_duckdb/files")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size < 60_000]
    assert len(paths) > 100
    num_read = 0
    for path in paths:
        try:
            good, bad = read_all(path, max_rows=500)
        except UserError as error:
            assert all(problem.given and problem.remedy for problem in error.problems)
            continue
        lines = sorted([line for line, _ in good] + [line for line, _ in bad])
        assert len(lines) == len(set(lines))
        num_read += len(good) > 0
    assert num_read > 100


def test_json_torture(tmp_path: Path) -> None:
    """What must parse does, as a value inside a record; what must not is refused."""
    folder = public("json_torture/test_parsing")
    paths = sorted(folder.glob("[yn]_*.json"))
    assert len(paths) > 250
    wrapped = tmp_path / "rows.json"
    for path in paths:
        content = path.read_bytes()
        wrapped.write_bytes(b'[{"text": "x", "other": ' + content + b"}]")
        is_sound = path.name.startswith("y_")
        try:
            good, _ = read_all(wrapped, ["text"], kind="json")
        except UserError:
            good = []
        if is_sound:
            assert len(good) == 1, path.name
        elif not _closes_the_wrapper(content):
            assert not good, path.name


def _closes_the_wrapper(content: bytes) -> bool:
    """Broken alone, but sound (or another document) between our brackets."""
    try:
        json.loads(b'[{"text": "x", "other": ' + content + b"}]", parse_constant=lambda _: 1 / 0)
    except (ValueError, RecursionError, ZeroDivisionError):
        return False
    return True


@pytest.mark.parametrize("name", COUNTS)
def test_every_record_of_known_files(name: str) -> None:
    kind, count = COUNTS[name]
    path = public(name)
    preview = look(path)
    assert preview.kind == kind
    good, bad = read_all(path, preview.columns[:0], max_rows=5000)
    assert len(good) + len(bad) == count


def test_a_benchmark_end_to_end(tmp_path: Path) -> None:
    path = public("banking77/train.csv")
    sources = [{"path": str(path), "columns": {"label": "category"}}]
    report = prepare_files(path, store=tmp_path, sources=sources).report
    assert report["read"] == 10_003 == report["train"] + report["validation"] + report["test"]
    assert abs(report["test"] - 1000) <= 1
    assert all(len(report["labels"][part]) == 77 for part in ("train", "validation", "test"))


def test_romanian(tmp_path: Path) -> None:
    path = public("ro_sts/RO-STS.dev.tsv")
    good, bad = read_all(path, max_rows=500)
    assert len(good) == 1499 and not bad
    assert sum("ș" in cells[1] or "ț" in cells[1] for _, cells in good) > 300
