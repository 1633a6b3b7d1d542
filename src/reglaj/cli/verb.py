"""What all verbs share: `--json`, `--debug`, and standard output for the answer alone."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

import typer

from reglaj.cli.options import Debug, Json
from reglaj.cli.page import Page, print_json


@dataclass(frozen=True)
class Answer:
    """What a verb has to say: how a person reads it, and the document of `--json` (or what makes it, if large).

    exit_code: of an answer that is whole and still no success, such as a gate that says no with its reasons.
    """

    document: Any
    read: Callable[[Page], None]
    exit_code: int = 0


def verb(function: Callable[..., Answer]) -> Callable[..., None]:
    """`function` with `--json` and `--debug` added and its answer printed."""
    hints = get_type_hints(function, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()]
    # `debug` is read where exceptions end up (`app.main`), for it also matters when parsing itself fails.
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("as_json", Json), ("debug", Debug))
    ]

    @functools.wraps(function)
    def run(*, as_json: bool, debug: bool, **given: Any) -> None:
        # A library that prints must not spoil the one document.
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            answer = function(**given)
        if as_json:
            print_json(answer.document() if callable(answer.document) else answer.document)
        else:
            answer.read(Page())
        if answer.exit_code:
            raise typer.Exit(answer.exit_code)

    parameters = [*own, *shared]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
