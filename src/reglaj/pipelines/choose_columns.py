"""Which task the columns of some files suit, and which column plays which role; what is not plain is asked.

Where two columns are equally good nothing is guessed: the wrong one would train a model for the wrong question.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reglaj.core.errors import Problem, UserError, listing, nearest, user_error
from reglaj.data.roles import Layout
from reglaj.tasks import TASKS
from reglaj.tasks.recognise import ACCEPT, ColumnGuess, candidates, recognise

if TYPE_CHECKING:
    from reglaj.tasks.base import Task

_WITH_OPTION = frozenset({"text", "label"})


@dataclass(frozen=True, kw_only=True)
class Table:
    """The columns that all files share, and the first rows of each."""

    files: tuple[str, ...]
    columns: list[str]
    sample: list[dict[str, str]]
    is_complete: bool


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A task that suits the columns.

    chosen: role to column. others: columns that would have been possible too. rivals: tasks that fit, less plainly.
    """

    task: type[Task]
    layout: Layout
    chosen: dict[str, ColumnGuess]
    others: list[ColumnGuess]
    rivals: list[Fit] = field(default_factory=list)

    @property
    def strength(self) -> int:
        """2 where every required column is plainly meant, else 1; 0 where it took a guess at a layout as well."""
        if all(self.chosen[role].is_plain for role in self.layout.required):
            return 2
        return 0 if self.task.roles.layouts else 1


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """A layout of a task tried on the columns. nearness: the share of its required roles that a column could play."""

    layout: Layout
    chosen: dict[str, ColumnGuess]
    problems: list[Problem]
    nearness: float


def choose_columns(table: Table, task: str | None, given: dict[str, str]) -> Fit:
    """The task that suits best. task: the only one to try. given: role to column, as far as the user has decided.

    Raises `UserError` where no task suits, or several suit equally well.
    """
    tasks = [TASKS.get(name, where="--task") for name in ([task] if task else TASKS.names())]
    tasks = [one for one in tasks if given.keys() <= set(one.roles.source_names)] or tasks
    fits: list[Fit] = []
    refused: list[tuple[float, list[Problem]]] = []
    for one in tasks:
        found = _try_task(one, table, given)
        if isinstance(found, Fit):
            fits.append(found)
        else:
            refused.append(found)
    if not fits:
        nearest_to = max(nearness for nearness, _ in refused)
        raise UserError(*(one for nearness, problems in refused if nearness == nearest_to for one in problems))
    strongest = max(fit.strength for fit in fits)
    best = [fit for fit in fits if fit.strength == strongest]
    if len(best) > 1:
        options = [fit.task.name for fit in best]
        raise user_error(
            f"the data suit several tasks: {listing(options)}",
            allowed="one task",
            why="they would learn different things from the same columns",
            remedy=f"choose with --task {options[0]}",
        )
    return Fit(**{**vars(best[0]), "rivals": [fit for fit in fits if fit is not best[0]]})


def _try_task(task: type[Task], table: Table, given: dict[str, str]) -> Fit | tuple[float, list[Problem]]:
    """The task on these columns; else how near it came, and its problems."""
    problems = _wrong_choices(task, table, given)
    if problems:
        return 0.0, problems
    guesses = recognise(task.roles, table.columns, table.sample, is_complete=table.is_complete)
    suiting = [layout for layout in task.roles.ways if given.keys() <= set(layout.roles)]
    if not suiting:
        return 0.0, [_mixed(task, given)]
    attempts = [_try_layout(layout, table, guesses, given, has_several=len(suiting) > 1) for layout in suiting]
    whole = _without_parts([attempt for attempt in attempts if not attempt.problems])
    if len(whole) > 1:
        return 1.0, [_several_layouts(task, whole, table)]
    if whole:
        chosen = whole[0].chosen
        taken = {guess.column for guess in chosen.values()}
        others = [g for g in guesses if g.role in chosen and g.score >= ACCEPT and g.column not in taken]
        return Fit(task=task, layout=whole[0].layout, chosen=chosen, others=others)
    nearness = max(attempt.nearness for attempt in attempts)
    near = [attempt for attempt in attempts if attempt.nearness == nearness]
    if len(near) > 1:
        return nearness, [_no_layout(task, guesses, table)]
    return nearness, near[0].problems


