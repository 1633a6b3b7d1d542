"""Delimiter and quoting of a table in text, and names for its columns."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from reglaj.data.reading.records import Dialect, Record, parse_records

DELIMITERS = ("\t", ";", "|", ",")
SAMPLE_RECORDS = 300
_SEP_LINE = re.compile(r"^\ufeff?sep=(.)$")
_NUMBER = re.compile(r"^[-+]?\d+(?:[.,]\d+)?$")
_MAX_NAME_CHARACTERS = 80
# Under this many stray quotes, quoting is taken to be in use and the strays to be slips.
_MIN_STRAY_QUOTES = 5


def detect_dialect(text: str, *, is_whole: bool, delimiter: str | None = None) -> Dialect:
    """The dialect of a table that begins with `text`; `delimiter` is given where the kind of file fixes it."""
    first, _, rest = text.partition("\n")
    sep = _SEP_LINE.match(first.rstrip("\r"))
    preamble = 1 if sep else 0
    if sep:
        text, delimiter = rest, delimiter or sep[1]
    best: tuple[tuple[float, int], str | None] = ((0.0, 1), None)
    for candidate in [delimiter] if delimiter else DELIMITERS:
        widths = [
            len(record.cells)
            for record in _sample(parse_records(_lines(text), Dialect(candidate)), is_whole)
            if record.cells is not None
        ]
        if not widths or widths[0] < 2:
            continue
        # The header says how wide the table is: a delimiter is right if the records agree.
        agreeing = sum(width == widths[0] for width in widths[1:]) / max(1, len(widths) - 1)
        if (agreeing, widths[0]) > best[0] or best[1] is None:
            best = ((agreeing, widths[0]), candidate)
    chosen = best[1] or delimiter
    return Dialect(chosen, _detect_quote(text, chosen), preamble)


def _sample(records: Iterator[Record], is_whole: bool) -> list[Record]:
    sample = []
    for record in records:
        sample.append(record)
        if len(sample) > SAMPLE_RECORDS:
            return sample
    return sample if is_whole or len(sample) < 3 else sample[:-1]  # the last one may be cut off


def _detect_quote(text: str, delimiter: str | None) -> str | None:
    """A quote character, unless most cells that begin with one go wrong under it: then it is an inch or a slip."""
    if '"' not in text:
        return '"'
    boundary = re.escape(delimiter) if delimiter else "(?!)"
    stray = sum(record.cells is None for record in parse_records(_lines(text), Dialect(delimiter)))
    quoted = len(re.findall(rf'(?:^|{boundary})"(?:[^"\n]|"")*"(?={boundary}|\r?$)', text, re.MULTILINE))
    # Tables with tabs are often written without any quoting; one stray quote without a quoted cell tells.
    enough = 1 if delimiter == "\t" else _MIN_STRAY_QUOTES
    return None if stray >= enough and stray > quoted else '"'


def _lines(text: str) -> Iterator[str]:
    return iter(io.StringIO(text, newline=""))


def column_names(header: Sequence[str]) -> tuple[list[str], list[str]]:
    """Distinct names for the cells of a header, and notes about those that had to be changed.

    A name that occurs twice is numbered in both places, so that no recipe takes one of them by accident.
    """
    counts = Counter(header)
    seen: Counter[str] = Counter()
    taken = {name for name in header if counts[name] == 1}
    names, notes = [], []
    for number, name in enumerate(header, start=1):
        if not name.strip():
            chosen = _free(f"column {number}", taken)
            notes.append(f"the header cell of column {number} is empty; the column is called {chosen!r}")
        elif counts[name] > 1:
            seen[name] += 1
            chosen = _free(f"{name} ({seen[name]})", taken)
            notes.append(f"the header has {name!r} {counts[name]} times; column {number} is called {chosen!r}")
        else:
            chosen = name
        taken.add(chosen)
        names.append(chosen)
    return names, notes


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def header_doubt(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str | None:
    """A sentence if the first line looks like data and not like names, else None."""
    for position, name in enumerate(header):
        if _NUMBER.match(name.strip()):
            return f"the first line holds a number ({name!r}), so the file may have no header"
        if len(name) > _MAX_NAME_CHARACTERS:
            return f"the first line holds a long text ({name[:40]!r}...), so the file may have no header"
        repeats = sum(len(row) > position and row[position] == name for row in rows)
        if name.strip() and repeats:
            return f"{name!r} stands in the first line and again below it, so the file may have no header"
    return None
