"""Dates and times as people write them, to microseconds. A whole column is read in one way: 3/4/2024 means the same
day in every row.

Read are ISO 8601 and its relatives (2024-05-31, 2024/05/31, 20240531, 2024-05, with or without a time and an offset),
numbers of seconds, milliseconds, microseconds or nanoseconds since 1970, years, day-first and month-first dates
(31.5.2024, 5/31/24 4:30 PM), and English month names (31 May 2024; May 31, 2024; Fri, 31 May 2024 10:00:00 +0200).
Times without an offset are taken as UTC: only the order of rows matters, and they share an offset as a rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_A_TIME = -(1 << 63)
"""numpy's NaT: what stands for a cell that is no time."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NUMBER = re.compile(r"-?\d{1,19}(\.\d*)?")
# Digits before the point of what a number counts since 1970, from 1973 to 5138, and microseconds in it.
_EPOCH_UNITS = {
    "seconds": (1e11, 1e6),
    "milliseconds": (1e14, 1e3),
    "microseconds": (1e17, 1.0),
    "nanoseconds": (1e20, 1e-3),
}
_LEAST_EPOCH = 1e8
_CLOCK = r"(?:,?[ T]+(?:at +)?(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s*([AaPp]\.?[Mm]\.?)?)?"
_OFFSET = r"\s*(Z|UTC|GMT|[+-]\d{2}:?\d{2})?(?:\s*\([A-Za-z ]+\))?"
_ISO = re.compile(r"(\d{4})([-/.])(\d{1,2})(?:\2(\d{1,2}))?" + _CLOCK + _OFFSET)
_NUMERIC = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})" + _CLOCK + _OFFSET)
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?"
_DAY_NAME = re.compile(
    _WEEKDAY + r"(\d{1,2})(?:st|nd|rd|th)?[-\s.]+(?:of\s+)?([a-z]{3,9})\.?,?[-\s.]+(\d{4}|\d{2})" + _CLOCK + _OFFSET,
    re.I,
)
_NAME_DAY = re.compile(_WEEKDAY + r"([a-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})" + _CLOCK + _OFFSET, re.I)
_MAIL = re.compile(r"[a-z]{3}\s+([a-z]{3})\s+(\d{1,2})\s+(\d\d):(\d\d):(\d\d)\s+([+-]\d{4}\s+|UTC\s+)?(\d{4})", re.I)
_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Times:
    """values: (N,) int64 microseconds since 1970, UTC, or NOT_A_TIME. form: how the column was read, in words."""

    values: NDArray[np.int64]
    form: str


def parse_times(cells: Sequence[str | None]) -> NDArray[np.int64]:
    """(N,) int64 microseconds since 1970, UTC; NOT_A_TIME where a cell is no time."""
    return read_times(cells).values


def read_times(cells: Sequence[str | None]) -> Times:
    """A column of times. What is ambiguous is decided by all of its distinct cells together."""
    import numpy as np

    distinct = {cell: cell.strip() for cell in set(cells) if cell is not None and cell.strip()}
    readings = [
        _read_numbers(distinct.values()),
        _read_numeric_dates(distinct.values()),
        _read_named(distinct.values()),
    ]
    known: dict[str, int] = {}
    forms = []
    for read, form in readings:
        if read:
            known |= read
            forms.append((len(read), form))
    values = {cell: known.get(text, NOT_A_TIME) for cell, text in distinct.items()}
    array = np.array([NOT_A_TIME if cell is None else values.get(cell, NOT_A_TIME) for cell in cells], dtype=np.int64)
    forms.sort(key=lambda one: -one[0])
    return Times(values=array, form=" and ".join(form for _, form in forms) or "no times")


Reading = tuple[dict[str, int], str]


