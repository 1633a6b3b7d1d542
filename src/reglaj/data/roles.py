"""What a task asks of its columns, in the words of the data room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Cells = Mapping[str, str | None]
"""Role to cell of one record; None where an optional one is missing or null."""


@dataclass(frozen=True)
class Layout:
    """One way in which a file may hold the records of a task.

    required: roles that need a column. optional: roles that are read where the file has their column.
    nested: those of them whose cells may be lists or objects; they arrive as JSON text.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    nested: frozenset[str] = frozenset()

    @property
    def roles(self) -> tuple[str, ...]:
        """All of its roles, the required ones first."""
        return self.required + self.optional


@dataclass(frozen=True, kw_only=True)
class ColumnRoles:
    """The columns that a task reads.

    inputs: texts the model sees; records equal in all of them are duplicates.
    target: the column that is predicted and stratified on, or None.
    layouts: the ways in which a file may hold a record, where these are not the stored columns themselves.
    measure: the characters of a record of such a file; raises `BrokenRecord` where nothing can be learnt from it.
    """

    inputs: tuple[str, ...]
    target: str | None = None
    layouts: tuple[Layout, ...] = ()
    measure: Callable[[Layout, Cells], int] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of train, validation and test, inputs first."""
        return self.inputs + ((self.target,) if self.target else ())

    @property
    def ways(self) -> tuple[Layout, ...]:
        """The layouts, or the only one there is: a column for each stored role."""
        return self.layouts or (Layout("columns", self.names),)

    @property
    def source_names(self) -> tuple[str, ...]:
        """Every role that a source may have a column for."""
        return tuple(dict.fromkeys(role for layout in self.ways for role in layout.roles))
