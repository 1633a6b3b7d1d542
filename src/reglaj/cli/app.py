"""The verbs, and the one way in and out: arguments to exit code.

Exit codes: 0 done, 1 a fault of ours, 2 wrong input, 3 a gate said no, 4 the environment failed,
130 and 143 stopped by a signal. Whatever happens, `--json` leaves exactly one document on standard output.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from reglaj.cli import chat, check, data, evaluate, methods, new, predict, runs, schema, starters, train, verify
from reglaj.cli.faults import report_fault
from reglaj.cli.options import Version
from reglaj.cli.verb import verb
from reglaj.core.errors import unknown_name
from reglaj.core.processors import share_processors
from reglaj.core.signals import Stopped, watch_lifeline


class _Verbs(TyperGroup):
    """The verbs by name; an unknown one is answered like every other wrong name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            raise unknown_name("verb", args[0], self.commands)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Verbs,
    subcommand_metavar="VERB ...",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def reglaj(version: Version = False) -> None:
    """Turns your own data into a fine-tuned language model that you can trust.

    Start with `reglaj new FILE`, then `reglaj train recipe.yaml`.
    """


# In the order in which a newcomer needs them; `--help` keeps it.
for _verb in (
    new.new,
    check.check,
    data.data,
    train.train,
    evaluate.evaluate,
    verify.verify,
    predict.predict,
    chat.chat,
    runs.runs,
    starters.starters,
    methods.methods,
    schema.schema,
):
    app.command()(verb(_verb))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. `arguments` are by default those of the process."""
    code = _run(arguments)
    if arguments is None and "RANK" in os.environ:  # a launcher's process
        # Everything is on disk. What gloo leaves behind aborts one in ten interpreters that take themselves apart.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(arguments: Sequence[str] | None) -> int:
    args = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    options = args[: args.index("--")] if "--" in args else args
    as_json, debug = "--json" in options, "--debug" in options
    _never_fail_on_letters()
    share_processors()
    watch_lifeline()
    try:
        with _sigterm_stops():
            code = typer.main.get_command(app).main(args=args, prog_name="reglaj", standalone_mode=False, obj=args)
            if code == Stopped(signal.SIGINT).exit_code:  # typer turns an interrupt into this value
                raise Stopped(signal.SIGINT)
            return int(code or 0)
    except SystemExit as stop:  # typer leaves this way when nobody reads its help any more
        return stop.code if isinstance(stop.code, int) else 1
    except BaseException as error:
        return report_fault(error, as_json=as_json, debug=debug)


@contextlib.contextmanager
def _sigterm_stops() -> Iterator[None]:
    """SIGTERM unwinds like an interrupt, so that temporary files go and nothing half written stays.

    A second one kills at once, as it would have without us.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Stopped(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _never_fail_on_letters() -> None:
    """A terminal that cannot show a letter gets its code instead of a crash."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
