"""How a command ends when it cannot do its work: readable on standard error, an exit code, no traceback."""

from __future__ import annotations

import contextlib
import errno
import shutil
import signal
import sys
import textwrap
import traceback
from typing import Any

import typer

from reglaj.cli.page import print_json, printable, silence_output
from reglaj.core.errors import Problem, ReglajError, SaidElsewhere, is_out_of_memory, nearest
from reglaj.core.signals import Stopped

_BRIEF = (1, 130, 143)
"""Codes of ends that are not about the input: one line says what happened and what to do."""
_ENVIRONMENT = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
    *(errno.EPERM, errno.EMFILE, errno.ENOMEM, errno.EIO),
}


def report_fault(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """Say what went wrong on standard error (and as JSON on standard output), and return the exit code."""
    if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
        silence_output()
        return 0
    if isinstance(error, SaidElsewhere):
        return error.code
    code, problems = _explain(error)
    if debug:
        _write("".join(traceback.format_exception(error)))
    _show(code, problems)
    if as_json:
        print_json({"error": {"problems": [_as_mapping(problem) for problem in problems]}, "exit_code": code})
    return code


def _explain(error: BaseException) -> tuple[int, tuple[Problem, ...]]:
    """The exit code and the problems of anything that can be raised."""
    if isinstance(error, ReglajError):
        return error.exit_code, error.problems
    if isinstance(error, KeyboardInterrupt):
        error = Stopped(signal.SIGINT)
    if isinstance(error, Stopped):
        return error.exit_code, (_stop(error),)
    if isinstance(error, typer.TyperException):
        return 2, (_usage(error),)
    if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno in _ENVIRONMENT):
        return 4, (_machine(error),)
    return 1, (_ours(error),)


def _stop(error: Stopped) -> Problem:
    return Problem(
        given=f"stopped by {error.number.name}",
        allowed="running to the end",
        why="the process was asked to stop; nothing is left half written",
        remedy=error.saved or "give the same command to run it again",
    )


def _usage(error: typer.TyperException) -> Problem:
    """A command line that cannot be parsed, in our four parts."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "reglaj"
    usage = context.get_usage().removeprefix("Usage: ") if context else "reglaj VERB [OPTIONS]"
    option = getattr(error, "option_name", None)
    options = [name for p in context.command.get_params(context) for name in p.opts] if context else []
    guess = nearest(option, [name for name in options if name.startswith("--")]) if option else None
    given = error.format_message()
    return Problem(
        given=(given.split(" (Possible")[0] if option else given).rstrip("."),
        allowed=" ".join(usage.split()),
        why="the command line cannot be understood",
        remedy=f"did you mean {guess!r}?" if guess else f"see `{command} --help`",
    )


def _machine(error: BaseException) -> Problem:
    name = getattr(error, "filename", None)
    return Problem(
        given=f"{type(error).__name__}: {getattr(error, 'strerror', None) or error or 'out of memory'}",
        allowed="room on the disk and in memory, and files that may be read and written",
        why=f"the machine refused, at {str(name)!r}" if name else "the machine refused",
        remedy="mend that, then run the same command",
    )


def _ours(error: BaseException) -> Problem:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}, line {frames[-1].lineno})" if frames else ""
    said = str(error).strip().splitlines()
    return Problem(
        given=f"{type(error).__name__}{': ' + said[0] if said else ''}{place}",
        allowed="no such thing should happen",
        why="this is a fault of reglaj, not of your input",
        remedy="run again with --debug and report what it prints",
    )


def _show(code: int, problems: tuple[Problem, ...]) -> None:
    """The problems on standard error, numbered where there are several."""
    if code in _BRIEF:
        _write("\n".join(f"reglaj: {problem.given}; {problem.remedy}" for problem in problems) + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    screen = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    text = Text()
    text.append(f"reglaj: {len(problems)} problems\n\n" if len(problems) > 1 else "", style="bold")
    for number, problem in enumerate(problems, 1):
        start = f"{number}. " if len(problems) > 1 else "reglaj: "
        place = f"{problem.where}: " if problem.where else ""
        text.append(_wrapped(start, f"{place}{problem.given}", 3) + "\n", style="bold")
        for part, label in (("allowed", "allowed"), ("why", "why"), ("remedy", "do")):
            text.append(_wrapped(f"   {label:<8} ", getattr(problem, part), 12) + "\n")
        text.append("\n" if number < len(problems) else "")
    with contextlib.suppress(BrokenPipeError, ValueError):
        screen.print(text, end="")


def _wrapped(start: str, text: str, indent: int) -> str:
    """Lines of the screen's width on a screen; elsewhere (a log, a pipe) lines stay whole, to be searched."""
    whole = start + printable(text).replace("\n", " ")
    if not sys.stderr.isatty():
        return whole
    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(whole, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def _as_mapping(problem: Problem) -> dict[str, Any]:
    return {part: getattr(problem, part) for part in ("where", "given", "allowed", "why", "remedy")}


def _write(text: str) -> None:
    with contextlib.suppress(BrokenPipeError, ValueError):
        sys.stderr.write(printable(text))
        sys.stderr.flush()
