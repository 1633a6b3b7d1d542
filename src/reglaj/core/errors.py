"""Errors that name the remedy, and the exit code each family ends with.

Every message to a user has four parts: what was given, what is allowed, why, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong, in four parts; `where` is a recipe key or a file and line."""

    given: str
    allowed: str
    why: str
    remedy: str
    where: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.given}\n  allowed: {self.allowed}\n  why: {self.why}\n  do: {self.remedy}"


class ReglajError(Exception):
    """Base of every error that the command line turns into an exit code instead of a traceback."""

    exit_code = 1

    def __init__(self, *problems: Problem) -> None:
        assert problems, "an error without a problem helps nobody"
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class UserError(ReglajError, ValueError):
    """The recipe, the data or the arguments are wrong; nothing was written."""

    exit_code = 2


class GateRefused(ReglajError):
    """A rule said no."""

    exit_code = 3


class EnvironmentFault(ReglajError, OSError):
    """The disk, the network, a missing extra or a locked run: the same command works once it is mended."""

    exit_code = 4


class SaidElsewhere(Exception):
    """Another process of the same training says what is wrong: this one ends with the same code, in silence."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class MissingExtra(Problem):
    """A problem that installing a package mends: not of what the user wrote, but of the environment."""


def refusal(problems: Sequence[Problem]) -> ReglajError:
    """A `UserError` of all of them, or an `EnvironmentFault` where the environment alone is to blame."""
    is_users = any(not isinstance(problem, MissingExtra) for problem in problems)
    return (UserError if is_users else EnvironmentFault)(*problems)


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a device or on the processor (where torch raises a plain `RuntimeError`)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def user_error(given: str, *, allowed: str, why: str, remedy: str, where: str = "") -> UserError:
    """A `UserError` of a single problem."""
    return UserError(Problem(given=given, allowed=allowed, why=why, remedy=remedy, where=where))


def environment_fault(given: str, *, allowed: str, why: str, remedy: str, where: str = "") -> EnvironmentFault:
    """An `EnvironmentFault` of a single problem."""
    return EnvironmentFault(Problem(given=given, allowed=allowed, why=why, remedy=remedy, where=where))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely meant, or None when nothing is close."""
    options = {option.casefold(): option for option in known}
    matches = difflib.get_close_matches(name.casefold(), options, n=1, cutoff=0.5)
    return options[matches[0]] if matches else None


def listing(names: Iterable[str], limit: int = 20) -> str:
    """`a, b, c` with the rest counted: a list of ten thousand names is no message."""
    every = [str(name) for name in names]
    shown = ", ".join(every[:limit]) if every else "(nothing)"
    return shown if len(every) <= limit else f"{shown} and {len(every) - limit} more"


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: str = "") -> UserError:
    """`name` is not one of the `known` names of its kind; the nearest one is proposed."""
    options = sorted(known)
    guess = nearest(name, options)
    return user_error(
        f"unknown {kind} {name!r}",
        allowed=listing(options),
        why=f"no {kind} of that name is registered",
        remedy=f"did you mean {guess!r}?" if guess else f"choose one of the {kind} names above",
        where=where,
    )
