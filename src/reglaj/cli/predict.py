"""`reglaj predict`: one text, or a file of them."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from reglaj.cli import options
from reglaj.cli.page import Page, one_line, write_out
from reglaj.cli.verb import Answer
from reglaj.core.errors import user_error

_TOP = 3
_STREAM = "-"

Text = Annotated[str | None, typer.Argument(metavar="TEXT", help="A text to answer.", show_default=False)]
Input = Annotated[
    str | None, typer.Option("--input", metavar="FILE", help="A file to answer; - is standard input, a text per line.")
]
Output = Annotated[
    str | None,
    typer.Option("--output", metavar="FILE", help="Where answers go (csv, tsv, jsonl, json); - prints JSON lines."),
]
AbstainBelow = Annotated[
    float | None,
    typer.Option("--abstain-below", metavar="P", help="Withhold answers with a smaller probability."),
]
TargetError = Annotated[
    float | None,
    typer.Option(
        "--target-error", metavar="E", help="Withhold so many that at most this share of those given is wrong."
    ),
]


def predict(
    run: options.Run,
    text: Text = None,
    input: Input = None,
    output: Output = None,
    abstain_below: AbstainBelow = None,
    target_error: TargetError = None,
    runs: options.Runs = options.RUNS,
) -> Answer:
    """Predict one text, or every row of a file: order kept, each answered, withheld or refused with a reason."""
    sure = {"abstain_below": abstain_below, "target_error": target_error}
    if (text is None) == (input is None):
        raise user_error(
            "both a text and --input" if text is not None else "neither a text nor --input",
            allowed="reglaj predict RUN TEXT, or reglaj predict RUN --input FILE --output FILE",
            why="one of them says what to predict",
            remedy="give exactly one; a text with spaces needs quotes",
        )
    if text is not None:
        if output is not None:
            raise user_error(
                "a text and --output",
                allowed="--output together with --input",
                why="the answer to a single text is printed",
                remedy="leave --output out, or put the text into a file",
            )
        return _predict_text(run, text, runs, sure)
    return _predict_file(run, str(input), output or _STREAM, runs, sure)


def _predict_text(run: str, text: str, runs: Path, sure: dict[str, float | None]) -> Answer:
    from reglaj import load
    from reglaj.core.console import RichConsole

    model = load(run, runs=runs, console=RichConsole())
    (answer,) = model.predict([text], abstain_below=sure["abstain_below"], target_error=sure["target_error"])
    if "error" in answer:
        raise user_error(
            f"the text {one_line(text, 60)!r} was refused",
            allowed="a text that the model can read",
            why=str(answer["error"]),
            remedy="give it something to read" if not text.strip() else "write it otherwise, or shorter",
        )
    return Answer([answer], lambda page: _read_answer(page, answer))


def _read_answer(page: Page, answer: dict[str, Any]) -> None:
    if answer.get("abstained"):
        page.line(f"(no answer: only {answer['confidence']:.3f} sure)")
    else:
        page.line(str(answer["prediction"]))
    ranked = sorted(answer.get("probabilities", {}).items(), key=lambda item: -item[1])
    for label, probability in ranked[:_TOP]:
        page.line(f"  {probability:.3f}  {label}")


def _predict_file(run: str, input: str, output: str, runs: Path, sure: dict[str, float | None]) -> Answer:
    from reglaj.core.console import RichConsole
    from reglaj.pipelines.predict import line_role, predict_file

    console = RichConsole()
    # Goes with the last reference to it, when the answers have been printed.
    scratch = tempfile.TemporaryDirectory(prefix="reglaj-")
    source = _standard_input(Path(scratch.name), line_role(run, runs)) if input == _STREAM else Path(input)
    answers = Path(scratch.name, "answers.jsonl") if output == _STREAM else Path(output)
    summary = predict_file(run, source, answers, runs=runs, console=console, **sure)
    told = [f"{summary['answered']:,} answered", f"{summary['refused']:,} refused"]
    if any(value is not None for value in sure.values()):
        told.insert(1, f"{summary['abstained']:,} abstained")
    console.say(f"{summary['rows']:,} rows: {', '.join(told)}")

    def read(page: Page) -> None:
        if output == _STREAM:
            with answers.open(encoding="utf-8", newline="") as lines:
                for line in lines:
                    write_out(line)
        else:
            page.line(output)
        scratch.cleanup()

    def document() -> list[dict[str, Any]]:
        every = list(_answers_in(answers))
        scratch.cleanup()
        return every

    return Answer(document, read)


def _standard_input(folder: Path, role: str) -> Path:
    """Standard input as a file: JSON objects as they are, else every line a text in the column of that role."""
    file = folder / "input.jsonl"
    first = True
    is_json = False
    with file.open("w", encoding="utf-8") as out:
        for number, raw in enumerate(sys.stdin.buffer, 1):
            try:
                line = raw.decode("utf-8-sig" if first else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise user_error(
                    f"line {number} of standard input is not UTF-8",
                    allowed="texts in UTF-8, one in a line",
                    why=str(error),
                    remedy="convert it, or name a file with --input: other encodings are recognised there",
                ) from error
            is_json = is_json or (first and line.startswith("{"))
            first = False
            out.write((line if is_json else json.dumps({role: line}, ensure_ascii=False)) + "\n")
    if first:
        raise user_error(
            "standard input is empty",
            allowed="texts, one in a line, or JSON objects",
            why="there is nothing to answer",
            remedy="pipe texts into it, or name a file with --input",
        )
    return file


def _answers_in(file: Path) -> Iterator[dict[str, Any]]:
    """The answers that a file was given, whatever its format."""
    import csv

    with file.open(encoding="utf-8", newline="") as stream:
        if file.suffix.lower() == ".json":
            yield from json.load(stream)
        elif file.suffix.lower() == ".jsonl":
            yield from map(json.loads, stream)
        else:
            csv.field_size_limit(sys.maxsize)  # a text may be longer than the module's own limit
            for row in csv.DictReader(stream, delimiter="\t" if file.suffix.lower() == ".tsv" else ","):
                yield _from_cells(row)


def _from_cells(row: dict[str, str]) -> dict[str, Any]:
    """An answer back from the cells of a table."""
    answer: dict[str, Any] = {"input": row["input"]}
    if row["error"]:
        answer["error"] = row["error"]
    else:
        is_withheld = row.get("abstained") == "true"
        answer["prediction"] = None if is_withheld else row["prediction"]
        if row.get("abstained"):
            answer |= {"confidence": float(row["probability"]), "abstained": is_withheld}
        if "probabilities" in row:
            answer["probabilities"] = json.loads(row["probabilities"] or "{}")
        if "ended" in row:
            answer |= {"ended": row["ended"], "tokens": int(row["tokens"])}
    return answer | {"line": int(row["line"])}
