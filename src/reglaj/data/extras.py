"""Columns of the sources that no model reads: a recipe names them for slices, groups and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reglaj.core.errors import Problem, listing, nearest

BUILT_IN_SLICES = ("length", "language")
"""Slices that are made of the texts themselves, and need no column."""


def missing_columns(wanted: Mapping[str, str], columns: Sequence[str], source: str) -> list[Problem]:
    """What is to be said of columns that a source does not have.

    wanted: column to the key of the recipe that names it, such as `{"region": "evaluate.slices"}`. columns: those that
    the source has. source: how messages call it.
    """
    problems = []
    for column, key in wanted.items():
        if column in columns:
            continue
        also = BUILT_IN_SLICES if key == "evaluate.slices" else ()
        guess = nearest(column, [*columns, *also])
        problems.append(
            Problem(
                where=key,
                given=f"{source} has no column {column!r}",
                allowed=listing(columns) + (f"; or {listing(also)}, which need no column" if also else ""),
                why="rows without it would be in no group",
                remedy=f"did you mean {guess!r}?" if guess else "name a column that every source has, or remove it",
            )
        )
    return problems
