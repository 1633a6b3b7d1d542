"""CSV and TSV: exact cells, exact lines, and damage that stays where it is."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.tables import read_all

from reglaj.core.errors import UserError
from reglaj.data.reading import look
from reglaj.data.reading.records import Dialect, parse_records

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12) | st.sampled_from(
    ["NA", "null", "007", " x ", "", "a,b", 'say "hi"', "two\nlines", "two\r\nlines", "\r", '"', '""', "'tis", "1,5;2"]
)
WIDE = st.lists(st.tuples(CELL, CELL), max_size=12)


def parse(text: str, width: int | None = None, delimiter: str | None = ",") -> list[tuple[int, list[str] | None]]:
    lines = iter(io.StringIO(text, newline=""))
    return [(record.line, record.cells) for record in parse_records(lines, Dialect(delimiter), width=width)]


@given(rows=WIDE, delimiter=st.sampled_from(",;\t|"), end=st.sampled_from(["\n", "\r\n"]))
def test_what_was_written_is_read(rows: list[tuple[str, str]], delimiter: str, end: str) -> None:
    file = io.StringIO(newline="")
    # Minimal quoting leaves a bare \r unquoted under \n line ends, which no reader can tell from a line end.
    quoting = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    assert [cells for _, cells in parse(file.getvalue(), 2, delimiter)] == [list(row) for row in rows]


@given(rows=WIDE)
def test_lines_are_where_records_begin(rows: list[tuple[str, str]]) -> None:
    file = io.StringIO(newline="")
    starts = []
    for row in rows:
        starts.append(len(io.StringIO(file.getvalue(), newline="").readlines()) + 1)
        csv.writer(file, quoting=csv.QUOTE_ALL).writerow(row)
    assert [line for line, _ in parse(file.getvalue(), 2)] == starts


@given(text=st.text(st.sampled_from('ab,"\n\r;'), max_size=60))
def test_any_text_is_read_to_its_end(text: str) -> None:
    """Every non-empty physical line belongs to exactly one record, and the order is kept."""
    lines = [line for line, _ in parse(text, 2)]
    assert lines == sorted(set(lines))
    good = sum(len(line.rstrip("\r\n")) > 0 for line in io.StringIO(text, newline=""))
    assert len(lines) <= good


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_empty_lines(tmp_path: Path, end: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(end.join(["text,label", "", "one,a", "", "", "two,b"]).encode())
    assert read_all(path) == ([(3, ("one", "a")), (6, ("two", "b"))], [])


def test_cells_are_never_changed(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    cells = ["NA", "null", "007", "  spaces  ", "1e5", "true", "\tx", "N/A", "nan", "-"]
    path.write_text("text,label\n" + "".join(f"{cell},{cell}\n" for cell in cells), encoding="utf-8")
    assert [found for _, found in read_all(path)[0]] == [(cell, cell) for cell in cells]


@pytest.mark.parametrize(
    ("name", "delimiter", "text"),
    [
        ("rows.csv", ";", "text;label\nHello, how are you;greeting\nOne, two, three;count\n"),
        ("rows.csv", "\t", "text\tlabel\na, b\tx\nc; d\ty\n"),
        ("rows.txt", "|", "text|label\na, b|x\nc, d|y\n"),
        ("rows.tsv", "\t", 'text\tlabel\n"quoted\tcell"\tx\nc\ty\n'),
        ("rows.csv", None, "text\nHello, how are you\nOne, two, three\n"),
        ("rows.csv", ";", "sep=;\ntext;label\na,b;x\n"),
        ("rows.csv", ",", '"text","label"\n"a; b; c","x"\n"d; e","y"\n'),
    ],
)
def test_the_delimiter_is_found(tmp_path: Path, name: str, delimiter: str | None, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    preview = look(path)
    assert preview.dialect and preview.dialect.delimiter == delimiter
    assert preview.columns == (["text", "label"] if delimiter else ["text"])
    assert read_all(path)[1] == []


def test_an_explicit_tsv_is_cut_at_tabs(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("a,b\tc,d\n1,2\t3,4\n", encoding="utf-8")
    assert read_all(path, kind="tsv") == ([(2, ("1,2", "3,4"))], [])


def test_lines_count_across_cells_of_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,label\r\n"one\r\ntwo\r\nthree",a\r\nfour,b\r\n"x ""y"" z",c\r\n')
    good, bad = read_all(path)
    assert good == [(2, ("one\r\ntwo\r\nthree", "a")), (5, ("four", "b")), (6, ('x "y" z', "c"))]
    assert bad == []


def test_ragged_records(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,label\none\ntwo,b,c\n"three\nlines"\nfour,d\n', encoding="utf-8")
    good, bad = read_all(path)
    assert good == [(6, ("four", "d"))]
    assert [(line, fault.bucket, fault.reason) for line, fault in bad] == [
        (2, "ragged", "1 cell where the header has 2"),
        (3, "ragged", "3 cells where the header has 2"),
        (4, "ragged", "1 cell where the header has 2"),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        '"never closed,b',
        'never "closed"",b,',
        'x,"never closed',
        '"closed" but,b',
        '"',
        '"never closed, and ""quoted"" too,b',
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_a_stray_quote_costs_one_line(tmp_path: Path, broken: str, quoted: bool) -> None:
    def row(i: int) -> str:
        return f'"text, {i}",label{i}' if quoted else f"text {i},label{i}"

    lines = ["text,label", *map(row, range(40)), broken, *map(row, range(40, 80))]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    good, bad = read_all(path)
    assert len(good) == 80
    assert [line for line, _ in bad] == [42]
    assert [line for line, _ in good] == [*range(2, 42), *range(43, 83)]


def test_quotes_never_closed_in_many_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = ["text,label"] + [f'"open {i},b' if i % 3 == 0 else f'"text ""{i}""",b' for i in range(3000)]
    path.write_text("\n".join(lines), encoding="utf-8")
    good, bad = read_all(path)
    assert (len(good), len(bad)) == (2000, 1000)


