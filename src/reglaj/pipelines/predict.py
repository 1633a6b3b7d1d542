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
from reglaj.core.errors import listing, nearest, user_error
from reglaj.core.files import disk_faults
from reglaj.core.runs import find_run

if TYPE_CHECKING:
    from reglaj.data.reading.base import Reader
    from reglaj.pipelines.assemble import Assembled
    from reglaj.pipelines.recipe import Recipe

TABLE_COLUMNS = ("line", "input", "prediction", "probability", "probabilities", "error")
"""Of csv and tsv: `probability` is that of the prediction, `probabilities` a JSON object of all."""
WRITERS = ("csv", "tsv", "jsonl", "json")
_BATCH_ROWS = 4096


class Model:
    """A finished run, ready to answer."""

    def __init__(self, assembled: Assembled) -> None:
        self._assembled = assembled

    @property
    def recipe(self) -> Recipe:
        return self._assembled.recipe

    def predict(self, texts: Sequence[str], console: Console = SILENT) -> list[dict[str, Any]]:
        """One answer per text, in order: `input` and `prediction` (with `probabilities` of classes), or `error`."""
        if texts is None or isinstance(texts, str):
            raise user_error(
                "a single text" if texts is not None else "no texts",
                allowed="a list of texts",
                why="each character would be taken for a text",
                remedy="write predict([text])",
            )
        a = self._assembled
        return a.task.predict(a.learner, a.tokenizer, list(texts), a.max_tokens, console)


def load(run: str | Path, *, runs: str | Path = "runs", console: Console = SILENT) -> Model:
    """The model of a finished run: a path, a folder's name in `runs`, or a recipe's name (its latest run)."""
    from reglaj.pipelines.assemble import load_run

    return Model(load_run(find_run(str(run), Path(runs)), console))


def predict_file(
    run: str | Path, input: Path, output: Path, *, runs: str | Path = "runs", console: Console = SILENT
) -> dict[str, Any]:
    """Answer every row of a file into another; returns how many were answered and refused.

    Order is kept and every row has its line: an unreadable or empty one with the reason in `error`. The format
    of the output is told by its name. It appears whole or not at all.
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

    reader, column = _open(input, load_recipe_of(find_run(str(run), Path(runs))))
    model = load(run, runs=runs, console=console)
    counts = {"rows": 0, "answered": 0, "refused": 0, "cut": 0}
    with _whole_file(output) as file, console.progress("predicting", None) as advance:
        write = _writer(kind, file)
        for answers in _answers(model, reader, column):
            write(answers)
            counts["rows"] += len(answers)
            counts["refused"] += sum("error" in answer for answer in answers)
            counts["cut"] += sum("cut" in answer for answer in answers)
            advance(len(answers))
        if not counts["rows"]:
            raise no_records(str(input))
        write(None)
    if counts["cut"]:
        console.warn(
            f"{counts['cut']:,} texts are longer than the model's context and were answered from their beginning"
        )
    counts["answered"] = counts["rows"] - counts["refused"]
    return {"input": str(input), "output": str(output), "column": column, **counts}


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


def _open(input: Path, recipe: Recipe) -> tuple[Reader, str]:
    from reglaj.data.reading import open_reader
    from reglaj.tasks import TASKS

    reader = open_reader(input, str(input))
    (role,) = TASKS.get(recipe.task).roles.inputs
    return reader, column_of(role, reader.columns, recipe, str(input))


def _answers(model: Model, reader: Reader, column: str) -> Iterator[list[dict[str, Any]]]:
    """The answers of each batch of the file's records, with the line they began in."""
    from reglaj.data.reading.files import guarded

    for batch in guarded(str(reader.file.name), reader.read([column], _BATCH_ROWS)):
        answers = model.predict([cell or "" for cell in batch.cells[0]])
        for place, (answer, line) in enumerate(zip(answers, batch.lines, strict=True)):
            answer["line"] = line
            if place in batch.faults:
                fault = batch.faults[place]
                answer |= {"input": fault.text, "error": f"{fault.bucket}: {fault.reason}"}
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


def _writer(kind: str, file: TextIO) -> Callable[[list[dict[str, Any]] | None], None]:
    """A function that writes a list of answers; None ends the file."""
    if kind == "jsonl":
        return lambda answers: file.writelines(json.dumps(a, ensure_ascii=False) + "\n" for a in answers or [])
    if kind == "json":
        kept: list[dict[str, Any]] = []
        return lambda answers: (
            kept.extend(answers) if answers is not None else json.dump(kept, file, ensure_ascii=False)
        )
    table = csv.writer(file, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
    table.writerow(TABLE_COLUMNS)
    return lambda answers: table.writerows(_cells(answer) for answer in answers or [])


def _cells(answer: Mapping[str, Any]) -> list[Any]:
    every = answer.get("probabilities", {})
    probability = every.get(answer.get("prediction"))
    shown = "" if probability is None else f"{probability:.6f}"
    listed = json.dumps(every, ensure_ascii=False) if every else ""
    return [answer["line"], answer["input"], answer.get("prediction", ""), shown, listed, answer.get("error", "")]