def _try_layout(
    layout: Layout, table: Table, guesses: list[ColumnGuess], given: dict[str, str], *, has_several: bool
) -> _Attempt:
    chosen: dict[str, ColumnGuess] = {}
    problems = []
    matched = 0
    for role in layout.roles:
        if role in given:
            chosen[role] = next(g for g in guesses if g.role == role and g.column == given[role])
            matched += role in layout.required
            continue
        taken = {*given.values(), *(guess.column for guess in chosen.values())}
        best = candidates(guesses, role, without=taken)
        if has_several:  # a column that bears the very name of a role is the one
            best = [guess for guess in best if guess.column == role] or best
        matched += bool(best) and role in layout.required
        if len(best) == 1:
            chosen[role] = best[0]
        elif best:
            problems.append(_tie(role, best, table))
        elif role in layout.required:
            ranked = [guess for guess in guesses if guess.role == role and guess.column not in taken]
            problems.append(_nothing_fits(role, ranked, table))
    return _Attempt(layout=layout, chosen=chosen, problems=problems, nearness=matched / len(layout.required))


def _without_parts(attempts: list[_Attempt]) -> list[_Attempt]:
    """Attempts, without those whose columns another one has too, and more: a question with its instruction, say."""
    columns = [{guess.column for guess in attempt.chosen.values()} for attempt in attempts]
    return [
        attempt for attempt, mine in zip(attempts, columns, strict=True) if not any(mine < others for others in columns)
    ]


def _wrong_choices(task: type[Task], table: Table, given: dict[str, str]) -> list[Problem]:
    problems = []
    for role, column in given.items():
        if role not in task.roles.source_names:
            problems.append(
                Problem(
                    where=_option_name(role),
                    given=f"the task {task.name} has no {role}",
                    allowed=listing(task.roles.source_names),
                    why="it reads these columns and nothing else",
                    remedy="leave the option out, or choose another --task",
                )
            )
        elif column not in table.columns:
            guess = nearest(column, table.columns)
            problems.append(
                Problem(
                    where=_option_name(role),
                    given=f"no column {column!r} in {listing(table.files, 3)}",
                    allowed=listing(table.columns),
                    why=f"the {role} must be a column that every file has",
                    remedy=f"did you mean {guess!r}?" if guess else "choose one of the columns above",
                )
            )
    if len(set(given.values())) < len(given):
        problems.append(
            Problem(
                where=" ".join(map(_option_name, given)),
                given=f"the same column for {listing(given)}",
                allowed="a different column for each",
                why="a model that reads its answer learns nothing",
                remedy="choose two columns",
            )
        )
    return problems


def _mixed(task: type[Task], given: dict[str, str]) -> Problem:
    return Problem(
        where=" ".join(map(_option_name, given)),
        given=f"the roles {listing(given)} together",
        allowed=_layouts(task.roles.ways),
        why=f"the task {task.name} reads a file in one of these layouts",
        remedy="name the roles of one of them only",
    )


def _several_layouts(task: type[Task], attempts: Sequence[_Attempt], table: Table) -> Problem:
    described = [
        f"{one.layout.name} ({listing(_quoted(guess.column) for guess in one.chosen.values())})" for one in attempts
    ]
    role = attempts[0].layout.required[0]
    return Problem(
        where="columns",
        given=f"the columns suit several layouts of {task.name}: {listing(described)}",
        allowed="one of them",
        why="they would give different texts to learn from",
        remedy=f"choose: `reglaj new {shell_quoted(table.files[0])} {_option(role, attempts[0].chosen[role].column)}`",
    )


def _no_layout(task: type[Task], guesses: list[ColumnGuess], table: Table) -> Problem:
    """Nothing points to one layout more than to another: what each column looks like at its best."""
    best: dict[str, ColumnGuess] = {}
    for guess in guesses:
        known = best.get(guess.column)
        if known is None or (guess.style, guess.score) > (known.style, known.score):
            best[guess.column] = guess
    return Problem(
        where="columns",
        given=f"no columns of {listing(table.files, 3)} look like those of the task {task.name}",
        allowed=_layouts(task.roles.ways),
        why="; ".join(f"{_quoted(guess.column)} {guess.reason}" for guess in list(best.values())[:8]),
        remedy=f"if some are meant all the same, say so with {_option('ROLE')}; else rename or add them",
    )


