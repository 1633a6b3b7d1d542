"""After the figures: those of groups of the test rows, and whether the gate lets the run through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import Problem, UserError, listing, nearest
from reglaj.evaluation.config import COLUMN, EvaluateConfig

if TYPE_CHECKING:
    from reglaj.data.examples import Examples, VisibleData
    from reglaj.evaluation.grouping import Cells, Slicing
    from reglaj.evaluation.slices import Slice
    from reglaj.tasks.base import Evaluation, EvaluationResult, Task

_UNITS = {"length": "words"}


def judged(
    task: Task,
    evaluation: Evaluation,
    result: EvaluationResult,
    console: Console = SILENT,
    stored: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`slices` and `gate` of report.json; nothing where the recipe asks for neither.

    stored: `slices` of the run's own report, whose ranges are used again; without it they are those of the rows that
    may be looked at, and where there are none, as of a file that is scored, of that file.
    """
    config, found = evaluation.config, dict[str, Any]()
    rules, _ = task.read_gate(config)
    if config.slices and result.score_group:
        from reglaj.evaluation.gates import groups_named
        from reglaj.evaluation.slices import score_slices

        before = (stored or {}).get("by", {})
        named = list(groups_named(rules))
        slices = [
            _slice(name, task, evaluation, before.get(name), _groups_of(name, named), console) for name in config.slices
        ]
        figures = {one.name: one.lower_is_better for one in task.report_plan().slice_figures if one.has_best}
        found["slices"] = score_slices(slices, result.score_group, figures, config.confidence)
    if rules:
        from reglaj.evaluation.gates import failed_rules, judge

        found["gate"] = judge(rules, result.test, found.get("slices"))
        for failed in failed_rules(found):
            console.warn(f"gate: {failed}")
    return found


def refuse_unknown_groups(task: Task, config: EvaluateConfig, data: VisibleData) -> None:
    """Raises `UserError` for rules about groups that no row of train and validation is in: none can be in the test."""
    from reglaj.evaluation.gates import groups_named
    from reglaj.evaluation.grouping import EMPTY, NO_NUMBER, OTHER

    problems = []
    for name, group in groups_named(task.read_gate(config)[0]):
        if name == "language":  # costs more than the rule is worth before anything is trained
            continue
        slicing = _learnt(name, task, data)
        cells = [cell for part in (data.train(), data.validation()) for cell in _cells(name, task, part)]
        names, _ = slicing.groups(cells, frozenset([group]))
        if group in {*names, *slicing.ranges(), OTHER, EMPTY, NO_NUMBER}:
            continue
        guess = nearest(group, names)
        problems.append(
            Problem(
                where="evaluate.gate",
                given=f"{name} has no group {group!r}",
                allowed=listing(names),
                why="no row of train or validation is in it",
                remedy=f"did you mean {guess!r}?" if guess else "name one of the groups above",
            )
        )
    if problems:
        raise UserError(*problems)


def _slice(
    name: str,
    task: Task,
    evaluation: Evaluation,
    stored: Mapping[str, Any] | None,
    kept: frozenset[str],
    console: Console,
) -> Slice:
    from reglaj.evaluation.grouping import Slicing, learn_slicing
    from reglaj.evaluation.slices import Slice

    cells = _cells(name, task, evaluation.test, console)
    if stored is not None:
        slicing = Slicing.of_facts(stored)
    elif evaluation.data is not None:
        slicing = _learnt(name, task, evaluation.data)
    else:
        slicing = learn_slicing(cells, unit=_UNITS.get(name, ""), is_number=_is_number(name))
    names, codes = slicing.groups(cells, kept)
    return Slice(name=name, slicing=slicing, names=names, codes=codes)


def _groups_of(name: str, named: Sequence[tuple[str, str]]) -> frozenset[str]:
    return frozenset(group for one, group in named if one == name)


def _learnt(name: str, task: Task, data: VisibleData) -> Slicing:
    """Ranges by the rows that may be looked at; languages are values, whatever the rows are."""
    from reglaj.evaluation.grouping import Slicing, learn_slicing

    if name == "language":
        return Slicing()
    cells = [cell for part in (data.train(), data.validation()) for cell in _cells(name, task, part)]
    return learn_slicing(cells, unit=_UNITS.get(name, ""), is_number=_is_number(name))


def _is_number(name: str) -> bool | None:
    """None where the cells have to tell."""
    return {"length": True, "language": False}.get(name)


def _cells(name: str, task: Task, examples: Examples, console: Console = SILENT) -> Cells:
    """What decides the group of each row."""
    if name == "length":
        from reglaj.evaluation.metrics.answers import words

        return [str(len(words(text))) for text in task.written(examples)]
    if name == "language":
        from reglaj.curation.languages import detect_languages

        return detect_languages(task.written(examples), console)
    return examples.extra(name.removeprefix(COLUMN))
