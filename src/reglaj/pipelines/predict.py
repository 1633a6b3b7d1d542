"""Answers from a finished run: for texts in memory, or for every row of a file."""

from __future__ import annotations

import contextlib
import csv
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import UserError, listing, nearest, user_error
from reglaj.core.files import disk_faults
from reglaj.core.runs import find_run
from reglaj.data.conversation import BrokenRecord
from reglaj.data.formats import opening
from reglaj.data.layouts import Chosen
from reglaj.data.reading import open_reader
from reglaj.data.reading.batch import excerpt
from reglaj.data.roles import ColumnRoles, Layout
from reglaj.pipelines.inputs import Input, open_input
from reglaj.tasks import TASKS

if TYPE_CHECKING:
    from reglaj.pipelines.assemble import Assembled
    from reglaj.pipelines.recipe import Recipe

WRITERS = ("csv", "tsv", "jsonl", "json")


class Model:
    """A finished run, ready to answer."""

    def __init__(self, assembled: Assembled) -> None:
        self._assembled = assembled

    def question(self, layout: Layout, cells: Mapping[str, str | None]) -> Any:
        """What `predict` takes, from a record of a file. Raises `BrokenRecord` where nothing can be answered."""
        return self._assembled.task.question(layout, cells)

    @property
    def recipe(self) -> Recipe:
        return self._assembled.recipe

    def threshold(self, abstain_below: float | None = None, target_error: float | None = None) -> float | None:
        """The probability from which on it answers; None where it always does. See `predict`."""
        from reglaj.pipelines.abstaining import threshold_of

        return threshold_of(self._assembled, abstain_below, target_error)

    def predict(
        self,
        texts: Sequence[Any],
        console: Console = SILENT,
        *,
        abstain_below: float | None = None,
        target_error: float | None = None,
    ) -> list[dict[str, Any]]:
        """One answer per input, in order: `input` and `prediction` (with `probabilities` of classes), or `error`.

        texts: texts; for a chat model also lists of messages that end with the user's turn. abstain_below: answers of
        a smaller probability are withheld: `prediction` is None and `abstained` true. target_error: they are withheld
        so far that at most this share of the given ones is wrong, as validation shows with `evaluate.confidence`;
        raises `UserError` where it does not show it.
        """
        if texts is None or isinstance(texts, str):
            raise user_error(
                "a single text" if texts is not None else "no texts",
                allowed="a list of texts",
                why="each character would be taken for a text",
                remedy="write predict([text])",
            )
        threshold = self.threshold(abstain_below, target_error)
        a = self._assembled
        answers = a.task.predict(a.learner, a.tokenizer, list(texts), a.max_tokens, console)
        if threshold is None:
            return answers
        from reglaj.pipelines.abstaining import withheld

        return [withheld(answer, threshold) for answer in answers]


def load(run: str | Path, *, runs: str | Path = "runs", console: Console = SILENT) -> Model:
    """The model of a finished run: a path, a folder's name in `runs`, or a recipe's name (its latest run)."""
    from reglaj.pipelines.assemble import load_run

    return Model(load_run(find_run(str(run), Path(runs)), console))


def predict_file(
    run: str | Path,
    input: Path,
    output: Path,
    *,
    runs: str | Path = "runs",
    console: Console = SILENT,
    abstain_below: float | None = None,
    target_error: float | None = None,
) -> dict[str, Any]:
    """Answer every row of a file into another; returns how many were answered, withheld and refused.

    Order is kept and every row has its line: an unreadable or empty one with the reason in `error`. The format
    of the output is told by its name. It appears whole or not at all. abstain_below, target_error: as in
    `Model.predict`; a table then has a column `abstained`.
    """
    kind = output.suffix.lstrip(".").lower()
    if kind not in WRITERS:
        raise user_error(
            f"--output {str(output)!r}",
            allowed="a name that ends in " + listing(f".{writer}" for writer in WRITERS),
            why="the ending says which format to write",
            remedy="give the file such a name",
        )
    _check_output(input, output)
    from reglaj.data.reading import no_records

    recipe = load_recipe_of(find_run(str(run), Path(runs)))
    questions = _open(input, recipe)
    model = load(run, runs=runs, console=console)
    threshold = model.threshold(abstain_below, target_error)
    columns = TASKS.get(recipe.task).table_columns
    if threshold is not None:
        console.say(f"answers with a probability below {threshold:.6g} are withheld")
        columns = (*columns[:-1], "abstained", columns[-1])
    counts = {"rows": 0, "answered": 0, "abstained": 0, "refused": 0, "cut": 0}
    with _whole_file(output) as file:
        write = _writer(kind, file, columns)
        for answers in _answers(model, questions, threshold, console):
            write(answers)
            counts["rows"] += len(answers)
            counts["refused"] += sum("error" in answer for answer in answers)
            counts["abstained"] += sum(answer.get("abstained", False) for answer in answers)
            counts["cut"] += sum("cut" in answer for answer in answers)
        if not counts["rows"]:
            raise no_records(str(input))
        write(None)
    if counts["cut"]:
        console.warn(f"{counts['cut']:,} {TASKS.get(recipe.task).cut_words}")
    counts["answered"] = counts["rows"] - counts["refused"] - counts["abstained"]
    return {
        "input": str(input),
        "output": str(output),
        "column": ", ".join(questions.chosen.columns.values()),
        **counts,
    }


