"""Asked to stop: the step ends, everything is saved, and the message says how to go on. Asked twice: at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from tests.tiny import recipe_for
from tests.training.test_fit import lines, same_weights, train

import reglaj
from reglaj.core.config import dump_yaml
from reglaj.core.runs import read_manifest
from reglaj.core.signals import Stopped, stopping_gently
from reglaj.training.checkpoints import list_checkpoints


def signalled(*numbers: signal.Signals) -> Any:
    """These signals come in the middle of the third step."""

    def plant(learner: Any, supervision: Any, encoded: Any) -> Any:
        done = []

        def forward(batch: Any) -> Any:
            done.append(batch)
            if len(done) == 3:
                for number in numbers:
                    os.kill(os.getpid(), number)
                    time.sleep(0.01)  # Python's handler runs between two of its instructions
            return supervision.forward(batch)

        return replace(supervision, forward=forward)

    return plant


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(tiny_model, tmp_path, number):
    calm, _, _ = train(tiny_model("bert"), tmp_path / "calm", model_dropout=0.2)
    with pytest.raises(Stopped) as stopped:
        train(tiny_model("bert"), tmp_path / "run", plant=signalled(number), model_dropout=0.2)
    assert stopped.value.exit_code == 128 + number
    assert "saved after step 3 of 6; the same command goes on" in str(stopped.value)
    assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-000003"]
    again, _, _ = train(tiny_model("bert"), tmp_path / "run", model_dropout=0.2)
    assert same_weights(again, calm) and lines(tmp_path / "run") == lines(tmp_path / "calm")


def test_a_second_interrupt_stops_at_once_and_the_run_is_valid(tiny_model, tmp_path):
    calm, _, _ = train(tiny_model("bert"), tmp_path / "calm")
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model("bert"), tmp_path / "run", plant=signalled(signal.SIGINT, signal.SIGINT), checkpoint_every=2)
    for thread in threading.enumerate():  # here the process lives on, and with it what was being written
        if thread.name == "checkpoint":
            thread.join()
    found = [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert found in ([], ["step-000002"]), "whole, or not there: the writer was abandoned"
    again, _, _ = train(tiny_model("bert"), tmp_path / "run")
    assert same_weights(again, calm) and lines(tmp_path / "run") == lines(tmp_path / "calm")


def test_the_handlers_of_the_host_program_come_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    told: list[str] = []
    with stopping_gently(told.append, echo_s=60.0) as request:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # within the echo: the same one
        time.sleep(0.01)
        assert request.number == signal.SIGTERM and len(told) == 1
        request.is_met = True
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_signal_that_comes_behind_the_work_is_not_lost():
    with pytest.raises(KeyboardInterrupt), stopping_gently(lambda text: None):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)


def test_an_ignored_interrupt_stays_ignored():
    """As a shell leaves it for a job in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping_gently(lambda text: None) as request:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            assert request.number is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_command_ends_with_143_and_goes_on(tiny_model, tiny_rows, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_yaml(recipe_for(tiny_model("bert"), tiny_rows, train={"epochs": 40})))
    run = tmp_path / "runs" / "tiny-001"
    command = [sys.executable, "-m", "reglaj", "train", str(recipe), "--runs", str(tmp_path / "runs")]
    process = subprocess.Popen([*command, "train.checkpoint_every=1"], stderr=subprocess.PIPE, text=True)
    while not list_checkpoints(run / "checkpoints"):
        assert process.poll() is None
        time.sleep(0.005)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "the same command goes on" in said
    assert read_manifest(run)["status"] == "interrupted"
    ended = reglaj.train(recipe, runs=tmp_path / "runs")
    assert ended.path == run and len(ended.report["training"]["resumed_at"]) == 1
