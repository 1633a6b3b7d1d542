"""`new`: look at the data, propose the task and the columns with reasons, and write a commented recipe.

Where two columns are equally good nothing is guessed: the wrong one would train a model for the wrong question.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import listing, user_error
from reglaj.core.files import write_text
from reglaj.data.config import DataConfig, SplitConfig
from reglaj.evaluation.config import EvaluateConfig
from reglaj.methods import METHODS
from reglaj.pipelines.choose_columns import Table, choose_columns, reasons, shell_quoted
from reglaj.pipelines.commented import comment, scalar, section
from reglaj.tasks import TASKS
from reglaj.training.config import TrainConfig

if TYPE_CHECKING:
    from reglaj.data.reading import Preview
    from reglaj.tasks.base import Task

_STARTER = "starter:"
_NO_NAMES = frozenset({"train", "test", "data", "dataset", "all", "full", "sample"})


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What `new` found, and the recipe that says so."""

    task: str
    model: str
    columns: dict[str, str]
    """Role to column."""
    sources: list[dict[str, Any]]
    """Path (as the recipe has it), kind, rows seen and whether these are all."""
    why: list[str]
    """A sentence per decision."""
    notes: list[str]
    """What the reader of the files remarked."""
    recipe: str
    """The recipe as YAML."""


def propose(
    files: Sequence[str | Path],
    task: str | None = None,
    model: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    folder: Path | None = None,
    console: Console = SILENT,
) -> Proposal:
    """A recipe for these files.

    files: paths, or data starters such as `starter:medical`. columns: role to column, for what the user has
    decided. folder: where the recipe will lie; its paths start there. Raises `UserError` when a file cannot be
    read, no column fits a role, or several fit equally well.
    """
    names = [str(file) for file in files]
    previews = [_look(name, console) for name in names]
    table = _table(names, previews)
    fit = choose_columns(table, task, dict(columns or {}))
    task_type = fit.task
    place = (folder or Path.cwd()).resolve()
    sources = [
        {"path": _from(place, name), "kind": p.kind, "rows_seen": p.rows_seen, "is_complete": p.is_complete}
        for name, p in zip(names, previews, strict=True)
    ]
    proposal = Proposal(
        task=task_type.name,
        model=model or task_type.default_model,
        columns={role: guess.column for role, guess in fit.chosen.items()},
        sources=sources,
        why=reasons(fit, table),
        notes=[f"{name}: {note}" for name, preview in zip(names, previews, strict=True) for note in preview.notes],
        recipe="",
    )
    return Proposal(**{**vars(proposal), "recipe": _write_recipe(proposal, task_type, names)})


def check_output(output: Path, *, force: bool = False) -> None:
    """Raises `UserError` when the recipe cannot go there: asked before any work is done.

    force: a file that is there may be overwritten.
    """
    if not output.parent.is_dir():
        raise user_error(
            f"there is no folder {str(output.parent)!r}",
            allowed="a file in a folder that exists",
            why=f"the recipe is to be written to {str(output)!r}",
            remedy="make the folder, or choose another place with -o",
        )
    if output.is_dir():
        raise user_error(
            f"{str(output)!r} is a folder",
            allowed="a file",
            why="the recipe is one file",
            remedy=f"name the file, such as -o {shell_quoted(str(output / 'recipe.yaml'))}",
        )
    if output.exists() and not force:
        raise user_error(
            f"{str(output)!r} exists already",
            allowed="a new file",
            why="a recipe that you may have edited is not overwritten",
            remedy="choose another name with -o, or overwrite it with --force",
        )


def write_recipe(proposal: Proposal, output: Path) -> None:
    """Put the recipe under `output`."""
    write_text(output, proposal.recipe)


def _look(name: str, console: Console) -> Preview:
    from reglaj.data.reading import look

    if not name.startswith(_STARTER):
        return look(Path(name))
    from reglaj.models.starters import STARTERS, fetch, find_starter

    if find_starter(name).kind != "data":
        raise user_error(
            f"{name!r} is a model",
            allowed=listing(_STARTER + starter.name for starter in STARTERS.values() if starter.kind == "data"),
            why="a recipe learns from data",
            remedy=f"give a data file, and the model as --model {name}",
        )
    return look(fetch(name, console))


def _table(names: list[str], previews: list[Preview]) -> Table:
    shared = [c for c in previews[0].columns if all(c in preview.columns for preview in previews[1:])]
    if not shared:
        raise user_error(
            "the files have no column in common",
            allowed="files whose columns have the same names",
            why="; ".join(f"{n} has {listing(p.columns, 8)}" for n, p in zip(names, previews, strict=True)),
            remedy="call `reglaj new` with one of them, then add the others under data.sources with their own columns",
        )
    return Table(
        files=tuple(names),
        columns=shared,
        sample=[row for preview in previews for row in preview.sample],
        is_complete=all(preview.is_complete for preview in previews),
    )


def _write_recipe(proposal: Proposal, task: type[Task], names: list[str]) -> str:
    method = METHODS.get(task.default_method)
    lines = comment(f"Written by `reglaj new {' '.join(shell_quoted(name) for name in names)}`. What it saw:")
    for reason in proposal.why:
        lines += comment(f"- {reason}")
    lines += [
        "#",
        *comment("Keys that are commented out show their default; where it is null, the value is derived and printed."),
        "# Check this file with `reglaj check`, then train with `reglaj train`.",
        "",
        "# The run's folder is called after it.",
        f"name: {scalar(_run_name(names[0]))}",
        f"# What the model learns to do. One of: {', '.join(TASKS.names())}.",
        f"task: {proposal.task}",
        *comment("What it starts from: a starter, a folder (relative to this file), or a hub id."),
        f"model: {scalar(proposal.model)}",
        "",
        "data:",
        *comment("Files, relative to this one, and which column plays which role.", 2),
        "  sources:",
    ]
    for source in proposal.sources:
        lines += [f"    - path: {scalar(source['path'])}", "      columns:"]
        lines += [f"        {role}: {scalar(column)}" for role, column in proposal.columns.items()]
    lines += ["  split:", *section(SplitConfig, indent=4, live=SplitConfig().model_dump())]
    lines += section(DataConfig, indent=2, live={}, leave_out=("sources", "split", *_unread(task, "data")))
    lines += [
        "",
        *comment("Which parameters learn; `reglaj methods` lists the others with their cost."),
        "method:",
        *section(method.config_type, indent=2, live={"name": task.default_method}),
        "",
        "train:",
        *section(TrainConfig, indent=2, live={}, leave_out=_unread(task, "train")),
        "",
        "evaluate:",
        *section(EvaluateConfig, indent=2, live={}, leave_out=_unread(task, "evaluate")),
    ]
    return "\n".join(lines) + "\n"


def _unread(task: type[Task], section: str) -> list[str]:
    """Keys of a section that the task does not read: a recipe for it does not show them."""
    return [key.removeprefix(f"{section}.") for key in task.unread if key.startswith(f"{section}.")]


def _run_name(file: str) -> str:
    """A run's name after its first file (its folder, where every data set calls the file so)."""
    path = Path(file.removeprefix(_STARTER))
    stem = path.name.split(".")[0]
    if stem.casefold() in _NO_NAMES and len(path.parts) > 1:
        stem = path.resolve().parent.name
    plain = re.sub(r"[^\w\-]+", "-", stem).strip("-_")
    return plain[:60] or "model"


def _from(folder: Path, name: str) -> str:
    """A file's path as seen from the recipe's folder."""
    if name.startswith(_STARTER):
        return name
    return Path(os.path.relpath(Path(name).resolve(), folder)).as_posix()