def _tie(role: str, best: list[ColumnGuess], table: Table) -> Problem:
    return Problem(
        where=role,
        given=f"{len(best)} columns are equally good: {listing(_quoted(guess.column) for guess in best)}",
        allowed=f"one column for the {role}",
        why="; ".join(f"{_quoted(guess.column)} {guess.reason}" for guess in best[:6]),
        remedy=f"choose: `reglaj new {shell_quoted(table.files[0])} {_option(role, best[0].column)}`, or another one",
    )


def _nothing_fits(role: str, ranked: list[ColumnGuess], table: Table) -> Problem:
    thing = f"{'an' if role[0] in 'aeio' else 'a'} {role}"
    return Problem(
        where=role,
        given=f"no column of {listing(table.files, 3)} looks like {thing}",
        allowed=f"a column whose name and cells are those of {thing}",
        why="; ".join(f"{_quoted(g.column)} {g.reason}" for g in ranked[:8]) or "every column has another role already",
        remedy=f"if one of them is meant all the same, say so with {_option(role)}; else add such a column",
    )


def reasons(fit: Fit, table: Table) -> list[str]:
    """A sentence per decision."""
    task, chosen = fit.task, fit.chosen
    seen = f"all {len(table.sample):,} rows" if table.is_complete else f"the first {len(table.sample):,} rows"
    lines = [f"the task is {task.name} ({task.summary}); seen: {seen}"]
    if task.roles.layouts:
        lines.append(f"the format: {_format(fit)}")
    lines += [f"{role}: {_quoted(guess.column)} {guess.reason}" for role, guess in chosen.items()]
    for role in chosen:
        possible = [guess for guess in fit.others if guess.role == role]
        if possible:
            names = listing((_quoted(guess.column) for guess in possible), 5)
            lines.append(f"{role}: {names} would be possible too; choose with {_option(role)}")
    taken = {guess.column for guess in chosen.values()} | set(fit.layout.roles)
    unread = [column for column in table.columns if column not in taken]
    if task.roles.layouts and unread:
        lines.append(f"not read: {listing(map(_quoted, unread), 8)}")
    for rival in fit.rivals:
        columns = ", ".join(f"{role} {_quoted(guess.column)}" for role, guess in rival.chosen.items())
        lines.append(
            f"the task {rival.task.name} would be possible too ({columns}); choose with --task {rival.task.name}"
        )
    return lines


_TITLES = {"prompt_completion": "a prompt and its answer", "alpaca": "Alpaca"}
_OPTIONAL = {"system": "system prompts", "tools": "tools", "history": "earlier turns", "input": "inputs"}


def _format(fit: Fit) -> str:
    """`ShareGPT turns in `conversations`: 3.2 turns on average, tools in `tools``."""
    required = [fit.chosen[role] for role in fit.layout.required]
    where = " and ".join(_quoted(guess.column) for guess in required)
    title = f"{required[0].style} turns" if required[0].style else _TITLES.get(fit.layout.name, fit.layout.name)
    extra = [
        f"{_OPTIONAL.get(role, role)} in {_quoted(fit.chosen[role].column)}"
        for role in fit.layout.optional
        if role in fit.chosen
    ]
    size = [required[0].size] if required[0].size else []
    details = ", ".join([*size, *extra])
    return f"{title} in {where}" + (f": {details}" if details else "")


def _layouts(layouts: Iterable[Layout]) -> str:
    return "; ".join(f"{layout.name} ({listing(layout.required)})" for layout in layouts)


def _option(role: str, column: str | None = None) -> str:
    """How the command line is told which column plays a role."""
    value = shell_quoted(column) if column is not None else "COLUMN"
    return f"--{role} {value}" if role in _WITH_OPTION else f"--column {role}={value}"


def _option_name(role: str) -> str:
    return f"--{role}" if role in _WITH_OPTION else f"--column {role}"


def shell_quoted(text: str) -> str:
    """A word as it is typed in a shell."""
    return shlex.quote(text)


def _quoted(column: str) -> str:
    return f"`{column}`" if column.strip() else f"the column without a name ({column!r})"
