"""What a task asks of its columns, in the words of the data room."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ColumnRoles:
    """The columns that a task reads.

    inputs: texts the model sees; records equal in all of them are duplicates.
    target: the column that is predicted and stratified on, or None.
    """

    inputs: tuple[str, ...]
    target: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All roles, inputs first."""
        return self.inputs + ((self.target,) if self.target else ())
