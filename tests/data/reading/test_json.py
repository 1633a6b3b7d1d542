"""JSON and JSON Lines: records are found in every usual shape, and values stay what they were."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.tables import read_all

from reglaj.core.errors import UserError
from reglaj.data.reading import look
from reglaj.data.reading.json_stream import JsonStream

ROWS = [{"text": f"ștergeți {i}", "label": "a" if i % 2 else "b"} for i in range(20)]
CELLS = [(row["text"], row["label"]) for row in ROWS]
SHAPES: dict[str, Any] = {
    "array": ROWS,
    "inside": {"version": "1", "tags": ["x"], "data": ROWS, "meta": {"n": 20}},
    "keyed": {f"id{i}": row for i, row in enumerate(ROWS)},
    "pandas": {name: {str(i * 3): row[name] for i, row in enumerate(ROWS)} for name in ("text", "label")},
    "columns": {"text": [row["text"] for row in ROWS], "label": [row["label"] for row in ROWS]},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_shapes(tmp_path: Path, shape: str, indent: int | None, packed: bool) -> None:
    data = json.dumps(SHAPES[shape], indent=indent, ensure_ascii=bool(indent)).encode()
    path = tmp_path / "rows.json"
    path.write_bytes(gzip.compress(data) if packed else data)
    good, bad = read_all(path, ["text", "label"])
    assert [cells for _, cells in good] == CELLS
    assert not bad
    assert look(path).columns == ["text", "label"]


def test_lines_of_a_document(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[\n {"text": "a",\n  "label": "x"},\n\n {"text": "b", "label": "y"}]\n', encoding="utf-8")
    assert read_all(path, ["text", "label"])[0] == [(2, ("a", "x")), (5, ("b", "y"))]


def test_one_object_is_one_record(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    path.write_text('{"text": "a",\n "label": 1}', encoding="utf-8")
    assert read_all(path, ["text", "label"])[0] == [(1, ("a", "1"))]


def test_lines_under_the_name_of_a_document(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    assert look(path).kind == "jsonl"
    assert len(read_all(path)[0]) == 20


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_values_keep_their_digits(tmp_path: Path, name: str) -> None:
    values = {
        '"007"': "007",
        "1.10": "1.10",
        "12345678901234567890123": "12345678901234567890123",
        "true": "true",
        "null": None,
        '" NA "': " NA ",
        "1e400": "1e400",
        r'"\u0219\ud83d\ude42"': "ș🙂",
    }
    path = tmp_path / name
    objects = [f'{{"text": "x", "label": {value}}}' for value in values]
    path.write_text("[" + ",".join(objects) + "]" if name == "rows.json" else "\n".join(objects), encoding="utf-8")
    assert [cells[1] for _, cells in read_all(path, ["text", "label"])[0]] == list(values.values())


def test_bad_lines_are_lost_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        '{"text": "a", "label": "x"}',
        "",
        '{"text": "a", "label": ',
        '{"text": "a"}',
        '["a", "x"]',
        '{"text": ["a"], "label": "x"}',
        '{"text": NaN, "label": "x"}',
        '{"text": "\\ud800", "label": "x"}',
        "[" * 100_000,
        '{"text": "b", "label": "y"}  \r',
        '{"text": "c", "label": "z"} {}',
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    good, bad = read_all(path, ["text", "label"])
    assert good == [(1, ("a", "x")), (10, ("b", "y"))]
    assert [(line, fault.bucket) for line, fault in bad] == [
        (3, "unreadable"),
        (4, "ragged"),
        (5, "ragged"),
        (6, "unreadable"),
        (7, "unreadable"),
        (8, "unreadable"),
        (9, "unreadable"),
        (11, "unreadable"),
    ]
    assert all(fault.reason for _, fault in bad)


def test_odd_elements_of_a_document(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(
        '[{"text": "a", "label": "x"}, 5, null, {"text": "b"}, {"text": {}, "label": ""}]', encoding="utf-8"
    )
    good, bad = read_all(path, ["text", "label"])
    assert len(good) == 1
    assert [fault.bucket for _, fault in bad] == ["ragged", "ragged", "ragged", "unreadable"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[{"text": "a"},\n {"text": }]', 2),
        ('[{"text": "a"}\n', 2),
        ('[{"text": "a"}] x', 1),
        ('[{"text": "a"},\n{"text": "b"},\n]', 3),
        ('{"data": [{"text": "a"}],\n "n": 01}', 2),
        ('{"data": [{"text": "a"}],\n n: 1}', 2),
    ],
)
def test_a_broken_document_names_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"broken JSON at line {line}") as error:
        read_all(path, ["text"])
    assert error.value.problems[0].remedy


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": [{"text": "x"}], "b": [{"text": "y"}]}', "several keys"),
        ('{"text": ["x", "y"], "label": ["z"]}', "differ in length"),
        ('{"text": {"1": "x", "2": "y"}, "label": {"2": "z", "1": "w"}}', "differ in row numbers"),
        ("[1, 2]", "none of its first 2 elements"),
    ],
)
def test_documents_without_clear_records(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=why):
        look(path)


def test_previews_show_nested_values(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "tags": ["x", 1], "label": true}\n{"text": "b"}\n', encoding="utf-8")
    sample = look(path).sample
    assert sample[0] == {"text": "a", "tags": '["x",1]', "label": "true"}
    assert sample[1] == {"text": "b", "tags": "", "label": ""}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(values=st.lists(JSON, max_size=8), piece=st.integers(1, 9))
def test_a_stream_gives_what_json_gives(values: list[Any], piece: int) -> None:
    """Whatever the size of the pieces in which the text arrives."""

    class Pieces:
        def __init__(self, text: str) -> None:
            self.text = text

        def read(self, _: int) -> str:
            head, self.text = self.text[:piece], self.text[piece:]
            return head

    stream = JsonStream(Pieces(json.dumps(values, indent=1)), "x")  # type: ignore[arg-type]
    found = [value for _, value in stream.elements()]
    stream.end()
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(values), parse_int=str)
