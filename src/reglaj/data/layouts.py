"""Which of a task's layouts a source is in, told by its columns; and what is wrong where none or several fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from reglaj.core.errors import Problem, listing, nearest
from reglaj.data.roles import ColumnRoles, Layout


class Header(Protocol):
    """What is known of a file's columns. notes: what a user should know."""

    @property
    def columns(self) -> list[str]: ...
    @property
    def notes(self) -> list[str]: ...


class Chosen(NamedTuple):
    """A layout, and the column of each of its roles that the source has."""

    layout: Layout
    columns: dict[str, str]

    @property
    def nested(self) -> frozenset[str]:
        """The columns that may hold lists and objects."""
        return frozenset(column for role, column in self.columns.items() if role in self.layout.nested)

    @property
    def optional(self) -> frozenset[str]:
        """The columns that a record may lack."""
        return frozenset(column for role, column in self.columns.items() if role in self.layout.optional)


def choose_layout(
    header: Header, name: str, given: Mapping[str, str], roles: ColumnRoles, *, where: str, may_have_more: bool = False
) -> Chosen | list[Problem]:
    """The layout of a source, or the problems with its `columns`.

    name: the source, as the user wrote it. given: role to column. where: the key of the recipe that says so.
    may_have_more: records further on may have columns that the header lacks, so optional ones are looked for.
    """
    unknown = [_unknown_role(role, roles, where) for role in sorted(given.keys() - set(roles.source_names))]
    if unknown:
        return unknown
    suiting = [layout for layout in roles.ways if given.keys() <= set(layout.roles)]
    if not suiting:
        return [_mixed(given, roles, where)]
    whole = [layout for layout in suiting if not _missing(layout, given, header.columns)]
    if len(whole) > 1:
        return [_ambiguous(whole, given, name, where)]
    if not whole and len(suiting) > 1:
        # A role that was named says which layout is meant, even where another column is missing.
        suiting = [layout for layout in suiting if given.keys() & set(layout.required)] or suiting
        if len(suiting) > 1:
            return [_none_fits(suiting, header, name, where)]
    layout = (whole or suiting)[0]
    problems = [
        _unknown_column(given.get(role, role), role, header, name, where)
        for role in layout.roles
        if given.get(role, role) not in header.columns and (role in layout.required or role in given)
    ]
    if problems:
        return problems
    columns = {
        role: given.get(role, role) for role in layout.roles if may_have_more or given.get(role, role) in header.columns
    }
    return Chosen(layout, columns)


def _missing(layout: Layout, given: Mapping[str, str], columns: Sequence[str]) -> list[str]:
    return [role for role in layout.required if given.get(role, role) not in columns]


def _unknown_role(role: str, roles: ColumnRoles, where: str) -> Problem:
    guess = nearest(role, roles.source_names)
    return Problem(
        where=f"{where}.{role}",
        given=f"unknown role {role!r}",
        allowed=listing(roles.source_names),
        why="the task reads these columns and no others",
        remedy=f"did you mean {guess!r}?" if guess else "remove it",
    )


def _mixed(given: Mapping[str, str], roles: ColumnRoles, where: str) -> Problem:
    return Problem(
        where=where,
        given=f"the roles {listing(given)} together",
        allowed=_described(roles.ways),
        why="a source is in one layout",
        remedy="name the roles of one of these only",
    )


def _ambiguous(layouts: Sequence[Layout], given: Mapping[str, str], name: str, where: str) -> Problem:
    first = layouts[0]
    example = ", ".join(f"{role}: {given.get(role, role)}" for role in first.required)
    return Problem(
        where=where,
        given=f"{name!r} can be read in {len(layouts)} ways: {_described(layouts)}",
        allowed="one layout for each source",
        why="they would give different texts to learn from",
        remedy=f"say which columns are meant, such as `columns: {{{example}}}`",
    )


def _none_fits(layouts: Sequence[Layout], header: Header, name: str, where: str) -> Problem:
    example = ", ".join(f"{role}: COLUMN" for role in layouts[0].required)
    return Problem(
        where=where,
        given=f"{name!r} has the columns {listing(header.columns)}, which are those of no layout",
        allowed=_described(layouts),
        why=next((note for note in header.notes if "no header" in note), "records are read by the names of columns"),
        remedy=f"say which columns they are, such as `columns: {{{example}}}`; `reglaj new FILE` proposes them",
    )


def _described(layouts: Sequence[Layout]) -> str:
    """`messages (messages)`, `alpaca (instruction, output)`, ..."""
    return "; ".join(f"{layout.name} ({listing(layout.required)})" for layout in layouts)


def _unknown_column(column: str, role: str, header: Header, name: str, where: str) -> Problem:
    guess = nearest(column, header.columns)
    numbered = [found for found in header.columns if found.startswith(f"{column} (")]
    if numbered:
        why, remedy = f"{column!r} occurs several times in the header", f"choose one of {listing(numbered)}"
    else:
        why = next((note for note in header.notes if "no header" in note), f"the task reads its `{role}` from it")
        remedy = f"did you mean {guess!r}? " if guess else ""
        remedy += f"say which column it is: `columns: {{{role}: ...}}`"
    return Problem(
        where=f"{where}.{role}",
        given=f"{name!r} has no column {column!r}",
        allowed=listing(header.columns),
        why=why,
        remedy=remedy,
    )
