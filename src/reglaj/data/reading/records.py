"""Records from the physical lines of a table in text, exactly.

A quoted cell may hold delimiters, line breaks and doubled quotes. Nothing is trimmed. Where quoting goes wrong
(text behind a closing quote, a quote never closed) only the line where the record began is lost, and reading
goes on with the next physical line: an opening quote inside a swallowed stretch shows itself, because in a
sound file the quote that opens a cell is never followed by a delimiter or a line end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

# A quoted cell that runs longer than this is taken to be a quote that was never closed.
MAX_RECORD_CHARACTERS = 16_000_000
_NEVER_CLOSED = "a quote is opened in this line and never closed"


@dataclass(frozen=True)
class Dialect:
    """delimiter: None in a table of one column; quotechar: None where quotes are plain characters.

    preamble_lines: physical lines before the header (Excel's `sep=;`).
    """

    delimiter: str | None
    quotechar: str | None = '"'
    preamble_lines: int = 0


class Record(NamedTuple):
    """line: where it begins, 1-based; cells: None where `problem` says why; raw: its first physical line."""

    line: int
    cells: list[str] | None
    raw: str
    problem: str = ""


class _Lines:
    """Physical lines with their numbers; lines can be put back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._back: list[str] = []
        self.number = 0

    def take(self) -> str | None:
        line = self._back.pop() if self._back else next(self._lines, None)
        if line is not None:
            self.number += 1
        return line

    def put_back(self, lines: list[str]) -> None:
        self._back += reversed(lines)
        self.number -= len(lines)


def parse_records(lines: Iterator[str], dialect: Dialect, *, width: int | None = None) -> Iterator[Record]:
    """The records in physical lines (with their line ends). Empty lines between records are none.

    width: the number of cells that is expected; it only helps to tell a ragged record of several lines from
    a quote that was never closed. The header is read without it.
    """
    feed = _Lines(lines)
    delimiter, quote = dialect.delimiter, dialect.quotechar
    while (line := feed.take()) is not None:
        body = line.rstrip("\r\n")
        if not body:
            continue
        start = feed.number
        if quote is None or quote not in body:
            yield Record(start, body.split(delimiter) if delimiter else [body], line)
            continue
        cells, more, problem = _quoted_record(line, feed.take, delimiter, quote)
        if more and not problem and _swallowed(cells, more[0], dialect, width):
            problem = _NEVER_CLOSED
        if problem:
            feed.put_back(more)
            yield Record(start, _plain_cells(body, dialect, width), line, problem)
        else:
            yield Record(start, cells, line)


def _plain_cells(body: str, dialect: Dialect, width: int | None) -> list[str] | None:
    """Cells of a line whose quoting goes wrong, where its quotes can be plain characters: tables with tabs are
    often written without quoting, and `"Yes", he said` is then a whole cell. None where they cannot."""
    if dialect.delimiter != "\t" or dialect.quotechar is None:
        return None
    cells = body.split("\t")
    is_plain = all(not cell.startswith(dialect.quotechar) or not cell.endswith(dialect.quotechar) for cell in cells)
    return cells if len(cells) == width and is_plain else None


def _swallowed(cells: list[str], second_line: str, dialect: Dialect, width: int | None) -> bool:
    """Whether a record over several lines is better explained by a stray quote: it is too wide or too
    narrow, and the line below its first is a sound record by itself."""
    if width is None or len(cells) == width:
        return False
    alone = next(parse_records(iter([second_line]), dialect), None)
    return alone is not None and alone.cells is not None and len(alone.cells) == width


def _quoted_record(
    line: str, take: Callable[[], str | None], delimiter: str | None, quote: str
) -> tuple[list[str], list[str], str]:
    """Cells of a record that begins in `line`, the further lines it took, and what is wrong with it, if anything."""
    cells: list[str] = []
    more: list[str] = []
    place = 0
    while True:
        if not line.startswith(quote, place):
            end = line.find(delimiter, place) if delimiter else -1
            if end < 0:
                cells.append(line[place:].rstrip("\r\n"))
                return cells, more, ""
            cells.append(line[place:end])
            place = end + 1
            continue
        cell, line, end = _quoted_cell(line, place + 1, quote, take, more)
        if end < 0:
            return cells, more, _NEVER_CLOSED
        cells.append(cell)
        behind = line[end : end + 1]
        if behind in ("", "\r", "\n"):
            return cells, more, ""
        if behind != delimiter:
            problem = f"text follows the closing quote of cell {len(cells)} (a quote inside quotes is written twice)"
            return cells, more, _NEVER_CLOSED if more else problem
        place = end + 1


def _quoted_cell(
    line: str, start: int, quote: str, take: Callable[[], str | None], more: list[str]
) -> tuple[str, str, int]:
    """The cell behind an opening quote, the line in which it ends, and the place behind its closing quote (or -1).

    Lines that it takes are added to `more`.
    """
    parts: list[str] = []
    search, characters = start, 0
    while True:
        end = line.find(quote, search)
        if end >= 0 and line.startswith(quote, end + 1):
            search = end + 2
            continue
        if end >= 0:
            parts.append(line[start:end])
            return "".join(parts).replace(quote + quote, quote), line, end + 1
        parts.append(line[start:])
        characters += len(line)
        following = take() if characters <= MAX_RECORD_CHARACTERS else None
        if following is None:
            return "", line, -1
        more.append(following)
        line, start, search = following, 0, 0
