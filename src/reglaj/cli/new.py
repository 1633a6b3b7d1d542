"""`reglaj new`: from files to a commented recipe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from reglaj.cli.page import Page
from reglaj.cli.verb import Answer

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE", help="Data files, or a starter such as starter:medical.", show_default=False),
]
Task = Annotated[
    str | None, typer.Option("--task", metavar="T", help="What to learn; by default what the columns suit.")
]
Model = Annotated[
    str | None, typer.Option("--model", metavar="M", help="What to start from; by default the task's own.")
]
Text = Annotated[str | None, typer.Option("--text", metavar="COLUMN", help="The column that holds the texts.")]
Label = Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="The column that holds the labels.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="ROLE=COLUMN", help="The column of any other role, such as prompt=question; repeatable."
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the recipe goes.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a recipe that is there.")]


def new(  # noqa: PLR0913  (one parameter per option)
    files: Files,
    task: Task = None,
    model: Model = None,
    text: Text = None,
    label: Label = None,
    column: Columns = None,
    output: Output = Path("recipe.yaml"),
    force: Force = False,
) -> Answer:
    """Look at data, propose the task and the columns, and write a commented recipe."""
    from reglaj.core.console import RichConsole
    from reglaj.pipelines.new import check_output, propose, write_recipe

    check_output(output, force=force)
    columns = {role: name for role, name in (("text", text), ("label", label)) if name is not None}
    columns |= dict(_role_and_column(pair) for pair in column or [])
    proposal = propose(files, task, model, columns=columns, folder=output.parent, console=RichConsole())
    write_recipe(proposal, output)
    document = {
        "recipe": str(output),
        "task": proposal.task,
        "model": proposal.model,
        "columns": proposal.columns,
        "sources": proposal.sources,
        "why": proposal.why,
        "notes": proposal.notes,
    }

    def read(page: Page) -> None:
        for line in (*proposal.why, *proposal.notes):
            page.line(line)
        page.line()
        name = shlex.quote(str(output))
        page.pairs([("recipe", str(output)), ("check it", f"reglaj check {name}"), ("train", f"reglaj train {name}")])

    return Answer(document, read)


def _role_and_column(pair: str) -> tuple[str, str]:
    from reglaj.core.errors import user_error

    role, equals, name = pair.partition("=")
    if not (role and equals and name):
        raise user_error(
            f"--column {pair!r}",
            allowed="ROLE=COLUMN, such as prompt=question",
            why="it says which column plays which role",
            remedy="write both, with = between them",
        )
    return role, name
