"""Lists and objects in cells: as JSON, in the digits and letters of the file, and only where they are wanted."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reglaj.data.reading import open_reader
from reglaj.data.reading.batch import Fault

VALUE = '[{"role": "user", "content": "știe 🚚\\n\\"x\\"", "n": [1.10, 1e400, -0, true, null, {}, []]}]'
COMPACT = VALUE.replace(": ", ":").replace(", ", ",")


def read(
    path: Path, columns: list[str], nested: str = "", optional: str = ""
) -> tuple[list[list[str | None]], list[Fault], dict[str, int]]:
    reader = open_reader(path, path.name)
    rows, faults = [], []
    for batch in reader.read(columns, 2, nested=frozenset(nested.split()), optional=frozenset(optional.split())):
        faults += batch.faults.values()
        rows += [list(cells) for place, cells in enumerate(zip(*batch.cells, strict=True)) if place not in batch.faults]
    return rows, faults, dict(reader.json_texts)


@pytest.mark.parametrize("kind", ["json", "jsonl", "inside", "columns"])
def test_json_keeps_digits_and_letters(tmp_path: Path, kind: str) -> None:
    record = f'{{"messages": {VALUE}, "text": "a"}}'
    text = {
        "json": f"[{record}]",
        "jsonl": record + "\n",
        "inside": f'{{"data": [{record}]}}',
        "columns": f'{{"messages": [{VALUE[1:-1]}], "text": ["a"]}}',
    }[kind]
    if kind == "columns":  # a list of objects is a list of records: nothing nested can be in it
        text = text.replace(VALUE[1:-1], "[1.10]")
    path = tmp_path / ("a.jsonl" if kind == "jsonl" else "a.json")
    path.write_text(text, encoding="utf-8")
    rows, faults, texts = read(path, ["messages", "text"], "messages")
    assert rows == [["[1.10]" if kind == "columns" else COMPACT, "a"]]
    assert not faults and not texts


def test_json_in_texts_is_handed_on_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [{"m": "[1]", "t": "x"}, {"m": [1], "t": "x"}, {"m": "[2]", "t": "x"}, {"m": None, "t": "x"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rows, _, texts = read(path, ["m", "t"], "m")
    assert rows == [["[1]", "x"], ["[1]", "x"], ["[2]", "x"], [None, "x"]]
    assert texts == {"m": 2}
    csv = tmp_path / "a.csv"
    csv.write_text('m,t\n"[1, ""a""]",x\n,y\n', encoding="utf-8")
    assert read(csv, ["m", "t"], "m") == ([['[1, "a"]', "x"], ["", "y"]], [], {"m": 1})


def test_other_columns_still_refuse_lists(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"m": [1], "t": ["x"]}\n{"m": [1], "t": "x"}\n', encoding="utf-8")
    rows, faults, _ = read(path, ["m", "t"], "m")
    assert rows == [["[1]", "x"]]
    assert [(fault.bucket, fault.reason) for fault in faults] == [
        ("unreadable", "the value of 't' cannot be used: it is a list, not a text")
    ]


def test_optional_keys_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"m": "a"}, {"m": "b", "tools": [1]}, {"tools": "c"}]', encoding="utf-8")
    rows, faults, _ = read(path, ["m", "tools", "never"], "tools", "tools never")
    assert rows == [["a", None, None], ["b", "[1]", None]]
    assert [fault.reason for fault in faults] == ["the record has no key 'm'"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ('[{"a": "\\ud83d"}]', "half of a surrogate pair"),
        ('[{"\\udc00": 1}]', "half of a surrogate pair"),
        ("[" * 700 + "]" * 700, ""),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)
def test_what_cannot_be_carried_is_unreadable(tmp_path: Path, value: str, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"m": {value}}}\n{{"m": []}}\n', encoding="utf-8")
    rows, faults, _ = read(path, ["m"], "m")
    assert rows[-1] == ["[]"] and len(rows) + len(faults) == 2
    assert all(fault.bucket == "unreadable" and reason in fault.reason for fault in faults)
    assert faults or not reason


def test_parquet_gives_only_the_fields_that_a_struct_has(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    messages = [
        [{"role": "user", "content": "știe 🚚"}, {"role": "assistant", "calls": [{"name": "f", "n": 3}]}],
        [],
        None,
    ]
    pq.write_table(pa.table({"messages": messages, "as_text": ["[1]", None, "[]"]}), path)
    rows, faults, texts = read(path, ["messages", "as_text"], "messages as_text")
    assert rows[0][0] == (
        '[{"content":"știe 🚚","role":"user"},{"calls":[{"n":3,"name":"f"}],"role":"assistant"}]'
    ) or json.loads(rows[0][0] or "") == [
        {"role": "user", "content": "știe 🚚"},
        {"role": "assistant", "calls": [{"name": "f", "n": 3}]},
    ]
    assert "știe 🚚" in (rows[0][0] or "")
    assert [row[0] for row in rows[1:]] == ["[]", None]
    assert not faults and texts == {"as_text": 2}


def test_parquet_with_texts_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    bad = pa.array([b"caf\xe9", b"ok"], pa.binary())
    nested = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), bad.view(pa.string()))
    pq.write_table(pa.table({"messages": nested, "same": pa.ListArray.from_arrays([0, 1, 2], bad)}), path)
    for column in ("messages", "same"):
        rows, faults, _ = read(path, [column], column)
        assert rows == [['["ok"]']]
        assert [fault.bucket for fault in faults] == ["unreadable"]
