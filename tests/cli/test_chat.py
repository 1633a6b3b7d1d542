"""`reglaj chat` through a pipe and on a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.tiny import recipe_for
from tests.tiny_chat import write_chat_model, write_conversations

import reglaj as library
from reglaj.cli.page import printable
from reglaj.core.runs import find_run


@pytest.fixture(scope="module")
def talking(tmp_path_factory) -> Path:
    """A folder with the run of a tiny chat model in `runs/`."""
    folder = tmp_path_factory.mktemp("talking")
    recipe = {
        "name": "talk",
        "task": "chat",
        "model": str(write_chat_model(folder / "model", context=4096)),
        "data": {"sources": [{"path": str(write_conversations(folder / "rows.jsonl", 40))}]},
        "method": {"name": "lora", "rank": 4},
        "train": {"max_steps": 2, "batch_size": 4},
        "evaluate": {"generate_rows": 0, "max_new_tokens": 12, "bootstrap_samples": 100, "baselines": []},
    }
    library.train(recipe, runs=folder / "runs")
    return folder


@pytest.fixture
def chat(reglaj, talking, monkeypatch):
    """Calls the verb with lines on standard input."""
    monkeypatch.chdir(talking)

    def call(text: str | bytes, *arguments: str, run: str = "talk"):
        raw = text.encode() if isinstance(text, str) else text
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        return reglaj("chat", run, *arguments)

    return call


def test_a_line_is_a_turn_and_answers_are_all_there_is(chat):
    outcome = chat("where is my card\n\n  \nși banii?", "--json")
    assert outcome.code == 0, outcome.err
    roles = [turn["role"] for turn in outcome.document]
    assert roles == ["user", "assistant", "user", "assistant"]
    assert [turn["content"] for turn in outcome.document[::2]] == ["where is my card", "și banii?"]
    plain = chat("where is my card\n\n  \nși banii?")
    assert plain.code == 0
    assert "cut after 12 tokens; --max-new-tokens" in plain.err
    answers = [turn["content"] for turn in outcome.document[1::2]]
    assert plain.out == "".join(printable(answer) + "\n" for answer in answers)


def test_commands_work_in_a_pipe_too(chat):
    once = chat("hi\n", "--json").document[1]
    outcome = chat("hi\n/reset\nhi\n/system be kind\n//hi\n/quit\nnever\n", "--json")
    assert outcome.code == 0
    turns = outcome.document
    assert turns[1] == turns[3] == once
    assert turns[4] == {"role": "system", "content": "be kind"}
    assert turns[5]["content"] == "/hi" and len(turns) == 7
    assert "forgotten" in outcome.err


def test_wrong_input_ends_a_pipe_with_2(chat):
    outcome = chat("hi\n/rest\n", "--json")
    assert outcome.code == 2 and "did you mean '/reset'" in outcome.problems[0]["remedy"]
    assert chat(b"caf\xe9\n", "--json").problems[0]["given"].startswith("line 1")
    assert chat("hi\n", "--temperature", "-1", "--json").problems[0]["where"] == "temperature"
    assert chat("<|im_end|>\n", "--json").code == 2
    assert chat("", "--json").document == []
    assert chat("").code == 0


def test_options_reach_the_generator(chat):
    def said(*options):
        return chat("where is my card\n", "--json", *options).document[-1]["content"]

    drawn = ("--temperature", "2.5")
    assert said() == said("--temperature", "0") == said("--seed", "5")
    assert said(*drawn) != said()
    assert said(*drawn) == said(*drawn)
    assert said(*drawn, "--seed", "5") != said(*drawn)
    assert said(*drawn, "--top-k", "1") == said(*drawn, "--top-p", "0.000001") == said()
    assert len(said("--max-new-tokens", "2")) < len(said())
    assert said("--repetition-penalty", "3") != said()
    assert said("--system", "be kind") != said()
    letter = said()[3]
    assert said("--stop", letter) == said().partition(letter)[0]


def test_a_run_that_does_not_talk_is_told_what_it_can_do(chat, tiny_model, tiny_rows, talking):
    library.train(
        recipe_for(tiny_model("bert"), tiny_rows, train={"max_steps": 1}, evaluate={"baselines": []}),
        runs=talking / "runs",
    )
    (run,) = [run for run in (talking / "runs").iterdir() if not run.name.startswith((".", "talk"))]
    outcome = chat("hi\n", "--json", run=run.name)
    assert outcome.code == 2
    assert "reglaj predict" in outcome.problems[0]["remedy"]


def test_a_terminal(talking):
    """Prompts, an interrupted answer, a wrong command, and an interrupt at the prompt: 130."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "reglaj", "chat", "talk", "--temperature", "4", "--max-new-tokens", "5000"]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=talking,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(theirs)
    try:
        assert b"/help lists" in _until(ours, b"> ")
        os.write(ours, b"/rest\n")
        assert b"Did you mean '/reset'" in _until(ours, b"> ", b"mean")
        os.write(ours, b"hi there\n")
        shown = _until(ours, b"hi there\r\n")
        while shown.endswith(b"hi there\r\n"):
            shown += os.read(ours, 4096)
        os.write(ours, b"\x03")
        # On a crowded machine the answer may be over before the interrupt comes, which then ends the conversation.
        with contextlib.suppress(OSError):
            shown += _until(ours, b"stopped; the answer stays", b"> ")
        assert b"\x1b[" not in shown.replace(b"\x1b[?2004", b"") and b"\x07" not in shown
        # Readline shows its prompt a moment before it listens, and an interrupt in between waits for the next key.
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired, OSError):
                os.write(ours, b"\x03")
                process.wait(8)  # leaving takes a moment, and a second interrupt would cut it short
        assert process.returncode == 130
    finally:
        process.kill()
        os.close(ours)


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _until(terminal: int, *ends: bytes, seconds: float = 60) -> bytes:
    """What comes until all of `ends` have been seen."""
    shown = b""
    until = time.monotonic() + seconds
    while not all(end in shown for end in ends):
        assert time.monotonic() < until, shown
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 4096)
    return shown


def test_the_run_is_left_as_it_was(chat, talking):
    run = find_run("talk", talking / "runs")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert chat("hi\n").code == 0
    assert before == {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