def _read_numbers(texts: Iterable[str]) -> Reading:
    """Cells that are nothing but a number: years, compact dates, or a count since 1970, whichever all can be."""
    numbers = {text: float(text) for text in texts if _NUMBER.fullmatch(text)}
    if not numbers:
        return {}, ""
    for length, form, make in ((4, "years", _year), (8, "compact ISO dates", _compact)):
        if all(len(text) == length and text.isdigit() for text in numbers):
            return _kept((text, make(text)) for text in numbers), form
    middle = sorted(abs(number) for number in numbers.values())[len(numbers) // 2]
    for unit, (most, microseconds) in _EPOCH_UNITS.items():
        if _LEAST_EPOCH <= middle < most:
            inside = {text: number for text, number in numbers.items() if abs(number) < most}
            return {text: _scaled(text, microseconds) for text in inside}, f"{unit} since 1970"
    return {}, ""


def _scaled(text: str, microseconds: float) -> int:
    whole, _, fraction = text.partition(".")
    sign = -1 if text.startswith("-") else 1
    if microseconds >= 1:
        factor = int(microseconds)
        return int(whole) * factor + sign * round(float(f"0.{fraction or 0}") * factor)
    return int(whole) // 1000


def _year(text: str) -> int | None:
    return _moment(int(text), 1, 1)


def _compact(text: str) -> int | None:
    return _moment(int(text[:4]), int(text[4:6]), int(text[6:]))


def _read_numeric_dates(texts: Iterable[str]) -> Reading:
    """31/5/2024 and 5/31/2024: one order for the whole column, that which more of its cells can only be."""
    matches = {text: match for text in texts if (match := _NUMERIC.fullmatch(text))}
    if not matches:
        return {}, ""
    firsts = [int(match[1]) for match in matches.values()]
    seconds = [int(match[3]) for match in matches.values()]
    day_first = sum(number > 12 for number in firsts)
    month_first = sum(number > 12 for number in seconds)
    if day_first == month_first:
        # Nothing tells, as with dates that are all the first of a month: then the number that never moves is the day.
        is_day_first = not (set(seconds) == {1} and len(set(firsts)) > 1)
        form = "dates that could be either way, read " + ("day first" if is_day_first else "month first")
    else:
        is_day_first = day_first > month_first
        form = "dates with the " + ("day first" if is_day_first else "month first")

    def read(match: re.Match[str]) -> int | None:
        day, month = (match[1], match[3]) if is_day_first else (match[3], match[1])
        return _moment(_full_year(match[4]), int(month), int(day), *_clock(match, 5))

    return _kept((text, read(match)) for text, match in matches.items()), form


def _read_named(texts: Iterable[str]) -> Reading:
    """ISO dates and dates with the name of a month: these can be told cell by cell."""
    read = _kept((text, _first_that_fits(text)) for text in texts)
    return read, "ISO dates" if any(text[:4].isdigit() for text in read) else "dates with names of months"


def _first_that_fits(text: str) -> int | None:
    if text[4:5] == "-" and (value := _from_iso(text)) is not None:  # the common case, ten times as fast
        return value
    for pattern, make in _FORMS:
        if match := pattern.fullmatch(text):
            return make(match)
    return None


def _iso(match: re.Match[str]) -> int | None:
    return _moment(int(match[1]), int(match[3]), int(match[4] or 1), *_clock(match, 5))


def _day_name(match: re.Match[str]) -> int | None:
    return _moment(_full_year(match[3]), _month(match[2]), int(match[1]), *_clock(match, 4))


def _name_day(match: re.Match[str]) -> int | None:
    return _moment(int(match[3]), _month(match[1]), int(match[2]), *_clock(match, 4))


def _mail(match: re.Match[str]) -> int | None:
    clock = timedelta(hours=int(match[3]), minutes=int(match[4]), seconds=int(match[5]))
    return _moment(int(match[7]), _month(match[1]), int(match[2]), clock, (match[6] or "").strip())


def _from_iso(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None


_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], int | None]], ...] = (
    (_ISO, _iso),
    (re.compile(r"\d{8}T\d{2,6}([.,]\d+)?(Z|[+-]\d{2}:?\d{2})?"), lambda match: _from_iso(match[0])),
    (_DAY_NAME, _day_name),
    (_NAME_DAY, _name_day),
    (_MAIL, _mail),
)


def _kept(pairs: Iterable[tuple[str, int | None]]) -> dict[str, int]:
    return {text: value for text, value in pairs if value is not None}


def _month(name: str) -> int:
    """1 to 12 of a name or its beginning; 0 for no month, which no date has."""
    found = [number for number, month in enumerate(_MONTHS, 1) if month.startswith(name.lower())]
    return found[0] if found else 9 if name.lower() == "sept" else 0


def _full_year(text: str) -> int:
    """Two digits are 1969 to 2068, as POSIX has it."""
    year = int(text)
    return year if len(text) == 4 else year + (1900 if year >= 69 else 2000)


def _clock(match: re.Match[str], start: int) -> tuple[timedelta | None, str]:
    """Time of day (None: there is no such) and offset of a match, whose groups for them begin at `start`."""
    hour, minute, second, fraction, half, offset = (match[start + i] for i in range(6))
    if hour is None:
        return timedelta(0), offset or ""
    hours = int(hour)
    if half:
        if not 1 <= hours <= 12:
            return None, ""
        hours = hours % 12 + (12 if half[0] in "pP" else 0)
    if hours > 24 or int(minute) > 59 or int(second or 0) > 60:
        return None, ""
    microseconds = int((fraction or "0").ljust(6, "0")[:6])
    clock = timedelta(hours=hours, minutes=int(minute), seconds=int(second or 0), microseconds=microseconds)
    return clock, offset or ""


def _moment(year: int, month: int, day: int, clock: timedelta | None = timedelta(0), offset: str = "") -> int | None:
    if clock is None:
        return None
    try:
        moment = datetime(year, month, day, tzinfo=_zone(offset))
        return (moment + clock - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None


def _zone(offset: str) -> timezone:
    if not offset or offset[0] not in "+-":
        return UTC
    minutes = int(offset[1:3]) * 60 + int(offset[-2:])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