def test_a_runaway_quote_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reglaj.data.reading.records.MAX_RECORD_CHARACTERS", 100)
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"open,a\n' + "text,b\n" * 50 + '"closed",c\n', encoding="utf-8")
    good, bad = read_all(path)
    assert (len(good), [line for line, _ in bad]) == (51, [2])


def test_quotes_as_plain_characters_in_tabs(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"Da", a spus el\ta\n5" țeavă\tb\n"x\ty"\tc\n', encoding="utf-8")
    good, bad = read_all(path)
    assert [cells for _, cells in good] == [('"Da", a spus el', "a"), ('5" țeavă', "b"), ("x\ty", "c")]
    assert not bad


def test_header_cells_that_repeat_or_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,,text,label,column 2\na,b,c,d,e\n", encoding="utf-8")
    preview = look(path)
    assert preview.columns == ["text (1)", "column 2_", "text (2)", "label", "column 2"]
    assert len(preview.notes) == 3
    assert preview.sample == [dict(zip(preview.columns, "abcde", strict=True))]


@pytest.mark.parametrize("text", ["5.0,Un avion\n4.0,Un tren\n", "bun,da\nrău,nu\nbun,nu\n", "x" * 90 + ",a\ny,b\n"])
def test_a_missing_header_is_noted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    assert any("no header" in note for note in look(path).notes)


def test_a_header_is_no_doubt(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,b\n", encoding="utf-8")
    assert look(path).notes == []


def test_a_header_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('"text,label\na,b\n', encoding="utf-8")
    with pytest.raises(UserError, match="no header that can be read"):
        look(path)


def test_long_cells(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    text = "long " * 60_000  # far beyond the limit of Python's own csv module
    path.write_text(f'text,label\n"{text}",a\n', encoding="utf-8")
    assert read_all(path) == ([(2, (text, "a"))], [])
