"""Every way to fail: the exit code, the four parts on standard error, one document on standard output, no traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from reglaj.cli.app import _sigterm_stops
from reglaj.cli.faults import report_fault
from reglaj.core.errors import EnvironmentFault, GateRefused, Problem, UserError, environment_fault, user_error
from reglaj.core.signals import Stopped

PARTS = {"where", "given", "allowed", "why", "remedy"}


def problem(given: str = "something", **parts: str) -> Problem:
    return Problem(**{"given": given, "allowed": "a", "why": "b", "remedy": "c", **parts})


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trian", "recipe.yaml"], "did you mean 'train'?"),
        (["train", "recipe.yaml", "--fersh"], "did you mean '--fresh'?"),
        (["train"], "RECIPE"),
        (["new", "a.csv", "--task"], "--task"),
        (["predict", "a-run"], "exactly one"),
        (["predict", "a-run", "a text", "--input", "file.csv"], "exactly one"),
        (["--runs", "x"], "No such option"),
        (["starters", "minlim"], "did you mean 'minilm'?"),
        (["runs", "surplus"], "surplus"),
    ],
)
def test_wrong_command_lines_exit_with_2_and_say_how_to_go_on(reglaj, arguments, hint):
    outcome = reglaj(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert hint in outcome.err
    assert all(part in outcome.err for part in ("allowed", "why", "do  "))
    assert "Traceback" not in outcome.err


def test_under_json_a_wrong_command_line_is_one_document_too(reglaj):
    outcome = reglaj("train", "--json", "--fersh")
    assert outcome.code == 2
    assert set(outcome.problems[0]) == PARTS
    assert "--fersh" in outcome.problems[0]["given"]
    assert "--fersh" in outcome.err


def test_what_follows_two_dashes_is_text(reglaj):
    outcome = reglaj("predict", "no-such-run", "--", "--json")
    assert outcome.code == 2
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError(problem()), 2),
        (GateRefused(problem()), 3),
        (EnvironmentFault(problem()), 4),
        (OSError(errno.ENOSPC, "No space left on device"), 4),
        (MemoryError(), 4),
        (KeyError("x"), 1),
        (KeyboardInterrupt(), 130),
        (Stopped(signal.SIGTERM), 143),
        (BrokenPipeError(), 0),
    ],
)
def test_exit_codes(error, code, capfd):
    assert report_fault(error, as_json=False, debug=False) == code


def test_several_problems_are_numbered_and_shown_at_once(capsys):
    error = UserError(problem("first", where="train.epochs"), problem("second"))
    report_fault(error, as_json=True, debug=False)
    captured = capsys.readouterr()
    assert "2 problems" in captured.err
    assert "1. train.epochs: first" in captured.err and "2. second" in captured.err
    assert '"exit_code": 2' in captured.out


def test_a_fault_of_ours_is_one_line_and_a_traceback_under_debug(capsys):
    def fail() -> None:
        raise KeyError("planted")

    for debug in (False, True):
        try:
            fail()
        except KeyError as error:
            assert report_fault(error, as_json=False, debug=debug) == 1
        shown = capsys.readouterr().err
        assert "--debug" in shown
        assert ("Traceback" in shown) is debug
        assert debug or shown.count("\n") == 1


def test_text_of_users_is_neither_markup_nor_terminal_control(capsys):
    report_fault(
        user_error("[bold]red[/bold] \x1b[31m", allowed="[x]", why="w", remedy="r"), as_json=False, debug=False
    )
    shown = capsys.readouterr().err
    assert "[bold]red[/bold] \\x1b[31m" in shown
    assert "[x]" in shown and "\x1b" not in shown


def test_long_lines_stay_whole_where_nobody_looks(capsys):
    path = "/a/very/long/" + "path/" * 60 + "file.csv"
    report_fault(
        environment_fault(f"cannot write {path}", allowed="a", why="w", remedy="r"), as_json=False, debug=False
    )
    assert path in capsys.readouterr().err


def test_sigterm_unwinds_and_gives_the_signal_back():
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []
    with pytest.raises(Stopped) as stopped, _sigterm_stops():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)
    assert stopped.value.exit_code == 143
    assert cleaned and signal.getsignal(signal.SIGTERM) == before


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    command = f"{sys.executable} -m reglaj schema 2>err.txt | head -c 10; echo ${{PIPESTATUS[0]}}"
    process = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.stdout.splitlines()[-1].endswith("0")
    assert (tmp_path / "err.txt").read_text() == ""
