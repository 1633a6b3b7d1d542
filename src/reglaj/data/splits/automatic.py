"""What `data.split.kind: auto` chooses, from the columns beside those of the task, and why, in a sentence.

A column that says which rows belong together comes first: leaking groups make every figure too good. Then a column of
dates, for a model is used on what comes after its data. Otherwise the task's own default. Both are taken only where
name and values agree; what was seen and not taken is said, so that a user can overrule it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reglaj.core.errors import listing
from reglaj.data.splits.checks import UNREADABLE_SHARE
from reglaj.data.splits.times import NOT_A_TIME, read_times

Cells = Sequence[str | None]

_NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _words(name: str) -> set[str]:
    """`created_at`, `createdAt` and `Created At` are the words created and at."""
    return {word.lower() for word in _WORD.findall(name)}


_GROUP_WORDS = _words(
    "user customer client patient subject speaker author writer sender person employee student member owner "
    "document doc article paper page passage chapter book file filename url uri link source site domain "
    "thread session conversation dialog dialogue chat call meeting episode visit encounter account household "
    "device group cluster family experiment"
)
_CLASS_WORDS = _words("label class category type status state lang language topic intent tag split fold")
_TIME_WORDS = _words(
    "date time datetime timestamp created published posted sent received submitted opened updated modified day month "
    "year week when ts epoch"
)
_LATER_WORDS = _words("updated modified changed edited closed resolved")
_OTHER_TIMES = _words("birth birthday birthdate born dob expiry expires expiration due deadline until death")
_LEAST_VALUES = 20
"""Fewer groups or moments cannot be dealt out in shares such as 0.1."""
_LARGEST_GROUP = 0.2
_LEAST_FILLED = 0.9
_LEAST_SHARED = 0.2
"""Share of rows that must be in groups of at least two: otherwise there is nothing to keep together."""
_PROBED = 200


@dataclass(frozen=True, kw_only=True)
class Choice:
    """kind: of split. group, time: the column that it is made by, or None. sentence: what was chosen and why."""

    kind: str
    group: str | None = None
    time: str | None = None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A column whose name promises something. refusal: why it is not taken, or "". told: what it holds."""

    name: str
    told: str
    refusal: str = ""
    rank: tuple[int, int] = (0, 0)


def candidate_columns(preview: Mapping[str, Cells]) -> list[str]:
    """Columns that a split could well be made by, groups first; in the order in which `choose` would take them."""
    return [seen.name for seen in (*_groups(preview), *_times(preview)) if not seen.refusal]


def choose(preview: Mapping[str, Cells], *, default: str) -> Choice:
    """The split for data whose first rows have these cells. preview: column to cells. default: kind for other data."""
    groups, times = _groups(preview), _times(preview)
    able_groups, able_times = ([seen for seen in found if not seen.refusal] for found in (groups, times))
    if able_groups:
        best = able_groups[0]
        sentence = f"split by group: {best.name!r} has {best.told}, and rows of one value stay in one part"
        rest = [f"{seen.name!r} ({seen.told})" for seen in able_groups[1:]]
        rest += [f"{seen.name!r} ({seen.told}; data.split.kind time would test on the latest)" for seen in able_times]
        return Choice(kind="group", group=best.name, sentence=sentence + _not_taken(rest, groups, times))
    if able_times:
        best = able_times[0]
        sentence = f"split by time: {best.name!r} has {best.told}, and validation and test are the latest rows"
        rest = [f"{seen.name!r} ({seen.told})" for seen in able_times[1:]]
        return Choice(kind="time", time=best.name, sentence=sentence + _not_taken(rest, groups, times))
    sentence = f"{default} split: no column says which rows belong together or when they were made"
    return Choice(kind=default, sentence=sentence + _not_taken([], groups, times))


def _not_taken(rest: list[str], groups: Sequence[_Seen], times: Sequence[_Seen]) -> str:
    rest += [f"{seen.name!r} ({seen.refusal})" for seen in (*groups, *times) if seen.refusal]
    return f"; seen and not taken: {listing(rest, 4)}" if rest else ""


def _groups(preview: Mapping[str, Cells]) -> list[_Seen]:
    """Columns named like a group, those that keep most together first."""
    found = []
    for name, cells in preview.items():
        words = _words(name)
        singular = words | {word[:-1] for word in words if word.endswith("s")}
        is_id = bool(singular & {"id", "uuid", "guid"}) and words != {"id"}
        if (is_id or singular & _GROUP_WORDS) and not singular & (_CLASS_WORDS | _TIME_WORDS):
            found.append(_group(name, cells))
    return sorted(found, key=lambda seen: seen.rank)


def _group(name: str, cells: Cells) -> _Seen:
    sizes = Counter(cell.strip() for cell in cells if cell is not None and cell.strip())
    filled = sum(sizes.values())
    told = f"{len(sizes):,} values in {len(cells):,} rows"
    largest = max(sizes.values(), default=0)
    shared = sum(size for size in sizes.values() if size > 1)
    if filled < _LEAST_FILLED * len(cells) or not filled:
        refusal = f"empty in {len(cells) - filled:,} of {len(cells):,} rows"
    elif shared < _LEAST_SHARED * filled:
        refusal = "nearly every row has a value of its own"
    elif len(sizes) < _LEAST_VALUES:
        refusal = f"only {len(sizes)} values"
    elif largest > _LARGEST_GROUP * filled:
        refusal = f"{largest / filled:.0%} of the rows have one value"
    else:
        refusal = ""
    return _Seen(name=name, told=told, refusal=refusal, rank=(len(sizes), 0))


def _times(preview: Mapping[str, Cells]) -> list[_Seen]:
    """Columns of dates, those that say when a row was made first."""
    found = []
    for place, (name, cells) in enumerate(preview.items()):
        words = _words(name)
        is_named = bool(words & _TIME_WORDS) or words >= {"at"}
        if _looks_like_times(cells, is_named):
            rank = int(bool(words & _LATER_WORDS)) - int(is_named), place
            found.append(replace(_time(name, cells, words), rank=rank))
    return sorted(found, key=lambda seen: seen.rank)


def _looks_like_times(cells: Cells, is_named: bool) -> bool:
    """Whether the first cells are dates; bare numbers are only where the name says so."""
    probe = [cell for cell in cells[: 4 * _PROBED] if cell is not None and cell.strip()][:_PROBED]
    if not probe or (not is_named and all(_NUMBER.fullmatch(cell.strip()) for cell in probe)):
        return False
    return bool((read_times(probe).values != NOT_A_TIME).mean() >= 0.5)


def _time(name: str, cells: Cells, words: set[str]) -> _Seen:
    times = read_times(cells)
    readable = times.values[times.values != NOT_A_TIME]
    lost = len(cells) - len(readable)
    moments = Counter(readable.tolist())
    told = f"{times.form}, {len(moments):,} different ones in {len(cells):,} rows"
    most = max(moments.values(), default=0)
    if words & _OTHER_TIMES:
        refusal = "its name says that it is not when the row was made"
    elif lost >= UNREADABLE_SHARE * len(cells):
        refusal = f"no readable time in {lost:,} of {len(cells):,} rows"
    elif len(moments) < _LEAST_VALUES:
        refusal = f"only {len(moments)} different times"
    elif most > _LARGEST_GROUP * len(readable):
        refusal = f"{most / len(readable):.0%} of the rows have one time"
    else:
        refusal = ""
    return _Seen(name=name, told=told, refusal=refusal)
