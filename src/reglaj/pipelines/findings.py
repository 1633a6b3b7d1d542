"""Problems gathered over several stages, so that a user mends them all before the next try."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from reglaj.core.errors import EnvironmentFault, MissingExtra, Problem, ReglajError, UserError

T = TypeVar("T")


@dataclass
class Findings:
    """Problems of all stages, in order, each once; and remarks that stop nothing."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_users: bool = False

    def attempt(self, step: Callable[[], T]) -> T | None:
        """The value of a step, or None when it found problems, which are kept."""
        try:
            return step()
        except EnvironmentFault as fault:
            self._keep(fault.problems)
        except ReglajError as error:
            self.add(error.problems)
        return None

    def add(self, problems: Iterable[Problem]) -> None:
        """Problems of the user's input, beside packages that are missing."""
        every = list(problems)
        self.is_users = self.is_users or any(not isinstance(problem, MissingExtra) for problem in every)
        self._keep(every)

    def raise_all(self) -> None:
        """Raises `UserError` with every problem, or `EnvironmentFault` when all of them are the machine's."""
        if self.problems:
            raise (UserError if self.is_users else EnvironmentFault)(*self.problems)

    def _keep(self, problems: Iterable[Problem]) -> None:
        self.problems += [problem for problem in problems if problem not in self.problems]
