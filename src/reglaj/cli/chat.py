"""`reglaj chat`: talk to a run, on a terminal or through a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reglaj.cli import options
from reglaj.cli.page import Page, printable, write_out
from reglaj.cli.verb import Answer
from reglaj.core.errors import UserError, listing, nearest, user_error

if TYPE_CHECKING:
    from reglaj.pipelines.chat import Chat

_COMMANDS = {
    "/reset": "forget what was said; the system prompt stays",
    "/system": "/system TEXT is the system prompt from the next turn on; without a text there is none",
    "/quit": "leave (so does the end of input)",
    "/help": "this list; a turn that begins with a slash is written with two",
}

System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="The system prompt.")]
Tokens = Annotated[
    int | None, typer.Option("--max-new-tokens", metavar="N", min=1, help="Tokens of an answer at most.")
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", metavar="X", help="How freely words are drawn; 0 takes the likeliest.")
]
TopP = Annotated[float | None, typer.Option("--top-p", metavar="P", help="Draw among words of this probability.")]
TopK = Annotated[int | None, typer.Option("--top-k", metavar="K", help="Draw among the K likeliest; 0 is all.")]
Penalty = Annotated[
    float | None, typer.Option("--repetition-penalty", metavar="X", help="Above 1: against repeating what was said.")
]
Stop = Annotated[list[str] | None, typer.Option("--stop", metavar="TEXT", help="An answer ends before this text.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Of what is drawn.")]


def chat(  # noqa: PLR0913  (one parameter per option)
    run: options.Run,
    system: System = None,
    temperature: Temperature = None,
    max_new_tokens: Tokens = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: Penalty = None,
    stop: Stop = None,
    seed: Seed = None,
    runs: options.Runs = options.RUNS,
) -> Answer:
    """Talk to a run: a turn per line, answers as they come. `/help` in the conversation lists its commands."""
    from reglaj.core.console import RichConsole
    from reglaj.pipelines.chat import open_chat

    given: dict[str, Any] = {
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "stop": tuple(stop) if stop else None,
        "seed": seed,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    is_talk = sys.stdin.isatty()

    @contextlib.contextmanager
    def conversation() -> Iterator[Chat]:
        with open_chat(run, runs=runs, console=RichConsole(), **settings) as talk:
            talk.system = system
            yield talk

    def document() -> list[dict[str, str]]:
        # A library that prints must not spoil the one document.
        with contextlib.redirect_stdout(sys.stderr), conversation() as talk:
            return _document(talk)

    def read(page: Page) -> None:
        with conversation() as talk:
            if is_talk:
                _note(f"{run} is listening; /help lists the commands")
            for text in _said(talk, _typed() if is_talk else _piped(), is_talk):
                with _on_a_terminal_go_on(is_talk):
                    _answer(talk, text)

    return Answer(document, read)


def _answer(talk: Chat, text: str) -> None:
    """Print the answer while it comes. An interrupt stops it; what was said stays said."""
    pieces: Any = talk.answer(text)
    with contextlib.closing(pieces):
        try:
            for piece in pieces:
                write_out(printable(piece))
        finally:
            write_out("\n")
    if talk.last is not None and not talk.last.text.strip():
        _note("the answer is empty, so this turn is forgotten")
    elif talk.last is not None and talk.last.ended == "length":
        is_full = len(talk.last.ids) < talk.settings.max_new_tokens
        why = "the model's context is full" if is_full else "--max-new-tokens gives answers more room"
        _note(f"cut after {len(talk.last.ids):,} tokens; {why}")


def _document(talk: Chat) -> list[dict[str, str]]:
    """Every turn of standard input and its answer, system prompts where they began to hold."""
    turns: list[dict[str, str]] = []
    system: str | None = None
    for text in _said(talk, _piped(), False):
        if talk.system != system:
            system = talk.system
            turns.append({"role": "system", "content": system or ""})
        said = "".join(talk.answer(text))
        turns += [{"role": "user", "content": text}, {"role": "assistant", "content": said}]
    return turns


def _said(talk: Chat, lines: Iterator[str], is_talk: bool) -> Iterator[str]:
    """The lines that are turns; commands are obeyed on the way."""
    for line in lines:
        text = line.strip()
        if not text:
            continue
        if not text.startswith("/"):
            yield text
        elif text.startswith("//"):
            yield text[1:]
        else:
            with _on_a_terminal_go_on(is_talk):
                if _obey(talk, text):
                    return


def _obey(talk: Chat, text: str) -> bool:
    """Do what a command says. Returns whether it ends the conversation."""
    command, _, rest = text.partition(" ")
    if command not in _COMMANDS:
        guess = nearest(command, _COMMANDS)
        raise user_error(
            f"unknown command {command!r}",
            allowed=listing(_COMMANDS),
            why="a line that begins with a slash is a command",
            remedy=(f"did you mean {guess!r}? " if guess else "") + "Write two slashes to say it to the model",
        )
    if command == "/reset":
        talk.reset()
        _note("forgotten")
    elif command == "/system":
        talk.system = rest.strip() or None
        _note("system prompt set" if talk.system else "no system prompt")
    elif command == "/help":
        for name, told in _COMMANDS.items():
            _note(f"{name:<8} {told}")
    return command == "/quit"


@contextlib.contextmanager
def _on_a_terminal_go_on(is_talk: bool) -> Iterator[None]:
    """On a terminal a wrong turn and an interrupt end that turn alone; in a pipe they end the command."""
    try:
        yield
    except UserError as error:
        if not is_talk:
            raise
        for problem in error.problems:
            _note(f"{problem.given}: {problem.why}. {problem.remedy[:1].upper()}{problem.remedy[1:]}.")
    except KeyboardInterrupt:
        if not is_talk:
            raise
        _note("stopped; the answer stays as far as it came")


def _typed() -> Iterator[str]:
    """Lines from the keyboard, with a prompt. An interrupt here leaves."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives `input` editing and history)
    while True:
        try:
            if sys.stdout.isatty():
                yield input("> ")
            else:  # the prompt is no part of the answers
                _note("> ", end="")
                line = sys.stdin.readline()
                if not line:
                    return
                yield line
        except EOFError:
            write_out("\n")
            return


def _piped() -> Iterator[str]:
    """Lines of standard input. Raises `UserError` for one that is not UTF-8."""
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise user_error(
                f"line {number} of standard input is not UTF-8",
                allowed="turns in UTF-8, one in a line",
                why=str(error),
                remedy="convert it",
            ) from error


def _note(text: str, end: str = "\n") -> None:
    """A line beside the conversation."""
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(printable(text) + end)
        sys.stderr.flush()