def _check_output(input: Path, output: Path) -> None:
    problem = None
    if output.is_dir():
        problem = "it is a folder"
    elif not output.parent.is_dir():
        problem = f"the folder {str(output.parent)!r} does not exist"
    elif output.exists() and input.exists() and output.samefile(input):
        problem = "it is the input, which would be lost"
    if problem:
        raise user_error(
            f"--output {str(output)!r}",
            allowed="a new or another file in an existing folder",
            why=problem,
            remedy="choose another name",
        )


def line_role(run: str | Path, runs: str | Path = "runs") -> str:
    """The role of a text that is given as a line alone: what the model of this run reads."""
    task = TASKS.get(load_recipe_of(find_run(str(run), Path(runs))).task)
    return task.question_roles.layouts[0].required[0] if task.question_roles.layouts else task.roles.inputs[0]


def load_recipe_of(run: Path) -> Recipe:
    """The resolved recipe that a run was trained on."""
    from reglaj.pipelines.recipe import load_recipe

    return load_recipe(run / "recipe.yaml")


def column_of(role: str, columns: Sequence[str], recipe: Recipe, name: str) -> str:
    """The column that holds a role: as in the recipe's sources, under the role's own name, or the only one."""
    wanted = [source.columns.get(role, role) for source in recipe.data.sources] + [role]
    for candidate in wanted:
        if candidate in columns:
            return candidate
    if len(columns) == 1:
        return columns[0]
    guess = nearest(wanted[0], columns)
    raise user_error(
        f"{name!r} has no column {wanted[0]!r}",
        allowed=listing(columns),
        why=f"the model reads its {role} from there, as in training",
        remedy=f"did you mean {guess!r}? Rename it to {wanted[0]!r}" if guess else f"name the column {wanted[0]!r}",
    )


def _open(input: Path, recipe: Recipe) -> Input:
    task = TASKS.get(recipe.task)
    if task.question_roles.layouts:
        return _open_questions(input, task.question_roles, recipe)
    reader = open_reader(input, str(input))
    (role,) = task.roles.inputs
    column = column_of(role, reader.columns, recipe, str(input))
    return Input(reader=reader, chosen=Chosen(Layout("columns", (role,)), {role: column}))


def _open_questions(input: Path, roles: ColumnRoles, recipe: Recipe) -> Input:
    """In one of the layouts; or texts alone, in `text` or the only column, as the user's turns."""
    try:
        return open_input(input, roles, recipe)
    except UserError:
        reader = open_reader(input, str(input))
        if "text" not in reader.columns and len(reader.columns) != 1:
            raise
        (layout,) = (one for one in roles.layouts if one.required == roles.layouts[0].required)
        column = "text" if "text" in reader.columns else reader.columns[0]
        return Input(reader=reader, chosen=Chosen(layout, {layout.required[0]: column}))


def _answers(
    model: Model, questions: Input, threshold: float | None, console: Console
) -> Iterator[list[dict[str, Any]]]:
    """The answers of each batch of the file's records, with the line they began in."""
    from reglaj.pipelines.abstaining import withheld

    layout = questions.chosen.layout
    roles = list(questions.chosen.columns)
    for batch in questions.batches():
        inputs: list[Any] = []
        refused: dict[int, tuple[str, str]] = {}
        for place, cells in enumerate(zip(*batch.cells, strict=True)):
            record = dict(zip(roles, cells, strict=True))
            try:
                inputs.append(model.question(layout, record))
            except BrokenRecord as problem:
                inputs.append("")
                refused[place] = (excerpt(opening(layout, record)), problem.reason)
            if place in batch.faults:
                fault = batch.faults[place]
                refused[place] = (fault.text, f"{fault.bucket}: {fault.reason}")
        answers = model.predict(inputs, console)
        if threshold is not None:
            answers = [withheld(answer, threshold) for answer in answers]
        for place, (answer, line) in enumerate(zip(answers, batch.lines, strict=True)):
            answer["line"] = line
            if place in refused:
                answer["input"], answer["error"] = refused[place]
        yield answers


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that takes its name only when the block ends well."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_faults(path):
        try:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                yield file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _writer(kind: str, file: TextIO, columns: Sequence[str]) -> Callable[[list[dict[str, Any]] | None], None]:
    """A function that writes a list of answers; None ends the file."""
    if kind == "jsonl":
        return lambda answers: file.writelines(json.dumps(a, ensure_ascii=False) + "\n" for a in answers or [])
    if kind == "json":
        kept: list[dict[str, Any]] = []
        return lambda answers: (
            kept.extend(answers) if answers is not None else json.dump(kept, file, ensure_ascii=False)
        )
    table = csv.writer(file, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
    table.writerow(columns)
    return lambda answers: table.writerows(_cells(answer, columns) for answer in answers or [])


def _cells(answer: Mapping[str, Any], columns: Sequence[str]) -> list[Any]:
    every = answer.get("probabilities", {})
    probability = answer.get("confidence", every.get(answer.get("prediction")))
    shown = {
        **answer,
        "probability": "" if probability is None else f"{probability:.6f}",
        "probabilities": json.dumps(every, ensure_ascii=False) if every else "",
        "prediction": "" if answer.get("prediction") is None else answer["prediction"],
        "abstained": json.dumps(answer["abstained"]) if "abstained" in answer else "",
    }
    return [shown.get(column, "") for column in columns]
